//! The scheduler on a machine: shares, caps, wake-ups and pests, by what the guests and their accounts say.
//!
//! Bochs counts slowly here, 40 million instructions to a second, so that 30 s of guests' time are cheap; what the hypervisor
//! does weighs five times as much as on the other beds.

use crate::bed::{BOCHS_TICKS_PER_S, Bed};
use crate::case::{Case, Verdict};
use crate::expect::Step;
use crate::words::{self, Speaker};

/// The guests' image.
const IMAGE: &str = "build/guest";

const TICKS_PER_S: u64 = 40_000_000;
/// What is measured begins then, in ms after the hypervisor's first instruction, when all domains run.
const FROM_MS: u32 = 4_000;

const BEDS: [Bed; 2] = [Bed::BochsSkylake, Bed::BochsSvm];

/// A domain: its name, its type, what it is asked, its virtual CPUs, and more of its configuration.
pub struct Guest {
    name: &'static str,
    kind: &'static str,
    asked: String,
    vcpus: u32,
    more: String,
}

/// One that takes what it gets.
pub fn taker(name: &'static str, kind: &'static str, vcpus: u32, more: &str) -> Guest {
    Guest { name, kind, asked: format!("share n={vcpus}"), vcpus, more: more.into() }
}

pub fn case(name: &str, bed: Bed, guests: Vec<Guest>, seconds: u32, verdict: Verdict) -> Case {
    let budget = u64::from(seconds + 12) * TICKS_PER_S / 1_000_000_000 + 2;
    let mut case = Case::new(format!("sched-{name}-{}", bed.name()), bed)
        .cpus(2)
        .ticks_per_s(TICKS_PER_S)
        .option("loglvl=all")
        .verdict(verdict)
        .budget(budget, 300);
    for Guest { name, kind, asked, vcpus, more } in &guests {
        let window = format!("from={FROM_MS} for={}", seconds * 1000);
        let memory = if more.contains("memory = ") { "" } else { "memory = 32\n" };
        let config = format!(
            "name = \"{name}\"\ntype = \"{kind}\"\nkernel = \"guest\"\ncmdline = \"test={asked} {window}\"\n{memory}vcpus = {vcpus}\n{more}\n"
        );
        case = case
            .text(&format!("{name}.cfg"), config)
            .never(name, "FAIL ")
            .domain_says(name, &["GUEST-DONE * passed, 0 failed"])
            .host_says(&[&words::destroyed(name)]);
    }
    case.file("guest", IMAGE)
}

/// The numbers of the line of this domain that matches.
fn numbers(log: &str, name: &str, word: &str) -> Result<Vec<u64>, String> {
    let line = log.lines().map(str::trim_end).find_map(|line| match words::split(line) {
        (Some(Speaker::Domain(who)), text) if who == name => text.strip_prefix(word),
        _ => None,
    });
    let line = line.ok_or_else(|| format!("{name} has written no line {word}"))?;
    let words = line.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
    Ok(words.filter_map(|word| word.parse().ok()).collect())
}

/// What each domain ran, in us by its account and in thousands of its loops.
pub fn shares(log: &str, names: &[&str]) -> Result<Vec<[u64; 2]>, String> {
    let of = |name: &&str| match numbers(log, name, "SHARE ")?[..] {
        [ran, loops] => Ok([ran, loops]),
        _ => Err(format!("{name} has written another line than was wanted")),
    };
    names.iter().map(of).collect()
}

/// Whether what was got is in these proportions within a bound in percent, by the accounts and by the loops.
fn in_proportion(log: &str, names: &[&str], wanted: &[f64], bound: f64) -> Result<String, String> {
    let seen = shares(log, names)?;
    let mut worst = [0.0f64; 2];
    for (by, worst) in worst.iter_mut().enumerate() {
        let (all, parts): (u64, f64) = (seen.iter().map(|pair| pair[by]).sum(), wanted.iter().sum());
        for (pair, part) in seen.iter().zip(wanted) {
            let fair = all as f64 * part / parts;
            *worst = worst.max((pair[by] as f64 - fair).abs() / fair * 100.0);
        }
    }
    let text = format!("{seen:?}, {:.2} % by the accounts, {:.2} % by the loops, bound {bound} %", worst[0], worst[1]);
    if worst.iter().all(|&worst| worst <= bound) { Ok(text) } else { Err(text) }
}

fn within(value: f64, wanted: f64, bound: f64, what: &str) -> Result<String, String> {
    let off = (value - wanted).abs() / wanted * 100.0;
    let text = format!("{what} {value:.0}, wanted {wanted:.0}, {off:.2} % off, bound {bound} %");
    if off <= bound { Ok(text) } else { Err(text) }
}

fn all(verdicts: impl IntoIterator<Item = Result<String, String>>) -> Result<String, String> {
    Ok(verdicts.into_iter().collect::<Result<Vec<_>, _>>()?.join("; "))
}

/// How late a ticker was at most, in us.
fn lateness(log: &str, name: &str, bound_us: u64) -> Result<String, String> {
    let seen = numbers(log, name, "TICKER ")?;
    let [worst, mean, ticks] = seen[..] else { return Err(format!("{name} has written {seen:?}")) };
    let text = format!("{name}: worst {worst} us, mean {mean} ns, of {ticks}, bound {bound_us} us");
    if worst <= bound_us && ticks > 100 { Ok(text) } else { Err(text) }
}

/// All of them.
pub fn cases() -> Vec<Case> {
    BEDS.into_iter().flat_map(on).chain(turns()).collect()
}

fn on(bed: Bed) -> Vec<Case> {
    vec![
        weights(bed),
        caps(bed),
        wakes(bed),
        crowd(bed),
        pests(bed),
        console(bed),
        bad_cpus(bed),
        ends(bed),
        mwait(bed),
    ]
}

/// 1:2:4 of two CPUs, with two virtual CPUs each where the share is above half a CPU.
fn weights(bed: Bed) -> Case {
    let guests = vec![
        taker("one", "pv", 1, "cpu_weight = 128"),
        taker("two", "pvh", 2, "cpu_weight = 256"),
        taker("four", "pvh", 4, "cpu_weight = 512"),
    ];
    case("weights", bed, guests, 30, |log| in_proportion(log, &["one", "two", "four"], &[1.0, 2.0, 4.0], 2.0))
}

/// Half a CPU, and what is left for another.
fn caps(bed: Bed) -> Case {
    let guests = vec![taker("half", "pvh", 2, "cap = 50"), taker("free", "pv", 1, "")];
    case("caps", bed, guests, 30, |log| {
        let seen = shares(log, &["half", "free"])?;
        all([
            within(seen[0][0] as f64, 15e6, 2.0, "the capped one ran us"),
            within(seen[1][0] as f64, 30e6, 2.0, "the other ran us"),
        ])
    })
}

/// One that wakes each millisecond beside four busy ones.
fn wakes(bed: Bed) -> Case {
    let mut guests: Vec<_> = ["a", "b", "c", "d"].map(|name| taker(name, "pvh", 1, "")).into();
    guests.push(Guest {
        name: "ticker",
        kind: "pv",
        asked: "ticker period=1000".into(),
        vcpus: 1,
        more: String::new(),
    });
    case("wakes", bed, guests, 10, |log| lateness(log, "ticker", 1100))
}

/// Eight times as many virtual CPUs as CPUs, of domains of equal weight.
fn crowd(bed: Bed) -> Case {
    let guests = ["a", "b", "c", "d"].map(|name| taker(name, "pvh", 4, ""));
    case("crowd", bed, guests.into(), 10, |log| in_proportion(log, &["a", "b", "c", "d"], &[1.0; 4], 4.0))
}

/// One that works and one that wakes, among those that do one thing as often as they can.
fn pests(bed: Bed) -> Case {
    const KINDS: [&str; 7] = ["yield", "poll", "timer", "send", "exit", "bad", "sleep"];
    let pest =
        |kind| Guest { name: kind, kind: "pvh", asked: format!("pest kind={kind}"), vcpus: 1, more: String::new() };
    let mut guests: Vec<_> = KINDS.map(pest).into();
    guests.push(taker("worker", "pvh", 1, ""));
    guests.push(Guest {
        name: "ticker",
        kind: "pv",
        asked: "ticker period=5000".into(),
        vcpus: 1,
        more: String::new(),
    });
    case("pests", bed, guests, 10, |log| {
        // Two CPUs among eight that would have all of them; who sleeps or yields leaves more.
        let ran = shares(log, &["worker"])?[0][0] as f64;
        let least = 10e6 * 2.0 / 8.0 * 0.98;
        let worker = format!("the worker ran {ran:.0} us, at least {least:.0}");
        all([if ran >= least { Ok(worker) } else { Err(worker) }, lateness(log, "ticker", 2100)])
    })
}

fn see(text: &str) -> Step {
    Step::See(Some(Speaker::Host), text.into())
}

/// The input goes from the first of the domains on to the hypervisor.
pub fn to_the_host(domains: &[&str]) -> Vec<Step> {
    let mut steps = vec![see(&words::input_to(domains[0]))];
    let others = domains[1..].iter().map(|name| words::input_to(name));
    for next in others.chain([words::INPUT_TO_HOST.into()]) {
        steps.extend([Step::Type("\x01\x01\x01".into()), see(&next)]);
    }
    steps
}

/// Commands and what the hypervisor answers, beside these domains.
pub fn at_the_console(domains: &[&str], commands: &[(&str, &str)]) -> Vec<Step> {
    let mut steps = to_the_host(domains);
    for (command, answer) in commands {
        steps.extend([Step::Type(format!(":{command}\r")), see(answer)]);
    }
    steps
}

/// Commands at the console while the guests work: those that change something, and those that are refused.
fn console(bed: Bed) -> Case {
    let guests = vec![
        taker("a", "pvh", 2, ""),
        taker("b", "pv", 1, ""),
        Guest { name: "ticker", kind: "pv", asked: "ticker period=5000".into(), vcpus: 1, more: String::new() },
    ];
    let commands = [
        ("sched-credit -d a -w 512", "d1 (a): weight 512, cap 0"),
        ("sched-credit -d a -w 0", "error: "),
        ("sched-credit -d a -w 65536", "error: "),
        ("sched-credit -d nobody -w 1", "error: there is no domain \"nobody\""),
        ("sched-credit -s -t 1001", "error: "),
        ("sched-credit -s -t 5 -r 500", "tslice_ms 5, ratelimit_us 500"),
        ("cpu-offline 0", "error: cpu0 stays online"),
        ("cpu-offline 2", "error: there is no cpu2"),
        ("vcpu-pin b 0 1", "hard 1, soft"),
        ("cpu-offline 1", "error: cpu1 stays online, as d2 v0 may run nowhere else"),
        ("vcpu-pin b 0 all", "hard all, soft"),
        ("vcpu-pin b 0 7", "error: of 7 no CPU is online"),
        ("vcpu-pin b 9 0", "error: d2 has no v9"),
        ("cpu-offline 1", "online: 0"),
        ("cpu-offline 1", "error: cpu1 is offline already"),
        ("vcpu-pin a all 1", "error: of 1 no CPU is online"),
        ("cpu-online 1", "online: 0-1"),
        ("cpu-offline 1", "online: 0"),
        ("cpu-online 1", "online: 0-1"),
        ("sched-credit -d 1 -w 256 -c 40", "d1 (a): weight 256, cap 40"),
        ("vcpu-list", "(ticker) v0: "),
        ("nonsense", "error: "),
    ];
    let steps = at_the_console(&["a", "b", "ticker"], &commands);
    let verdict: Verdict = |log| {
        let seen = shares(log, &["a", "b"])?;
        Ok(format!("ran us and thousands of loops: {seen:?}"))
    };
    case("console", bed, guests, 20, verdict).track(steps).allow("error: ")
}

/// One that wakes each millisecond on the CPU that takes a large domain apart meanwhile: a step of that is in its way at most.
fn ends(bed: Bed) -> Case {
    let large =
        Guest { name: "large", kind: "pvh", asked: "share n=1 for=500".into(), vcpus: 1, more: "memory = 256".into() };
    let ticker =
        Guest { name: "ticker", kind: "pv", asked: "ticker period=1000".into(), vcpus: 1, more: String::new() };
    case("ends", bed, vec![ticker, large], 2, |log| lateness(log, "ticker", 10_000)).cpus(1)
}

/// One CPU alone that sleeps by MWAIT, which timers end.
fn mwait(bed: Bed) -> Case {
    let guests =
        vec![Guest { name: "ticker", kind: "pvh", asked: "ticker period=1000".into(), vcpus: 1, more: String::new() }];
    case("mwait", bed, guests, 2, |log| lateness(log, "ticker", 1000))
        .cpus(1)
        .option("mwait-idle")
        .host_says(&[&words::idle_by("MWAIT, as")])
}

/// A domain that may run on CPUs alone which are not there.
fn bad_cpus(bed: Bed) -> Case {
    let guests = vec![taker("good", "pvh", 1, "cpus = \"1\"\ncpus_soft = \"0\"")];
    let config = "name = \"bad\"\ntype = \"pvh\"\nkernel = \"guest\"\nmemory = 32\ncpus = \"5-7\"\n";
    case("bad-cpus", bed, guests, 1, |_| Ok(String::from("refused")))
        .text("bad.cfg", config)
        .host_says(&[&words::refused("bad", "cpus: v0 may run on 5-7 only, and of CPUs there are 0-1")])
        .allow("error: ")
}

/// What a decision costs, and the switch that follows, by how many virtual CPUs there are on one CPU: domains of so many.
const CROWDS: [(&str, usize, u32); 3] = [("2", 1, 2), ("64", 1, 64), ("4096", 32, 128)];

/// Virtual CPUs that only yield, so that each turn is a decision and a switch.
fn turns() -> Vec<Case> {
    CROWDS.iter().map(|&(all, domains, vcpus)| turns_of(all, domains, vcpus)).collect()
}

fn turns_of(all: &str, domains: usize, vcpus: u32) -> Case {
    let mut case = Case::new(format!("sched-turns-{all}-{}", Bed::BochsSkylake.name()), Bed::BochsSkylake)
        .memory(2048)
        .verdict(|log| {
            let turns: u64 =
                log.lines().filter_map(|line| line.trim_end().rsplit_once("TURNS ")?.1.parse::<u64>().ok()).sum();
            let ticks = BOCHS_TICKS_PER_S * u64::from(TURNS_MS) / 1000;
            let each = ticks / turns.max(1);
            let text = format!("{turns} turns, {each} instructions each, at most {TURN_AT_MOST}");
            if each <= TURN_AT_MOST { Ok(text) } else { Err(text) }
        })
        .budget(20, 300);
    for n in 0..domains {
        let name = format!("d{n}");
        let config = format!(
            "name = \"{name}\"\ntype = \"pvh\"\nkernel = \"guest\"\ncmdline = \"test=turns n={vcpus} from={} for={TURNS_MS}\"\nmemory = 16\nvcpus = {vcpus}\n",
            1000 + 250 * domains
        );
        case = case.text(&format!("{name}.cfg"), config).domain_says(&name, &["GUEST-DONE * passed, 0 failed"]);
    }
    case.file("guest", IMAGE)
}

/// The window of [`turns`], in ms.
const TURNS_MS: u32 = 1000;
/// A turn's cost, with the guest's loop, whatever the number of virtual CPUs.
const TURN_AT_MOST: u64 = 3200;
