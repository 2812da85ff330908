//! The part of the hole that is a PV domain's own (slot 260): for each virtual CPU thirty-two pages.
//!
//! | pages | what |
//! |---|---|
//! | 0 to 13 | the guest's GDT; where it has none, zeros |
//! | 14 | the descriptors of the CPU on which the virtual CPU is loaded |
//! | 15 | its [`RegsPage`], beyond the limit of the GDT |
//! | 16 to 31 | its LDT |
//!
//! None of it has the user bit, and none of it is global. The guest's descriptors are writable, because the processor
//! sets their accessed bits; the frames are of a type that the guest itself cannot write.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use model::addr::{MachineAddr, Mfn, PAGE_SIZE};
use model::ids::VcpuId;
use model::regs::Regs;
use spin::Once;

use crate::frame::RegsPage;
use crate::mem::OwnedPages;
use crate::mem::layout::PER_DOMAIN;
use crate::mem::map::Rights;

/// Pages of each virtual CPU.
const PAGES: u64 = 32;
/// Virtual CPUs whose pages one L1 table maps.
const PER_TABLE: u32 = 512 / PAGES as u32;
/// Pages of GDT that are the guest's (`FIRST_RESERVED_GDT_PAGE`).
pub const GDT_PAGES: u32 = 14;
/// Pages of an LDT.
pub const LDT_PAGES: u32 = 16;

/// Which of a virtual CPU's descriptor tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The global one.
    Gdt,
    /// The local one.
    Ldt,
}

/// The tables that map a domain's part.
pub(super) struct Tables {
    l3: OwnedPages,
    _l2: OwnedPages,
    l1s: Vec<OwnedPages>,
}

/// The part of the hole that is a domain's own.
pub struct Space {
    tables: Arc<Tables>,
    nr_vcpus: u32,
    is_isolated: bool,
}

/// A page of zeros, for the pages of a GDT that a guest has not set.
static EMPTY: Once<OwnedPages> = Once::new();

pub(super) fn empty() -> Option<MachineAddr> {
    if EMPTY.get().is_none() {
        let page = OwnedPages::zeroed(0)?;
        EMPTY.call_once(|| page);
    }
    EMPTY.get().map(OwnedPages::addr)
}

fn word(page: &OwnedPages, index: usize) -> &AtomicU64 {
    assert!(index < 512, "an entry of the table");
    // SAFETY: the page is owned, a table of eight-byte words that the processor reads, and used by atomic accesses alone.
    unsafe { AtomicU64::from_ptr(page.ptr().cast::<u64>().wrapping_add(index)) }
}

impl Tables {
    /// The entry of page `page` of a virtual CPU.
    fn entry(&self, vcpu: VcpuId, page: u64) -> &AtomicU64 {
        let index = u64::from(vcpu.0 % PER_TABLE) * PAGES + page;
        word(&self.l1s[(vcpu.0 / PER_TABLE) as usize], index as usize)
    }

    /// Maps page `page` of a virtual CPU, or takes it out.
    pub(super) fn set(&self, vcpu: VcpuId, page: u64, entry: u64) {
        assert!(page < PAGES, "a page of the virtual CPU");
        self.entry(vcpu, page).store(entry, Ordering::Relaxed);
        forget(base(vcpu) + page * PAGE_SIZE);
    }

    /// The L3 table.
    pub(super) fn l3(&self) -> MachineAddr {
        self.l3.addr()
    }
}

/// Where a virtual CPU's pages lie.
pub(super) fn base(vcpu: VcpuId) -> u64 {
    PER_DOMAIN + u64::from(vcpu.0) * PAGES * PAGE_SIZE
}

/// The page of the CPU's own descriptors.
pub(super) const DESCRIPTORS: u64 = 14;
/// The page of the registers.
pub(super) const REGS: u64 = 15;
/// The first page of the LDT.
pub(super) const LDT: u64 = 16;

/// Makes this CPU forget a translation.
#[inline]
pub(super) fn forget(address: u64) {
    // SAFETY: forgetting a translation changes nothing but time.
    unsafe { asm!("invlpg [{0}]", in(reg) address, options(nostack, preserves_flags)) };
}

impl Space {
    /// With empty tables for so many virtual CPUs, for a domain that runs isolated from the hypervisor's address space
    /// or not. `None` when memory is short.
    pub fn new(nr_vcpus: u32, is_isolated: bool) -> Option<Self> {
        let (l3, l2, zeros) = (OwnedPages::zeroed(0)?, OwnedPages::zeroed(0)?, empty()?);
        word(&l3, 0).store(Rights::TABLE.entry(l2.addr()), Ordering::Relaxed);
        let mut l1s = Vec::new();
        for index in 0..nr_vcpus.div_ceil(PER_TABLE) {
            let l1 = OwnedPages::zeroed(0)?;
            word(&l2, index as usize).store(Rights::TABLE.entry(l1.addr()), Ordering::Relaxed);
            for page in (0..512).filter(|page| page % PAGES < u64::from(GDT_PAGES)) {
                word(&l1, page as usize).store(Rights::PER_DOMAIN_RO.entry(zeros), Ordering::Relaxed);
            }
            l1s.push(l1);
        }
        Some(Self { tables: Arc::new(Tables { l3, _l2: l2, l1s }), nr_vcpus, is_isolated })
    }

    /// How many virtual CPUs it has room for.
    pub fn nr_vcpus(&self) -> u32 {
        self.nr_vcpus
    }

    /// Whether the domain's virtual CPUs run without the hypervisor's address space.
    pub fn is_isolated(&self) -> bool {
        self.is_isolated
    }

    /// Makes a frame page `n` (below [`GDT_PAGES`]) of a virtual CPU's GDT, or nothing. The frame has a reference and the
    /// type of descriptors. Another CPU that has the virtual CPU loaded may use the old one until it flushes.
    pub fn set_gdt_page(&self, vcpu: VcpuId, n: u32, frame: Option<Mfn>) {
        assert!(n < GDT_PAGES && vcpu.0 < self.nr_vcpus, "a page of the guest's GDT");
        let entry = match frame {
            Some(frame) => Rights::PER_DOMAIN.entry(frame.base()),
            None => Rights::PER_DOMAIN_RO.entry(empty().expect("made with the first space")),
        };
        self.tables.set(vcpu, u64::from(n), entry);
    }

    /// Makes a frame page `n` (below [`LDT_PAGES`]) of a virtual CPU's LDT, or nothing; as [`Space::set_gdt_page`].
    pub fn set_ldt_page(&self, vcpu: VcpuId, n: u32, frame: Option<Mfn>) {
        assert!(n < LDT_PAGES && vcpu.0 < self.nr_vcpus, "a page of the guest's LDT");
        let entry = frame.map_or(0, |frame| Rights::PER_DOMAIN.entry(frame.base()));
        self.tables.set(vcpu, LDT + u64::from(n), entry);
    }

    /// Which page of a virtual CPU's descriptor tables this address is in. A guest that loads a selector whose page
    /// is not there faults with such an address.
    pub fn find(&self, vcpu: VcpuId, address: u64) -> Option<(Table, u32)> {
        let page = address.checked_sub(base(vcpu))? / PAGE_SIZE;
        match page {
            page if page < u64::from(GDT_PAGES) => Some((Table::Gdt, page as u32)),
            page if (LDT..PAGES).contains(&page) => Some((Table::Ldt, (page - LDT) as u32)),
            _ => None,
        }
    }

    /// What the L4 slot of it leads to.
    pub(super) fn l3(&self) -> MachineAddr {
        self.tables.l3()
    }

    /// Gives a virtual CPU its registers. Says where they lie.
    pub(super) fn map_regs(&self, vcpu: VcpuId, regs: &RegsPage) -> u64 {
        assert!(vcpu.0 < self.nr_vcpus, "a virtual CPU of the space");
        self.tables.set(vcpu, REGS, Rights::PER_DOMAIN.entry(regs.addr()));
        base(vcpu) + REGS * PAGE_SIZE
    }

    /// What a virtual CPU keeps of it.
    pub(super) fn tables(&self) -> Arc<Tables> {
        self.tables.clone()
    }
}

const _: () = assert!(size_of::<Regs>() <= PAGE_SIZE as usize);
