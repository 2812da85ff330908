//! The bits of page-table entries: long mode (SDM 3A 4.5), EPT (SDM 3C 28.3.2) and NPT (APM 2 15.25.5).

use crate::addr::{Mfn, PAGE_SHIFT};
use bitflags::bitflags;

bitflags! {
    /// What a mapping allows. Writing or executing implies reading, but in EPT for executing.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Rights: u8 {
        /// Reading data.
        const READ = 1 << 0;
        /// Writing data.
        const WRITE = 1 << 1;
        /// Fetching instructions.
        const EXECUTE = 1 << 2;
    }
}

/// How a processor caches memory, in the encoding of MTRRs, of the PAT and of EPT (SDM 3A table 11-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MemoryType {
    /// Uncached, in program order: device registers.
    Uc = 0,
    /// Write-combining: frame buffers.
    Wc = 1,
    /// Write-through.
    Wt = 4,
    /// Write-protected.
    Wp = 5,
    /// Write-back: RAM.
    Wb = 6,
}

/// The PAT that long-mode and NPT entries are written for, which is Xen's: WB, WT, UC-, UC, WC, WP, UC, UC.
pub const PAT: u64 = 0x0000_0501_0007_0406;

/// How much one entry maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Size {
    /// 4 KiB, by an entry of level 1.
    Kib4,
    /// 2 MiB, by an entry of level 2.
    Mib2,
    /// 1 GiB, by an entry of level 3.
    Gib1,
}

impl Size {
    /// The sizes, largest first.
    pub const ALL: [Self; 3] = [Self::Gib1, Self::Mib2, Self::Kib4];

    /// log2 of the number of frames.
    pub const fn order(self) -> u8 {
        match self {
            Self::Kib4 => 0,
            Self::Mib2 => 9,
            Self::Gib1 => 18,
        }
    }
    /// Number of frames.
    pub const fn frames(self) -> u64 {
        1 << self.order()
    }
    /// What an entry of this level maps, if it leads to no table. One of level 4 maps nothing.
    pub(super) const fn of_level(level: u32) -> Option<Self> {
        match level {
            1 => Some(Self::Kib4),
            2 => Some(Self::Mib2),
            3 => Some(Self::Gib1),
            _ => None,
        }
    }
    /// The next smaller size.
    pub(super) const fn smaller(self) -> Self {
        match self {
            Self::Gib1 => Self::Mib2,
            _ => Self::Kib4,
        }
    }
}

/// All that an entry says besides where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// What may be done through it. None: the entry is not present, and keeps `soft` alone.
    pub rights: Rights,
    /// How the memory is cached.
    pub memory: MemoryType,
    /// User code may use it. Long mode only; nested tables have no such distinction.
    pub user: bool,
    /// It outlives a change of CR3. Long mode only.
    pub global: bool,
    /// The guest's PAT has no say in how the memory is cached. EPT only.
    pub ignore_pat: bool,
    /// Five bits that processors ignore, for whoever owns the tables. Kept by absent entries too.
    pub soft: u8,
}

impl Attributes {
    /// Ordinary memory of the hypervisor's own with these rights.
    pub const fn ram(rights: Rights) -> Self {
        Self { rights, memory: MemoryType::Wb, user: false, global: false, ignore_pat: false, soft: 0 }
    }
    /// Nothing mapped.
    pub const fn hole(soft: u8) -> Self {
        let hole = Self::ram(Rights::empty());
        Self { soft, ..hole }
    }
    /// Whether anything is mapped.
    pub const fn is_hole(self) -> bool {
        self.rights.is_empty()
    }
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const LARGE: u64 = 1 << 7;
const SOFT_SHIFT: u32 = 52;
const SOFT: u64 = 0x1f << SOFT_SHIFT;

/// The bits of one format. A field of zero: the format has no such bit.
pub struct Format {
    /// An entry with any of these is present.
    present: u64,
    /// What an entry has that leads to a table: all rights, for the leaf to take away.
    table: u64,
    /// What every present leaf has: accessed and dirty, so that no processor needs to write them.
    leaf: u64,
    read: u64,
    write: u64,
    execute: u64,
    no_execute: u64,
    user: u64,
    global: u64,
    ignore_pat: u64,
    encode_memory: fn(MemoryType, Size) -> u64,
    decode_memory: fn(u64, Size) -> MemoryType,
}

/// Long mode's four levels, for the hypervisor's own address space.
pub const LONG: Format = Format {
    present: 1,
    table: 0x27,
    leaf: 0x60,
    read: 1,
    write: 1 << 1,
    execute: 0,
    no_execute: 1 << 63,
    user: 1 << 2,
    global: 1 << 8,
    ignore_pat: 0,
    encode_memory: encode_pat,
    decode_memory: decode_pat,
};

/// AMD-V's nested paging: long mode's entries, all of them user's, since a guest's access counts as one.
pub const NPT: Format = Format { leaf: LONG.leaf | LONG.user, user: 0, global: 0, ..LONG };

/// VT-x's extended page tables.
pub const EPT: Format = Format {
    present: 7,
    table: 0x107,
    leaf: 0x300,
    read: 1,
    write: 1 << 1,
    execute: 1 << 2,
    no_execute: 0,
    user: 0,
    global: 0,
    ignore_pat: 1 << 6,
    encode_memory: |memory, _| (memory as u64) << 3,
    decode_memory: |entry, _| memory_type(entry >> 3 & 7),
};

impl Format {
    /// An entry that maps memory from `mfn` on, a multiple of `size`, or a hole.
    pub fn leaf(&self, mfn: Mfn, attributes: Attributes, size: Size) -> u64 {
        let soft = u64::from(attributes.soft) << SOFT_SHIFT & SOFT;
        if attributes.is_hole() {
            return soft;
        }
        let when = |condition: bool, bits: u64| if condition { bits } else { 0 };
        let Attributes { rights, .. } = attributes;
        let executes_only = rights == Rights::EXECUTE && self.execute != 0;
        mfn.base().raw() & ADDRESS
            | self.leaf
            | soft
            | when(!executes_only, self.read)
            | when(rights.contains(Rights::WRITE), self.write)
            | if rights.contains(Rights::EXECUTE) { self.execute } else { self.no_execute }
            | when(attributes.user, self.user)
            | when(attributes.global, self.global)
            | when(attributes.ignore_pat, self.ignore_pat)
            | when(size != Size::Kib4, LARGE)
            | (self.encode_memory)(attributes.memory, size)
    }

    /// What an entry that is no [`Format::is_table`] maps. The frame of a hole means nothing.
    pub fn decode(&self, entry: u64, size: Size) -> (Mfn, Attributes) {
        let soft = ((entry & SOFT) >> SOFT_SHIFT) as u8;
        if !self.is_present(entry) {
            return (Mfn::new(0), Attributes::hole(soft));
        }
        let has = |bit: u64| bit != 0 && entry & bit != 0;
        let executes = if self.execute != 0 { has(self.execute) } else { !has(self.no_execute) };
        let mut rights = Rights::empty();
        rights.set(Rights::READ, has(self.read));
        rights.set(Rights::WRITE, has(self.write));
        rights.set(Rights::EXECUTE, executes);
        let attributes = Attributes {
            rights,
            memory: (self.decode_memory)(entry, size),
            user: has(self.user),
            global: has(self.global),
            ignore_pat: has(self.ignore_pat),
            soft,
        };
        let frame = (entry & ADDRESS) >> PAGE_SHIFT & !(size.frames() - 1);
        (Mfn::new(frame), attributes)
    }

    /// The frame and [`Attributes::soft`] of a leaf, if it is present: all that a lookup needs that is repeated often.
    #[inline]
    pub fn frame_of(&self, entry: u64) -> Option<(Mfn, u8)> {
        let soft = ((entry & SOFT) >> SOFT_SHIFT) as u8;
        self.is_present(entry).then(|| (Mfn::new((entry & ADDRESS) >> PAGE_SHIFT), soft))
    }

    /// An entry that leads to a table.
    pub fn table(&self, table: Mfn) -> u64 {
        table.base().raw() & ADDRESS | self.table
    }

    /// The table to which an entry of this level leads, if it leads to one.
    pub fn table_of(&self, entry: u64, level: u32) -> Option<Mfn> {
        let leads = self.is_present(entry) && level > 1 && entry & LARGE == 0;
        leads.then(|| Mfn::new((entry & ADDRESS) >> PAGE_SHIFT))
    }

    /// Whether a processor uses the entry.
    #[inline]
    pub fn is_present(&self, entry: u64) -> bool {
        entry & self.present != 0
    }
}

/// The PWT, PCD and PAT bits that select a type from [`PAT`].
fn encode_pat(memory: MemoryType, size: Size) -> u64 {
    let index: u64 = match memory {
        MemoryType::Wb => 0,
        MemoryType::Wt => 1,
        MemoryType::Uc => 3,
        MemoryType::Wc => 4,
        MemoryType::Wp => 5,
    };
    (index & 3) << 3 | (index >> 2) << pat_bit(size)
}

fn decode_pat(entry: u64, size: Size) -> MemoryType {
    let index = entry >> 3 & 3 | (entry >> pat_bit(size) & 1) << 2;
    memory_type(PAT >> (index * 8) & 7)
}

/// Where an entry has the PAT bit: bit 7 is taken in large ones.
fn pat_bit(size: Size) -> u32 {
    if size == Size::Kib4 { 7 } else { 12 }
}

/// The type of this encoding; UC for UC- and what is reserved.
fn memory_type(encoding: u64) -> MemoryType {
    match encoding {
        1 => MemoryType::Wc,
        4 => MemoryType::Wt,
        5 => MemoryType::Wp,
        6 => MemoryType::Wb,
        _ => MemoryType::Uc,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: [MemoryType; 5] = [MemoryType::Uc, MemoryType::Wc, MemoryType::Wt, MemoryType::Wp, MemoryType::Wb];

    #[test]
    fn what_is_encoded_is_decoded_in_every_format_and_size() {
        for (format, size) in [&LONG, &EPT, &NPT].into_iter().flat_map(|f| Size::ALL.map(|size| (f, size))) {
            for (memory, bits) in TYPES.into_iter().flat_map(|memory| (0..64u8).map(move |bits| (memory, bits))) {
                let attributes = Attributes {
                    rights: Rights::READ | Rights::from_bits_truncate(bits & 6),
                    memory,
                    user: bits & 8 != 0 && format.user != 0,
                    global: bits & 16 != 0 && format.global != 0,
                    ignore_pat: bits & 32 != 0 && format.ignore_pat != 0,
                    soft: bits & 31,
                };
                let mfn = Mfn::new(0x7_4000_0000);
                let entry = format.leaf(mfn, attributes, size);
                assert_eq!(format.decode(entry, size), (mfn, attributes));
                assert!(
                    (1..=3).all(|level| Size::of_level(level) != Some(size) || format.table_of(entry, level).is_none())
                );
            }
        }
    }

    #[test]
    fn entries_are_as_the_manuals_draw_them() {
        let all = Rights::all();
        let uncached = Attributes { memory: MemoryType::Uc, ..Attributes::ram(Rights::READ | Rights::WRITE) };
        let mfn = Mfn::new(0x12345);
        assert_eq!(LONG.leaf(mfn, Attributes::ram(all), Size::Kib4), 0x1234_5063);
        assert_eq!(LONG.leaf(mfn, uncached, Size::Kib4), 1 << 63 | 0x1234_507b);
        assert_eq!(LONG.leaf(Mfn::new(0x200), Attributes::ram(all), Size::Mib2), 0x20_00e3);
        assert_eq!(NPT.leaf(mfn, Attributes::ram(all), Size::Kib4), 0x1234_5067);
        let ram = Attributes { ignore_pat: true, soft: 3, ..Attributes::ram(all) };
        assert_eq!(EPT.leaf(mfn, ram, Size::Kib4), 3 << 52 | 0x1234_5377);
        assert_eq!(EPT.leaf(Mfn::new(0x200), uncached, Size::Mib2), 0x20_0383);
        let write_combining = Attributes { memory: MemoryType::Wc, ..uncached };
        assert_eq!(NPT.leaf(Mfn::new(0x200), write_combining, Size::Mib2), 1 << 63 | 0x20_10e7);
    }

    #[test]
    fn only_ept_executes_without_reading() {
        let attributes = Attributes::ram(Rights::EXECUTE);
        let rights =
            |format: &Format| format.decode(format.leaf(Mfn::new(1), attributes, Size::Kib4), Size::Kib4).1.rights;
        assert_eq!(rights(&EPT), Rights::EXECUTE);
        assert_eq!(rights(&LONG), Rights::READ | Rights::EXECUTE);
    }

    #[test]
    fn a_hole_keeps_its_soft_bits_and_nothing_else() {
        for format in [&LONG, &EPT, &NPT] {
            let entry = format.leaf(Mfn::new(5), Attributes::hole(9), Size::Mib2);
            assert!(!format.is_present(entry));
            assert_eq!(format.decode(entry, Size::Mib2), (Mfn::new(0), Attributes::hole(9)));
        }
    }

    #[test]
    fn an_entry_leads_to_its_table_above_level_one() {
        for format in [&LONG, &EPT, &NPT] {
            let entry = format.table(Mfn::new(77));
            assert_eq!(format.table_of(entry, 4), Some(Mfn::new(77)));
            assert_eq!(format.table_of(entry, 1), None);
            assert_eq!(format.table_of(0, 4), None);
        }
    }
}
