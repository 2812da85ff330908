//! `make writes`: which words of memory two CPUs both write while domains of their own do the same operation on each.
//!
//! A plugin of QEMU (`tests/writes`) sees every store of the hypervisor's. Two domains, each pinned to a CPU, run the guest's
//! `scaling` test; a word counts if it is stored to at least every other time that the operation is done. Those that only one
//! CPU writes cost the other nothing, unless the other writes to the same line of the cache: such lines are counted too. The table is printed, and written to `docs/bench/writes.csv`.

use crate::bed::Bed;
use crate::case::Case;
use crate::report::{self, Count};
use crate::run;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::io;
use std::process::Command;

const FILE: &str = "docs/bench/writes.csv";
const KINDS: [&str; 2] = ["pv", "pvh"];

/// The guest's operations in their order, and how often each is done.
const OPERATIONS: [(&str, u64); 9] = [
    ("empty hypercall", 1000),
    ("set_timer_op, 1000 s ahead", 1000),
    ("event to itself", 1000),
    ("yield, nobody waits", 1000),
    ("CPUID", 1000),
    ("update_va_mapping, UVMF_INVLPG", 1000),
    ("mmu_update, one L1 entry", 1000),
    ("event to the other of a pair, pending", 1000),
    ("event to the other of a pair, asleep, and back", 100),
];

/// What no two CPUs write, and is not counted: memory of the PV domain that a CPU has loaded, which is another's at the same address, and a block for
/// each CPU of stacks, task state and stubs (docs/architecture.md).
const OWN: [std::ops::Range<u64>; 2] =
    [0xffff_8200_0000_0000..0xffff_8280_0000_0000, 0xffff_8280_0000_0000..0xffff_82d0_0000_0000];
/// Where the image begins.
const IMAGE: u64 = 0xffff_82d0_4000_0000;
/// Of a cache.
const LINE: u64 = 64;
/// The hypervisor's half.
const HALF: u64 = 0xffff_8000_0000_0000;

/// A word that was stored to: by which operation, how often by each CPU, how often atomically, and by which instruction last.
struct Word {
    operation: u64,
    address: u64,
    stores: [u64; 2],
    atomic: u64,
    by: u64,
}

/// Runs both kinds of domain, prints and writes the table; whether all ran.
pub fn run() -> io::Result<bool> {
    let mut count = Count::default();
    report::run_all(&KINDS.map(case), &mut count, |_| {});
    let symbols = symbols()?;
    let mut text =
        String::from("domain,operation,words of one CPU,words of both,other lines of both,which words,which lines\n");
    for kind in KINDS {
        text += &table(
            kind,
            &words(&fs::read_to_string(run::folder(&name(kind)).join("writes")).unwrap_or_default()),
            &symbols,
        );
    }
    print!("\n{text}\n");
    fs::write(FILE, text)?;
    Ok(count.close())
}

fn name(kind: &str) -> String {
    format!("writes-{kind}")
}

fn case(kind: &str) -> Case {
    let mut case = Case::new(name(kind), Bed::QemuSvm).cpus(2).memory(512).budget(1, 300);
    case.host.plugin = Some("tests/writes/target/release/libwrites.so");
    for (number, peer, first) in [(1, 2, " first"), (2, 1, "")] {
        let config = format!(
            "name = \"d{number}\"\ntype = \"{kind}\"\nkernel = \"guest\"\ncmdline = \"test=scaling from=15000 phase=2000 peer={peer}{first}\"\nmemory = 16\nvcpus = 1\ncpus = \"{}\"\n",
            number - 1
        );
        case = case.text(&format!("d{number}.cfg"), config).domain_says(
            &format!("d{number}"),
            &["PASS all was measured in its time", "GUEST-DONE * passed, 0 failed"],
        );
    }
    case.file("guest", "build/guest")
}

fn words(text: &str) -> Vec<Word> {
    let word = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [operation, address, first, second, atomic, by] = fields[..] else { return None };
        let number = |text: &str| text.parse().ok();
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        Some(Word {
            operation: number(operation)?,
            address: hex(address)?,
            stores: [number(first)?, number(second)?],
            atomic: number(atomic)?,
            by: hex(by)?,
        })
    };
    text.lines().filter_map(word).collect()
}

/// Names of the hypervisor's image by their addresses.
fn symbols() -> io::Result<BTreeMap<u64, String>> {
    let output = Command::new("nm").args(["-C", "--defined-only", "build/euxen"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let symbol = |line: &str| {
        let (address, rest) = line.split_once(' ')?;
        Some((u64::from_str_radix(address, 16).ok()?, rest.split_once(' ')?.1.to_string()))
    };
    Ok(text.lines().filter_map(symbol).collect())
}

/// The symbol that an address belongs to.
fn at(symbols: &BTreeMap<u64, String>, address: u64) -> Option<&str> {
    let is_in = address >= IMAGE && symbols.last_key_value().is_some_and(|(last, _)| address < *last);
    let below = symbols.range(..=address).next_back();
    below.filter(|_| is_in).map(|(_, name)| name.as_str())
}

fn table(kind: &str, words: &[Word], symbols: &BTreeMap<u64, String>) -> String {
    let mut text = String::new();
    for (number, (name, many)) in (1..).zip(OPERATIONS) {
        let often = |stores: u64| stores * 2 >= many;
        let is_own = |word: &Word| word.address < HALF || OWN.iter().any(|own| own.contains(&word.address));
        let here: Vec<&Word> = words
            .iter()
            .filter(|word| word.operation == number && !is_own(word) && word.stores.iter().any(|&n| often(n)))
            .collect();
        let is_of_both = |word: &&&Word| word.stores.iter().all(|&stores| often(stores));
        let both: Vec<&Word> = here.iter().filter(is_of_both).copied().collect();
        let lines = [0, 1].map(|cpu| {
            let of_cpu = here.iter().filter(|word| often(word.stores[cpu]));
            of_cpu.map(|word| word.address / LINE).collect::<BTreeSet<u64>>()
        });
        let lines: Vec<&Word> = lines[0]
            .intersection(&lines[1])
            .filter(|&&line| both.iter().all(|word| word.address / LINE != line))
            .filter_map(|line| here.iter().find(|word| word.address / LINE == *line).copied())
            .collect();
        if !here.is_empty() {
            let (which, beside) = (describe(&both, symbols), describe(&lines, symbols));
            let _ = writeln!(
                text,
                "{kind},\"{name}\",{},{},{},\"{which}\",\"{beside}\"",
                here.len() - both.len(),
                both.len(),
                lines.len()
            );
        }
    }
    text
}

/// What the words belong to and who writes there, how many of each.
fn describe(words: &[&Word], symbols: &BTreeMap<u64, String>) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for word in words {
        let place = at(symbols, word.address).unwrap_or("an object");
        let how = if word.atomic != 0 { "atomically " } else { "" };
        let by = at(symbols, word.by).unwrap_or("a function");
        *kinds.entry(format!("{place} {how}by {by}")).or_default() += 1;
    }
    kinds.iter().map(|(kind, count)| format!("{count} of {kind}")).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_both_cpus_write_are_named() {
        let text = "1 ffff82d040000010 1000 1000 2000 ffff82d040000104\n1 ffff82d040000020 1000 0 0 ffff82d040000104\n\
                    1 ffff828000000020 1000 1000 0 ffff82d040000104\n1 ffff82d040000018 3 900 0 ffff82d040000104\n\
                    2 ffff82d040000000 1000 0 0 ffff82d040000104\n2 ffff82d040000038 0 1000 0 ffff82d040000104\n";
        let symbols: BTreeMap<u64, String> =
            [(0xffff_82d0_4000_0000, "LIST"), (0xffff_82d0_4000_0100, "send"), (0xffff_82d0_4000_0200, "end")]
                .map(|(address, name)| (address, name.to_string()))
                .into();
        let wanted = "pv,\"empty hypercall\",2,1,0,\"1 of LIST atomically by send\",\"\"\n\
                      pv,\"set_timer_op, 1000 s ahead\",2,0,1,\"\",\"1 of LIST by send\"\n";
        assert_eq!(table("pv", &words(text), &symbols), wanted);
    }
}
