//! The life of a virtual CPU on a processor: load, run, unload.

use super::Vcpu;
use super::entry::{self, Outcome};
use super::event::Queued;
use super::exit::{Reason, qualification};
use super::host::{self, Tables};
use super::vmcs::{self, VmcsField};
use super::{state, tlb};
use crate::cpu::speculation;
use crate::exit::Exit;
use crate::mem::image_phys;
use crate::percpu::{MAX_CPUS, PerCpu, this_cpu};
use core::cell::UnsafeCell;
use model::regs::vector;

/// Whether a virtual CPU is loaded on this CPU.
static OCCUPIED: PerCpu<bool> = PerCpu::new([const { UnsafeCell::new(false) }; MAX_CPUS]);

/// Exceptions that exit, so that no guest holds the processor in an endless delivery of one (#DB, #AC), and
/// machine checks, which are the host's.
const INTERCEPTED: u32 = 1 << vector::DB | 1 << vector::AC | 1 << vector::MC;

/// PAUSE-loop exiting: the most TSC ticks between two PAUSEs of one loop, and how long a loop may last.
const PLE_GAP: u64 = 128;
const PLE_WINDOW: u64 = 4096;

/// An entry of a list of MSRs that an entry loads (SDM 3C table 24-15).
#[repr(C, align(16))]
struct MsrEntry {
    index: u32,
    reserved: u32,
    value: u64,
}

/// The last that an entry does with the host's caches (Intel, L1 Terminal Fault).
static FLUSH_L1D: MsrEntry = MsrEntry { index: speculation::FLUSH_CMD, reserved: 0, value: 1 };

impl Vcpu {
    /// [`crate::virt::Virt::load`].
    pub(super) fn load_here(&mut self) {
        assert!(self.loaded_on.is_none(), "the virtual CPU is loaded already");
        OCCUPIED.with(|occupied| assert!(!core::mem::replace(occupied, true), "another virtual CPU is loaded"));
        let region = self.vmcs.addr();
        // SAFETY: the region is owned, has its revision, and is current on no CPU: `unload_here` cleared it.
        unsafe {
            if !self.is_set_up {
                vmcs::clear(region);
            }
            vmcs::make_current(region);
        }
        self.loaded_on = Some(this_cpu());
        self.how.set_clear();
        self.by_hand.load();
        if !self.is_set_up {
            self.set_up();
        }
        self.load_debug();
        self.tag.load(&self.features, self.eptp);
        // A CPU's own state is the same each time, and the VMCS keeps it.
        if self.host.as_ref().is_none_or(|(cpu, _)| *cpu != this_cpu()) {
            let tables = Tables::read();
            host::write_state(&tables);
            self.host = Some((this_cpu(), tables));
        }
    }

    /// [`crate::virt::Virt::unload`].
    pub(super) fn unload_here(&mut self) {
        self.assert_loaded();
        self.by_hand.unload();
        self.unload_debug();
        // SAFETY: the region is owned, and this CPU is in VMX operation, as it was when it was loaded.
        unsafe { vmcs::clear(self.vmcs.addr()) }
        if let Some((_, tables)) = &self.host {
            tables.restore();
        }
        self.loaded_on = None;
        OCCUPIED.with(|occupied| *occupied = false);
    }

    #[inline(always)]
    fn assert_loaded(&self) {
        assert!(self.loaded_on == Some(this_cpu()), "the virtual CPU is not loaded here");
    }

    /// Writes what a VMCS needs once: everything but the host's state.
    fn set_up(&mut self) {
        self.write_controls();
        self.write_addresses();
        state::reset();
        self.seen.reset();
        self.write_cr(0, RESET_CR0);
        self.write_cr(4, 0);
        self.is_set_up = true;
    }

    fn write_controls(&self) {
        let features = &self.features;
        let controls = [
            (VmcsField::PIN_CONTROLS, u64::from(features.pin)),
            (VmcsField::PRIMARY_CONTROLS, u64::from(features.primary)),
            (VmcsField::SECONDARY_CONTROLS, u64::from(features.secondary)),
            (VmcsField::EXIT_CONTROLS, u64::from(features.exit)),
            (VmcsField::ENTRY_CONTROLS, u64::from(features.entry)),
            (VmcsField::EXCEPTION_BITMAP, u64::from(INTERCEPTED)),
            (VmcsField::CR0_MASK, features.fixed.cr0_owned()),
            (VmcsField::CR4_MASK, features.fixed.cr4_owned()),
            (VmcsField::PAGE_FAULT_MASK, 0),
            (VmcsField::PAGE_FAULT_MATCH, 0),
            (VmcsField::CR3_TARGET_COUNT, 0),
            (VmcsField::EXIT_MSR_STORE_COUNT, 0),
            (VmcsField::EXIT_MSR_LOAD_COUNT, 0),
            (VmcsField::ENTRY_MSR_LOAD_COUNT, 0),
            (VmcsField::ENTRY_INTERRUPTION, 0),
            (VmcsField::TSC_OFFSET, 0),
        ];
        for (field, value) in controls {
            // SAFETY: the guest exits where it must, reaches memory through EPT only, and no MSR is loaded for it.
            unsafe { vmcs::write(field, value) }
        }
        if speculation::flushes_l1d() {
            // SAFETY: the list is part of the image, aligned, and has one entry, of a register that the processor has.
            unsafe {
                vmcs::write(VmcsField::ENTRY_MSR_LOAD, image_phys(&raw const FLUSH_L1D as u64));
                vmcs::write(VmcsField::ENTRY_MSR_LOAD_COUNT, 1);
            }
        }
        if features.pause_loop() {
            // SAFETY: when PAUSE exits concerns time only.
            unsafe {
                vmcs::write(VmcsField::PLE_GAP, PLE_GAP);
                vmcs::write(VmcsField::PLE_WINDOW, PLE_WINDOW);
            }
        }
    }

    fn write_addresses(&self) {
        // SAFETY: pages that live as long as the virtual CPU, the bitmaps filled, and the nested page tables that its
        // creator vouched for.
        unsafe {
            vmcs::write(VmcsField::EPT_POINTER, self.eptp);
            vmcs::write(VmcsField::MSR_BITMAP, self.msr_bitmap.addr().raw());
            vmcs::write(VmcsField::IO_BITMAP_A, self.io_bitmaps.addr().raw());
            vmcs::write(VmcsField::IO_BITMAP_B, self.io_bitmaps.addr().raw() + 4096);
        }
        self.write_apic_addresses();
    }

    /// [`crate::virt::Virt::run`].
    #[inline]
    pub(super) fn run_here(&mut self, regs: &mut model::regs::Regs) -> Exit {
        self.assert_loaded();
        self.seen.write_changed(regs);
        self.queued.write();
        self.merge_outstanding();
        host::set_cr2(self.cr2);
        // SAFETY: `load_here` completed the VMCS with this CPU's state, and `how` is kept below.
        let outcome = unsafe { entry::enter(regs, self.how, &mut self.host_rsp) };
        self.cr2 = host::cr2();
        self.seen.read(regs);
        if outcome != Outcome::EXIT {
            return Exit::EntryFailed { code: vmcs::read(VmcsField::INSTRUCTION_ERROR), info: 0 };
        }
        let reason = Reason::read();
        if reason.is_failed_entry() {
            return Exit::EntryFailed { code: reason.code(), info: qualification() };
        }
        self.how.set_launched();
        self.queued = Queued::cut_short();
        self.decode(reason, regs)
    }

    /// [`crate::virt::Virt::flush`].
    pub(super) fn forget_translations(&mut self) {
        tlb::forget_nested(&self.features, self.eptp);
    }
}

/// CR0 after reset (SDM 3A table 9-1).
const RESET_CR0: u64 = 0x6000_0010;

impl Drop for Vcpu {
    fn drop(&mut self) {
        if self.loaded_on.is_some() {
            self.unload_here();
        }
    }
}
