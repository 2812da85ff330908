//! The machine-to-phys table (M2P): for each frame of RAM the number that its owner knows it by.
//!
//! Every PV guest reads all of it, at the place that Xen's ABI fixes (`xen/include/public/arch-x86/xen-x86_64.h`); the
//! hypervisor writes by a second mapping of the same memory. Where there is no RAM in 1 GiB there is no table: a guest that
//! reads there faults, as with Xen.

use core::arch::asm;

use model::addr::{MachineAddr, Mfn, PAGE_SIZE};
use model::regions::{Regions, Span};

use super::layout::{M2P, M2P_WRITABLE};
use super::map::{self, Rights};
use super::setup::{Early, map_large_pieces};

/// What the table has for a frame that nobody has a number for (`INVALID_M2P_ENTRY`).
pub const INVALID: u64 = !0;
/// What it has for a frame that a guest shares with the hypervisor (`SHARED_M2P_ENTRY`).
pub const SHARED: u64 = !0 - 1;

/// Bytes of an entry.
const ENTRY: u64 = 8;
/// Bytes of a piece of the table.
pub const EXTENT: u64 = 2 << 20;

/// Maps a table of [`INVALID`] entries, in pieces of 2 MiB, each for 1 GiB with RAM in it.
pub(super) fn map_table(early: &mut Early<'_>, root: MachineAddr, ram: &Regions) -> Option<()> {
    let mut parts = Regions::new();
    for span in ram.iter() {
        let end = (span.end / PAGE_SIZE * ENTRY).next_multiple_of(EXTENT);
        parts.add(Span { start: span.start / PAGE_SIZE * ENTRY / EXTENT * EXTENT, end });
    }
    let places = [(M2P, Rights::M2P), (M2P_WRITABLE, Rights::RW)];
    parts.iter().try_for_each(|part| map_large_pieces(early, root, part, &places, fill))
}

fn fill(piece: *mut u64, bytes: u64) {
    // SAFETY: the piece is fresh memory of so many bytes.
    unsafe { core::ptr::write_bytes(piece, 0xff, (bytes / ENTRY) as usize) };
}

/// Where 2 MiB of the table are, from byte `index` times as many on; `None` where there is no table.
pub fn extent(index: u64) -> Option<Mfn> {
    let offset = index.checked_mul(EXTENT).filter(|&offset| offset < 1 << 38)?;
    map::large_page(M2P_WRITABLE + offset).map(MachineAddr::frame)
}

fn entry(mfn: Mfn) -> Option<*mut u64> {
    let offset = mfn.raw().checked_mul(ENTRY).filter(|&offset| offset < 1 << 38)?;
    Some((M2P_WRITABLE + offset) as *mut u64)
}

/// Says by which number its owner knows a frame. `false` if the frame is no RAM.
pub fn set(mfn: Mfn, number: u64) -> bool {
    let Some(entry) = entry(mfn) else { return false };
    let missing: u32;
    // SAFETY: the window holds the table and nothing else, entries are numbers only, and where nothing is mapped the
    // fault goes on at the second label.
    unsafe {
        asm!(
            "2: mov [{entry}], {number}",
            "xor {missing:e}, {missing:e}",
            "jmp 4f",
            "3: mov {missing:e}, 1",
            "4:",
            ".pushsection .exception_table, \"a\"",
            ".long 2b - ., 3b - .",
            ".popsection",
            entry = in(reg) entry,
            number = in(reg) number,
            missing = out(reg) missing,
            options(nostack)
        );
    }
    missing == 0
}

/// The number by which its owner knows a frame; [`INVALID`] if there is none or the frame is no RAM.
pub fn get(mfn: Mfn) -> u64 {
    let Some(entry) = entry(mfn) else { return INVALID };
    let number: u64;
    // SAFETY: as in `set`.
    unsafe {
        asm!(
            "2: mov {number}, [{entry}]",
            "jmp 4f",
            "3: mov {number}, -1",
            "4:",
            ".pushsection .exception_table, \"a\"",
            ".long 2b - ., 3b - .",
            ".popsection",
            entry = in(reg) entry,
            number = lateout(reg) number,
            options(nostack, readonly)
        );
    }
    number
}
