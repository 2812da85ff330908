//! Page tables of PV guests.
//!
//! What may become a page table, and what an entry may be, is decided by [`model::pv::mmu`].

use alloc::vec::Vec;

use model::addr::Mfn;

/// Pages of a virtual CPU's GDT that are the guest's; the next is the hypervisor's (`FIRST_RESERVED_GDT_PAGE`).
pub const GDT_PAGES: usize = 14;
/// Pages of a virtual CPU's LDT.
pub const LDT_PAGES: usize = 16;

/// What the lock of a domain's page tables guards, beside the tables themselves.
pub struct State {
    /// What each virtual CPU holds references to.
    pub vcpus: Vec<VcpuTables>,
}

impl State {
    /// For so many virtual CPUs, which have no tables yet.
    pub fn new(nr_vcpus: u32) -> Self {
        Self { vcpus: (0..nr_vcpus).map(|_| VcpuTables::default()).collect() }
    }
}

/// The tables that a virtual CPU runs on. Each is held by a reference.
#[derive(Default)]
pub struct VcpuTables {
    /// The L4 table of kernel mode.
    pub kernel: Option<Mfn>,
    /// The L4 table of user mode.
    pub user: Option<Mfn>,
    /// A base that was replaced, and whose reference takes long to drop.
    pub dropping: Option<Mfn>,
    /// The frames of its GDT.
    pub gdt: [Option<Mfn>; GDT_PAGES],
    /// The frames of its LDT.
    pub ldt: [Option<Mfn>; LDT_PAGES],
    /// Where the LDT is in the guest's address space.
    pub ldt_base: u64,
    /// Entries of the LDT.
    pub ldt_entries: u32,
}
