//! Page tables of a PV guest: what is mapped where, and the calls that change it (`xen.h`, MMU_* and MMUEXT_*).

use abi::nr;
use abi::xen::{DOMID_SELF, MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE, MmuUpdate, MmuextOp};

use super::p2m;
use crate::hypercall::{self, Ret};
use crate::mem::{self, Page};

/// Flag of a page-table entry.
pub const PRESENT: u64 = 1;
/// Flag of a page-table entry.
pub const WRITABLE: u64 = 1 << 1;
/// Flag of a page-table entry.
pub const USER: u64 = 1 << 2;
/// Flag of a page-table entry.
pub const ACCESSED: u64 = 1 << 5;
/// Flag of a page-table entry.
pub const DIRTY: u64 = 1 << 6;
/// Flag of a page-table entry.
pub const LARGE: u64 = 1 << 7;
/// Flag of a page-table entry.
pub const GLOBAL: u64 = 1 << 8;
/// Flag of a page-table entry that is software's.
pub const AVAILABLE: u64 = 1 << 9;
/// Flag of a page-table entry.
pub const NX: u64 = 1 << 63;
/// A writable page of the kernel's.
pub const KERNEL: u64 = PRESENT | WRITABLE | ACCESSED | DIRTY;
/// A read-only page of the kernel's.
pub const READ_ONLY: u64 = PRESENT | ACCESSED | DIRTY;
/// A page table's entry in the table above.
pub const TABLE: u64 = PRESENT | WRITABLE | USER | ACCESSED | DIRTY;

/// Where an entry's frame is.
pub const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// `UVMF_TLB_FLUSH`, of this virtual CPU.
pub const UVMF_TLB_FLUSH: u64 = 1;
/// `UVMF_INVLPG`, of this virtual CPU.
pub const UVMF_INVLPG: u64 = 2;
/// `UVMF_ALL`.
pub const UVMF_ALL: u64 = 4;

/// `update_va_mapping`.
pub fn update_va(va: u64, entry: u64, flags: u64) -> Ret {
    hypercall::call(nr::UPDATE_VA_MAPPING, [va, entry, flags, 0, 0])
}

/// `mmu_update` of one entry; the kind is in the low bits of the address.
pub fn update(ptr: u64, val: u64) -> Ret {
    update_foreign(ptr, val, DOMID_SELF)
}

/// The same in another domain's name.
pub fn update_foreign(ptr: u64, val: u64, domid: u16) -> Ret {
    let request = MmuUpdate { ptr, val };
    hypercall::call(nr::MMU_UPDATE, [mem::addr_of(&request), 1, 0, domid.into(), 0])
}

/// `mmuext_op` of one operation.
pub fn ext(cmd: u32, arg1: u64, arg2: u64) -> Ret {
    let op = MmuextOp { cmd, pad: 0, arg1, arg2 };
    hypercall::call(nr::MMUEXT_OP, [mem::addr_of(&op), 1, 0, DOMID_SELF.into(), 0])
}

/// Pins a machine frame as a page table of a level from 1 to 4.
pub fn pin(level: u32, mfn: u64) -> Ret {
    ext(MMUEXT_PIN_L1_TABLE + level - 1, mfn, 0)
}

/// Takes the pin away.
pub fn unpin(mfn: u64) -> Ret {
    ext(MMUEXT_UNPIN_TABLE, mfn, 0)
}

/// The machine frame of the kernel's top table.
pub fn top() -> u64 {
    TOP.load(core::sync::atomic::Ordering::Relaxed)
}

static TOP: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

/// Notes the kernel's top table.
pub fn set_top(mfn: u64) {
    TOP.store(mfn, core::sync::atomic::Ordering::Relaxed);
}

/// An entry's index in a table of a level.
pub fn index(va: u64, level: u32) -> u64 {
    va >> (12 + 9 * (level - 1)) & 511
}

/// The address where the kernel reads a table's frame.
pub fn table_va(mfn: u64) -> u64 {
    super::m2p(mfn) << 12
}

/// The machine address of the entry that maps an address at a level, and the entry; none if a table is missing.
pub fn entry(va: u64, level: u32) -> Option<(u64, u64)> {
    let mut table = top();
    let mut at = 4;
    loop {
        let offset = index(va, at) * 8;
        let value = mem::peek64(table_va(table) + offset);
        if at == level {
            return Some((table << 12 | offset, value));
        }
        if value & PRESENT == 0 || value & LARGE != 0 {
            return None;
        }
        table = (value & FRAME) >> 12;
        at -= 1;
    }
}

/// The machine address of the L1 entry of an address that the image maps.
pub fn l1_entry(va: u64) -> u64 {
    entry(va, 1).map_or(0, |(address, _)| address)
}

/// The L1 entry of an address.
pub fn l1_value(va: u64) -> u64 {
    entry(va, 1).map_or(0, |(_, value)| value)
}

/// The entry that maps a page at its own address, with these flags.
pub fn own(page: &Page, flags: u64) -> u64 {
    p2m(page.addr() >> 12) << 12 | flags
}

/// Makes a page read-only, for a page table to be.
pub fn protect(page: &Page) -> Ret {
    update_va(page.addr(), own(page, READ_ONLY), UVMF_INVLPG)
}

/// Makes a page writable again.
pub fn unprotect(page: &Page) -> Ret {
    update_va(page.addr(), own(page, KERNEL), UVMF_INVLPG)
}

/// Clears a page; it is writable.
pub fn wipe(page: &Page) {
    (0..512).for_each(|i| mem::poke64(page.addr() + i * 8, 0));
}
