//! The table of the whole matrix, as Markdown.

use crate::linux::{self, Combination};
use crate::run::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;

/// Where it is written.
pub const FILE: &str = "build/tests/matrix.md";

/// Writes the table of what has been run so far: a row for each host and kernel, a column for each shape of the first domain.
pub fn write(outcomes: &[Outcome]) -> io::Result<()> {
    let results: BTreeMap<&str, &Outcome> = outcomes.iter().map(|outcome| (outcome.name.as_str(), outcome)).collect();
    fs::write(FILE, render(&linux::matrix(), &results))
}

fn render(matrix: &[Combination], results: &BTreeMap<&str, &Outcome>) -> String {
    let mut table = String::from("| host | kernel | domains |");
    let shapes = [(1, 256), (1, 2048), (4, 256), (4, 2048)];
    for (vcpus, memory_mib) in shapes {
        let _ = write!(table, " {vcpus} vCPU, {memory_mib} MiB |");
    }
    table += "\n|---|---|---|---|---|---|---|\n";
    for row in matrix.chunks(shapes.len() * 2) {
        for domains in [1, 2] {
            render_row(&mut table, row, domains, results);
        }
    }
    table
}

fn render_row(table: &mut String, row: &[Combination], domains: u32, results: &BTreeMap<&str, &Outcome>) {
    let first = &row[0];
    let _ = write!(
        table,
        "| {}, {:?}, {} CPU | {} | {domains} |",
        first.bed.name(),
        first.firmware,
        first.cpus,
        first.kernel
    );
    for combination in row.iter().filter(|combination| combination.domains == domains) {
        let cell = match results.get(combination.name().as_str()) {
            None => "not run".to_string(),
            Some(outcome) if outcome.wrong.is_some() => "**FAIL**".to_string(),
            Some(outcome) => format!("{:.0} s", outcome.took.as_secs_f64()),
        };
        let _ = write!(table, " {cell} |");
    }
    table.push('\n');
}
