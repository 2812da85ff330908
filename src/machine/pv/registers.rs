//! Registers of a PV virtual CPU beside those of `Regs`: in the processor while it is loaded, here otherwise.
//!
//! In kernel mode GS_BASE is the kernel's and KERNEL_GS_BASE the user's; in user mode it is the other way round, as on bare
//! hardware after SWAPGS. The guest cannot execute that, nor WRMSR, but it loads selectors, and WRFSBASE and WRGSBASE where
//! its CR4 says so: so the bases are read from the processor.

use core::arch::asm;

use model::addr::GuestVirt;
use model::regs::{Cr0, Cr4, Segment, SegmentName};

use super::{Vcpu, copy, space};
use crate::cpu::{descriptors, features, msr};
use crate::virt::GuestMsr;

const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TSC_AUX: u32 = 0xc000_0103;

/// Bits of CR4 that a guest may have beside the hypervisor's.
const CR4_GUEST: u64 = Cr4::TSD.bits() | Cr4::DE.bits() | Cr4::FSGSBASE.bits();

/// DR7 with no breakpoint, and bits that are always so.
const DR7_OFF: u64 = 0x400;
/// Bits of DR7 that a guest can set: not GD, and no others that are reserved.
const DR7_MAY: u64 = 0xffff_03ff;
/// Bits of DR7 that enable a breakpoint.
const DR7_ENABLE: u64 = 0xff;
/// Bits of DR6 that are always one.
const DR6_ONES: u64 = 0xffff_0ff0;

/// The values.
pub(super) struct State {
    /// CR0, CR2, CR4 as the guest believes them to be.
    cr0: u64,
    pub(super) cr2: u64,
    cr4: u64,
    /// ES, DS, FS, GS.
    selectors: [u16; 4],
    /// Some of them could not be loaded when it was loaded last.
    are_lost: bool,
    fs_base: u64,
    gs_base: u64,
    kernel_gs_base: u64,
    tsc_aux: u32,
    debug: [u64; 4],
    dr6: u64,
    dr7: u64,
    /// Descriptors in the LDT.
    ldt_entries: u32,
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
            dr6: DR6_ONES,
            dr7: DR7_OFF,
            ldt_entries: 0,
            has_tsc_aux: features::has_rdtscp(),
            cr4_may: if features::has_fsgsbase() { CR4_GUEST } else { CR4_GUEST & !Cr4::FSGSBASE.bits() },
        }
    }

    /// Whether a breakpoint is enabled.
    #[inline(always)]
    pub(super) fn is_armed(&self) -> bool {
        self.dr7 & DR7_ENABLE != 0
    }

    /// Takes what a debug exception left in DR6.
    pub(super) fn take_dr6(&mut self) {
        let dr6: u64;
        // SAFETY: a status that steers nothing, and is the guest's.
        unsafe {
            asm!("mov {0}, dr6", "mov dr6, {1}", out(reg) dr6, in(reg) DR6_ONES, options(nomem, nostack, preserves_flags));
        }
        self.dr6 |= dr6;
    }
}

impl Vcpu {
    fn is_loaded(&self) -> bool {
        self.is_live
    }

    /// Keeps `ready` right.
    pub(super) fn settle(&mut self) {
        self.ready = if self.is_live && !self.state.is_armed() { self.regs } else { 0 };
    }

    /// Puts all of them into the processor.
    pub(super) fn load_registers(&mut self) {
        let names = [SegmentName::Es, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs];
        self.state.are_lost = !names
            .into_iter()
            .zip(self.state.selectors)
            .fold(true, |are_good, (name, selector)| load_selector(name, selector) && are_good);
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
        self.state.selectors = [SegmentName::Es, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs].map(read_selector);
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

    /// Loads a selector into the GS that user mode has while the guest is in kernel mode, with its base; the null
    /// selector if it cannot be loaded, and then `false`.
    pub fn set_user_gs(&mut self, selector: u16) -> bool {
        self.swap_gs();
        let is_good = if self.is_loaded() {
            load_selector(SegmentName::Gs, selector)
        } else {
            self.state.selectors[3] = selector;
            true
        };
        self.swap_gs();
        is_good
    }

    /// DS, ES, FS and GS, if some of them could not be loaded when it was loaded: these are null now. Says so once.
    pub fn take_lost_selectors(&mut self) -> Option<[u16; 4]> {
        let [es, ds, fs, gs] = self.state.selectors;
        core::mem::take(&mut self.state.are_lost).then_some([ds, es, fs, gs])
    }

    /// Sets a data segment register, before the guest's first entry or at any time; the null selector if it cannot be
    /// loaded, and then `false`.
    pub fn set_selector(&mut self, name: SegmentName, selector: u16) -> bool {
        let selector = if selector & !3 == 0 { 0 } else { selector | 3 };
        let Some(index) = index(name) else { return false };
        if self.is_loaded() {
            return load_selector(name, selector);
        }
        self.state.selectors[index] = selector;
        true
    }

    /// [`crate::virt::Virt::segment`]: the selectors that are not in `Regs`, with what the tables have for them.
    pub(super) fn read_segment(&self, name: SegmentName) -> Segment {
        let selector = match index(name) {
            Some(_) if self.is_loaded() => read_selector(name),
            Some(index) => self.state.selectors[index],
            None => return Segment::default(),
        };
        let mut segment = self.describe(selector).unwrap_or(Segment { selector, ..Segment::default() });
        match name {
            SegmentName::Fs => segment.base = self.read_msr(GuestMsr::FsBase),
            SegmentName::Gs => segment.base = self.read_msr(GuestMsr::GsBase),
            _ => {}
        }
        segment
    }

    /// [`crate::virt::Virt::set_segment`]: selector, and the base of FS and GS.
    pub(super) fn write_segment(&mut self, name: SegmentName, segment: Segment) {
        self.set_selector(name, segment.selector);
        match name {
            SegmentName::Fs => self.write_msr(GuestMsr::FsBase, segment.base),
            SegmentName::Gs => self.write_msr(GuestMsr::GsBase, segment.base),
            _ => {}
        }
    }

    /// The segment that the guest's tables have for a selector, while it is loaded; `None` for the null selector and
    /// where there is none.
    pub fn describe(&self, selector: u16) -> Option<Segment> {
        if !self.is_loaded() || selector & !7 == 0 {
            return None;
        }
        let offset = u64::from(selector & !7);
        let is_local = selector & 4 != 0;
        if is_local && offset >= u64::from(self.state.ldt_entries) * 8 || !is_local && offset > 0xefff {
            return None;
        }
        let table = space::base(self.id) + if is_local { space::LDT * 4096 } else { 0 };
        let raw = copy::read_own(table + offset)?;
        let limit = (raw & 0xffff | raw >> 32 & 0xf_0000) as u32;
        let attributes = (raw >> 40 & 0xff | raw >> 44 & 0xf00) as u16;
        let limit = if attributes & 1 << 11 != 0 { limit << 12 | 0xfff } else { limit };
        Some(Segment { selector, attributes, limit, base: raw >> 16 & 0xff_ffff | raw >> 56 << 24 })
    }

    /// Says how many descriptors the LDT has, 0 for no LDT. Its pages are those that [`super::Space::set_ldt_page`] was given.
    pub fn set_ldt(&mut self, entries: u32) {
        self.state.ldt_entries = entries.min(8192);
        if self.is_loaded() {
            // SAFETY: the tables are in use, and the LDT lies in this virtual CPU's pages.
            unsafe { descriptors::use_ldt(self.ldt()) };
        }
    }

    /// Descriptors in the LDT.
    pub fn ldt_entries(&self) -> u32 {
        self.state.ldt_entries
    }

    /// Base and limit of the LDT.
    pub(super) fn ldt(&self) -> Option<(u64, u32)> {
        let entries = self.state.ldt_entries;
        (entries != 0).then(|| (space::base(self.id) + space::LDT * 4096, entries * 8 - 1))
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

    /// [`crate::virt::Virt::set_msr`]. An address that is not canonical is made so.
    pub(super) fn write_msr(&mut self, name: GuestMsr, value: u64) {
        let canonical = ((value << 16) as i64 >> 16) as u64;
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

    /// Debug register `n`, as the guest has it; 4 and 5 are 6 and 7.
    pub fn debug_register(&self, n: u8) -> u64 {
        match n {
            0..=3 => self.state.debug[usize::from(n)],
            4 | 6 => self.state.dr6,
            _ => self.state.dr7,
        }
    }

    /// Sets it. `false`, and nothing has changed, for a breakpoint at an address that is not the guest's.
    pub fn set_debug_register(&mut self, n: u8, value: u64) -> bool {
        match n {
            0..=3 => {
                let canonical = ((value << 16) as i64 >> 16) as u64 == value;
                // A breakpoint is up to eight bytes long.
                if !canonical || !copy::is_guests(GuestVirt::new(value)) {
                    return false;
                }
                self.state.debug[usize::from(n)] = value;
            }
            4 | 6 => self.state.dr6 = value & 0xffff_ffff & !(1 << 12) | DR6_ONES,
            _ => self.state.dr7 = value & DR7_MAY | DR7_OFF,
        }
        if self.is_loaded() && self.state.is_armed() {
            self.load_breakpoints();
        }
        self.settle();
        true
    }

    fn load_breakpoints(&self) {
        let [dr0, dr1, dr2, dr3] = self.state.debug;
        // SAFETY: DR7 enables none while the hypervisor runs; the addresses are the guest's.
        unsafe {
            asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
                in(reg) dr0, in(reg) dr1, in(reg) dr2, in(reg) dr3, options(nomem, nostack, preserves_flags));
        }
    }

    /// Lets the guest's breakpoints take effect, on the way to it.
    pub(super) fn arm(&self) {
        write_dr7(self.state.dr7);
    }

    /// Ends their effect.
    pub(super) fn disarm(&self) {
        write_dr7(DR7_OFF);
    }
}

fn write_dr7(value: u64) {
    // SAFETY: breakpoints at a guest's addresses, between which and the entry nothing of the guest's is touched.
    unsafe { asm!("mov dr7, {0}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// The place of a data segment in `State::selectors`.
fn index(name: SegmentName) -> Option<usize> {
    match name {
        SegmentName::Es => Some(0),
        SegmentName::Ds => Some(1),
        SegmentName::Fs => Some(2),
        SegmentName::Gs => Some(3),
        _ => None,
    }
}

fn read_selector(name: SegmentName) -> u16 {
    let selector: u32;
    // SAFETY: reading a selector changes nothing.
    unsafe {
        match name {
            SegmentName::Es => asm!("mov {0:e}, es", out(reg) selector, options(nomem, nostack, preserves_flags)),
            SegmentName::Ds => asm!("mov {0:e}, ds", out(reg) selector, options(nomem, nostack, preserves_flags)),
            SegmentName::Fs => asm!("mov {0:e}, fs", out(reg) selector, options(nomem, nostack, preserves_flags)),
            _ => asm!("mov {0:e}, gs", out(reg) selector, options(nomem, nostack, preserves_flags)),
        }
    }
    selector as u16
}

macro_rules! load {
    ($register:literal, $selector:ident, $failed:ident) => {
        asm!(
            concat!("2: mov ", $register, ", {selector:e}"),
            "xor {failed:e}, {failed:e}",
            "jmp 4f",
            concat!("3: mov ", $register, ", {failed:e}"),
            "mov {failed:e}, 1",
            "4:",
            ".pushsection .exception_table, \"a\"",
            ".long 2b - ., 3b - .",
            ".popsection",
            selector = in(reg) u32::from($selector),
            failed = inout(reg) 0u32 => $failed,
            options(nostack)
        )
    };
}

/// Loads a data segment register from the guest's tables; with the null selector where that faults, and then `false`.
fn load_selector(name: SegmentName, selector: u16) -> bool {
    let failed: u32;
    // SAFETY: the hypervisor uses no data segment; a fault goes on at the third label.
    unsafe {
        match name {
            SegmentName::Es => load!("es", selector, failed),
            SegmentName::Ds => load!("ds", selector, failed),
            SegmentName::Fs => load!("fs", selector, failed),
            _ => load!("gs", selector, failed),
        }
    }
    failed == 0
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
