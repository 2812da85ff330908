//! xAPIC mode: registers in a page of memory, 32 bits each at every 16th byte (SDM 3A 10.4.1).
//!
//! The manual leaves accesses of other sizes undefined. Here a shorter one reaches its bytes of the register,
//! the twelve bytes between two registers read as zero and take no write, and a longer one adds zeroes.

use super::lvt::error;
use super::register::{APR, DFR, DIVIDE, EOI, ESR, ICR, ICR_HIGH, ID, INITIAL_COUNT, LDR, LVT_TIMER, RRD, VERSION};
use super::{Effect, Lapic, Mode, Now};
use crate::addr::GuestPhys;

/// Bits of LDR that exist.
const LDR_BITS: u32 = 0xff00_0000;
/// Bits of DFR that are always one.
const DFR_ONES: u32 = 0x0fff_ffff;
/// Bits of the low half of ICR that a write sets; the delivery status always reads as idle.
const ICR_BITS: u32 = 0x000c_cfff;
/// Bytes of a register.
const WIDTH: u8 = 4;

/// Splits an offset into register number and byte.
fn split(offset: u16) -> (u8, u8) {
    let [low, high] = offset.to_le_bytes();
    (low >> 4 | high << 4, low & 15)
}

/// The bytes `len` from `byte` on of a register, as a mask in place.
fn lanes(byte: u8, len: u8) -> u32 {
    let ones = u32::MAX.checked_shr(32 - u32::from(len.min(WIDTH)) * 8).unwrap_or(0);
    ones.checked_shl(u32::from(byte) * 8).unwrap_or(0)
}

impl Lapic {
    /// Where in the register page this address lies, in xAPIC mode.
    pub fn mmio_offset(&self, gpa: GuestPhys) -> Option<u16> {
        let base = self.mmio_base()?;
        (gpa.frame() == base.frame()).then(|| u16::try_from(gpa.offset()).unwrap_or(0))
    }

    /// Reads `len` bytes, 1 to 8, at `offset` below 4096. All ones outside xAPIC mode.
    pub fn read(&mut self, offset: u16, len: u8, now: Now) -> u64 {
        if self.mode() != Mode::XApic {
            return u64::MAX;
        }
        let (register, byte) = split(offset);
        if offset >= 4096 || byte >= WIDTH {
            return 0;
        }
        let value = self.read_register(register, now) & lanes(byte, len);
        u64::from(value >> (byte * 8))
    }

    /// Writes `len` bytes, 1 to 8, at `offset` below 4096. Dropped outside xAPIC mode.
    pub fn write(&mut self, offset: u16, len: u8, value: u64, now: Now) -> Effect {
        let (register, byte) = split(offset);
        if self.mode() != Mode::XApic || offset >= 4096 || byte >= WIDTH {
            return Effect::None;
        }
        let lanes = lanes(byte, len);
        let placed = super::ipi::low_half(value) << (byte * 8);
        let kept = if lanes == u32::MAX { 0 } else { self.peek(register, now).unwrap_or(0) & !lanes };
        self.write_register(register, placed & lanes | kept, now)
    }

    /// Gives every register whose reading has no effect and which only a write or an interrupt changes, by its offset in the
    /// page: what a processor with APIC-register virtualization answers by itself, but for the task priority and
    /// the upper half of the interrupt command, which are the guest's to write (SDM 3C 29.4.2, 29.4.3.2).
    pub fn each_steady(&self, mut give: impl FnMut(u16, u32)) {
        let now = Now { ns: 0, tsc: 0 }; // for the current count alone, which is none of them
        let lists = [ID..=VERSION, EOI..=EOI, LDR..=ESR, ICR..=ICR, LVT_TIMER..=INITIAL_COUNT, DIVIDE..=DIVIDE];
        for register in lists.into_iter().flatten() {
            if let Some(value) = self.peek(register, now) {
                give(u16::from(register) << 4, value);
            }
        }
    }

    fn peek(&self, register: u8, now: Now) -> Option<u32> {
        match register {
            APR | EOI | RRD => Some(0),
            DFR => Some(self.dfr),
            ICR => Some(super::ipi::low_half(self.icr)),
            ICR_HIGH => Some(super::ipi::low_half(self.icr >> 32)),
            _ => self.get(register, now),
        }
    }

    fn read_register(&mut self, register: u8, now: Now) -> u32 {
        self.peek(register, now).unwrap_or_else(|| {
            self.record_error(error::ILLEGAL_REGISTER);
            0
        })
    }

    fn write_register(&mut self, register: u8, value: u32, now: Now) -> Effect {
        match register {
            LDR => self.ldr = value & LDR_BITS,
            DFR => self.dfr = value | DFR_ONES,
            ICR => {
                self.icr = self.icr & !u64::from(u32::MAX) | u64::from(value & ICR_BITS);
                return self.send(self.icr);
            }
            ICR_HIGH => self.icr = self.icr & u64::from(u32::MAX) | u64::from(value & 0xff00_0000) << 32,
            _ => return self.put(register, value, now).unwrap_or_else(|| self.refuse(register, now)),
        }
        Effect::None
    }

    /// A write to a register that is only read does nothing; to one that is not there, an error.
    fn refuse(&mut self, register: u8, now: Now) -> Effect {
        if self.peek(register, now).is_none() {
            self.record_error(error::ILLEGAL_REGISTER);
        }
        Effect::None
    }
}
