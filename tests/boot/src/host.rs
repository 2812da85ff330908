//! The tests that run on this machine: the crates' own, formatting, lints.

use crate::report::Count;
use crate::run::{Outcome, folder};
use std::fs;
use std::io;
use std::process::{Command, Output};
use std::time::Instant;

/// The crates that need no hardware.
const CRATES: [&str; 3] = ["abi", "sync", "model"];

/// Runs them all and counts each test.
pub fn run(count: &mut Count) {
    for name in CRATES {
        crate_tests(name, &["test", "--package", name], count);
    }
    crate_tests("boot", &["test", "--manifest-path", "tests/boot/Cargo.toml"], count);
    make("fmt-check", count);
    make("clippy", count);
}

fn crate_tests(name: &str, arguments: &[&str], count: &mut Count) {
    let start = Instant::now();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let label = format!("host-{name}");
    let (wrong, passed, failed) = match Command::new(cargo).args(arguments).output() {
        Ok(output) => read_cargo(&label, &output),
        Err(error) => (Some(error.to_string()), 0, 0),
    };
    // Each test function counts; a crate whose tests do not compile counts as one that failed.
    count.passed += passed;
    count.failed += failed.max(usize::from(wrong.is_some() || passed == 0));
    let seconds = start.elapsed().as_secs_f64();
    match wrong {
        None if passed > 0 => println!("ok   {label}: {passed} tests ({seconds:.1} s)"),
        None => println!("FAIL {label}: no test was run"),
        Some(reason) => println!("FAIL {label}: {passed} passed, {failed} failed; {reason}"),
    }
}

fn read_cargo(label: &str, output: &Output) -> (Option<String>, usize, usize) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let log = keep(label, &text);
    let (passed, failed) = sums(&text);
    let wrong = (!output.status.success()).then(|| log.unwrap_or_else(|error| error.to_string()));
    (wrong, passed, failed)
}

/// Adds up the lines `test result: ok. 12 passed; 0 failed; …`.
fn sums(text: &str) -> (usize, usize) {
    let results = text.lines().filter_map(|line| line.strip_prefix("test result: "));
    results.fold((0, 0), |(passed, failed), line| (passed + before(line, " passed"), failed + before(line, " failed")))
}

fn before(line: &str, word: &str) -> usize {
    let number = line.split(word).next().and_then(|start| start.rsplit([' ', '.']).next());
    number.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn keep(label: &str, text: &str) -> io::Result<String> {
    let dir = folder(label);
    fs::create_dir_all(&dir)?;
    let log = dir.join("serial.log");
    fs::write(&log, text)?;
    Ok(format!("log: {}", log.display()))
}

fn make(target: &str, count: &mut Count) {
    let start = Instant::now();
    let wrong = match Command::new("make").args(["--no-print-directory", target]).output() {
        Ok(output) => read_cargo(target, &output).0.map(|_| "see its output".to_string()),
        Err(error) => Some(error.to_string()),
    };
    count.note(&Outcome { name: target.into(), wrong, took: start.elapsed(), instructions: None, seen: None });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_programs_add_up() {
        let text = "test result: ok. 12 passed; 0 failed; 0 ignored\nx\ntest result: FAILED. 3 passed; 2 failed; 0\n";
        assert_eq!(sums(text), (15, 2));
    }
}
