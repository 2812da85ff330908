//! Holds every structure and constant of the crate against the C headers of Debian's `libxen-dev`.
//!
//! The constants are read from the crate's own sources, so that a new one is checked without being listed.
//! A name that the headers do not have must be in [`OURS`]. Structures are listed in `structures.rs`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

mod structures;

/// The crate's files that hold constants, and what to put before a name to find it in the headers.
const SOURCES: &[(&str, &str, &str)] = &[
    ("callback", "", include_str!("../callback.rs")),
    ("console", "", include_str!("../console.rs")),
    ("cpuid", "", include_str!("../cpuid.rs")),
    ("domctl", "", include_str!("../domctl.rs")),
    ("elfnote", "", include_str!("../elfnote.rs")),
    ("event_channel", "", include_str!("../event_channel.rs")),
    ("features", "XENFEAT_", include_str!("../features.rs")),
    ("grant_table", "", include_str!("../grant_table.rs")),
    ("hvm_op", "", include_str!("../hvm_op.rs")),
    ("hvm_params", "", include_str!("../hvm_params.rs")),
    ("hvm_vcpu", "", include_str!("../hvm_vcpu.rs")),
    ("memory", "", include_str!("../memory.rs")),
    ("nr", "__HYPERVISOR_", include_str!("../nr.rs")),
    ("physdev", "", include_str!("../physdev.rs")),
    ("platform", "", include_str!("../platform.rs")),
    ("pv_start", "", include_str!("../pv_start.rs")),
    ("pv_vcpu", "", include_str!("../pv_vcpu.rs")),
    ("sched", "", include_str!("../sched.rs")),
    ("start_info", "", include_str!("../start_info.rs")),
    ("sysctl", "", include_str!("../sysctl.rs")),
    ("vcpu", "", include_str!("../vcpu.rs")),
    ("version", "", include_str!("../version.rs")),
    ("xen", "", include_str!("../xen.rs")),
    ("xs_wire", "", include_str!("../xs_wire.rs")),
];

/// Constants whose name in the headers differs by more than case.
const ALIASES: &[(&str, &str)] = &[
    ("domctl::INTERFACE_VERSION", "XEN_DOMCTL_INTERFACE_VERSION"),
    ("event_channel::BIND_PIRQ_WILL_SHARE", "BIND_PIRQ__WILL_SHARE"),
    ("platform::INTERFACE_VERSION", "XENPF_INTERFACE_VERSION"),
    ("start_info::MAGIC", "XEN_HVM_START_MAGIC_VALUE"),
    ("sysctl::INTERFACE_VERSION", "XEN_SYSCTL_INTERFACE_VERSION"),
];

/// Constants that the headers, as a guest or a tool sees them, do not name.
const OURS: &[&str] = &[
    "cpuid::MSR_HYPERCALL",
    "cpuid::TSC_EMULATED",
    "cpuid::TSC_HOST_RELIABLE",
    "cpuid::TSC_RDTSCP",
    "domctl::XEN_DOMCTL_SOFT_RESET_CONT",
    "elfnote::OWNER",
    "event_channel::EVTCHNOP_RESET_CONT",
    "hvm_params::HVM_PARAM_CALLBACK_IRQ_TYPE_SHIFT",
    "memory::XENMEMF_ADDRESS_BITS_MASK",
    "memory::XENMEMF_NODE_SHIFT",
    "nr::COUNT",
    "nr::MCA",
    "nr::PAGING_DOMCTL_CONT",
];

const HEADERS: &str = r"
#define __XEN_TOOLS__ 1
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <xen/xen.h>
#include <xen/arch-x86/cpuid.h>
#include <xen/arch-x86/hvm/start_info.h>
#include <xen/callback.h>
#include <xen/domctl.h>
#include <xen/elfnote.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/hvm_vcpu.h>
#include <xen/hvm/params.h>
#include <xen/io/console.h>
#include <xen/io/xs_wire.h>
#include <xen/memory.h>
#include <xen/nmi.h>
#include <xen/physdev.h>
#include <xen/platform.h>
#include <xen/sched.h>
#include <xen/sysctl.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#define SAY(what, value) printf(what ` %llx\n`, (unsigned long long)(value))
";

fn headers() -> String {
    HEADERS.replace('`', "\"")
}

fn cc() -> Command {
    assert!(
        Path::new("/usr/include/xen/xen.h").exists(),
        "the headers of Xen are missing: install the Debian package libxen-dev"
    );
    Command::new("cc")
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?} does not start ({error}): install the Debian packages gcc and libc6-dev")
    });
    assert!(output.status.success(), "{command:?} fails:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the C program prints ASCII")
}

/// Writes `text` into a file of this test's own.
fn scratch(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("the scratch directory is writable");
    path
}

/// Compiles and runs a C program with these statements and gives back what it says.
fn ask(name: &str, statements: &str) -> BTreeMap<String, u64> {
    let text = format!("{}\nint main(void) {{\n{statements}\nreturn 0;\n}}\n", headers());
    let source = scratch(&format!("{name}.c"), &text);
    let program = source.with_extension("bin");
    run(cc().arg("-w").arg("-o").arg(&program).arg(&source));
    run(&mut Command::new(&program))
        .lines()
        .map(|line| {
            let (what, value) = line.rsplit_once(' ').expect("SAY prints two words");
            (what.to_owned(), u64::from_str_radix(value, 16).expect("SAY prints hexadecimal"))
        })
        .collect()
}

/// The names of the headers' macros and of the enumerators we have, by their upper-case form.
fn header_names() -> BTreeMap<String, String> {
    let source = scratch("names.c", &headers());
    let macros = run(cc().args(["-E", "-dM"]).arg(&source));
    let text = run(cc().args(["-E", "-P"]).arg(&source));
    let macros = macros.lines().filter_map(|line| line.strip_prefix("#define ")?.split([' ', '(']).next());
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    let enumerators = words.filter(|word| word.starts_with("XS_") || word.starts_with("HVMMEM_"));
    macros.chain(enumerators).map(|name| (name.to_uppercase(), name.to_owned())).collect()
}

/// The constants of our sources: module::NAME, name in the headers with case unknown, expression.
fn our_constants() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (module, prefix, text) in SOURCES {
        for line in text.lines() {
            let Some((name, rest)) = line.strip_prefix("pub const ").and_then(|line| line.split_once(": ")) else {
                continue;
            };
            let (_, value) = rest.split_once(" = ").expect("a constant has a value on its line");
            let path = format!("{module}::{name}");
            let theirs = if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") };
            let alias = ALIASES.iter().find(|(ours, _)| *ours == path).map(|(_, theirs)| theirs.to_string());
            found.push((path, alias.unwrap_or(theirs), c_literal(value.trim_end_matches(';'))));
        }
    }
    found
}

/// A Rust expression of integers as C has it: no underscores in numbers, and 64 bits wide.
fn c_literal(value: &str) -> String {
    value
        .split(' ')
        .map(|word| match word.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            true => format!("{}ll", word.replace('_', "")),
            false => word.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn every_constant_has_the_value_of_xens_header() {
    let names = header_names();
    let mut statements = String::new();
    let mut checked = Vec::new();
    for (path, theirs, value) in our_constants() {
        if OURS.contains(&path.as_str()) {
            continue;
        }
        let theirs = names.get(&theirs.to_uppercase()).unwrap_or_else(|| panic!("{path} is not in Xen's headers"));
        writeln!(statements, "SAY(\"ours {path}\", {value}); SAY(\"theirs {path}\", {theirs});").expect("a String");
        checked.push(path);
    }
    assert!(checked.len() > 400, "only {} constants were found in the sources", checked.len());
    let answers = ask("constants", &statements);
    for path in checked {
        assert_eq!(answers[&format!("ours {path}")], answers[&format!("theirs {path}")], "{path}");
    }
}

#[test]
fn every_structure_has_the_size_and_offsets_of_xens_header() {
    let ours = structures::all();
    let statements: String =
        ours.iter().map(|(what, c, _)| format!("SAY(\"{}\", {c});\n", what.replace(' ', ""))).collect();
    let answers = ask("structures", &statements);
    for (what, _, value) in ours {
        assert_eq!(answers[&what.replace(' ', "")], value as u64, "{what}");
    }
}

#[test]
fn every_error_number_is_that_of_xens_header_and_none_is_missing() {
    let inner = "#undef XEN_ERRNO\n#define XEN_ERRNO(name, value) SAY(#name, value);\n#include <xen/errno.h>\n";
    let theirs = ask("errno", inner);
    for (name, number) in &theirs {
        let ours = abi::Errno::NAMES.iter().find(|(ours, _)| ours == name).map(|(_, errno)| errno.number());
        assert_eq!(ours.map(i64::from), Some(*number as i64), "{name}");
    }
    // The header gives these two to the hypervisor alone.
    assert_eq!(theirs.len() + 2, abi::Errno::NAMES.len());
    assert_eq!([abi::Errno::EINTR.number(), abi::Errno::ERESTART.number()], [4, 85]);
}
