//! `make bench`: one guest measures what each operation costs, on Debian's Xen and on Euxen, from one GRUB menu.
//!
//! In Bochs with one CPU the TSC counts instructions, so the figures are exact. For each kind of domain there is a
//! table with both hypervisors as installed, and with `spec-ctrl=no xpti=no`; it is printed, and written as CSV and
//! as a plot to `docs/bench`.

use crate::bed::Bed;
use crate::case::{Case, Hypervisor};
use crate::plot;
use crate::report::{self, Count};
use crate::run;
use crate::words;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

/// Where the results are written.
const FOLDER: &str = "docs/bench";

/// A kind of domain on a kind of processor.
struct Kind {
    name: &'static str,
    title: &'static str,
    bed: Bed,
    options: &'static str,
}

const PVH: &str = "dom0=pvh dom0-iommu=none";

const KINDS: [Kind; 3] = [
    Kind { name: "pv", title: "PV", bed: Bed::BochsSkylake, options: "" },
    Kind { name: "pvh-vmx", title: "PVH on VT-x", bed: Bed::BochsSkylake, options: PVH },
    Kind { name: "pvh-svm", title: "PVH on AMD-V", bed: Bed::BochsSvm, options: PVH },
];

/// Names and options of the two settings.
const SETTINGS: [(&str, &str); 2] = [("default", ""), ("bare", "spec-ctrl=no xpti=no")];

/// What a guest measures: an addition to the boot's name, what it is asked, its virtual CPUs, and the machine's CPUs.
const PARTS: [(&str, &str, u32, u32); 3] =
    [("", "cost", 1, 1), ("-pairs", "pairs", 2, 1), ("-across", "pairs across", 2, 2)];

/// The rows of one run, in their order.
type Figures = Vec<(String, u64)>;

/// One row of a table: Xen and Euxen as installed, then both bare.
pub struct Row {
    /// The operation.
    pub name: String,
    /// Instructions: Xen, Euxen; for each setting.
    pub figures: [[Option<u64>; 2]; 2],
}

/// Runs all kinds whose name contains one of the words, prints and writes their tables; whether all ran.
pub fn run(words: &[String]) -> io::Result<bool> {
    fs::create_dir_all(FOLDER)?;
    let mut count = Count::default();
    let kinds =
        KINDS.iter().filter(|kind| words.is_empty() || words.iter().any(|word| kind.name.contains(word.as_str())));
    let kinds: Vec<&Kind> = kinds.collect();
    let cases: Vec<Case> = kinds.iter().flat_map(|kind| cases(kind)).collect();
    report::run_all(&cases, &mut count, |_| {});
    for kind in kinds {
        let rows = table(kind);
        print!("\n{}", render(kind.title, &rows));
        fs::write(Path::new(FOLDER).join(format!("{}.csv", kind.name)), csv(&rows))?;
        fs::write(Path::new(FOLDER).join(format!("{}.svg", kind.name)), plot::svg(kind.title, &rows))?;
    }
    println!();
    Ok(count.close())
}

fn name(kind: &Kind, part: &str, setting: &str, hypervisor: Hypervisor) -> String {
    let who = if hypervisor == Hypervisor::Xen { "xen" } else { "euxen" };
    format!("bench-{}-{setting}-{who}{part}", kind.name)
}

fn cases(kind: &Kind) -> Vec<Case> {
    let mut all = Vec::new();
    for (setting, options) in SETTINGS {
        for (part, asked, vcpus, cpus) in PARTS {
            for hypervisor in [Hypervisor::Xen, Hypervisor::EuxenBesideXen] {
                all.push(
                    Case::new(name(kind, part, setting, hypervisor), kind.bed)
                        .cpus(cpus)
                        .memory(1024)
                        .hypervisor(hypervisor)
                        .option(&format!("dom0_mem=64M dom0_max_vcpus={vcpus} {} {options}", kind.options))
                        .file(&format!("guest test={asked}"), "build/guest")
                        .anybody_says(&["GUEST-DONE * passed, 0 failed"])
                        .budget(30, 180),
                );
            }
        }
    }
    all
}

fn table(kind: &Kind) -> Vec<Row> {
    let runs = SETTINGS.map(|(setting, _)| {
        [Hypervisor::Xen, Hypervisor::EuxenBesideXen].map(|hypervisor| {
            let parts = PARTS.iter().map(|(part, ..)| figures(&name(kind, part, setting, hypervisor)));
            parts.flatten().collect::<Figures>()
        })
    });
    let mut rows: Vec<Row> = Vec::new();
    let mut place = BTreeMap::new();
    for (setting, run) in runs.iter().enumerate() {
        for (who, figures) in run.iter().enumerate() {
            for (name, value) in figures {
                let row = *place.entry(name.clone()).or_insert_with(|| {
                    rows.push(Row { name: name.clone(), figures: [[None; 2]; 2] });
                    rows.len() - 1
                });
                rows[row].figures[setting][who] = Some(*value);
            }
        }
    }
    rows
}

/// What a run has written as `COST name: value`; nothing if it failed before.
fn figures(case: &str) -> Figures {
    let log = fs::read(run::folder(case).join("serial.log")).unwrap_or_default();
    String::from_utf8_lossy(&log).lines().filter_map(cost).collect()
}

/// What a line `COST name: value` says.
pub fn cost(line: &str) -> Option<(String, u64)> {
    let (name, value) = words::split(line.trim_end()).1.strip_prefix("COST ")?.rsplit_once(": ")?;
    Some((name.to_string(), value.trim().parse().ok()?))
}

fn ratio(pair: &[Option<u64>; 2]) -> Option<f64> {
    match pair {
        [Some(xen @ 1..), Some(euxen)] => Some(*euxen as f64 / *xen as f64),
        _ => None,
    }
}

fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn render(title: &str, rows: &[Row]) -> String {
    let mut text = format!(
        "{title}: instructions\n{:60} {:>8} {:>8} {:>6}   {:>8} {:>8} {:>6}\n",
        "operation", "Xen", "Euxen", "ratio", "Xen bare", "Euxen", "ratio"
    );
    for row in rows {
        let _ = write!(text, "{:60}", row.name);
        for pair in &row.figures {
            let ratio = cell(ratio(pair).map(|ratio| format!("{ratio:.2}")));
            let _ = write!(text, " {:>8} {:>8} {ratio:>6}  ", cell(pair[0]), cell(pair[1]));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn csv(rows: &[Row]) -> String {
    let mut text = String::from("operation,xen,euxen,ratio,xen bare,euxen bare,ratio bare\n");
    for row in rows {
        let _ = write!(text, "\"{}\"", row.name);
        for pair in &row.figures {
            let value = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
            let ratio = ratio(pair).map_or(String::new(), |ratio| format!("{ratio:.3}"));
            let _ = write!(text, ",{},{},{ratio}", value(pair[0]), value(pair[1]));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_read_with_and_without_a_domains_name() {
        let wanted = Some(("CPUID exit, leaf 1".to_string(), 913));
        assert_eq!(cost("COST CPUID exit, leaf 1: 913\r"), wanted);
        assert_eq!(cost("(Domain-0) COST CPUID exit, leaf 1: 913"), wanted);
        assert_eq!(cost("(XEN) CPUID: 913"), None);
    }

    #[test]
    fn a_row_that_one_side_lacks_has_no_ratio() {
        let rows = [Row { name: "x".into(), figures: [[Some(200), Some(50)], [Some(100), None]] }];
        assert_eq!(csv(&rows).lines().nth(1), Some("\"x\",200,50,0.250,100,,"));
    }
}
