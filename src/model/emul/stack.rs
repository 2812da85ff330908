//! PUSH and POP of an operand in memory (SDM 1 6.2).

use super::operand::{Access, effective_offset};
use super::register::{Gpr, Width};
use super::{Cpu, Step, Stop};
use crate::regs::SegmentName;
use iced_x86::OpKind;

const RSP: u8 = 4;

impl<C: Cpu> Step<'_, C> {
    /// The stack pointer, in the width of stack addresses (SDM 1 6.2.3).
    fn stack_pointer(&self) -> Gpr {
        let big = self.cpu.segment(SegmentName::Ss).is_big();
        let width = match (self.long, big) {
            (true, _) => Width::QWORD,
            (false, true) => Width::DWORD,
            (false, false) => Width::WORD,
        };
        Gpr::new(RSP, width)
    }

    /// The width of the operand, which must be in memory.
    fn stack_operand(&self) -> Result<Width, Stop> {
        if self.kind(0)? == OpKind::Memory { self.width(0) } else { Err(Stop::Unhandled) }
    }

    pub(super) fn push(&mut self) -> Result<(), Stop> {
        let width = self.stack_operand()?;
        let sp = self.stack_pointer();
        let top = sp.read(self.cpu.regs()).wrapping_sub(u64::from(width.bytes())) & sp.width.mask();
        let at = self.linear(SegmentName::Ss, top, width, Access::Modify)?;
        self.cpu.probe_write(at, usize::from(width.bytes()))?;
        let value = self.value(0, width)?;
        self.store(at, width, value)?;
        sp.write(self.cpu.regs_mut(), top);
        Ok(())
    }

    /// An address that uses RSP is computed with the value after the pop (SDM 2B, POP).
    pub(super) fn pop(&mut self) -> Result<(), Stop> {
        let width = self.stack_operand()?;
        let sp = self.stack_pointer();
        let top = sp.read(self.cpu.regs());
        let from = self.linear(SegmentName::Ss, top, width, Access::Read)?;
        let mut popped = *self.cpu.regs();
        sp.write(&mut popped, top.wrapping_add(u64::from(width.bytes())));
        let offset = effective_offset(self.insn, &popped, 0)?;
        let to = self.memory_at(offset, width, Access::Modify)?;
        let value = self.load(from, width)?;
        self.put(to, width, value)?;
        self.cpu.regs_mut().rsp = popped.rsp;
        Ok(())
    }
}
