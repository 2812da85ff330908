//! Where busy domains run on machines whose CPUs are not all alike: threads of cores, and NUMA nodes.

use crate::bed::Bed;
use crate::case::{Case, Verdict};
use crate::sched::{at_the_console, case, shares, taker};
use crate::words::{self, Speaker};

const SECONDS: u32 = 4;

/// All of them.
pub fn cases() -> Vec<Case> {
    vec![two_on_cores(), four_on_threads(), nodes()]
}

/// The CPU of each domain's first virtual CPU, by the last list at the console.
fn places(log: &str, names: &[&str]) -> Result<Vec<u32>, String> {
    let place = |name: &&str| {
        let hosts = log.lines().rev().filter_map(|line| match words::split(line.trim_end()) {
            (Some(Speaker::Host), text) => text.split_once(&format!("({name}) v0: ")),
            _ => None,
        });
        let found = hosts.filter_map(|(_, text)| text.split_once("on cpu")?.1.split(',').next()?.parse().ok()).next();
        found.ok_or_else(|| format!("no list says where {name} is"))
    };
    names.iter().map(place).collect()
}

/// Whether all domains had whole CPUs, and all at once those that are wanted: `of` gives what must differ of them.
fn apart(log: &str, names: &[&str], of: fn(u32) -> u32) -> Result<String, String> {
    let (places, shares) = (places(log, names)?, shares(log, names)?);
    let mut seen: Vec<u32> = places.iter().map(|&cpu| of(cpu)).collect();
    seen.sort_unstable();
    seen.dedup();
    let text = format!("on CPUs {places:?}, us and thousands of loops {shares:?}");
    let whole = u64::from(SECONDS) * 1_000_000 * 98 / 100;
    let all_whole = shares.iter().all(|[ran_us, _]| *ran_us >= whole);
    if seen.len() == names.len() && all_whole { Ok(text) } else { Err(text) }
}

/// Each of these has one virtual CPU, which may run on these CPUs. The AMD processor of Bochs does not tell of threads.
fn on_threads(name: &str, cpus: u32, guests: &[(&'static str, &str)], verdict: Verdict) -> Case {
    let names: Vec<&str> = guests.iter().map(|(name, _)| *name).collect();
    let takers = guests.iter().map(|(name, cpus)| taker(name, "pvh", 1, &format!("cpus = \"{cpus}\""))).collect();
    let last = format!("({}) v0: Running, on cpu", names[names.len() - 1]);
    let lists = [("vcpu-list", last.as_str()); 3];
    case(name, Bed::BochsSkylake, takers, SECONDS, verdict).cpus(cpus).threads(2).track(at_the_console(&names, &lists))
}

/// Of three cores with the CPUs 0 and 1, 2 and 3, 4 and 5 the third has a domain that is busy. Another goes to the second,
/// though on a machine without threads it goes to CPU 4.
fn two_on_cores() -> Case {
    on_threads("cores", 6, &[("a", "5"), ("b", "2,4")], |log| apart(log, &["a", "b"], |cpu| cpu / 2))
}

/// Four on two cores, which take all threads.
fn four_on_threads() -> Case {
    let guests = ["a", "b", "c", "d"].map(|name| (name, "all"));
    on_threads("threads", 4, &guests, |log| apart(log, &["a", "b", "c", "d"], |cpu| cpu))
}

/// Domains that are kept to one of two NUMA nodes: CPUs 0 and 1, 2 and 3.
fn nodes() -> Case {
    let guests = vec![taker("low", "pvh", 1, "cpus = \"node:0\""), taker("high", "pvh", 1, "cpus = \"nodes:1\"")];
    let lists =
        [("vcpu-list low", "(low) v0: * hard 0-1, soft all"), ("vcpu-list high", "(high) v0: * hard 2-3, soft all")];
    let verdict: Verdict = |log| match places(log, &["low", "high"])?[..] {
        [low @ 0..=1, high @ 2..=3] => Ok(format!("on CPUs {low}, {high}")),
        ref places => Err(format!("on CPUs {places:?}")),
    };
    case("nodes", Bed::QemuSvm, guests, SECONDS, verdict)
        .cpus(4)
        .nodes(2)
        .host_says(&["2 NUMA nodes by the SRAT"])
        .track(at_the_console(&["low", "high"], &lists))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_list_says_where_a_domain_is() {
        let log = "(euxen)   d1 (a) v0: Running, on cpu1, ran 0.784 s, hard all, soft all\n\
                   (euxen)   d1 (a) v0: Running, on cpu3, ran 1.784 s, hard all, soft all\n\
                   (euxen)   d2 (b) v0: Blocked, on no CPU, ran 1.784 s, hard all, soft all\n";
        assert_eq!(places(log, &["a"]), Ok(vec![3]));
        assert!(places(log, &["a", "b"]).is_err());
    }
}
