//! Lines and what is made of them.

use super::*;
use proptest::prelude::*;

fn two_nodes(node: u32) -> CpuSet {
    if node < 2 { CpuSet::only(CpuId(node)) } else { CpuSet::EMPTY }
}

fn web() -> Who {
    Who::Name("web".to_owned())
}

#[test]
fn commands_are_xls_with_its_options() {
    let one = Who::Id(DomId(1));
    let shares = |weight, cap| Command::SetShares { domain: one.clone(), weight, cap };
    let params = |tslice_ms, ratelimit_us, vcpu_migr_delay_us| {
        Command::SetParams(ParamChanges { tslice_ms, ratelimit_us, vcpu_migr_delay_us })
    };
    let pin = |domain: &Who, vcpu: Option<u32>, hard, soft| Command::Pin {
        domain: domain.clone(),
        vcpu: vcpu.map(VcpuId),
        hard,
        soft,
    };
    let cpu = |cpu| Some(CpuSet::only(CpuId(cpu)));
    for (line, expected) in [
        ("help", Command::Help),
        ("  sched-credit ", Command::Shares(None)),
        ("sched-credit -d 1", Command::Shares(Some(one.clone()))),
        ("sched-credit --domain web", Command::Shares(Some(web()))),
        ("sched-credit -d 1 -w 512", shares(Some(512), None)),
        ("sched-credit -w1 -c0 -d1", shares(Some(1), Some(0))),
        ("sched-credit --domain=1 --weight=65535 --cap=65535", shares(Some(65535), Some(65535))),
        ("sched-credit --cap 50 -d 1 -c 60", shares(None, Some(60))),
        ("sched-credit -s", Command::Params),
        ("sched-credit --schedparam -t 5", params(Some(5), None, None)),
        ("sched-credit -r0 -s -m 7", params(None, Some(0), Some(7))),
        (
            "sched-credit --schedparam --tslice_ms=1 --ratelimit_us=2 --migration_delay_us=3",
            params(Some(1), Some(2), Some(3)),
        ),
        ("vcpu-list", Command::Vcpus(None)),
        ("vcpu-list web", Command::Vcpus(Some(web()))),
        ("vcpu-list 32751", Command::Vcpus(Some(Who::Id(DomId(32751))))),
        ("vcpu-pin 1 0 3", pin(&one, Some(0), cpu(3), None)),
        ("vcpu-pin web all all 3", pin(&web(), None, Some(CpuSet::ALL), cpu(3))),
        ("vcpu-pin 1 127 - node:1", pin(&one, Some(127), None, cpu(1))),
        ("vcpu-pin 1 0 3 -", pin(&one, Some(0), cpu(3), None)),
        ("cpu-online 255", Command::Online(CpuId(255))),
        ("cpu-offline\t1", Command::Offline(CpuId(1))),
    ] {
        assert_eq!(Command::parse(line, Some(&two_nodes)), Ok(expected), "{line}");
    }
}

#[test]
fn a_line_that_is_no_command_is_answered_with_what_is_wrong_and_what_to_type() {
    for (line, what, usage) in [
        ("", "nothing was typed", HELP),
        ("frob 1", "there is no command \"frob\"", HELP),
        ("help me", "\"me\" is too much", HELP),
        ("sched-credit 1", "\"1\" is no option", SHARES),
        ("sched-credit -x", "\"-x\" is no option", SHARES),
        ("sched-credit -s --weights=5", "\"--weights=5\" is no option", PARAMS),
        ("sched-credit -d", "a value must follow \"-d\"", SHARES),
        ("sched-credit -w 5", "-w and -c need -d", SHARES),
        ("sched-credit -s -w 5", "-w and -c are of a domain, without -s", SHARES),
        ("sched-credit -s -d 1", "-s is of all domains", PARAMS),
        ("sched-credit -t 5", "-t, -r and -m need -s", PARAMS),
        ("sched-credit -d 1 -t 5", "-t, -r and -m need -s", PARAMS),
        ("sched-credit -d 1 -w 0", "\"0\": WEIGHT must be from 1 to 65535", SHARES),
        ("sched-credit -d 1 -w 65536", "\"65536\": WEIGHT must be from 1 to 65535", SHARES),
        ("sched-credit -d 1 -w +5", "\"+5\": WEIGHT must be from 1 to 65535", SHARES),
        ("sched-credit -d 1 --weight=", "\"\": WEIGHT must be from 1 to 65535", SHARES),
        (
            "sched-credit -d 1 -c 65536",
            "\"65536\": CAP must be from 0 to 65535, in percent of one CPU, 0 for none",
            SHARES,
        ),
        ("sched-credit -d 32752", "no domain has a number as high as 32752", SHARES),
        ("sched-credit -s -t -5", "\"-5\" is no number, or a far too high one", PARAMS),
        ("sched-credit -s -m 4294967296", "\"4294967296\" is no number, or a far too high one", PARAMS),
        ("vcpu-list 99999", "no domain has a number as high as 99999", VCPUS),
        ("vcpu-list 1 2", "\"2\" is too much", VCPUS),
        ("vcpu-pin 1 0", "a domain, a virtual CPU and CPUs are needed", PIN),
        ("vcpu-pin 1 x 0", "\"x\" is no virtual CPU, which is a number or all", PIN),
        ("vcpu-pin 1 0 x", "\"x\" is no CPU; write all, or CPUs as in 0-3,5,^2", PIN),
        ("vcpu-pin 1 0 - 1,^1", "no CPU is left; write all, or CPUs as in 0-3,5,^2", PIN),
        ("vcpu-pin 1 0 - -", "nothing is to be changed", PIN),
        ("vcpu-pin 1 0 1 2 3", "\"3\" is too much", PIN),
        ("cpu-online", "a CPU is needed", ONLINE),
        ("cpu-offline 256", "\"256\" is no CPU, which is a number from 0 to 255", OFFLINE),
        ("cpu-offline 1 2", "\"2\" is too much", OFFLINE),
    ] {
        let error = Command::parse(line, Some(&two_nodes)).expect_err(line);
        assert_eq!((error.wrong.as_str(), error.usage), (what, usage), "{line}");
    }
    let text = Command::parse("cpu-online", None).unwrap_err().to_string();
    assert_eq!(text, "a CPU is needed; type cpu-online CPU");
}

#[test]
fn changed_parameters_are_looked_at_together_with_the_others() {
    let now = Params::default();
    let changes = |tslice_ms, ratelimit_us| ParamChanges { tslice_ms, ratelimit_us, vcpu_migr_delay_us: None };
    assert_eq!(changes(Some(5), None).on(now), Ok(Params { tslice_ms: 5, ..now }));
    assert_eq!(changes(None, None).on(now), Ok(now));
    for (bad, expected) in [
        (changes(Some(1), None), "RATELIMIT_US must be 0, or from 100 to 500000 us and less than the slice"),
        (changes(Some(0), None), "TSLICE_MS must be from 1 to 1000 ms"),
        (ParamChanges { vcpu_migr_delay_us: Some(100_001), ..changes(None, None) }, "MIGRDELAY_US must be at most"),
    ] {
        let error = bad.on(now).unwrap_err();
        assert!(error.wrong.starts_with(expected) && error.usage == PARAMS, "{error}");
    }
}

#[test]
fn a_domain_is_known_by_number_or_name() {
    let knows = |who: Who| who.is(DomId(1), "web");
    assert!(knows(Who::Id(DomId(1))) && knows(web()));
    assert!(!knows(Who::Id(DomId(2))) && !knows(Who::Name("we".to_owned())));
}

#[test]
fn each_command_is_in_the_list() {
    for word in ["help", "sched-credit", "vcpu-list", "vcpu-pin", "cpu-online", "cpu-offline"] {
        assert!(COMMANDS.iter().any(|(usage, _)| usage.split(' ').next() == Some(word)), "{word}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_a_panic(
        command in "(sched-credit|vcpu-list|vcpu-pin|cpu-online|.{0,8})",
        words in "( (-[dwctrms]|--[a-z_]{0,12}=?|all|-|[0-9^,-]{0,8}|.{0,4})){0,6}",
    ) {
        let _ = Command::parse(&(command + &words), Some(&two_nodes));
    }
}
