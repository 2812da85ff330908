//! The part of the hole that is a PV domain's own: the descriptor tables of its virtual CPUs (slot 260).

use model::addr::Mfn;
use model::ids::VcpuId;

/// Slot 260 of a domain: for each virtual CPU sixteen pages of GDT and sixteen of LDT.
pub struct Space {
    nr_vcpus: u32,
}

impl Space {
    /// With empty tables for so many virtual CPUs. `None` when memory is short.
    pub fn new(nr_vcpus: u32) -> Option<Self> {
        Some(Self { nr_vcpus })
    }

    /// How many virtual CPUs it has room for.
    pub fn nr_vcpus(&self) -> u32 {
        self.nr_vcpus
    }

    /// Makes a frame page `n` (0 to 13) of a virtual CPU's GDT, or nothing.
    pub fn set_gdt_page(&self, _vcpu: VcpuId, _n: u32, _frame: Option<Mfn>) {}

    /// Makes a frame page `n` (0 to 15) of a virtual CPU's LDT, or nothing.
    pub fn set_ldt_page(&self, _vcpu: VcpuId, _n: u32, _frame: Option<Mfn>) {}
}
