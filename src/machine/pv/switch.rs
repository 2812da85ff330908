//! What changes with the PV virtual CPU that a CPU has loaded: page tables, descriptor tables, registers.
//!
//! From `load` to `unload` CR3 is one of the guest's tables, or its partner, and never anything that the guest has given
//! up: whoever changes the table changes CR3 at once, and at `unload` it is the hypervisor's own again.

use core::arch::asm;
use core::cell::UnsafeCell;

use model::addr::MachineAddr;
use x86_64::registers::control::Cr4;

use super::entry::Stub;
use super::{Vcpu, entry, l4, space};
use crate::cpu::descriptors::{self, Loaded};
use crate::frame::Frame;
use crate::mem::map::{self, Rights};
use crate::percpu::{MAX_CPUS, PerCpu, this_cpu};

/// What this CPU had before.
pub(super) struct Host {
    pub(super) cr4: u64,
}

/// What a CPU remembers of the virtual CPUs that it had.
struct Seen {
    /// Whether one is loaded.
    is_occupied: bool,
    /// Its stub of SYSCALL, or the last one's; `None` when SYSCALL's registers have another's values.
    stub: Option<Stub>,
}

static SEEN: PerCpu<Seen> = PerCpu::new([const { UnsafeCell::new(Seen { is_occupied: false, stub: None }) }; MAX_CPUS]);

/// SYSCALL's registers of this CPU are about to get the values of a guest of VT-x.
pub(crate) fn lose_entries() {
    SEEN.with(|seen| seen.stub = None);
}

impl Vcpu {
    /// [`crate::virt::Virt::load`].
    pub(super) fn load_here(&mut self) {
        assert!(self.loaded.is_none(), "the virtual CPU is loaded already");
        SEEN.with(|seen| {
            assert!(!core::mem::replace(&mut seen.is_occupied, true), "another virtual CPU is loaded");
            let stub = Some(self.stub());
            if seen.stub != stub {
                if seen.stub.is_none() {
                    entry::enable_syscall(this_cpu());
                }
                // SAFETY: it is this virtual CPU that runs next, if any.
                unsafe { entry::choose(this_cpu(), self.stub()) };
                seen.stub = stub;
            }
        });
        let here = this_cpu();
        if self.last_cpu != Some(here) {
            self.tables.set(self.id, space::DESCRIPTORS, Rights::PER_DOMAIN_RO.entry(descriptors::page()));
            self.last_cpu = Some(here);
        }
        self.loaded = Some(Host { cr4: Cr4::read_raw() });
        self.use_base();
    }

    fn stub(&self) -> Stub {
        match (self.guards[0], self.is_isolated) {
            (0, false) => Stub::Plain,
            (0, true) => Stub::Isolated,
            _ => Stub::Guarded,
        }
    }

    /// Puts the registers into the processor, once there are page tables to find the descriptors by.
    #[cold]
    #[inline(never)]
    fn become_ready(&mut self) {
        // SAFETY: CR3 has the domain's slot, where the tables are mapped; the page of this CPU's descriptors among them.
        unsafe { descriptors::use_guest_tables(&self.descriptor_tables()) };
        self.load_registers();
        if !self.is_isolated {
            self.write_frame(0, 0);
        }
        self.is_live = true;
        self.settle();
    }

    /// Where its descriptor tables and registers lie.
    fn descriptor_tables(&self) -> Loaded {
        let frame = self.frame;
        let end = core::mem::offset_of!(Frame, regs) + core::mem::offset_of!(model::regs::Regs, host_rsp);
        Loaded { gdt: space::base(self.id), regs_end: frame + end as u64, ldt: self.ldt() }
    }

    /// [`crate::virt::Virt::unload`].
    pub(super) fn unload_here(&mut self) {
        assert!(self.loaded.is_some(), "the virtual CPU is not loaded");
        if core::mem::take(&mut self.is_live) {
            self.settle();
            self.save_registers();
            descriptors::use_own_tables();
        }
        self.loaded = None;
        load_cr3(map::root());
        SEEN.with(|seen| seen.is_occupied = false);
    }

    /// Makes the page tables of its mode this CPU's, while it is loaded.
    #[inline(never)]
    pub(super) fn use_base(&mut self) {
        let Some(base) = self.base() else { return };
        let mut table = base.base();
        if self.is_isolated {
            let partner = l4::partner(base).expect("the table of an isolated guest has a partner");
            self.write_frame(partner.raw(), table.raw());
            table = partner;
        }
        if self.loaded.is_some() {
            load_cr3(table);
            if !self.is_live {
                self.become_ready();
            }
        }
    }

    /// Says what CR3 becomes when it leaves and enters.
    #[inline(always)]
    fn write_frame(&self, hypervisor_cr3: u64, guest_cr3: u64) {
        let frame = self.regs as *mut Frame;
        // SAFETY: the frame is this virtual CPU's, in its registers' page, and beside what `RegsPage` gives out.
        unsafe {
            (&raw mut (*frame).hypervisor_cr3).write_volatile(hypervisor_cr3 | self.guards[0]);
            (&raw mut (*frame).guest_cr3).write_volatile(guest_cr3 | self.guards[1]);
        }
    }

    /// [`crate::virt::Virt::flush`]. An isolated guest's own translations go at each entry.
    pub(super) fn forget_translations(&mut self) {
        if self.loaded.is_some() {
            forget_translations();
        }
    }
}

/// Makes this CPU forget the translations of the guest that it has loaded, at once: for a copy. An isolated guest's own go
/// at each entry.
pub fn forget_translations() {
    // SAFETY: the same tables again; no translation of a guest's is global.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) };
}

#[inline]
pub(super) fn load_cr3(table: MachineAddr) {
    // SAFETY: an L4 table that has all of the hypervisor's slots: its own, or one that `l4::open` filled.
    unsafe { asm!("mov cr3, {0}", in(reg) table.raw(), options(nostack, preserves_flags)) };
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        if self.loaded.is_some() {
            self.unload_here();
        }
    }
}
