//! Breakpoints of a PV virtual CPU: in the processor while the guest runs, and at no other time.

use core::arch::asm;

use model::addr::GuestVirt;

use super::registers::State;
use super::{Vcpu, copy};

/// DR7 with no breakpoint, and bits that are always so.
pub(super) const DR7_OFF: u64 = 0x400;
/// Bits of DR7 that a guest can set: not GD, and no others that are reserved.
const DR7_MAY: u64 = 0xffff_03ff;
/// Bits of DR7 that enable a breakpoint.
const DR7_ENABLE: u64 = 0xff;
/// Bits of DR6 that are always one.
pub(super) const DR6_ONES: u64 = 0xffff_0ff0;

impl State {
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

    pub(super) fn load_breakpoints(&self) {
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
