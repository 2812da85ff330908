//! What lies where at a PV guest's start, in frames of its own memory and in its address space.
//!
//! ```text
//! virt_base     kernel                      frame 0 is mapped at virt_base, and so on
//!               ramdisk                     unless the kernel takes it by frame number
//!               P2M list                    unless the kernel names an address for it
//!               start info
//!               xenstore ring, console ring unless it is the initial domain
//!               page tables                 mapped read-only, the L4 first
//!               stack
//!               padding                     at least 512 KiB, to a multiple of 4 MiB: end of the mapping
//!               ramdisk                     otherwise
//!               P2M list, its page tables   otherwise
//! ```

use super::tables::{Table, covering};
use super::{Guest, PvError};
use crate::addr::{GuestVirt, PAGE_SIZE, Pfn};
use crate::image::Width;
use crate::pv::HOLE;
use alloc::vec::Vec;

/// The mapping ends at a multiple of this.
const MAPPING_ALIGN: u64 = 4 << 20;
/// Bytes of padding at the end, at least.
const PADDING: u64 = 512 << 10;
/// More than any machine's frames (52 bits of address); keeps what follows from overflowing.
const MAX_FRAMES: u64 = 1 << 40;

/// A run of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    /// The first of them.
    pub first: Pfn,
    /// How many.
    pub count: u64,
}

impl Frames {
    /// The frame after the last.
    pub fn end(self) -> u64 {
        self.first.raw() + self.count
    }
    /// Whether a frame is among them.
    pub fn contains(self, pfn: Pfn) -> bool {
        (self.first.raw()..self.end()).contains(&pfn.raw())
    }
}

/// The layout for one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Frames of the guest.
    pub nr_pages: u64,
    /// Where frame 0 is mapped.
    pub base: u64,
    /// Frames from 0 on that are mapped there.
    pub mapped: u64,
    /// The ramdisk's frames.
    pub ramdisk: Option<Frames>,
    /// The frames of the P2M list.
    pub p2m: Frames,
    /// Where the P2M list is mapped.
    pub p2m_at: GuestVirt,
    /// The frames of the P2M list and its page tables, if they are not within the mapping.
    pub p2m_apart: Option<Frames>,
    /// The page of the start info.
    pub start_info: Pfn,
    /// The pages of the xenstore ring and of the console ring.
    pub rings: Option<[Pfn; 2]>,
    /// The page tables of the mapping, the L4 first.
    pub page_tables: Frames,
    /// The page of the stack, which grows down from its end.
    pub stack: Pfn,
    /// Every page table.
    pub tables: Vec<Table>,
}

impl Layout {
    /// Where a frame of the mapping is mapped.
    pub fn address(&self, pfn: Pfn) -> GuestVirt {
        GuestVirt::new(self.base.wrapping_add(pfn.raw() * PAGE_SIZE))
    }

    /// Lays out `guest`, whose kernel ends at byte `kernel_end` of its memory.
    pub(super) fn new(guest: &Guest<'_>, base: u64, kernel_end: u64) -> Result<Self, PvError> {
        let notes = &guest.kernel.notes;
        let nr_pages = guest.nr_pages.min(MAX_FRAMES);
        let is_unmapped = notes.mod_start_pfn.is_some_and(|value| value != 0);
        let mut room = Room { base, next: 0, nr_pages };
        room.take("kernel", frames_of(kernel_end))?;
        let mut ramdisk = None;
        if let Some(len) = guest.ramdisk_len.filter(|_| !is_unmapped) {
            ramdisk = Some(room.take("ramdisk", frames_of(len))?);
        }
        let p2m_frames = frames_of(nr_pages * 8);
        let p2m_at = p2m_address(notes.init_p2m, base, p2m_frames)?;
        let mut p2m = None;
        if p2m_at.is_none() {
            p2m = Some(room.take("P2M list", p2m_frames)?);
        }
        let start_info = room.take("start info", 1)?.first;
        let rings = match guest.is_initial {
            true => None,
            false => Some([room.take("xenstore ring", 1)?.first, room.take("console ring", 1)?.first]),
        };
        let (page_tables, mut tables) = page_tables(&mut room)?;
        let stack = room.take("stack", 1)?.first;
        let mapped = mapping_end(base, room.next).ok_or(PvError::NoAddresses { what: "mapping" })?;
        room.take("padding", mapped - room.next)?;
        check_addresses("mapping", base, mapped)?;
        if let Some(len) = guest.ramdisk_len.filter(|_| is_unmapped) {
            ramdisk = Some(room.take("ramdisk", frames_of(len))?);
        }
        let mut p2m_apart = None;
        if let Some(at) = p2m_at {
            let list = room.take("P2M list", p2m_frames)?;
            let more = p2m_tables(&mut room, at, p2m_frames, &tables)?;
            p2m_apart = Some(Frames { first: list.first, count: p2m_frames + more.len() as u64 });
            tables.extend(more);
            tables.sort_unstable_by_key(Table::key);
            p2m = Some(list);
        }
        let p2m = p2m.unwrap_or(Frames { first: Pfn::new(0), count: 0 });
        let mut layout = Self {
            nr_pages,
            base,
            mapped,
            ramdisk,
            p2m,
            p2m_at: GuestVirt::new(0),
            p2m_apart,
            start_info,
            rings,
            page_tables,
            stack,
            tables,
        };
        layout.p2m_at = p2m_at.map_or(layout.address(p2m.first), GuestVirt::new);
        Ok(layout)
    }
}

/// The frames that are still free: from `next` to `nr_pages`.
struct Room {
    base: u64,
    next: u64,
    nr_pages: u64,
}

impl Room {
    fn take(&mut self, what: &'static str, count: u64) -> Result<Frames, PvError> {
        let needs = self.next.saturating_add(count);
        if needs > self.nr_pages {
            return Err(PvError::NoRoom { what, needs, has: self.nr_pages });
        }
        let frames = Frames { first: Pfn::new(self.next), count };
        self.next = needs;
        Ok(frames)
    }
}

/// Frames that so many bytes take.
fn frames_of(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_SIZE)
}

/// The frames that are mapped at `base` when the last element ends at frame `used`.
fn mapping_end(base: u64, used: u64) -> Option<u64> {
    let last = base.checked_add(used * PAGE_SIZE)?.checked_add(PADDING)?;
    // The end of the address space is an end, too: count from the base.
    let end = last.checked_next_multiple_of(MAPPING_ALIGN).map_or(0, |end| end);
    Some(end.wrapping_sub(base) / PAGE_SIZE)
}

/// Refuses addresses that are not canonical, or the hypervisor's.
fn check_addresses(what: &'static str, from: u64, frames: u64) -> Result<(), PvError> {
    let bad = PvError::NoAddresses { what };
    let Some(last) = from.checked_add(frames * PAGE_SIZE - 1) else { return Err(bad) };
    let is_low = last < 1 << 47;
    let is_high = from >= HOLE.end;
    if is_low || is_high { Ok(()) } else { Err(bad) }
}

/// Where the kernel wants its P2M list, if apart from the mapping: below it, and at a page's start. Another wish is
/// passed over, as Xen's toolstack does.
fn p2m_address(note: Option<u64>, base: u64, frames: u64) -> Result<Option<u64>, PvError> {
    let Some(at) = note.filter(|at| *at < base && at.is_multiple_of(PAGE_SIZE)) else { return Ok(None) };
    check_addresses("P2M list", at, frames)?;
    if at + frames * PAGE_SIZE > base { Err(PvError::NoAddresses { what: "P2M list" }) } else { Ok(Some(at)) }
}

/// The page tables of the mapping. They lie in what they map, so their number is found by trying.
fn page_tables(room: &mut Room) -> Result<(Frames, Vec<Table>), PvError> {
    let no_addresses = PvError::NoAddresses { what: "mapping" };
    let mut count = 4;
    loop {
        let mapped = mapping_end(room.base, room.next + count + 1).ok_or(no_addresses.clone())?;
        check_addresses("mapping", room.base, mapped)?;
        let tables = covering(room.base, mapped);
        // One round more for each time that the tables push the end behind a boundary.
        if tables.len() as u64 <= count {
            let frames = room.take("page tables", tables.len() as u64)?;
            return Ok((frames, numbered(tables, frames.first)));
        }
        count = tables.len() as u64;
    }
}

/// The page tables that the P2M list needs beside those that there are.
fn p2m_tables(room: &mut Room, at: u64, frames: u64, there: &[Table]) -> Result<Vec<Table>, PvError> {
    let mut tables = covering(at, frames);
    tables.retain(|table| there.iter().all(|other| other.key() != table.key()));
    let taken = room.take("P2M list's page tables", tables.len() as u64)?;
    Ok(numbered(tables, taken.first))
}

/// Gives tables their frames.
fn numbered(mut tables: Vec<Table>, first: Pfn) -> Vec<Table> {
    for (n, table) in (0..).zip(&mut tables) {
        table.pfn = Pfn::new(first.raw() + n);
    }
    tables
}

/// What must be true of a kernel before anything is laid out: word size, interface and features.
pub(super) fn check_kernel(guest: &Guest<'_>) -> Result<(), PvError> {
    let (elf, notes) = (guest.kernel, &guest.kernel.notes);
    if elf.width != Width::Bits64 {
        return Err(PvError::Not64Bit);
    }
    if notes.entry.is_none() && notes.virt_base.is_none() {
        return Err(PvError::NoEntry);
    }
    if !notes.xen_version.as_deref().is_some_and(|version| version.starts_with("xen-3.0")) {
        return Err(PvError::OtherInterface);
    }
    let is_generic = notes.loader.as_deref().is_some_and(|loader| loader.starts_with("generic"));
    let is_linux = notes.guest_os.as_deref().is_some_and(|os| os.starts_with("linux"));
    if !is_generic && !is_linux {
        return Err(PvError::OtherLoader);
    }
    let needed = |feature: &str| {
        let names = notes.features.as_deref().unwrap_or_default();
        names.split('|').any(|name| name.strip_prefix('!') == Some(feature))
    };
    for feature in ["auto_translated_physmap", "supervisor_mode_kernel"] {
        if needed(feature) {
            return Err(PvError::Needs { feature });
        }
    }
    let dom0 = 1 << abi::features::XENFEAT_DOM0;
    if guest.is_initial && notes.supported_features.is_some_and(|features| features & dom0 == 0) {
        return Err(PvError::NotForDom0);
    }
    Ok(())
}
