//! Moves, arithmetic and exchanges.
//!
//! LOCK orders nothing here: the operand in memory is a device's, or the caller's to make atomic.

use super::alu::{self, Binary, Unary};
use super::operand::{Access, Place};
use super::register::Gpr;
use super::{Cpu, Step, Stop};

impl<C: Cpu> Step<'_, C> {
    pub(super) fn mov(&mut self) -> Result<(), Stop> {
        let width = self.width(0)?;
        let value = self.value(1, width)?;
        let to = self.place(0, width, Access::Write)?;
        self.put(to, width, value)
    }

    /// MOVZX, MOVSX, MOVSXD: the operands differ in width.
    pub(super) fn extend(&mut self, signed: bool) -> Result<(), Stop> {
        let (to_width, from_width) = (self.width(0)?, self.width(1)?);
        let value = self.value(1, from_width)?;
        let value = if signed { from_width.sign_extend(value) } else { value };
        let to = self.place(0, to_width, Access::Write)?;
        self.put(to, to_width, value)
    }

    pub(super) fn binary(&mut self, op: Binary) -> Result<(), Stop> {
        let width = self.width(0)?;
        let to = self.place(0, width, Access::Modify)?;
        let b = self.value(1, width)?;
        let a = self.get(to, width)?;
        let (result, rflags) = alu::binary(op, width, a, b, self.cpu.regs().rflags);
        self.put(to, width, result)?;
        self.cpu.regs_mut().rflags = rflags;
        Ok(())
    }

    pub(super) fn compare(&mut self, op: Binary) -> Result<(), Stop> {
        let width = self.width(0)?;
        let a = self.value(0, width)?;
        let b = self.value(1, width)?;
        let regs = self.cpu.regs_mut();
        regs.rflags = alu::binary(op, width, a, b, regs.rflags).1;
        Ok(())
    }

    pub(super) fn unary(&mut self, op: Unary) -> Result<(), Stop> {
        let width = self.width(0)?;
        let to = self.place(0, width, Access::Modify)?;
        let a = self.get(to, width)?;
        let (result, rflags) = alu::unary(op, width, a, self.cpu.regs().rflags);
        self.put(to, width, result)?;
        self.cpu.regs_mut().rflags = rflags;
        Ok(())
    }

    pub(super) fn exchange(&mut self) -> Result<(), Stop> {
        let width = self.width(0)?;
        let first = self.place(0, width, Access::Modify)?;
        let second = self.place(1, width, Access::Modify)?;
        let (a, b) = (self.get(first, width)?, self.get(second, width)?);
        self.put(first, width, b)?;
        self.put(second, width, a)
    }

    pub(super) fn exchange_add(&mut self) -> Result<(), Stop> {
        let width = self.width(0)?;
        let to = self.place(0, width, Access::Modify)?;
        let from = self.place(1, width, Access::Modify)?;
        let (a, b) = (self.get(to, width)?, self.get(from, width)?);
        let (sum, rflags) = alu::binary(Binary::Add, width, a, b, self.cpu.regs().rflags);
        // Memory may fail and comes first; of two registers the sum is written last, as they may be one.
        if let Place::Memory(at) = to {
            self.store(at, width, sum)?;
            self.put(from, width, a)?;
        } else {
            self.put(from, width, a)?;
            self.put(to, width, sum)?;
        }
        self.cpu.regs_mut().rflags = rflags;
        Ok(())
    }

    /// CMPXCHG: the destination is written in either case, as on the processor (SDM 2A, CMPXCHG).
    pub(super) fn compare_exchange(&mut self) -> Result<(), Stop> {
        let width = self.width(0)?;
        let accumulator = Gpr::new(0, width);
        let to = self.place(0, width, Access::Modify)?;
        let new = self.value(1, width)?;
        let old = self.get(to, width)?;
        let expected = accumulator.read(self.cpu.regs());
        let (_, rflags) = alu::binary(Binary::Sub, width, expected, old, self.cpu.regs().rflags);
        self.put(to, width, if expected == old { new } else { old })?;
        let regs = self.cpu.regs_mut();
        regs.rflags = rflags;
        if expected != old {
            accumulator.write(regs, old);
        }
        Ok(())
    }
}
