//! The walk of a guest's own page tables, as its processor would do it (SDM 3A 4.3 to 4.6).
//!
//! The tables lie in guest memory and may change while they are read: each entry is read once and decided on.
//! Accessed and dirty bits are not set. Protection keys are not looked at.

use crate::addr::{GuestPhys, GuestVirt, PAGE_SHIFT};
use crate::regs::{Cr0, Cr4, Efer};
use core::ops::RangeInclusive;

/// The registers that say how a guest translates addresses.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub struct Mode {
    pub cr0: Cr0,
    pub cr3: u64,
    pub cr4: Cr4,
    pub efer: Efer,
    /// Bits of a physical address, as the guest's CPUID says: 32 to 52.
    pub phys_bits: u8,
    /// Whether the guest's CPUID has pages of 1 GiB.
    pub has_gib_pages: bool,
}

/// What is to be done at the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// A write.
    pub write: bool,
    /// An instruction fetch.
    pub fetch: bool,
    /// By user code: privilege level 3, and not an implicit access to a system structure.
    pub user: bool,
    /// Whether SMAP counts, if the guest has turned it on: for an implicit access, and where RFLAGS.AC is clear.
    pub smap: bool,
}

impl Access {
    /// The hypervisor copies a hypercall's argument in: a read by the guest's kernel, for which SMAP does not
    /// count, as in Xen.
    pub const COPY_IN: Self = Self { write: false, fetch: false, user: false, smap: false };
    /// The hypervisor copies a result out.
    pub const COPY_OUT: Self = Self { write: true, ..Self::COPY_IN };
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The byte.
    pub gpa: GuestPhys,
    /// The guest's mapping has the aligned `2^order` pages around it.
    pub order: u8,
}

/// Why an address leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `#PF` with this error code.
    Page {
        /// As it is pushed (SDM 3A 4.7).
        error: u32,
    },
    /// The address is not canonical: `#GP(0)`, or `#SS(0)` for the stack.
    NonCanonical,
    /// A table lies where the guest has no memory.
    Table(GuestPhys),
}

/// Bits of a page fault's error code (SDM 3A 4.7).
#[expect(missing_docs, reason = "the names are the architecture's")]
pub mod error {
    pub const PRESENT: u32 = 1 << 0;
    pub const WRITE: u32 = 1 << 1;
    pub const USER: u32 = 1 << 2;
    pub const RESERVED: u32 = 1 << 3;
    pub const FETCH: u32 = 1 << 4;
}

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NX: u64 = 1 << 63;
/// Where an entry of eight bytes leads.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// One of the four ways to translate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Two levels of 1024 entries of four bytes.
    Legacy,
    /// Three levels, of which the first has four entries.
    Pae,
    /// Four levels, or five.
    Long,
}

impl Mode {
    /// How it translates, by how many levels; `None` without paging.
    fn kind(&self) -> Option<(Kind, u32)> {
        if !self.cr0.contains(Cr0::PG) {
            return None;
        }
        Some(match (self.cr4.contains(Cr4::PAE), self.efer.contains(Efer::LMA), self.cr4.contains(Cr4::LA57)) {
            (false, ..) => (Kind::Legacy, 2),
            (true, false, _) => (Kind::Pae, 3),
            (true, true, false) => (Kind::Long, 4),
            (true, true, true) => (Kind::Long, 5),
        })
    }

    fn has_nx(&self) -> bool {
        self.cr4.contains(Cr4::PAE) && self.efer.contains(Efer::NXE)
    }

    fn phys_bits(&self) -> u32 {
        u32::from(self.phys_bits).clamp(32, 52)
    }

    /// The bits that have to be clear in a present entry.
    fn reserved(&self, kind: Kind, level: u32, is_leaf: bool) -> u64 {
        let large = is_leaf && level > 1;
        if kind == Kind::Legacy {
            // PSE-36: bits 13 to 20 are bits 32 to 39 of the address, as far as there are any.
            return if large { bits(self.phys_bits().min(40) - 19..=21) } else { 0 };
        }
        let nx = if self.has_nx() { 0 } else { NX };
        let above = match (kind, level) {
            (Kind::Pae, 3) => bits(self.phys_bits()..=63) | 0x1e6,
            (Kind::Pae, _) => bits(self.phys_bits()..=62) | nx,
            _ => bits(self.phys_bits()..=51) | nx,
        };
        let below = if large { bits(13..=shift(kind, level) - 1) } else { 0 };
        let size = if level > 3 || level == 3 && !self.has_gib_pages { LARGE } else { 0 };
        above | below | size
    }

    /// Whether a present entry ends the walk.
    fn is_leaf(&self, kind: Kind, level: u32, entry: u64) -> bool {
        let may_be_large = match kind {
            Kind::Legacy => self.cr4.contains(Cr4::PSE),
            Kind::Pae => level == 2,
            Kind::Long => level == 2 || level == 3 && self.has_gib_pages,
        };
        level == 1 || may_be_large && entry & LARGE != 0
    }

    /// Whether the rights that all entries of the walk agree on allow this.
    fn allows(&self, access: Access, rights: Rights) -> bool {
        let smep = self.cr4.contains(Cr4::SMEP);
        let smap = access.smap && self.cr4.contains(Cr4::SMAP);
        let may_reach = match (access.user, access.fetch) {
            (true, _) => rights.user,
            (false, true) => !(rights.user && smep),
            (false, false) => !(rights.user && smap),
        };
        let protects = access.user || self.cr0.contains(Cr0::WP);
        let may_write = rights.writable || !access.write || !protects;
        let may_fetch = !access.fetch || !rights.no_execute;
        may_reach && may_write && may_fetch
    }

    fn page_fault(&self, access: Access, why: u32) -> Fault {
        let when = |condition: bool, bit: u32| if condition { bit } else { 0 };
        let tells_fetch = self.has_nx() || self.cr4.contains(Cr4::SMEP);
        let error = why
            | when(access.write, error::WRITE)
            | when(access.user, error::USER)
            | when(access.fetch && tells_fetch, error::FETCH);
        Fault::Page { error }
    }
}

/// What the entries of a walk agree on.
#[derive(Clone, Copy)]
struct Rights {
    writable: bool,
    user: bool,
    no_execute: bool,
}

impl Rights {
    fn and(self, entry: u64) -> Self {
        Self {
            writable: self.writable && entry & WRITABLE != 0,
            user: self.user && entry & USER != 0,
            no_execute: self.no_execute || entry & NX != 0,
        }
    }
}

/// Translates a linear address. `read` gives the little-endian entry of 4 or 8 bytes at an address that is a
/// multiple of that, or `None` where the guest has no memory.
///
/// Outside 64-bit mode the upper half of the address does not count.
pub fn translate(
    mode: &Mode,
    access: Access,
    gva: GuestVirt,
    mut read: impl FnMut(GuestPhys, usize) -> Option<u64>,
) -> Result<Translation, Fault> {
    let Some((kind, levels)) = mode.kind() else {
        return Ok(Translation { gpa: GuestPhys::new(gva.raw() & 0xffff_ffff), order: 0 });
    };
    let address = if kind == Kind::Long { gva.raw() } else { gva.raw() & 0xffff_ffff };
    if kind == Kind::Long && !is_canonical(address, levels) {
        return Err(Fault::NonCanonical);
    }
    if (kind, levels) == (Kind::Long, 4) {
        return translate_long(mode, access, address, read);
    }
    let mut table = root(mode, kind);
    let mut rights = Rights { writable: true, user: true, no_execute: false };
    for level in (1..=levels).rev() {
        let (at, size) = entry_at(kind, table, address, level);
        let entry = read(at, size).ok_or(Fault::Table(at))?;
        if entry & PRESENT == 0 {
            return Err(mode.page_fault(access, 0));
        }
        let is_leaf = mode.is_leaf(kind, level, entry);
        if entry & mode.reserved(kind, level, is_leaf) != 0 {
            return Err(mode.page_fault(access, error::PRESENT | error::RESERVED));
        }
        // The four entries at the top of PAE have no rights.
        if (kind, level) != (Kind::Pae, 3) {
            rights = rights.and(entry);
        }
        if is_leaf {
            return leaf(mode, access, kind, level, entry, address, rights);
        }
        table = entry & bits(PAGE_SHIFT..=51);
    }
    unreachable!("an entry of level 1 is a leaf")
}

/// [`translate`] by the four levels of long mode, which every hypercall argument takes: the bits of an entry that
/// must be clear at every level are looked at together.
#[inline]
fn translate_long(
    mode: &Mode,
    access: Access,
    address: u64,
    mut read: impl FnMut(GuestPhys, usize) -> Option<u64>,
) -> Result<Translation, Fault> {
    let nx = if mode.has_nx() { 0 } else { NX };
    let reserved = ADDRESS & !(u64::MAX >> (64 - mode.phys_bits())) | nx;
    let mut table = mode.cr3 & ADDRESS;
    // What all entries allow, and what one forbids.
    let (mut all, mut any) = (WRITABLE | USER, 0);
    let mut level = 4;
    loop {
        let shift = PAGE_SHIFT + 9 * (level - 1);
        let at = GuestPhys::new(table + (address >> shift) % 512 * 8);
        let entry = read(at, 8).ok_or(Fault::Table(at))?;
        if entry & PRESENT == 0 {
            return Err(mode.page_fault(access, 0));
        }
        all &= entry;
        any |= entry;
        let is_leaf = level == 1 || entry & LARGE != 0;
        // At level 1 the bit selects a memory type.
        let is_misplaced = is_leaf && level > 1 && entry & mode.reserved(Kind::Long, level, true) != 0;
        if any & reserved != 0 || is_misplaced {
            return Err(mode.page_fault(access, error::PRESENT | error::RESERVED));
        }
        if is_leaf {
            let rights = Rights { writable: all & WRITABLE != 0, user: all & USER != 0, no_execute: any & NX != 0 };
            return leaf(mode, access, Kind::Long, level, entry, address, rights);
        }
        table = entry & ADDRESS;
        level -= 1;
    }
}

fn leaf(
    mode: &Mode,
    access: Access,
    kind: Kind,
    level: u32,
    entry: u64,
    address: u64,
    rights: Rights,
) -> Result<Translation, Fault> {
    if !mode.allows(access, rights) {
        return Err(mode.page_fault(access, error::PRESENT));
    }
    let shift = shift(kind, level);
    let high = if kind == Kind::Legacy && level > 1 { (entry >> 13 & 0xff) << 32 } else { 0 };
    let top = if kind == Kind::Legacy { 31 } else { 51 };
    let gpa = entry & bits(shift..=top) | high | address & bits(0..=shift - 1);
    Ok(Translation { gpa: GuestPhys::new(gpa), order: (shift - PAGE_SHIFT) as u8 })
}

/// The address of the first table.
fn root(mode: &Mode, kind: Kind) -> u64 {
    mode.cr3
        & match kind {
            Kind::Legacy => bits(PAGE_SHIFT..=31),
            Kind::Pae => bits(5..=31),
            Kind::Long => bits(PAGE_SHIFT..=51),
        }
}

/// Where the entry for an address lies in a table, and its size in bytes.
fn entry_at(kind: Kind, table: u64, address: u64, level: u32) -> (GuestPhys, usize) {
    let (size, entries) = if kind == Kind::Legacy { (4, 1024) } else { (8, 512) };
    let index = (address >> shift(kind, level)) % entries;
    (GuestPhys::new(table + index * size), size as usize)
}

/// log2 of the bytes below one entry of a level.
fn shift(kind: Kind, level: u32) -> u32 {
    let index_bits = if kind == Kind::Legacy { 10 } else { 9 };
    PAGE_SHIFT + index_bits * (level - 1)
}

fn is_canonical(address: u64, levels: u32) -> bool {
    let sign = (address as i64) >> (shift(Kind::Long, levels) + 8);
    sign == 0 || sign == -1
}

/// The bits of a range below 64; none of one that ends before it starts.
fn bits(range: RangeInclusive<u32>) -> u64 {
    u64::MAX >> (63 - range.end()) & u64::MAX << range.start()
}

#[cfg(test)]
mod tests;
