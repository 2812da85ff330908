//! The hypervisor's own page tables: four levels, no user bit but on the M2P, nothing both writable and executable.

use core::sync::atomic::{AtomicU64, Ordering};

use model::addr::MachineAddr;

use super::layout::{M2P, SLOTS, direct};

/// What a mapping allows, as bits of a leaf entry (SDM 3A 4.5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(u64);

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const ACCESSED_DIRTY: u64 = 3 << 5;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

impl Rights {
    /// Read and execute: text.
    pub const RX: Self = Self(PRESENT | GLOBAL | ACCESSED_DIRTY);
    /// Read.
    pub const RO: Self = Self(PRESENT | GLOBAL | ACCESSED_DIRTY | NO_EXECUTE);
    /// Read and write.
    pub const RW: Self = Self(PRESENT | GLOBAL | ACCESSED_DIRTY | NO_EXECUTE | WRITABLE);
    /// Read, by PV guests too: the M2P.
    pub const M2P: Self = Self(Self::RO.0 | USER);
    /// Read and write, in one domain's address space only.
    pub const PER_DOMAIN: Self = Self(Self::RW.0 & !GLOBAL);
    /// Read, in one domain's address space only.
    pub const PER_DOMAIN_RO: Self = Self(Self::RO.0 & !GLOBAL);
    /// An entry that leads to a table.
    pub const TABLE: Self = Self(PRESENT | WRITABLE | ACCESSED_DIRTY);

    /// The entry that maps a page, or leads to the table, at `addr`.
    pub const fn entry(self, addr: MachineAddr) -> u64 {
        addr.raw() | self.0
    }

    /// Read and write, uncached: device registers.
    pub const DEVICE: Self = Self(Self::RW.0 | WRITE_THROUGH | CACHE_DISABLE);
}

/// Where page tables come from, and how their bytes are reached meanwhile.
pub trait TableSource {
    /// A zeroed page, or `None` when memory is short.
    fn table(&mut self) -> Option<MachineAddr>;
    /// Where the page at `addr` can be read and written.
    fn pointer(&self, addr: MachineAddr) -> *mut u64;
}

/// The size of the direct map's largest pages: 1 GiB where the processor has them.
pub fn largest_order(has_1g_pages: bool) -> u32 {
    if has_1g_pages { 30 } else { 21 }
}

/// Maps `len` bytes at `virt` to `phys`, all multiples of 4 KiB, in pages of up to `2^order` bytes. What was mapped
/// there before is replaced in part or whole only where a table already stands; large pages are never split.
///
/// # Safety
/// The range is the caller's to map, `root` is an L4 table of ours, and the new rights break no code that runs.
pub unsafe fn map(
    source: &mut impl TableSource,
    root: MachineAddr,
    virt: u64,
    phys: u64,
    len: u64,
    rights: Rights,
    order: u32,
) -> Option<()> {
    let mut done = 0;
    while done < len {
        let (v, p, left) = (virt + done, phys + done, len - done);
        let fits = |shift: u32| shift <= order && (v | p) & ((1 << shift) - 1) == 0 && left >= 1 << shift;
        let shift = if fits(30) {
            30
        } else if fits(21) {
            21
        } else {
            12
        };
        let large = if shift > 12 { LARGE } else { 0 };
        // SAFETY: the tables under `root` are ours alone.
        let entry = unsafe { entry(source, root, v, shift, rights)? };
        // SAFETY: `entry` points into one of them.
        unsafe { entry.write_volatile(p | rights.0 | large) };
        done += 1 << shift;
    }
    Some(())
}

/// The entry for `virt` at the level whose entries cover `2^shift` bytes, with the tables above it made as needed.
unsafe fn entry(
    source: &mut impl TableSource,
    root: MachineAddr,
    virt: u64,
    shift: u32,
    rights: Rights,
) -> Option<*mut u64> {
    let mut table = root;
    let mut level_shift = 39;
    loop {
        let index = (virt >> level_shift) as usize & 511;
        // SAFETY: the index is below 512, and `table` is one of our tables.
        let slot = unsafe { source.pointer(table).add(index) };
        if level_shift == shift {
            return Some(slot);
        }
        // SAFETY: as above.
        let value = unsafe { slot.read_volatile() };
        debug_assert!(value & LARGE == 0, "a large page is in the way");
        table = if value & PRESENT == 0 {
            let new = source.table()?;
            // SAFETY: as above; the table is zeroed, so a walk in between finds nothing.
            unsafe { slot.write_volatile(Rights::TABLE.entry(new) | rights.0 & USER) };
            new
        } else {
            MachineAddr::new(value & ADDRESS)
        };
        level_shift -= 9;
    }
}

/// Makes the L3 table of every slot of the hole, so that these L4 entries never change again: PV guests' tables have
/// copies of them.
///
/// # Safety
/// `root` is an L4 table of ours.
pub unsafe fn complete(source: &mut impl TableSource, root: MachineAddr) -> Option<()> {
    for slot in SLOTS {
        let virt = 0xffff << 48 | (slot as u64) << 39;
        let rights = if virt == M2P { Rights::M2P } else { Rights::RW };
        // SAFETY: by the caller; the table that this makes is empty.
        unsafe { entry(source, root, virt, 30, rights)? };
    }
    Some(())
}

/// Where a page of 2 MiB of the hypervisor's address space leads; `None` where there is none.
pub(super) fn large_page(virt: u64) -> Option<MachineAddr> {
    let mut table = root();
    let mut shift = 39;
    loop {
        let index = (virt >> shift) as usize & 511;
        // SAFETY: the index is below 512, and `table` is one of our tables, which are never given back.
        let value = unsafe { Direct.pointer(table).add(index).read_volatile() };
        if value & PRESENT == 0 || (shift == 21) != (value & LARGE != 0) {
            return None;
        }
        table = MachineAddr::new(value & ADDRESS);
        if shift == 21 {
            return Some(table);
        }
        shift -= 9;
    }
}

static ROOT: AtomicU64 = AtomicU64::new(0);

/// The hypervisor's L4 table.
pub fn root() -> MachineAddr {
    MachineAddr::new(ROOT.load(Ordering::Relaxed))
}

/// Says which L4 table is the hypervisor's from now on.
pub fn set_root(root: MachineAddr) {
    ROOT.store(root.raw(), Ordering::Relaxed);
}

static SLIM: AtomicU64 = AtomicU64::new(0);

/// The L4 table whose slot of stacks and image has only what a processor needs to leave a guest: entry code, the
/// IDT, task states and the stacks of IST. Isolated PV guests run with that slot.
pub fn slim() -> MachineAddr {
    MachineAddr::new(SLIM.load(Ordering::Relaxed))
}

/// Says which table is [`slim`].
pub fn set_slim(root: MachineAddr) {
    SLIM.store(root.raw(), Ordering::Relaxed);
}

/// Tables from the frame allocator, reached by the direct map.
pub struct Direct;

impl TableSource for Direct {
    fn table(&mut self) -> Option<MachineAddr> {
        let page = super::OwnedPages::zeroed(0)?;
        let addr = page.addr();
        core::mem::forget(page); // tables of the hypervisor's own are never given back
        Some(addr)
    }
    fn pointer(&self, addr: MachineAddr) -> *mut u64 {
        direct(addr).cast()
    }
}

static MAPPING: spin::Mutex<()> = spin::Mutex::new(());

/// Maps device registers or firmware tables at their place in the device window, and says where. `None` when they
/// lie above the window's 512 GiB or memory is short.
pub fn device(addr: MachineAddr, len: u64, rights: Rights) -> Option<*mut u8> {
    let start = addr.raw() & !4095;
    let end = addr.raw().checked_add(len)?.checked_next_multiple_of(4096)?;
    if end > 1 << 39 {
        return None;
    }
    let _guard = MAPPING.lock();
    // SAFETY: the window holds nothing but such mappings, all of the same kind for the same address.
    unsafe { map(&mut Direct, root(), super::layout::DEVICES + start, start, end - start, rights, 12)? };
    Some((super::layout::DEVICES + addr.raw()) as *mut u8)
}
