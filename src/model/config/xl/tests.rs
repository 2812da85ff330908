//! `xl.cfg` files and what is made of them.

use super::*;
use crate::config::scheduling::{Affinity, Scheduling};
use crate::ids::{CpuId, VcpuId};
use crate::sched::CpuSet;
use alloc::string::ToString;
use proptest::prelude::*;

const MINIMAL: &str = "name='web'\ntype = \"pvh\"\nkernel = 'vmlinuz'\nmemory = 256\n";

fn config(more: &str) -> Parsed {
    parse((MINIMAL.to_string() + more).as_bytes(), None).unwrap()
}

/// What is said of a file of four good lines and these.
fn error(more: &str) -> String {
    parse((MINIMAL.to_string() + more).as_bytes(), None).unwrap_err().to_string()
}

#[test]
fn what_is_not_given_has_xls_defaults() {
    let parsed = config("");
    let expected = DomainConfig {
        name: "web".to_string(),
        kind: DomainKind::Pvh,
        kernel: "vmlinuz".to_string(),
        ramdisk: None,
        cmdline: String::new(),
        memory_mib: 256,
        maxmem_mib: 256,
        vcpus: 1,
        maxvcpus: 1,
        scheduling: Scheduling::default(),
        uuid: None,
        on_poweroff: Action::Destroy,
        on_reboot: Action::Restart,
        on_watchdog: Action::Destroy,
        on_crash: Action::Destroy,
        on_soft_reset: Action::SoftReset,
    };
    assert_eq!(parsed, Parsed { config: expected, warnings: Vec::new() });
}

#[test]
fn every_key_that_is_built_is_read() {
    let text = "ramdisk = \"initrd\"; cmdline = 'console=hvc0'\nmaxmem=0x200\nvcpus=\"4\" # four\nmaxvcpus = 010\n\
        uuid = \"01234567-89ab-cdef-0123-456789abcdef\"\non_poweroff='preserve'\non_reboot='destroy'\n\
        on_watchdog='restart'\non_crash='coredump-restart'\non_soft_reset='rename-restart'\n";
    let DomainConfig { ramdisk, cmdline, maxmem_mib, vcpus, maxvcpus, uuid, .. } = config(text).config;
    assert_eq!((ramdisk.as_deref(), cmdline.as_str()), (Some("initrd"), "console=hvc0"));
    assert_eq!((maxmem_mib, vcpus, maxvcpus), (512, 4, 8));
    assert_eq!(uuid.unwrap()[..4], [0x01, 0x23, 0x45, 0x67]);
    let DomainConfig { on_poweroff, on_reboot, on_watchdog, on_crash, on_soft_reset, .. } = config(text).config;
    assert_eq!((on_poweroff, on_reboot, on_watchdog), (Action::Preserve, Action::Destroy, Action::Restart));
    assert_eq!((on_crash, on_soft_reset), (Action::CoredumpRestart, Action::RenameRestart));
}

#[test]
fn the_command_line_is_root_and_extra_unless_cmdline_is_there() {
    assert_eq!(config("root='/dev/xvda'").config.cmdline, "root=/dev/xvda");
    assert_eq!(config("extra='quiet'").config.cmdline, "quiet");
    assert_eq!(config("extra='quiet'\nroot='/dev/xvda'").config.cmdline, "root=/dev/xvda quiet");
    let parsed = config("extra='quiet'\ncmdline='ro'");
    assert_eq!(parsed.config.cmdline, "ro");
    assert_eq!(parsed.warnings[0].to_string(), "line 5: extra: has no effect beside cmdline; put it there");
}

#[test]
fn a_key_that_is_not_built_is_a_warning_with_its_line_whatever_its_value() {
    let parsed = config("\nvif = [ 'mac=00:16:3e:00:00:01', # one\n  \"\", ]\nvnuma=[]; boot='c'");
    let warnings: Vec<_> = parsed.warnings.iter().map(|warning| (warning.line, warning.key.as_str())).collect();
    assert_eq!(warnings, [(6, "vif"), (8, "vnuma"), (8, "boot")]);
    assert_eq!(parsed.warnings[0].to_string(), "line 6: vif: is not built yet and has no effect");
}

#[test]
fn a_domain_has_a_weight_a_cap_and_cpus() {
    let default = config("").config.scheduling;
    assert_eq!((default.weight, default.cap), (256, 0));
    let Scheduling { weight, cap, hard, soft } =
        config("cpu_weight = 65535\ncap = '150'\ncpus = '0-3,^2'\ncpus_soft = 1").config.scheduling;
    let cpus = |numbers: &[u32]| numbers.iter().fold(CpuSet::EMPTY, |set, &cpu| set.or(&CpuSet::only(CpuId(cpu))));
    assert_eq!((weight, cap), (65535, 150));
    assert_eq!((hard, soft), (Affinity::Same(cpus(&[0, 1, 3])), Affinity::Same(cpus(&[1]))));
    let parsed = config("vcpus = 3\ncpus = [ '2', 3 ]\ncpus += [ \"0-1\", 'all' ]");
    let hard = parsed.config.scheduling.hard;
    assert_eq!([0, 1, 2].map(|n| hard.of(VcpuId(n))), [cpus(&[2]), cpus(&[3]), cpus(&[0, 1])]);
    assert_eq!(hard.of(VcpuId(3)), CpuSet::ALL);
    let expected = "line 6: cpus: has more lists than there are virtual CPUs; the last have no effect";
    assert_eq!(parsed.warnings[0].to_string(), expected);
    let node = |node| if node == 1 { CpuSet::only(CpuId(9)) } else { CpuSet::EMPTY };
    let text = MINIMAL.to_string() + "cpus = 'node:1'";
    let hard = parse(text.as_bytes(), Some(&node)).unwrap().config.scheduling.hard;
    assert_eq!(hard, Affinity::Same(cpus(&[9])));
}

#[test]
fn an_unknown_key_is_an_error_with_its_line() {
    assert_eq!(error("\n\nmemroy = 5"), "line 7: memroy: no such key in xl.cfg; check its spelling");
}

#[test]
fn a_key_given_twice_is_an_error_that_names_both_lines() {
    assert_eq!(error("memory = 5"), "line 5: memory: given a second time, first on line 4; remove one of them");
}

#[test]
fn plus_equals_adds_to_a_string() {
    assert_eq!(config("extra='a'\nextra += ' b'").config.cmdline, "a b");
    assert!(error("extra='a'\nextra += [ 'b' ]").starts_with("line 6: syntax error"));
}

#[test]
fn escapes_stand_for_what_they_do_in_c() {
    assert_eq!(config(r#"extra="a\"\\\x41\101\t'""#).config.cmdline, "a\"\\AA\t'");
    assert_eq!(config(r"extra='\'#;'").config.cmdline, "'#;");
    for bad in [r"extra='\q'", r"extra='\x'", r"extra='\0'", r"extra='\377'", "extra='a\n'", "extra='a"] {
        assert!(error(bad).starts_with("line 5: syntax error"), "{bad}");
    }
}

#[test]
fn syntax_errors_name_the_line_and_what_is_expected() {
    for (text, expected) in [
        ("vcpus 4", "line 5: syntax error: \"=\" must follow the key"),
        ("\nextra = quiet", "line 6: syntax error: the value needs quotes, as in type = \"pvh\""),
        ("vcpus = 4 maxvcpus = 4", "line 5: syntax error: something follows the value"),
        ("= 4", "line 5: syntax error: a key must come here"),
        ("disk = [ 'a' 'b' ]", "line 5: syntax error: \",\" or \"]\" must follow"),
        ("disk = [\n'a',\n", "line 7: syntax error: a value must come here"),
        ("disk = [[[[[[[[[ ]]]]]]]]]", "line 5: syntax error: lists nest too deep"),
        ("extra =", "line 5: syntax error: a value must come here"),
    ] {
        assert!(error(text).starts_with(expected), "{text}: {}", error(text));
    }
    assert!(parse(b"name='a'\n\xff", None).unwrap_err().to_string().starts_with("line 2: syntax error"));
}

#[test]
fn values_out_of_range_are_refused_with_what_would_do() {
    for (text, expected) in [
        ("vcpus = 0", "line 5: vcpus: must be from 1 to 128"),
        ("vcpus = 129", "line 5: vcpus: must be from 1 to 128"),
        ("vcpus = -1", "line 5: vcpus: must be from 1 to 128"),
        ("vcpus = [ 1 ]", "line 5: vcpus: must be a string, not a list"),
        ("vcpus = 4\nmaxvcpus = 3", "line 6: maxvcpus: must be from vcpus to 128"),
        ("maxmem = 255", "line 5: maxmem: must be at least memory, in MiB"),
        ("on_crash = 'explode'", "line 5: on_crash: must be destroy, restart"),
        ("cpu_weight = 0", "line 5: cpu_weight: must be from 1 to 65535"),
        ("cpu_weight = 65536", "line 5: cpu_weight: must be from 1 to 65535"),
        ("cap = -1", "line 5: cap: must be from 0 to 65535, in percent of one CPU, 0 for none"),
        ("cap = 65536", "line 5: cap: must be from 0 to 65535, in percent of one CPU, 0 for none"),
        ("\ncpus = ''", "line 6: cpus: no CPU is left; write all, or CPUs as in 0-3,5,^2"),
        ("cpus = '300'", "line 5: cpus: \"300\" is too high; numbers are from 0 to 255"),
        ("cpus = ['1', 'x']", "line 5: cpus: \"x\" is no CPU; write all"),
        ("cpus = [[ 1 ]]", "line 5: cpus: must be a string, or a list of strings, one for each virtual CPU"),
        ("cpus_soft = 'node:0'", "line 5: cpus_soft: \"node:0\": nodes are not known here"),
        ("uuid = '+1234567-89ab-cdef-0123-456789abcdef'", "line 5: uuid: must be 32 hexadecimal digits"),
    ] {
        assert!(error(text).starts_with(expected), "{text}: {}", error(text));
    }
    for memory in ["0", "12z", "99999999999999999999999", "08", "0x", "\"+5\""] {
        let text = MINIMAL.replace("256", memory);
        let error = parse(text.as_bytes(), None).unwrap_err().to_string();
        assert_eq!(error, "line 4: memory: must be a number of MiB, at least 1", "{memory}");
    }
    let error = parse(MINIMAL.replace("'web'", "''").as_bytes(), None).unwrap_err().to_string();
    assert!(error.starts_with("line 1: name: must not be empty"), "{error}");
    let error = parse(MINIMAL.replace("'vmlinuz'", "''").as_bytes(), None).unwrap_err().to_string();
    assert!(error.starts_with("line 3: kernel: must be the first word"), "{error}");
}

#[test]
fn what_must_be_there_and_is_not_is_named() {
    for (line, key) in MINIMAL.lines().zip(["name", "type", "kernel", "memory"]) {
        if key == "type" {
            continue;
        }
        let text = MINIMAL.replace(line, "");
        let error = parse(text.as_bytes(), None).unwrap_err().to_string();
        assert!(error.starts_with(&alloc::format!("{key} is missing; add {key} = ")), "{error}");
    }
}

#[test]
fn a_domain_is_pv_unless_its_type_says_otherwise() {
    let kinds = [("type = 'pv'", DomainKind::Pv), ("builder='generic'", DomainKind::Pv), ("", DomainKind::Pv)];
    for (line, kind) in kinds.into_iter().chain([("builder='hvm'; type='pvh'", DomainKind::Pvh)]) {
        let text = MINIMAL.replace("type = \"pvh\"", line);
        assert_eq!(parse(text.as_bytes(), None).unwrap().config.kind, kind, "{line}");
    }
}

#[test]
fn types_that_are_not_built_are_named() {
    for line in ["type='hvm'", "builder='hvm'"] {
        let text = MINIMAL.replace("type = \"pvh\"", line);
        let error = parse(text.as_bytes(), None).unwrap_err().to_string();
        let expected = "line 2: type: domains of type \"hvm\" are not built yet; use type = \"pvh\" or \"pv\"";
        assert_eq!(error, expected);
    }
}

#[test]
fn no_key_is_in_both_tables_or_twice() {
    let mut all: Vec<&str> = keys::KNOWN.concat();
    all.extend(keys::BUILT);
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_panic(file in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&file, None);
    }

    #[test]
    fn no_text_of_the_grammars_characters_makes_a_panic(text in "[a-c=+'\"\\\\\\[\\],;# \n0-9x-]{0,60}") {
        let _ = parse(text.as_bytes(), None);
        let _ = parse((MINIMAL.to_string() + "extra=\"" + &text).as_bytes(), None);
    }

    #[test]
    fn any_printable_string_comes_back_as_it_was(text in "[ -~]{0,60}") {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        prop_assert_eq!(config(&alloc::format!("cmdline = \"{quoted}\"")).config.cmdline, text);
    }
}
