//! A machine so small that everything about it can be recomputed after each operation, for tests and the fuzzer.
//!
//! Two domains, some forty frames, tables of eight entries. Its processors are as bad as they may be: they remember all
//! that a valid table ever said until they flush, and the guests write through whatever is remembered.

mod machine;
mod operation;
mod twin;
mod world;

pub use machine::{Machine, View};
pub use operation::{Operation, Source};
pub use world::{Answer, World};

use crate::addr::Mfn;
use crate::ids::DomId;
use crate::page::Frame;
use alloc::vec::Vec;

/// Entries of a table.
pub const ENTRIES: usize = 8;
/// The hypervisor's entries of a table of level 4.
pub const SLOTS: core::ops::RangeInclusive<usize> = 4..=5;
/// Frames that have records.
pub const FRAMES: u64 = 40;
/// May map frames of [`OTHER`], and the device [`DEVICE`].
pub const PRIVILEGED: DomId = DomId(1);
/// May map its own frames alone.
pub const OTHER: DomId = DomId(2);
/// The domains.
pub const DOMAINS: [DomId; 2] = [PRIVILEGED, OTHER];
/// The frame that is the hypervisor's.
pub const HYPERVISORS: Mfn = Mfn::new(38);
/// A frame with a record that is a device's.
pub const IO_FRAME: Mfn = Mfn::new(39);
/// A frame without a record that is a device's.
pub const DEVICE: Mfn = Mfn::new(40);
/// A device's frame that nobody may map.
pub const FORBIDDEN: Mfn = Mfn::new(41);

/// The records of the machine's frames, none in use.
pub fn frames() -> Vec<Frame> {
    (0..FRAMES).map(|_| Frame::new()).collect()
}

/// An entry that names a frame.
pub const fn entry(mfn: u64, bits: u64) -> u64 {
    mfn << 12 | bits
}

fn index_of(domain: DomId) -> usize {
    usize::from(domain != PRIVILEGED)
}
