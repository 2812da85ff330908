//! Segment registers of a PV virtual CPU, and the descriptors that its tables have for them.
//!
//! A guest loads selectors without the hypervisor; they and the bases of FS and GS are read from the processor. Loading
//! one for it may fault, because the guest has changed its tables since: then it is the null selector.

use core::arch::asm;

use model::regs::{Segment, SegmentName};

use super::{Vcpu, copy, space};
use crate::cpu::descriptors;
use crate::virt::GuestMsr;

impl Vcpu {
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

/// The selectors of ES, DS, FS and GS.
#[inline]
pub(super) fn read_selectors() -> [u16; 4] {
    let [es, ds, fs, gs] = NAMES;
    [read_selector(es), read_selector(ds), read_selector(fs), read_selector(gs)]
}

/// Loads ES, DS, FS and GS, which are null, from the guest's tables; with the null selector where that faults, and then `false`.
#[inline]
pub(super) fn load_selectors(selectors: [u16; 4]) -> bool {
    if selectors == [0; 4] {
        return true;
    }
    NAMES.into_iter().zip(selectors).fold(true, |are_good, (name, selector)| load_selector(name, selector) && are_good)
}

const NAMES: [SegmentName; 4] = [SegmentName::Es, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs];

#[inline(always)]
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
