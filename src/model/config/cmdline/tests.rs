//! Command lines and what is made of them.

use super::*;
use alloc::string::ToString;
use proptest::prelude::*;

/// The options of a line without warnings.
fn parse(line: &str) -> Options {
    let options = Options::parse(line);
    assert_eq!(options.warnings, [], "{line}");
    options
}

fn amount(bytes: u64) -> Option<Amount> {
    Some(Amount { bytes, ..Amount::default() })
}

#[test]
fn an_empty_line_gives_xens_defaults() {
    let options = parse("");
    assert_eq!(options, Options::default());
    assert_eq!(options.console, Console { com: [true, false], vga: true });
}

#[test]
fn a_serial_port_is_set_up_field_by_field() {
    let standard = Uart::standard(0);
    assert_eq!(parse("com1=auto").com, [Some(standard), None]);
    assert_eq!(parse("com1=115200,8n1").com[0], Some(Uart { baud: Some(115_200), ..standard }));
    let uart = parse("com2=9600/1843200,7e2,0x3e8,0").com[1].unwrap();
    assert_eq!((uart.baud, uart.clock, uart.io_base, uart.irq), (Some(9600), 1_843_200, 0x3e8, None));
    assert_eq!((uart.data_bits, uart.parity, uart.stop_bits), (7, Parity::Even, 2));
    assert_eq!(parse("com1=,,0x2f8,5").com[0], Some(Uart { io_base: 0x2f8, irq: Some(5), ..standard }));
}

#[test]
fn consoles_and_levels_are_lists() {
    assert_eq!(parse("console=com2,com1").console, Console { com: [true, true], vga: false });
    assert_eq!(parse("console=none").console, Console { com: [false; 2], vga: false });
    let levels = |always, limited| Levels { always, limited };
    assert_eq!(parse("loglvl=all").loglvl, levels(Level::All, Level::All));
    assert_eq!(parse("guest_loglvl=error/info").guest_loglvl, levels(Level::Error, Level::Info));
    assert_eq!(parse("loglvl=info/none").loglvl, levels(Level::Info, Level::Info));
}

#[test]
fn booleans_are_spelt_in_xens_ways() {
    for on in ["noreboot", "noreboot=1", "noreboot=yes", "noreboot=on", "noreboot=true", "noreboot=enable"] {
        assert!(parse(on).noreboot, "{on}");
    }
    for off in ["no-noreboot", "noreboot=0", "noreboot=no", "noreboot=off", "noreboot=false", "noreboot=disable"] {
        assert!(!parse(&("noreboot ".to_string() + off)).noreboot, "{off}");
    }
    assert!(parse("sync_console").sync_console);
}

#[test]
fn sizes_without_a_unit_are_in_kib() {
    assert_eq!(parse("mem=1024").mem, Some(1 << 20));
    for (text, bytes) in [("4096B", 4096), ("4k", 4096), ("0x10M", 16 << 20), ("2g", 2 << 30), ("1T", 1 << 40)] {
        assert_eq!(size(text), Some(bytes), "{text}");
    }
    for text in ["", "M", "-1M", "+1M", "1X", "99999999999T"] {
        assert_eq!(size(text), None, "{text}");
    }
}

#[test]
fn the_initial_domains_memory_has_a_size_and_bounds() {
    assert_eq!(parse("dom0_mem=1G").dom0_mem, Dom0Mem { size: amount(1 << 30), ..Dom0Mem::default() });
    let mem = parse("dom0_mem=min:256M,max:2G,-1G").dom0_mem;
    assert_eq!((mem.min, mem.max), (amount(256 << 20), amount(2 << 30)));
    assert_eq!(mem.size.unwrap().of(4 << 30), 3 << 30);
    assert_eq!(mem.size.unwrap().of(1 << 20), 0);
    assert_eq!(parse("dom0_mem=512M+25%").dom0_mem.size.unwrap().of(4 << 30), (1 << 30) + (512 << 20));
    assert_eq!(parse("dom0_mem=10%").dom0_mem.size.unwrap().of(1000), 100);
}

#[test]
fn the_initial_domains_kind_and_virtual_cpus() {
    assert!(!parse("").dom0.pvh);
    assert_eq!(parse("dom0=pvh,verbose,shadow=off").dom0, Dom0 { pvh: true, verbose: true });
    assert!(!parse("dom0=pvh dom0=pv").dom0.pvh);
    for (text, range) in [("4", (4, 4)), ("2-8", (2, 8)), ("2-", (2, u32::MAX)), ("-8", (1, 8)), ("8-2", (8, 8))] {
        assert_eq!(parse(&("dom0_max_vcpus=".to_string() + text)).dom0_max_vcpus, Some(range), "{text}");
    }
    assert_eq!(parse("maxcpus=2").maxcpus, Some(2));
}

#[test]
fn the_scheduler_is_credit_with_xens_parameters() {
    let params = |tslice_ms, ratelimit_us, vcpu_migr_delay_us| Params { tslice_ms, ratelimit_us, vcpu_migr_delay_us };
    assert_eq!(parse("sched=credit").sched, params(30, 1000, 0));
    let line = "sched_ratelimit_us=20000 sched_credit_tslice_ms=40 vcpu_migration_delay=500 dom0_vcpus_pin";
    assert_eq!(parse(line).sched, params(40, 20000, 500));
    assert!(parse(line).dom0_vcpus_pin && !parse("").dom0_vcpus_pin);
    assert_eq!(parse("sched_ratelimit_us=0 sched_credit_tslice_ms=1").sched, params(1, 0, 0));
    let options = Options::parse("sched=credit2 sched_credit_tslice_ms=5");
    let expected = "command line: \"sched=credit2\": credit is the one that there is, and is used";
    assert_eq!(options.warnings[0].to_string(), expected);
    assert_eq!(options.sched, params(5, 1000, 0));
}

#[test]
fn a_parameter_out_of_range_is_named_with_what_is_used_and_the_others_stay() {
    for (line, expected, used) in [
        ("sched_credit_tslice_ms=1001", "must be from 1 to 1000 ms; 30 is used", (30, 1000, 7)),
        ("sched_credit_tslice_ms=0", "must be from 1 to 1000 ms; 30 is used", (30, 1000, 7)),
        (
            "sched_ratelimit_us=99",
            "must be 0, or from 100 to 500000 us and less than the slice; 1000 is used",
            (30, 1000, 7),
        ),
        (
            "sched_ratelimit_us=1000 sched_credit_tslice_ms=1",
            "must be 0, or from 100 to 500000 us and less than the slice; 500 is used",
            (1, 500, 7),
        ),
        ("vcpu_migration_delay=100001", "must be at most 100000 us; 0 is used", (30, 1000, 0)),
    ] {
        let options = Options::parse(&("vcpu_migration_delay=7 ".to_string() + line));
        let word = line.split(' ').next().unwrap();
        let texts: Vec<_> = options.warnings.iter().map(Warning::to_string).collect();
        assert_eq!(texts, [alloc::format!("command line: \"{word}\": {expected}")]);
        let Params { tslice_ms, ratelimit_us, vcpu_migr_delay_us } = options.sched;
        assert_eq!((tslice_ms, ratelimit_us, vcpu_migr_delay_us), used, "{line}");
    }
    let worst = "sched_credit_tslice_ms=4294967295 sched_ratelimit_us=4294967295 vcpu_migration_delay=4294967295";
    let options = Options::parse(worst);
    assert_eq!((options.warnings.len(), options.sched), (3, Params::default()));
}

#[test]
fn isolation_is_chosen_for_the_initial_domain_and_the_others() {
    let xpti = |dom0, domu| Xpti { dom0, domu };
    assert_eq!(parse("").xpti, xpti(None, None));
    for (text, both) in [("xpti", true), ("no-xpti", false), ("xpti=1", true), ("xpti=false", false)] {
        assert_eq!(parse(text).xpti, xpti(Some(both), Some(both)), "{text}");
    }
    assert_eq!(parse("xpti=dom0=off").xpti, xpti(Some(false), None));
    assert_eq!(parse("xpti=domu").xpti, xpti(None, Some(true)));
    assert_eq!(parse("xpti=dom0=1,no-domu").xpti, xpti(Some(true), Some(false)));
    assert_eq!(parse("xpti=off xpti=default").xpti, xpti(None, None));
    for bad in ["xpti=maybe", "no-xpti=on", "xpti=dom0=perhaps", "xpti=default=1", "xpti="] {
        assert_eq!(Options::parse(bad).warnings.len(), 1, "{bad}");
        assert_eq!(Options::parse(bad).xpti, xpti(None, None), "{bad}");
    }
}

#[test]
fn spec_ctrl_is_a_list_of_which_the_later_part_wins() {
    let spec_ctrl = |line| parse(line).spec_ctrl;
    let default = SpecCtrl::default();
    assert_eq!(spec_ctrl(""), default);
    for off in ["spec-ctrl=no", "spec-ctrl=off", "spec-ctrl=0", "no-spec-ctrl", "spec-ctrl=xen=no", "spec-ctrl=no-xen"]
    {
        assert_eq!(spec_ctrl(off), SpecCtrl::OFF, "{off}");
    }
    let kinds = |pv, hvm| SpecCtrl { pv, hvm, ..default };
    let (none, on, off) = (Guards::default(), Guards::all(Some(true)), Guards::all(Some(false)));
    assert_eq!(spec_ctrl("spec-ctrl=pv,hvm=no"), kinds(on, off));
    assert_eq!(spec_ctrl("spec-ctrl=no-pv spec-ctrl=hvm=on"), kinds(off, on));
    let rsb = |rsb| Guards { rsb, ..none };
    assert_eq!(spec_ctrl("spec-ctrl=rsb"), kinds(rsb(Some(true)), rsb(Some(true))));
    assert_eq!(spec_ctrl("spec-ctrl=no-rsb"), kinds(rsb(Some(false)), rsb(Some(false))));
    assert_eq!(spec_ctrl("spec-ctrl=rsb=no-hvm"), kinds(none, rsb(Some(false))));
    assert_eq!(spec_ctrl("spec-ctrl=rsb=hvm,rsb=pv=off"), kinds(rsb(Some(false)), rsb(Some(true))));
    assert_eq!(spec_ctrl("spec-ctrl=md-clear=pv"), kinds(Guards { verw: Some(true), ..none }, none));
    assert_eq!(spec_ctrl("spec-ctrl=ibpb-entry=hvm"), kinds(none, Guards { ibpb: Some(true), ..none }));
    let ibrs = Some(true);
    assert_eq!(spec_ctrl("spec-ctrl=no,ibrs"), SpecCtrl { ibrs, ..SpecCtrl::OFF });
    let switches = spec_ctrl("spec-ctrl=ibrs=1,no-stibp,ssbd=on,psfd,ibpb=off,l1d-flush=false");
    let (stibp, ssbd, psfd, ibpb, l1d_flush) = (Some(false), Some(true), Some(true), Some(false), Some(false));
    assert_eq!(switches, SpecCtrl { ibrs, stibp, ssbd, psfd, ibpb, l1d_flush, ..default });
}

#[test]
fn spec_ctrl_no_ends_isolation_too_unless_it_was_asked_for_before() {
    let xpti = |line| (parse(line).xpti.dom0, parse(line).xpti.domu);
    assert_eq!(xpti("spec-ctrl=no"), (Some(false), Some(false)));
    assert_eq!(xpti("spec-ctrl=no-xen"), (None, None));
    assert_eq!(xpti("xpti=domu spec-ctrl=no"), (Some(false), Some(true)));
    assert_eq!(xpti("spec-ctrl=no xpti=default"), (None, None));
}

#[test]
fn a_part_of_spec_ctrl_that_is_not_built_is_named_and_one_that_is_unknown_spoils_the_list() {
    parse(
        "spec-ctrl=bti-thunk=jmp,eager-fpu,no-branch-harden,msr-sc=no,srb-lock=off,unpriv-mmio=0,gds-mit=no,div-scrub=no",
    );
    let options = Options::parse("spec-ctrl=bti-thunk=retpoline,ibpb,msr-sc=pv,no-eager-fpu");
    let texts: Vec<_> = options.warnings.iter().map(Warning::to_string).collect();
    let not_built = |part| alloc::format!("command line: \"spec-ctrl={part}\" is not built yet and has no effect");
    assert_eq!(texts, ["bti-thunk=retpoline", "msr-sc=pv", "no-eager-fpu"].map(not_built));
    assert_eq!(options.spec_ctrl.ibpb, Some(true));
    for bad in ["", "yes", "xen", "frob", "no,frob", "rsb=maybe", "rsb=dom0", "no-rsb=pv", "bti-thunk", "pv=maybe"] {
        let word = "spec-ctrl=".to_string() + bad;
        let options = Options::parse(&word);
        assert!(matches!(&options.warnings[..], [Warning::BadValue { word: named, .. }] if *named == word), "{word}");
        assert_eq!(options, Options { warnings: options.warnings.clone(), ..Options::default() }, "{word}");
    }
    assert_eq!(Options::parse("spec-ctrl").warnings.len(), 1);
}

#[test]
fn what_boot_scripts_add_is_taken_without_a_word() {
    parse("placeholder no-real-mode edd=off ucode=scan dom0-iommu=passthrough");
}

#[test]
fn what_is_unknown_or_not_built_is_named_in_order() {
    let warnings = Options::parse("noreboot frobnicate=1 smt=off no-such").warnings;
    let texts: Vec<_> = warnings.iter().map(Warning::to_string).collect();
    assert_eq!(
        texts,
        [
            "command line: unknown option \"frobnicate=1\"",
            "command line: \"smt=off\" is not built yet and has no effect",
            "command line: unknown option \"no-such\"",
        ]
    );
}

#[test]
fn a_bad_value_changes_nothing_and_says_what_would_do() {
    for word in [
        "com1=fast",
        "com1=115200,9n1",
        "com1=0",
        "com1=115200,8n1,0x3f8,4,0",
        "com1=115200,8n1,0xffff",
        "com1",
        "console=vga,lpt",
        "console",
        "loglvl=loud",
        "maxcpus=0",
        "maxcpus=x",
        "mem=big",
        "noreboot=maybe",
        "dom0=pvh,hvm",
        "dom0=no-pvh",
        "dom0_mem=1G,best:2G",
        "dom0_mem=101%",
        "dom0_max_vcpus=",
        "dom0_max_vcpus=-",
        "dom0_max_vcpus=0",
        "no-mem=5",
        "sched=",
        "no-sched",
        "sched_credit_tslice_ms=fast",
        "sched_ratelimit_us=4294967296",
        "vcpu_migration_delay",
        "dom0_vcpus_pin=maybe",
    ] {
        let mut options = Options::parse(word);
        match options.warnings.pop() {
            Some(Warning::BadValue { word: named, .. }) => assert_eq!(named, word),
            other => panic!("{word}: {other:?}"),
        }
        assert_eq!(options, Options::default(), "{word}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_line_makes_a_panic(
        words in proptest::collection::vec(("(com1|console|loglvl|mem|dom0|dom0_mem|dom0_max_vcpus|spec-ctrl|sched_ratelimit_us|no-.)", ".{0,12}"), 0..6)
    ) {
        let line: Vec<_> = words.iter().map(|(name, value)| alloc::format!("{name}={value}")).collect();
        Options::parse(&line.join(" "));
    }
}

#[test]
fn the_initial_domains_memory_lies_between_its_limits_and_in_what_is_free() {
    const MIB: u64 = 1 << 20;
    let of = |line: &str| {
        let (size, max) = Options::parse(line).dom0_mem.of(2000 * MIB, 2048 * MIB);
        (size / MIB, max / MIB)
    };
    assert_eq!(of(""), (2000 - 125, 2048));
    assert_eq!(of("dom0_mem=512M"), (512, 2048));
    assert_eq!(of("dom0_mem=512M,max:512M"), (512, 512));
    assert_eq!(of("dom0_mem=512M,max:256M"), (256, 256));
    assert_eq!(of("dom0_mem=512M,min:1G"), (1024, 2048));
    assert_eq!(of("dom0_mem=max:1G"), (1024, 1024));
    assert_eq!(of("dom0_mem=-500M"), (1500, 2048));
    assert_eq!(of("dom0_mem=8G"), (2000, 2048));
}
