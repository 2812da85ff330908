//! Breakpoints of a PV virtual CPU: in the processor while the guest runs, and at no other time.

use core::arch::asm;

use model::addr::GuestVirt;
use model::debug::{self, DR6_RESET, DR7_RESET};

use super::registers::State;
use super::{Vcpu, copy};
use crate::cpu;

/// Bits of DR7 that a guest can set: not GD, and no others that are reserved.
const DR7_MAY: u64 = 0xffff_03ff;

impl State {
    /// Whether a breakpoint is enabled.
    #[inline(always)]
    pub(super) fn is_armed(&self) -> bool {
        debug::is_armed(self.dr7)
    }

    /// Takes what a debug exception left in DR6.
    pub(super) fn take_dr6(&mut self) {
        self.dr6 |= debug::reported(cpu::debug::status(), self.dr7);
        cpu::debug::set_status(DR6_RESET);
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
            4 | 6 => self.state.dr6 = value & 0xffff_ffff & !(1 << 12) | DR6_RESET,
            _ => self.state.dr7 = value & DR7_MAY | DR7_RESET,
        }
        if self.is_loaded() && self.state.is_armed() {
            self.load_breakpoints();
        }
        self.settle();
        true
    }

    pub(super) fn load_breakpoints(&self) {
        cpu::debug::set_addresses(self.state.debug);
    }

    /// Lets the guest's breakpoints take effect, on the way to it.
    pub(super) fn arm(&self) {
        write_dr7(self.state.dr7);
    }

    /// Ends their effect.
    pub(super) fn disarm(&self) {
        write_dr7(DR7_RESET);
    }
}

fn write_dr7(value: u64) {
    // SAFETY: breakpoints at a guest's addresses, between which and the entry nothing of the guest's is touched.
    unsafe { asm!("mov dr7, {0}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}
