//! The debug registers of a PV virtual CPU, and what a guest may write to them (SDM 3B 18.2).
//!
//! Breakpoints on the hypervisor's own addresses are refused. I/O breakpoints never reach the processor: ports are accessed by
//! the hypervisor on the guest's behalf.

use abi::errno::Errno;

use super::is_guests;
use crate::debug::{DR6_RESET, DR7_RESET, is_armed};

const DR6_KEPT: u64 = 0xffff_efff;
const DR7_KEPT: u64 = 0xffff_27ff;
const GENERAL_DETECT: u64 = 1 << 13;
/// What the R/W field of a breakpoint says for I/O.
const IO: u64 = 2;

/// The debug registers of a virtual CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debug {
    addresses: [u64; 4],
    dr6: u64,
    /// As the processor has it.
    dr7: u64,
    /// Enable bits of I/O breakpoints.
    io: u64,
}

impl Default for Debug {
    fn default() -> Self {
        Self { addresses: [0; 4], dr6: DR6_RESET, dr7: DR7_RESET, io: 0 }
    }
}

impl Debug {
    /// What the guest reads. 4 and 5 are 6 and 7, unless CR4.DE is set.
    pub fn get(&self, n: u64, has_extensions: bool) -> Result<u64, Errno> {
        match n {
            0..=3 => Ok(self.addresses[n as usize]),
            4 | 5 if has_extensions => Err(Errno::ENODEV),
            4 | 6 => Ok(self.dr6),
            5 | 7 => Ok(self.dr7 | self.io),
            _ => Err(Errno::ENODEV),
        }
    }

    /// What the guest writes.
    pub fn set(&mut self, n: u64, value: u64, has_extensions: bool) -> Result<(), Errno> {
        match n {
            0..=3 if !is_guests(value, 8) => return Err(Errno::EPERM),
            0..=3 => self.addresses[n as usize] = value,
            4 | 5 if has_extensions => return Err(Errno::ENODEV),
            4..=7 if value > u64::from(u32::MAX) => return Err(Errno::EINVAL),
            4 | 6 => self.dr6 = value & DR6_KEPT | DR6_RESET,
            5 | 7 => return self.set_control(value & DR7_KEPT | value & GENERAL_DETECT | DR7_RESET, has_extensions),
            _ => return Err(Errno::ENODEV),
        }
        Ok(())
    }

    fn set_control(&mut self, value: u64, has_extensions: bool) -> Result<(), Errno> {
        if value & GENERAL_DETECT != 0 {
            return Err(Errno::EPERM);
        }
        let mut io = 0;
        if is_armed(value) {
            for n in 0..4 {
                if value >> (16 + 4 * n) & 3 == IO {
                    if !has_extensions {
                        return Err(Errno::EPERM);
                    }
                    io |= value & 3 << (2 * n);
                }
            }
        }
        (self.dr7, self.io) = (value & !io, io);
        Ok(())
    }

    /// A debug exception came, with this in the processor's DR6.
    pub fn raised(&mut self, dr6: u64) {
        self.dr6 |= dr6 & !DR6_RESET;
        self.dr6 &= dr6 | !DR6_RESET;
    }

    /// DR0 to DR3 and DR7 as the processor is to have them.
    pub fn hardware(&self) -> ([u64; 4], u64) {
        (self.addresses, self.dr7)
    }

    /// Whether a breakpoint is on.
    pub fn is_active(&self) -> bool {
        is_armed(self.dr7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breakpoint_in_the_hole_is_refused() {
        let mut debug = Debug::default();
        assert_eq!(debug.set(0, super::super::HOLE.start + 0x1000, true), Err(Errno::EPERM));
        assert_eq!(debug.set(3, 0x8000_0000_0000, true), Err(Errno::EPERM));
        assert_eq!(debug.set(3, 0x1000, true), Ok(()));
        assert_eq!(debug.get(3, true), Ok(0x1000));
    }

    #[test]
    fn dr4_and_dr5_are_dr6_and_dr7_without_debugging_extensions() {
        let mut debug = Debug::default();
        assert_eq!(debug.set(5, 1, false), Ok(()));
        assert_eq!(debug.get(7, false), Ok(0x401));
        assert_eq!(debug.get(4, false), Ok(DR6_RESET));
        assert_eq!(debug.get(4, true), Err(Errno::ENODEV));
        assert_eq!(debug.set(5, 1, true), Err(Errno::ENODEV));
        assert_eq!(debug.set(8, 1, true), Err(Errno::ENODEV));
    }

    #[test]
    fn io_breakpoints_are_read_back_and_kept_from_the_processor() {
        let mut debug = Debug::default();
        let io_on_1 = 0b1100 | 2 << 20;
        assert_eq!(debug.set(7, io_on_1, false), Err(Errno::EPERM));
        assert_eq!(debug.set(7, io_on_1, true), Ok(()));
        assert_eq!(debug.get(7, true), Ok(io_on_1 | DR7_RESET));
        assert!(!debug.is_active());
    }

    #[test]
    fn dr6_and_dr7_have_32_bits() {
        assert_eq!(Debug::default().set(6, 1 << 32, true), Err(Errno::EINVAL));
        assert_eq!(Debug::default().set(7, 1 << 32, true), Err(Errno::EINVAL));
    }

    #[test]
    fn general_detect_is_refused() {
        assert_eq!(Debug::default().set(7, GENERAL_DETECT, true), Err(Errno::EPERM));
    }

    #[test]
    fn what_a_trap_says_is_added_to_dr6() {
        let mut debug = Debug::default();
        debug.raised(DR6_RESET | 1 << 14);
        debug.raised(DR6_RESET | 1);
        assert_eq!(debug.get(6, true), Ok(DR6_RESET | 1 << 14 | 1));
    }
}
