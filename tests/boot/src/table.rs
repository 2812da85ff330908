//! The whole matrix, which takes hours: what has passed is kept in a file, from which it goes on, and shown as Markdown.

use crate::linux::{self, Combination};
use crate::run::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::process::Command;

/// The combinations that passed: a line each, with the commit, the seconds that it took, and instructions where they are counted.
pub const RECORD: &str = "docs/matrix.csv";

/// The table of them.
pub const FILE: &str = "docs/matrix.md";

const HEADING: &str = "combination,commit,seconds,instructions";

/// What has passed so far, by the combination's name.
pub struct Record {
    /// The rest of each line.
    passed: BTreeMap<String, String>,
    commit: String,
}

impl Record {
    /// Reads it; without the file nothing has passed.
    pub fn read() -> Self {
        let text = fs::read_to_string(RECORD).unwrap_or_default();
        Self { passed: parse(&text), commit: commit() }
    }

    /// Whether a combination has passed.
    pub fn has(&self, name: &str) -> bool {
        self.passed.contains_key(name)
    }

    /// How many have passed.
    pub fn len(&self) -> usize {
        self.passed.len()
    }

    /// Takes a result in, and writes both files.
    pub fn note(&mut self, outcome: &Outcome) -> io::Result<()> {
        if outcome.wrong.is_some() {
            self.passed.remove(&outcome.name);
        } else {
            let instructions = outcome.instructions.map_or(String::new(), |n| n.to_string());
            let rest = format!("{},{:.1},{instructions}", self.commit, outcome.took.as_secs_f64());
            self.passed.insert(outcome.name.clone(), rest);
        }
        let lines: String = self.passed.iter().map(|(name, rest)| format!("{name},{rest}\n")).collect();
        fs::write(RECORD, format!("{HEADING}\n{lines}"))?;
        fs::write(FILE, render(&linux::matrix(), &self.passed))
    }
}

fn parse(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| *line != HEADING);
    lines.filter_map(|line| line.split_once(',')).map(|(name, rest)| (name.into(), rest.into())).collect()
}

/// The commit that is tested, as git names it.
fn commit() -> String {
    let described = Command::new("git").args(["describe", "--always"]).output();
    let described = described.ok().filter(|output| output.status.success());
    described.map_or("unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// A row for each host and kernel, a column for each shape of the first domain.
fn render(matrix: &[Combination], passed: &BTreeMap<String, String>) -> String {
    let mut table = format!("{} of {} have passed.\n\n| host | kernel | domains |", passed.len(), matrix.len());
    let shapes = [(1, 256), (1, 2048), (4, 256), (4, 2048)];
    for (vcpus, memory_mib) in shapes {
        let _ = write!(table, " {vcpus} vCPU, {memory_mib} MiB |");
    }
    table += "\n|---|---|---|---|---|---|---|\n";
    for row in matrix.chunks(shapes.len() * 2) {
        for domains in [1, 2] {
            render_row(&mut table, row, domains, passed);
        }
    }
    table
}

fn render_row(table: &mut String, row: &[Combination], domains: u32, passed: &BTreeMap<String, String>) {
    let first = &row[0];
    let host = format!("{}, {:?}, {} CPU", first.bed.name(), first.firmware, first.cpus);
    let _ = write!(table, "| {host} | {} | {domains} |", first.kernel);
    for combination in row.iter().filter(|combination| combination.domains == domains) {
        let seconds = passed.get(&combination.name()).and_then(|rest| rest.split(',').nth(1));
        let cell = seconds.map_or("not run".to_string(), |seconds| format!("{seconds} s"));
        let _ = write!(table, " {cell} |");
    }
    table.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_stands_in_its_cell() {
        let matrix = linux::matrix();
        let name = matrix[0].name();
        let passed = parse(&format!("{HEADING}\n{name},abc,12.5,7\n"));
        let table = render(&matrix, &passed);
        assert!(table.starts_with("1 of 288 have passed"));
        assert_eq!(table.matches("12.5 s").count(), 1);
        assert_eq!(table.matches("not run").count(), matrix.len() - 1);
    }
}
