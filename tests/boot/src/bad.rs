//! Bad input: each gets a clear message, and what can go on goes on.

use crate::bed::Bed;
use crate::case::{Case, Content};
use crate::words;

const QUICK_KERNEL: &str = "build/beds/vmlinuz-6.1-cloud";

/// A good domain; each case spoils one thing.
const CONFIG: &str =
    "name = \"web\"\ntype = \"pvh\"\nkernel = \"guest\"\ncmdline = \"test=hello\"\nmemory = 64\nvcpus = 1\n";

/// All cases, on the beds where they differ.
pub fn cases() -> Vec<Case> {
    vec![
        case("no-module").host_says(&["nothing to start"]),
        not_a_kernel(),
        truncated(),
        truncated_elf(),
        no_pvh_entry(),
        pv_first(),
        with("config-syntax", "name = \"web\"\ntype = pvh\n").host_says(&["web.cfg*line 2"]),
        with("config-unknown-key", &format!("{CONFIG}colour = \"red\"\n")).host_says(&["web.cfg*line 7*colour"]),
        with("config-memory", &CONFIG.replace("= 64", "= 4096"))
            .host_says(&[&words::refused("web", "memory = 4096 MiB")]),
        with("config-missing-module", &CONFIG.replace("\"guest\"", "\"nothing\""))
            .host_says(&["web.cfg: kernel = \"nothing\": no module"]),
        duplicate(),
        unvirtualized(),
    ]
}

fn case(what: &str) -> Case {
    Case::new(format!("bad-{what}"), Bed::BochsSkylake).allow("error: ").budget(8, 90)
}

fn with(what: &str, config: &str) -> Case {
    case(what).text("web.cfg", config).file("guest", "build/guest")
}

fn not_a_kernel() -> Case {
    let wrong = words::refused("Domain-0", "not a kernel");
    case("not-a-kernel").text("kernel", "this is no kernel\n").option("dom0=pvh").host_says(&[&wrong])
}

fn truncated() -> Case {
    let start = Content::Start(QUICK_KERNEL.into(), 3_000_000);
    let config = CONFIG.replace("\"guest\"", "\"vmlinuz\"");
    case("truncated-kernel")
        .text("web.cfg", config)
        .module("vmlinuz", start)
        .host_says(&[&words::refused("web", "the kernel module is truncated")])
}

fn truncated_elf() -> Case {
    case("truncated-elf")
        .text("web.cfg", CONFIG)
        .module("guest", Content::Start("build/guest".into(), 40_000))
        .host_says(&[&words::refused("web", "the kernel module is truncated")])
}

/// The hypervisor itself is an ELF without Xen's note.
fn no_pvh_entry() -> Case {
    let config = CONFIG.replace("\"guest\"", "\"elf\"");
    case("no-pvh-entry")
        .text("web.cfg", config)
        .file("elf", "build/euxen")
        .host_says(&[&words::refused("web", "no PVH entry")])
}

/// Without `dom0=pvh` a kernel as first module is a PV domain; the hypervisor itself is none.
fn pv_first() -> Case {
    case("no-pv-entry")
        .file("vmlinuz placeholder root=/dev/sda1", "build/euxen")
        .host_says(&[&words::refused("Domain-0", "no PV entry")])
}

/// The second of two domains with one name is refused; the first runs.
fn duplicate() -> Case {
    let second = CONFIG.replace("test=hello", "test=cost");
    with("duplicate-name", CONFIG)
        .text("two.cfg", second)
        .host_says(&["two.cfg: a domain named \"web\" is already in web.cfg"])
        .domain_says("web", &["GUEST-DONE"])
}

/// Without VT-x and AMD-V a PVH domain is refused by the feature's name.
fn unvirtualized() -> Case {
    let mut case =
        with("no-virtualization", CONFIG).host_says(&["no PVH domains*AMD-V", &words::refused("web", "*AMD-V")]);
    case.host.bed = Bed::QemuNoSvm;
    case
}
