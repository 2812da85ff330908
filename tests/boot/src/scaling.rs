//! `make scaling`: what operations cost when several domains do the same at once, and what a domain costs.
//!
//! One, two and four domains in Bochs, each on a CPU of its own, and up to 64 on one CPU, one after the other. What serialises would show as
//! more ticks where there are more domains. The boots with as many CPUs as domains are repeated with the image that counts
//! locks. The table is printed, and written as CSV to `docs/bench/scaling.csv`.

use crate::bed::Bed;
use crate::bench;
use crate::case::Case;
use crate::expect::Step;
use crate::report::{self, Count};
use crate::run;
use crate::sched;
use crate::words::{self, Speaker};
use std::fmt::Write;
use std::fs;
use std::io;

const FILE: &str = "docs/bench/scaling.csv";
const LOCKS: &str = "build/euxen-locks";

const TICKS_PER_S: u64 = 40_000_000;
/// Of a domain.
const MEMORY_MIB: u64 = 16;

/// A kind of domain on a kind of processor.
struct Kind {
    name: &'static str,
    of_domain: &'static str,
    bed: Bed,
}

const KINDS: [Kind; 3] = [
    Kind { name: "pv", of_domain: "pv", bed: Bed::BochsSkylake },
    Kind { name: "pvh-vmx", of_domain: "pvh", bed: Bed::BochsSkylake },
    Kind { name: "pvh-svm", of_domain: "pvh", bed: Bed::BochsSvm },
];

/// So many domains on so many CPUs.
#[derive(Clone, Copy, PartialEq)]
struct Load {
    domains: u32,
    cpus: u32,
}

const LOADS: [Load; 6] = [
    Load { domains: 1, cpus: 1 },
    Load { domains: 2, cpus: 2 },
    Load { domains: 4, cpus: 4 },
    Load { domains: 2, cpus: 1 },
    Load { domains: 16, cpus: 1 },
    Load { domains: 64, cpus: 1 },
];

impl Load {
    fn name(self) -> String {
        format!("{} on {}", self.domains, self.cpus)
    }

    /// Of the machine: enough for all domains, and two sizes.
    fn memory_mib(self) -> u32 {
        if self.domains > self.cpus { 1536 } else { 512 }
    }
}

/// A row: the kind, what it tells, and its value for each load.
type Row = (&'static str, String, [Option<u64>; LOADS.len()]);

/// Runs all kinds whose name contains one of the words, prints and writes the table; whether all ran.
pub fn run(words: &[String]) -> io::Result<bool> {
    let wanted = |kind: &&Kind| words.is_empty() || words.iter().any(|word| kind.name.contains(word.as_str()));
    let kinds: Vec<&Kind> = KINDS.iter().filter(wanted).collect();
    let mut count = Count::default();
    let cases: Vec<Case> = kinds.iter().flat_map(|kind| cases(kind)).collect();
    report::run_all(&cases, &mut count, |_| {});
    let rows: Vec<Row> = kinds.iter().flat_map(|kind| table(kind)).collect();
    print!("\n{}\n", render(&rows));
    fs::write(FILE, csv(&rows))?;
    Ok(count.close())
}

fn cases(kind: &Kind) -> Vec<Case> {
    let with_locks = LOADS.into_iter().filter(|load| load.domains == load.cpus);
    let plain = LOADS.map(|load| case(kind, load, false));
    plain.into_iter().chain(with_locks.map(|load| case(kind, load, true))).collect()
}

fn case_name(kind: &Kind, load: Load, locks: bool) -> String {
    let counting = if locks { "-locks" } else { "" };
    format!("scaling-{}-{}on{}{counting}", kind.name, load.domains, load.cpus)
}

fn case(kind: &Kind, load: Load, locks: bool) -> Case {
    let mut case = Case::new(case_name(kind, load, locks), kind.bed)
        .cpus(load.cpus)
        .memory(load.memory_mib())
        .ticks_per_s(TICKS_PER_S)
        .budget(20, 600);
    for number in 1..=load.domains {
        let name = format!("d{number}");
        case = case
            .text(&format!("{name}.cfg"), config(kind, load, number, locks))
            .never(&name, "FAIL ")
            .domain_says(&name, &["GUEST-DONE * passed, 0 failed"])
            .host_says(&[&words::destroyed(&name)]);
    }
    if locks {
        case = case.image(LOCKS).track(keys(load));
    }
    case.file("guest", "build/guest")
}

fn config(kind: &Kind, load: Load, number: u32, locks: bool) -> String {
    let (cpu, turn) = ((number - 1) % load.cpus, (number - 1) / load.cpus);
    let sharers = load.domains.div_ceil(load.cpus);
    // All have been made by then; a person at the console, whose time is not the machine's, needs more.
    let from_ms = if locks { 4000 } else { 1000 + 300 * load.domains };
    let mut asked = format!("scaling from={from_ms} phase=80 turn={turn} sharers={sharers}");
    if load.domains > 1 && sharers == 1 {
        let (is_first, peer) = (number % 2 == 1, number - 1 + 2 * (number % 2));
        asked += &format!(" peer={peer}{}", if is_first { " first" } else { "" });
    }
    if locks {
        asked += if number == 1 { " busy tells" } else { " busy" };
    }
    format!(
        "name = \"d{number}\"\ntype = \"{}\"\nkernel = \"guest\"\ncmdline = \"test={asked}\"\nmemory = {MEMORY_MIB}\nvcpus = 1\ncpus = \"{cpu}\"\n",
        kind.of_domain
    )
}

/// The last place of the lock order, with which the hypervisor's list ends.
const LAST_PLACE: &str = "Console: taken";

/// The key that tells of locks, before anything is measured and when all is.
fn keys(load: Load) -> Vec<Step> {
    let see = |text: &str| Step::See(Some(Speaker::Host), text.into());
    let names: Vec<String> = (1..=load.domains).map(|number| format!("d{number}")).collect();
    let mut steps = sched::to_the_host(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let press = [Step::Type("k".into()), see(LAST_PLACE)];
    steps.extend(press.clone());
    steps.push(Step::See(Some(Speaker::Domain("d1".into())), "SCALING measured".into()));
    steps.extend(press);
    steps
}

fn log(kind: &Kind, load: Load, locks: bool) -> String {
    let log = fs::read(run::folder(&case_name(kind, load, locks)).join("serial.log")).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

fn table(kind: &Kind) -> Vec<Row> {
    let plain = LOADS.map(|load| log(kind, load, false));
    let locked = LOADS.map(|load| if load.domains == load.cpus { log(kind, load, true) } else { String::new() });
    let per_frame = |log: &String| of_frames(&plain[0], log).into_iter().collect();
    let parts = [
        plain.each_ref().map(|log| costs(log)),
        plain.each_ref().map(|log| of_domains(log)),
        plain.each_ref().map(per_frame),
        locked.each_ref().map(|log| locks(log)),
    ];
    let mut rows: Vec<Row> = Vec::new();
    for (column, (name, value)) in parts.into_iter().flat_map(|loads| (0..).zip(loads)).flat_map(in_column) {
        let at = rows.iter().position(|row| row.1 == name).unwrap_or_else(|| {
            rows.push((kind.name, name, [None; LOADS.len()]));
            rows.len() - 1
        });
        rows[at].2[column] = Some(value);
    }
    rows
}

/// A row's name and its value for one load.
type Seen = (String, u64);

fn in_column((column, seen): (usize, Vec<Seen>)) -> impl Iterator<Item = (usize, Seen)> {
    seen.into_iter().map(move |seen| (column, seen))
}

/// What each operation costs in the domain in which it costs most.
fn costs(log: &str) -> Vec<Seen> {
    let mut worst: Vec<Seen> = Vec::new();
    for (name, ticks) in log.lines().filter_map(bench::cost) {
        match worst.iter_mut().find(|(known, _)| *known == name) {
            Some((_, most)) => *most = ticks.max(*most),
            None => worst.push((name, ticks)),
        }
    }
    worst
}

/// The numbers that stand before these words in the hypervisor's lines, in their order.
fn numbers_before(log: &str, words: &str) -> Vec<u64> {
    let hosts = log.lines().filter_map(|line| match words::split(line.trim_end()) {
        (Some(Speaker::Host), text) => Some(text),
        _ => None,
    });
    hosts.filter_map(|text| text.split_once(words)?.0.rsplit([' ', ':']).next()?.parse().ok()).collect()
}

/// What the making of a domain takes, and its memory beyond what it was given: of all after the first, their mean.
fn of_domains(log: &str) -> Vec<Seen> {
    let made = numbers_before(log, " ticks after the first instruction");
    let before = numbers_before(log, " KiB free before the first domain");
    let after = numbers_before(log, " KiB free");
    let mut seen = Vec::new();
    if let [first, .., last] = made[..] {
        seen.push(("making of a domain, ticks".into(), (last - first) / (made.len() as u64 - 1)));
    }
    // The first line is that before the first domain; the second, that of the first which is gone.
    if let ([free], [_, one_gone, ..], others @ 1..) = (&before[..], &after[..], made.len() as u64 - 1) {
        seen.push(("memory of a domain beyond its own, KiB".into(), (free - one_gone) / others - MEMORY_MIB * 1024));
    }
    seen
}

/// What the hypervisor needs for each frame of RAM, by what it has left on machines with less and with more.
fn of_frames(small: &str, large: &str) -> Option<Seen> {
    let seen = [small, large].map(|log| {
        let ram_mib = numbers_before(log, " MiB of RAM");
        let free_kib = numbers_before(log, " KiB free before the first domain");
        Some((ram_mib.first()? * 1024, *free_kib.first()?))
    });
    let [(less, less_free), (more, more_free)] = [seen[0]?, seen[1]?];
    let used_kib = (more.checked_sub(less)?).checked_sub(more_free.checked_sub(less_free)?)?;
    (more > less)
        .then(|| ("the hypervisor's memory for a frame of RAM, bytes".into(), used_kib * 1024 / ((more - less) / 4)))
}

/// What the hypervisor told of its locks when all had been measured.
fn locks(log: &str) -> Vec<Seen> {
    let Some((_, told)) = log.split_once("SCALING measured") else { return Vec::new() };
    let mut seen = Vec::new();
    for line in told.lines().filter(|line| line.contains(": taken ")) {
        let Some((place, numbers)) = words::split(line.trim_end()).1.split_once(": ") else { continue };
        let numbers: Vec<u64> =
            numbers.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
        if let [taken @ (1..), missed, spins, ticks] = numbers[..] {
            let row = |what: &str| format!("{place} locks: {what}");
            seen.extend([
                (row("taken"), taken),
                (row("looks while waiting"), spins),
                (row("longest hold, ticks"), ticks),
            ]);
            if missed != 0 {
                seen.push((row("tried in vain"), missed));
            }
        }
    }
    seen
}

fn cell(value: Option<u64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

fn render(rows: &[Row]) -> String {
    let mut text = format!("{:8} {:50}", "", "domains on CPUs");
    LOADS.iter().for_each(|load| _ = write!(text, " {:>9}", load.name()));
    text.push('\n');
    for (kind, name, values) in rows {
        let _ = write!(text, "{kind:8} {name:50}");
        values.iter().for_each(|value| _ = write!(text, " {:>9}", cell(*value)));
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn csv(rows: &[Row]) -> String {
    let mut text = String::from("domain,what");
    LOADS.iter().for_each(|load| _ = write!(text, ",{}", load.name()));
    text.push('\n');
    for (kind, name, values) in rows {
        let _ = write!(text, "{kind},\"{name}\"");
        values.iter().for_each(|value| _ = write!(text, ",{}", cell(*value)));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_domain_costs_is_that_of_all_after_the_first() {
        let log = "(euxen) 500000 KiB free before the first domain\n\
                   (euxen) (d1) d1: 16 MiB, 1 virtual CPU, 1000 ticks after the first instruction\n\
                   (euxen) (d2) d2: 16 MiB, 1 virtual CPU, 1500 ticks after the first instruction\n\
                   (euxen) (d1) is destroyed; 483516 KiB free\n\
                   (euxen) (d2) is destroyed; 499900 KiB free\n";
        let wanted = [("making of a domain, ticks", 500), ("memory of a domain beyond its own, KiB", 100)];
        assert_eq!(of_domains(log), wanted.map(|(name, value)| (name.to_string(), value)));
    }

    #[test]
    fn what_a_frame_costs_is_the_difference_of_two_machines() {
        let less = "(euxen) 511 MiB of RAM, 500 MiB free\n(euxen) 512000 KiB free before the first domain\n";
        let more = "(euxen) 1535 MiB of RAM, 1514 MiB free\n(euxen) 1550336 KiB free before the first domain\n";
        assert_eq!(of_frames(less, more).map(|(_, bytes)| bytes), Some(40));
        assert_eq!(of_frames(less, less), None);
    }

    #[test]
    fn of_several_domains_the_dearest_counts() {
        assert_eq!(costs("(d1) COST x: 5\n(d2) COST x: 7\n(d3) COST x: 6\n"), [("x".to_string(), 7)]);
    }

    #[test]
    fn locks_are_those_told_after_all_was_measured() {
        let log = "(euxen)   Heap: taken 9, missed 0, spins 0, held for at most 9 ticks\n(d1) SCALING measured\n\
                   (euxen)   Vcpu: taken 2, missed 1, spins 30, held for at most 400 ticks\n\
                   (euxen)   Heap: taken 0, missed 0, spins 0, held for at most 0 ticks\n";
        assert_eq!(locks(log).iter().map(|(_, value)| *value).collect::<Vec<_>>(), [2, 30, 400, 1]);
    }
}
