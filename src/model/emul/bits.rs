//! BT, BTS, BTR and BTC (SDM 2A): a bit of a register, or of a string of bits in memory.

use super::alu::with;
use super::operand::{Access, Place, effective_offset};
use super::register::Width;
use super::{Cpu, Step, Stop};
use crate::regs::Rflags;
use iced_x86::OpKind;

/// What becomes of the bit once CF holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BitOp {
    Test,
    Set,
    Reset,
    Complement,
}

impl BitOp {
    fn access(self) -> Access {
        if self == BitOp::Test { Access::Read } else { Access::Modify }
    }

    fn apply(self, value: u64, bit: u64) -> u64 {
        match self {
            BitOp::Test => value,
            BitOp::Set => value | bit,
            BitOp::Reset => value & !bit,
            BitOp::Complement => value ^ bit,
        }
    }
}

/// Bytes from the operand's address to the word that holds bit `index`, which is signed.
fn displacement(width: Width, index: u64) -> u64 {
    let words = width.sign_extend(index).cast_signed().div_euclid(i64::from(width.bits()));
    words.wrapping_mul(i64::from(width.bytes())).cast_unsigned()
}

impl<C: Cpu> Step<'_, C> {
    pub(super) fn bit(&mut self, op: BitOp) -> Result<(), Stop> {
        let width = self.width(0)?;
        let index = self.value(1, width)?;
        let place = self.bit_place(op, width, index)?;
        let value = self.get(place, width)?;
        let bit = 1 << (index & u64::from(width.bits() - 1));
        if op != BitOp::Test {
            self.put(place, width, op.apply(value, bit))?;
        }
        let regs = self.cpu.regs_mut();
        regs.rflags = with(regs.rflags, Rflags::CF, value & bit != 0);
        Ok(())
    }

    /// An index from a register reaches beyond the operand in memory; an immediate one does not.
    fn bit_place(&mut self, op: BitOp, width: Width, index: u64) -> Result<Place, Stop> {
        if self.kind(0)? != OpKind::Memory || self.kind(1)? != OpKind::Register {
            return self.place(0, width, op.access());
        }
        let offset = effective_offset(self.insn, self.cpu.regs(), displacement(width, index))?;
        self.memory_at(offset, width, op.access())
    }
}
