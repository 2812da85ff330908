//! Boots the hypervisor in emulators and checks what its serial port says.
//!
//! `run BED ISO`, `test [WORD…]`, `boot-test [WORD…]`, `test-all [WORD…]`, `xen-test [WORD…]`, `bench [WORD…]`,
//! `scaling [WORD…]`, `writes`, `list`: run from the root of the repository, by its Makefile. Words pick the boots whose name contains one of them.

mod bad;
mod bed;
mod bench;
mod case;
mod expect;
mod figures;
mod guests;
mod host;
mod image;
mod linux;
mod linux_pv;
mod machine;
mod plot;
mod pv;
mod report;
mod run;
mod scaling;
mod sched;
mod spec_ctrl;
mod table;
mod terminal;
mod topology;
mod words;
mod writes;
mod xen;

use case::Case;
use report::Count;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words = arguments.get(1..).unwrap_or(&[]);
    match arguments.first().map(String::as_str) {
        Some("run") => run_here(words),
        Some("test") => tests(true, words),
        Some("boot-test") => tests(false, words),
        Some("test-all") => matrix(words),
        Some("xen-test") => xen_tests(words),
        Some("bench") => measured(bench::run(words)),
        Some("writes") => measured(writes::run()),
        Some("scaling") => measured(scaling::run(words)),
        Some("figures") => figures(),
        Some("list") => {
            boots().iter().for_each(|case| println!("{}", case.name));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "usage: boot run BED ISO | test [WORD...] | boot-test [WORD...] | test-all [WORD...] | xen-test [WORD...] | bench [WORD...] | scaling [WORD...] | writes | list"
            );
            ExitCode::from(2)
        }
    }
}

fn figures() -> ExitCode {
    match figures::print() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the sources cannot be read: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The boots of `make test`, the quick ones first.
fn boots() -> Vec<Case> {
    let combinations = linux::covering().iter().map(linux::Combination::case).collect();
    [
        guests::cases(),
        pv::cases(),
        bad::cases(),
        spec_ctrl::cases(),
        sched::cases(),
        topology::cases(),
        linux::lives(),
        linux_pv::cases(),
        combinations,
    ]
    .concat()
}

fn picked(cases: Vec<Case>, words: &[String]) -> Vec<Case> {
    let wanted = |case: &Case| words.is_empty() || words.iter().any(|word| case.name.contains(word));
    cases.into_iter().filter(wanted).collect()
}

fn tests(with_host: bool, words: &[String]) -> ExitCode {
    let mut count = Count::default();
    if with_host && words.is_empty() {
        host::run(&mut count);
    }
    report::run_all(&picked(boots(), words), &mut count, |_| ());
    exit(&count)
}

fn matrix(words: &[String]) -> ExitCode {
    let mut count = Count::default();
    let mut record = table::Record::read();
    let mut cases = picked(linux::matrix().iter().map(linux::Combination::case).collect(), words);
    if words.is_empty() && record.len() > 0 {
        cases.retain(|case| !record.has(&case.name));
        println!("-- {} passed before and are left out; delete {} to begin anew", record.len(), table::RECORD);
        if cases.is_empty() {
            return ExitCode::SUCCESS;
        }
    }
    report::run_all(&spread(cases), &mut count, |outcome| {
        if let Err(error) = record.note(outcome) {
            eprintln!("the record of the matrix cannot be written: {error}");
        }
    });
    println!("-- the table is in {}", table::FILE);
    exit(&count)
}

/// The cases in an order that sees something of everything early.
fn spread(cases: Vec<Case>) -> Vec<Case> {
    let mut rounds: [Vec<Case>; 37] = std::array::from_fn(|_| Vec::new());
    for (number, case) in cases.into_iter().enumerate() {
        rounds[number % 37].push(case);
    }
    rounds.into_iter().flatten().collect()
}

fn xen_tests(words: &[String]) -> ExitCode {
    let mut count = Count::default();
    report::run_all(&picked(xen::cases(), words), &mut count, |_| {});
    exit(&count)
}

fn measured(outcome: std::io::Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot write the results: {error}");
            ExitCode::FAILURE
        }
    }
}

fn exit(count: &Count) -> ExitCode {
    if count.close() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_here(words: &[String]) -> ExitCode {
    let [bed, iso] = words else {
        eprintln!("usage: boot run qemu|bochs-vmx|bochs-svm ISO");
        return ExitCode::from(2);
    };
    let Some(bed) = bed::Bed::for_run(bed) else {
        eprintln!("no bed is called {bed}: qemu, bochs-vmx, bochs-svm");
        return ExitCode::from(2);
    };
    match terminal::run(bed, Path::new(iso)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot run {}: {error}", bed.name());
            ExitCode::FAILURE
        }
    }
}
