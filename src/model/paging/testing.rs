//! Memory for page tables in tests.

use super::{ENTRIES, Tables};
use crate::addr::Mfn;
use std::collections::HashMap;

/// Tables in a map, of which there may be so many.
pub(crate) struct Memory {
    tables: HashMap<Mfn, [u64; ENTRIES]>,
    next: u64,
    most: usize,
}

impl Memory {
    /// Room for `most` tables.
    pub(crate) fn new(most: usize) -> Self {
        Self { tables: HashMap::new(), next: 0x9_0000, most }
    }
    /// Tables in use.
    pub(crate) fn used(&self) -> usize {
        self.tables.len()
    }
}

impl Tables for Memory {
    fn read(&self, table: Mfn, index: usize) -> u64 {
        self.tables[&table][index]
    }
    fn write(&mut self, table: Mfn, index: usize, value: u64) {
        self.tables.get_mut(&table).expect("a table in use")[index] = value;
    }
    fn allocate(&mut self) -> Option<Mfn> {
        if self.tables.len() == self.most {
            return None;
        }
        self.next += 1;
        self.tables.insert(Mfn::new(self.next), [0; ENTRIES]);
        Some(Mfn::new(self.next))
    }
    fn free(&mut self, table: Mfn) {
        self.tables.remove(&table).expect("a table in use");
    }
}
