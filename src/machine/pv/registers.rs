//! Registers of a PV virtual CPU beside those of `Regs`: in the processor while it is loaded, here otherwise.
//!
//! In kernel mode GS_BASE is the kernel's and KERNEL_GS_BASE the user's; in user mode it is the other way round, as on bare
//! hardware after SWAPGS. The guest cannot execute that, nor WRMSR, but it loads selectors, and WRFSBASE and WRGSBASE where
//! its CR4 says so: so the bases are read from the processor.

use core::arch::asm;

use model::debug::{DR6_RESET, DR7_RESET};
use model::regs::{Cr0, Cr4};

use super::Vcpu;
use super::segments::{load_selectors, read_selectors};
use crate::cpu::{features, msr};
use crate::virt::GuestMsr;

const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TSC_AUX: u32 = 0xc000_0103;

/// Bits of CR4 that a guest may have beside the hypervisor's.
const CR4_GUEST: u64 = Cr4::TSD.bits() | Cr4::DE.bits() | Cr4::FSGSBASE.bits();

/// The values.
pub(super) struct State {
    /// CR0, CR2, CR4 as the guest believes them to be.
    cr0: u64,
    pub(super) cr2: u64,
    cr4: u64,
    /// ES, DS, FS, GS.
    pub(super) selectors: [u16; 4],
    /// Some of them could not be loaded when it was loaded last.
    pub(super) are_lost: bool,
    fs_base: u64,
    pub(super) gs_base: u64,
    pub(super) kernel_gs_base: u64,
    tsc_aux: u32,
    pub(super) debug: [u64; 4],
    pub(super) dr6: u64,
    pub(super) dr7: u64,
    /// Descriptors in the LDT.
    pub(super) ldt_entries: u32,
    /// The processor has TSC_AUX.
    has_tsc_aux: bool,
    /// Bits of CR4 that are the guest's on this processor.
    cr4_may: u64,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            cr0: (Cr0::PE | Cr0::MP | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::AM | Cr0::PG).bits(),
            cr2: 0,
            cr4: Cr4::PAE.bits(),
            selectors: [0; 4],
            are_lost: false,
            fs_base: 0,
            gs_base: 0,
            kernel_gs_base: 0,
            tsc_aux: 0,
            debug: [0; 4],
            dr6: DR6_RESET,
            dr7: DR7_RESET,
            ldt_entries: 0,
            has_tsc_aux: features::has_rdtscp(),
            cr4_may: if features::has_fsgsbase() { CR4_GUEST } else { CR4_GUEST & !Cr4::FSGSBASE.bits() },
        }
    }
}

impl Vcpu {
    pub(super) fn is_loaded(&self) -> bool {
        self.is_live
    }

    /// Keeps `ready` right.
    pub(super) fn settle(&mut self) {
        self.ready = if self.is_live && !self.state.is_armed() { self.regs } else { 0 };
    }

    /// Puts all of them into the processor.
    pub(super) fn load_registers(&mut self) {
        self.state.are_lost = !load_selectors(self.state.selectors);
        let state = &self.state;
        // SAFETY: every processor of 64 bits has these; the hypervisor uses none, and the addresses are canonical.
        unsafe {
            msr::write(FS_BASE, state.fs_base);
            msr::write(GS_BASE, state.gs_base);
            msr::write(KERNEL_GS_BASE, state.kernel_gs_base);
        }
        if state.has_tsc_aux {
            // SAFETY: the processor has it, and the hypervisor does not use it.
            unsafe { msr::write(TSC_AUX, u64::from(state.tsc_aux)) };
        }
        if state.is_armed() {
            self.load_breakpoints();
        }
        self.apply_cr4();
        if self.state.cr0 & Cr0::TS.bits() != 0 {
            set_task_switched(true);
        }
    }

    /// Takes out of the processor what the guest can have changed.
    pub(super) fn save_registers(&mut self) {
        self.state.selectors = read_selectors();
        // SAFETY: as in `load_registers`; reading changes nothing.
        unsafe {
            self.state.fs_base = msr::read(FS_BASE);
            self.state.gs_base = msr::read(GS_BASE);
            self.state.kernel_gs_base = msr::read(KERNEL_GS_BASE);
        }
        set_task_switched(false);
        if let Some(host) = &self.loaded {
            write_cr4(host.cr4);
        }
    }

    /// Changes GS_BASE and KERNEL_GS_BASE with each other.
    pub(super) fn swap_gs(&mut self) {
        if self.is_loaded() {
            // SAFETY: both are the guest's while it is loaded.
            unsafe { asm!("swapgs", options(nomem, nostack, preserves_flags)) };
        } else {
            core::mem::swap(&mut self.state.gs_base, &mut self.state.kernel_gs_base);
        }
    }

    /// [`crate::virt::Virt::cr`].
    pub(super) fn read_cr(&self, n: u8) -> u64 {
        match n {
            0 => self.state.cr0,
            2 => self.state.cr2,
            3 => self.base().map_or(0, |l4| l4.base().raw()),
            4 => self.state.cr4,
            _ => 0,
        }
    }

    /// [`crate::virt::Virt::set_cr`]. CR3 is set by [`Vcpu::set_kernel_base`].
    #[inline]
    pub(super) fn write_cr(&mut self, n: u8, value: u64) {
        match n {
            0 => {
                let was = core::mem::replace(&mut self.state.cr0, value);
                if self.is_loaded() && (was ^ value) & Cr0::TS.bits() != 0 {
                    set_task_switched(value & Cr0::TS.bits() != 0);
                }
            }
            2 => self.state.cr2 = value,
            4 => {
                self.state.cr4 = value;
                if self.is_loaded() {
                    self.apply_cr4();
                }
            }
            _ => {}
        }
    }

    /// Makes the processor's CR4 the hypervisor's, with what the guest may add to it.
    fn apply_cr4(&self) {
        let Some(host) = &self.loaded else { return };
        write_cr4(host.cr4 | self.state.cr4 & self.state.cr4_may);
    }

    /// [`crate::virt::Virt::msr`].
    pub(super) fn read_msr(&self, name: GuestMsr) -> u64 {
        let (index, kept) = match name {
            GuestMsr::FsBase => (FS_BASE, self.state.fs_base),
            GuestMsr::GsBase => (GS_BASE, self.state.gs_base),
            GuestMsr::KernelGsBase => (KERNEL_GS_BASE, self.state.kernel_gs_base),
            GuestMsr::TscAux => return u64::from(self.state.tsc_aux),
            _ => return 0,
        };
        // SAFETY: every processor of 64 bits has these.
        if self.is_loaded() { unsafe { msr::read(index) } } else { kept }
    }

    /// Sets the base of FS, if the address is canonical. Says whether it is.
    #[inline]
    #[must_use]
    pub fn set_fs_base(&mut self, value: u64) -> bool {
        if canonical(value) != value {
            return false;
        }
        self.state.fs_base = value;
        if self.is_loaded() {
            // SAFETY: as in `load_registers`.
            unsafe { msr::write(FS_BASE, value) };
        }
        true
    }

    /// [`crate::virt::Virt::set_msr`]. An address that is not canonical is made so.
    #[inline]
    pub(super) fn write_msr(&mut self, name: GuestMsr, value: u64) {
        let canonical = canonical(value);
        let is_loaded = self.is_loaded();
        let (index, value, kept) = match name {
            GuestMsr::FsBase => (FS_BASE, canonical, &mut self.state.fs_base),
            GuestMsr::GsBase => (GS_BASE, canonical, &mut self.state.gs_base),
            GuestMsr::KernelGsBase => (KERNEL_GS_BASE, canonical, &mut self.state.kernel_gs_base),
            GuestMsr::TscAux => {
                self.state.tsc_aux = value as u32;
                if is_loaded && self.state.has_tsc_aux {
                    // SAFETY: as in `load_registers`.
                    unsafe { msr::write(TSC_AUX, value & 0xffff_ffff) };
                }
                return;
            }
            _ => return,
        };
        *kept = value;
        if is_loaded {
            // SAFETY: as in `load_registers`.
            unsafe { msr::write(index, value) };
        }
    }
}

/// The value with the upper 16 bits that an address must have.
#[inline]
fn canonical(value: u64) -> u64 {
    ((value << 16) as i64 >> 16) as u64
}

/// Sets or clears CR0.TS.
fn set_task_switched(is_set: bool) {
    if !is_set {
        // SAFETY: the hypervisor has no floating point but to switch a guest's.
        return unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) };
    }
    // SAFETY: as above; nothing else of CR0 changes.
    unsafe {
        asm!("mov {0}, cr0", "or {0}, 8", "mov cr0, {0}", out(reg) _, options(nomem, nostack));
    }
}

fn write_cr4(value: u64) {
    let now: u64;
    // SAFETY: reading changes nothing; what is written is the hypervisor's with TSD, DE and FSGSBASE as the guest has them.
    unsafe {
        asm!("mov {0}, cr4", out(reg) now, options(nomem, nostack, preserves_flags));
        if now != value {
            asm!("mov cr4, {0}", in(reg) value, options(nostack, preserves_flags));
        }
    }
}
