//! General registers by the decoder's names, and the widths of operands.

use crate::regs::Regs;
use iced_x86::{MemorySize, Register};

/// The width of an operand: 1, 2, 4 or 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width(u8);

impl Width {
    pub(super) const BYTE: Self = Self(1);
    pub(super) const WORD: Self = Self(2);
    pub(super) const DWORD: Self = Self(4);
    pub(super) const QWORD: Self = Self(8);

    pub(super) fn bytes(self) -> u8 {
        self.0
    }

    pub(super) fn bits(self) -> u32 {
        u32::from(self.0) * 8
    }

    /// Ones in every bit of the width.
    pub(super) fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The topmost bit of the width.
    pub(super) fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// Spreads the sign of a value of this width over 64 bits.
    pub(super) fn sign_extend(self, value: u64) -> u64 {
        let value = value & self.mask();
        (value ^ self.sign()).wrapping_sub(self.sign())
    }

    /// The width of an integer in memory; `None` for other operands.
    pub(super) fn of_memory(size: MemorySize) -> Option<Self> {
        match size {
            MemorySize::UInt8 | MemorySize::Int8 => Some(Self::BYTE),
            MemorySize::UInt16 | MemorySize::Int16 => Some(Self::WORD),
            MemorySize::UInt32 | MemorySize::Int32 => Some(Self::DWORD),
            MemorySize::UInt64 | MemorySize::Int64 => Some(Self::QWORD),
            _ => None,
        }
    }
}

/// A general register or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gpr {
    /// As in [`Regs::gpr`].
    pub(super) number: u8,
    pub(super) width: Width,
    /// AH, CH, DH or BH: bits 15 to 8.
    high: bool,
}

impl Gpr {
    pub(super) const fn new(number: u8, width: Width) -> Self {
        Self { number, width, high: false }
    }

    /// The general register of this name; `None` for the other registers.
    pub(super) fn of(register: Register) -> Option<Self> {
        let within = |first: Register| (register as u32).checked_sub(first as u32).filter(|&n| n < 16);
        let low = |n: u32, width| u8::try_from(n).ok().map(|n| Self::new(n, width));
        if let Some(n) = within(Register::AX) {
            return low(n, Width::WORD);
        }
        if let Some(n) = within(Register::EAX) {
            return low(n, Width::DWORD);
        }
        if let Some(n) = within(Register::RAX) {
            return low(n, Width::QWORD);
        }
        Self::of_byte(register)
    }

    /// The decoder's order is AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8L to R15L.
    fn of_byte(register: Register) -> Option<Self> {
        let n = (register as u32).checked_sub(Register::AL as u32)?;
        let n = u8::try_from(n).ok()?;
        match n {
            0..=3 => Some(Self::new(n, Width::BYTE)),
            4..=7 => Some(Self { number: n - 4, width: Width::BYTE, high: true }),
            8..=19 => Some(Self::new(n - 4, Width::BYTE)),
            _ => None,
        }
    }

    pub(super) fn read(self, regs: &Regs) -> u64 {
        let shift = if self.high { 8 } else { 0 };
        regs.gpr(self.number) >> shift & self.width.mask()
    }

    /// Writes it: 32 bits clear the upper half, 8 and 16 bits leave the rest (SDM 1 3.4.1.1).
    pub(super) fn write(self, regs: &mut Regs, value: u64) {
        let shift = if self.high { 8 } else { 0 };
        let mask = self.width.mask();
        let kept = if self.width == Width::DWORD { 0 } else { !(mask << shift) };
        let register = regs.gpr_mut(self.number);
        *register = *register & kept | (value & mask) << shift;
    }
}
