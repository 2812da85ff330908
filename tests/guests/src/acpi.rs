//! The ACPI tables, as far as the tests read them (ACPI 6.4, chapter 5).

use crate::mem;

/// A table with the common header.
#[derive(Clone, Copy)]
pub struct Table {
    /// Its address.
    pub addr: u64,
}

impl Table {
    /// The four letters.
    pub fn signature(self) -> [u8; 4] {
        mem::read(self.addr)
    }
    /// Bytes, header included.
    pub fn len(self) -> u64 {
        u64::from(mem::read::<u32>(self.addr + 4))
    }
    /// The table has nothing but its length, or not even that.
    pub fn is_empty(self) -> bool {
        self.len() <= 36
    }
    /// The revision.
    pub fn revision(self) -> u8 {
        mem::peek8(self.addr + 8)
    }
    /// All bytes add up to zero.
    pub fn sum_is_right(self) -> bool {
        mem::byte_sum(self.addr, self.len()) == 0
    }
}

/// The tables that the XSDT lists, or the RSDT where there is none.
pub fn tables(rsdp: u64) -> impl Iterator<Item = Table> {
    let xsdt = if mem::peek8(rsdp + 15) >= 2 { mem::read(rsdp + 24) } else { 0 };
    let (root, entry) = if xsdt != 0 { (xsdt, 8) } else { (u64::from(mem::read::<u32>(rsdp + 16)), 4) };
    let count = Table { addr: root }.len().saturating_sub(36) / entry;
    (0..count).map(move |i| {
        let at = root + 36 + i * entry;
        Table { addr: if entry == 8 { mem::read(at) } else { u64::from(mem::read::<u32>(at)) } }
    })
}

/// The table of this signature.
pub fn table(rsdp: u64, signature: &[u8; 4]) -> Option<Table> {
    tables(rsdp).find(|table| table.signature() == *signature)
}

/// A processor of the MADT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// The ACPI processor UID: Xen's virtual CPU number.
    pub uid: u32,
    /// The local APIC's id.
    pub apic_id: u32,
    /// Bit 0: it may be started.
    pub flags: u32,
}

/// The processors of the MADT, by local APIC (type 0) and local x2APIC (type 9) entries.
pub fn processors(madt: Table) -> impl Iterator<Item = Processor> {
    let end = madt.addr + madt.len();
    let mut at = madt.addr + 44;
    core::iter::from_fn(move || {
        while at + 2 <= end {
            let (kind, len) = (mem::peek8(at), u64::from(mem::peek8(at + 1)));
            let here = at;
            at += len.max(2);
            match kind {
                0 => {
                    return Some(Processor {
                        uid: u32::from(mem::peek8(here + 2)),
                        apic_id: u32::from(mem::peek8(here + 3)),
                        flags: mem::read(here + 4),
                    });
                }
                9 => {
                    return Some(Processor {
                        uid: mem::read(here + 12),
                        apic_id: mem::read(here + 4),
                        flags: mem::read(here + 8),
                    });
                }
                _ => {}
            }
        }
        None
    })
}
