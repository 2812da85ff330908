//! Holds `docs/abi.md` against the code: the numbers and names of this crate, the hypercalls that the kernel has, and
//! the operations that its handlers name.
//!
//! All of them are read as text, so that nothing of the bare machine has to be compiled. A table's row is
//! `| number | `name` | ... |`; the column that holds one of [`STATES`] is its state.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files of this crate with constants that the document lists.
const SOURCES: [&str; 12] = [
    "callback.rs",
    "event_channel.rs",
    "grant_table.rs",
    "hvm_op.rs",
    "hvm_params.rs",
    "memory.rs",
    "physdev.rs",
    "platform.rs",
    "sched.rs",
    "vcpu.rs",
    "version.rs",
    "xen.rs",
];

/// Beginnings of the names that the document lists.
const PREFIXES: [&str; 16] = [
    "CALLBACKOP_",
    "CONSOLEIO_",
    "EVTCHNOP_",
    "GNTTABOP_",
    "HVMOP_",
    "HVM_PARAM_",
    "MMUEXT_",
    "PHYSDEVOP_",
    "SCHEDOP_",
    "VCPUOP_",
    "VMASST_CMD_",
    "VMASST_TYPE_",
    "XENMAPSPACE_",
    "XENMEM_",
    "XENPF_",
    "XENVER_",
];

/// Names that begin like those and are no operations.
const OTHERS: [&str; 5] =
    ["HVM_PARAM_CALLBACK_IRQ_TYPE", "HVM_PARAM_CALLBACK_TYPE", "MMUEXT_OP", "XENMEM_RESOURCE_", "XENPF_ACPI_SLEEP_"];

const STATES: [&str; 3] = ["built", "refused", "not built"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A row of a table: its number, its name in upper case, its state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    number: u64,
    name: String,
    state: String,
}

/// The rows of `docs/abi.md` that have a number, a name and a state.
fn rows() -> Vec<Row> {
    text("docs/abi.md").lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
    let state = cells.iter().find(|cell| STATES.contains(cell))?;
    Some(Row {
        number: cells[0].parse().ok()?,
        name: cells[1].trim_matches('`').to_uppercase(),
        state: (*state).to_string(),
    })
}

fn is_operation(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !OTHERS.iter().any(|other| name.starts_with(other))
}

/// The plain numbers among the constants of a source.
fn constants(source: &str) -> impl Iterator<Item = (String, u64)> + '_ {
    source.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("pub const ")?.split_once(": ")?;
        let (_, value) = rest.strip_suffix(';')?.split_once(" = ")?;
        Some((name.to_string(), value.parse().ok()?))
    })
}

/// The numbers of `nr.rs` by name.
fn numbers() -> BTreeMap<String, u64> {
    constants(&text("src/abi/nr.rs")).filter(|(name, _)| name != "COUNT").collect()
}

/// The rows of the table of hypercalls.
fn hypercalls() -> Vec<Row> {
    rows().into_iter().filter(|row| !is_operation(&row.name)).collect()
}

/// The table of hypercalls in the kernel: `entry(nr::NAME, "name", handler)`.
fn kernel_table() -> BTreeSet<(u64, String)> {
    let numbers = numbers();
    let table = text("src/kernel/hypercall/table.rs");
    let entries = table.lines().filter_map(|line| {
        let (constant, rest) = line.trim().strip_prefix("entry(nr::")?.split_once(", \"")?;
        let (name, _) = rest.split_once('"')?;
        Some((numbers[constant], name.to_uppercase()))
    });
    entries.collect()
}

/// The words of all files that handle hypercalls.
fn words_of_handlers() -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for folder in ["src/kernel/hypercall", "src/kernel/pv"] {
        add_words(&root().join(folder), &mut words);
    }
    words
}

fn add_words(folder: &Path, words: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("the kernel's hypercalls are there") {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() {
            add_words(&path, words);
            continue;
        }
        let source = fs::read_to_string(path).expect("a source can be read");
        words.extend(source.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_string));
    }
}

#[test]
fn every_hypercall_number_is_listed_once_and_in_order() {
    let listed: Vec<u64> = hypercalls().iter().map(|row| row.number).collect();
    assert_eq!(listed, (0..56).collect::<Vec<_>>());
}

#[test]
fn every_hypercall_has_the_name_of_its_number() {
    let numbers = numbers();
    let mut unnamed: BTreeSet<u64> = (0..56).collect();
    numbers.values().for_each(|number| {
        unnamed.remove(number);
    });
    for row in hypercalls() {
        if row.name == "NONE" {
            assert!(unnamed.contains(&row.number), "{} has a name in nr.rs", row.number);
        } else {
            assert_eq!(numbers.get(&row.name), Some(&row.number), "{}", row.name);
        }
    }
}

#[test]
fn the_hypercalls_that_are_said_to_be_built_are_those_of_the_kernels_table() {
    let built = hypercalls().into_iter().filter(|row| row.state == "built");
    let built: BTreeSet<_> = built.map(|row| (row.number, row.name)).collect();
    let table = kernel_table();
    assert!(table.len() > 5, "the table's entries are found in its source");
    assert_eq!(built, table);
}

#[test]
fn every_operation_of_the_headers_is_listed_with_its_number_and_no_other() {
    let sources = SOURCES.map(|file| text(&format!("src/abi/{file}")));
    let expected: BTreeSet<_> =
        sources.iter().flat_map(|source| constants(source)).filter(|(name, _)| is_operation(name)).collect();
    let listed: Vec<_> =
        rows().into_iter().filter(|row| is_operation(&row.name)).map(|row| (row.name, row.number)).collect();
    assert_eq!(listed.len(), listed.iter().collect::<BTreeSet<_>>().len(), "an operation is listed twice");
    let differ: Vec<_> = listed.into_iter().collect::<BTreeSet<_>>().symmetric_difference(&expected).cloned().collect();
    assert!(differ.is_empty(), "in one of the two only: {differ:?}");
}

#[test]
fn an_operation_is_said_to_be_not_built_exactly_if_no_handler_names_it() {
    let words = words_of_handlers();
    for row in rows().into_iter().filter(|row| is_operation(&row.name)) {
        assert_eq!(words.contains(&row.name), row.state != "not built", "{}: {}", row.name, row.state);
    }
}
