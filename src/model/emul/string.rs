//! String instructions, with REP in bounded steps (SDM 1 7.3.9; SDM 2B, REP).

use super::alu::{self, Binary};
use super::operand::Access;
use super::register::{Gpr, Width};
use super::segment::name_of;
use super::{Cpu, Flow, Step, Stop};
use crate::addr::GuestVirt;
use crate::regs::{Rflags, SegmentName};
use iced_x86::OpKind;

/// Elements of a repeated instruction that one call of [`super::execute`] does.
pub const MAX_ELEMENTS: u32 = 64;

const RAX: u8 = 0;
const RCX: u8 = 1;
const RSI: u8 = 6;
const RDI: u8 = 7;

/// What is done with each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StringOp {
    Move,
    Store,
    Load,
    Compare,
    Scan,
    In,
    Out,
}

/// What all elements of an instruction share.
#[derive(Clone, Copy)]
struct Shape {
    element: Width,
    /// Width of RSI, RDI and RCX.
    address: Width,
    source: SegmentName,
}

fn address_width(kind: OpKind) -> Option<Width> {
    match kind {
        OpKind::MemorySegSI | OpKind::MemoryESDI => Some(Width::WORD),
        OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(Width::DWORD),
        OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(Width::QWORD),
        _ => None,
    }
}

impl<C: Cpu> Step<'_, C> {
    pub(super) fn string(&mut self, op: StringOp) -> Result<Flow, Stop> {
        let shape = self.shape()?;
        if !self.insn.has_rep_prefix() && !self.insn.has_repne_prefix() {
            self.element(op, shape)?;
            return Ok(Flow::Done);
        }
        let counter = Gpr::new(RCX, shape.address);
        for _ in 0..MAX_ELEMENTS {
            let left = counter.read(self.cpu.regs());
            if left == 0 {
                return Ok(Flow::Done);
            }
            self.element(op, shape)?;
            counter.write(self.cpu.regs_mut(), left - 1);
            if left == 1 || self.stops(op) {
                return Ok(Flow::Done);
            }
        }
        Ok(Flow::Again)
    }

    fn shape(&self) -> Result<Shape, Stop> {
        let address = self.insn.op_kinds().find_map(address_width).ok_or(Stop::Unhandled)?;
        let element = Width::of_memory(self.insn.memory_size()).ok_or(Stop::Unhandled)?;
        let source = name_of(self.insn.memory_segment()).unwrap_or(SegmentName::Ds);
        Ok(Shape { element, address, source })
    }

    /// Whether a comparison ends the repetition.
    fn stops(&self, op: StringOp) -> bool {
        let compares = matches!(op, StringOp::Compare | StringOp::Scan);
        compares && self.flag(Rflags::ZF) == self.insn.has_repne_prefix()
    }

    /// One element. What can fail comes first, then the pointers move.
    fn element(&mut self, op: StringOp, shape: Shape) -> Result<(), Stop> {
        match op {
            StringOp::Move => self.element_move(shape),
            StringOp::Store => self.element_store(shape),
            StringOp::Load => self.element_load(shape),
            StringOp::Compare => self.element_compare(shape),
            StringOp::Scan => self.element_scan(shape),
            StringOp::In => self.element_in(shape),
            StringOp::Out => self.element_out(shape),
        }
    }

    fn source(&self, shape: Shape) -> Result<GuestVirt, Stop> {
        let offset = Gpr::new(RSI, shape.address).read(self.cpu.regs());
        self.linear(shape.source, offset, shape.element, Access::Read)
    }

    /// The destination is always in ES.
    fn target(&mut self, shape: Shape, access: Access) -> Result<GuestVirt, Stop> {
        let offset = Gpr::new(RDI, shape.address).read(self.cpu.regs());
        let at = self.linear(SegmentName::Es, offset, shape.element, access)?;
        if access == Access::Modify {
            self.cpu.probe_write(at, usize::from(shape.element.bytes()))?;
        }
        Ok(at)
    }

    fn advance(&mut self, number: u8, shape: Shape) {
        let pointer = Gpr::new(number, shape.address);
        let by = u64::from(shape.element.bytes());
        let at = pointer.read(self.cpu.regs());
        let next = if self.flag(Rflags::DF) { at.wrapping_sub(by) } else { at.wrapping_add(by) };
        pointer.write(self.cpu.regs_mut(), next);
    }

    fn element_move(&mut self, shape: Shape) -> Result<(), Stop> {
        let from = self.source(shape)?;
        let to = self.target(shape, Access::Modify)?;
        let value = self.load(from, shape.element)?;
        self.store(to, shape.element, value)?;
        self.advance(RSI, shape);
        self.advance(RDI, shape);
        Ok(())
    }

    fn element_store(&mut self, shape: Shape) -> Result<(), Stop> {
        let to = self.target(shape, Access::Write)?;
        let value = Gpr::new(RAX, shape.element).read(self.cpu.regs());
        self.store(to, shape.element, value)?;
        self.advance(RDI, shape);
        Ok(())
    }

    fn element_load(&mut self, shape: Shape) -> Result<(), Stop> {
        let from = self.source(shape)?;
        let value = self.load(from, shape.element)?;
        Gpr::new(RAX, shape.element).write(self.cpu.regs_mut(), value);
        self.advance(RSI, shape);
        Ok(())
    }

    fn element_compare(&mut self, shape: Shape) -> Result<(), Stop> {
        let (from, to) = (self.source(shape)?, self.target(shape, Access::Read)?);
        let (a, b) = (self.load(from, shape.element)?, self.load(to, shape.element)?);
        self.set_compared(shape, a, b);
        self.advance(RSI, shape);
        self.advance(RDI, shape);
        Ok(())
    }

    fn element_scan(&mut self, shape: Shape) -> Result<(), Stop> {
        let to = self.target(shape, Access::Read)?;
        let b = self.load(to, shape.element)?;
        let a = Gpr::new(RAX, shape.element).read(self.cpu.regs());
        self.set_compared(shape, a, b);
        self.advance(RDI, shape);
        Ok(())
    }

    fn set_compared(&mut self, shape: Shape, a: u64, b: u64) {
        let regs = self.cpu.regs_mut();
        regs.rflags = alu::binary(Binary::Sub, shape.element, a, b, regs.rflags).1;
    }

    fn port(&self) -> u16 {
        let [low, high, ..] = self.cpu.regs().rdx.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    fn element_in(&mut self, shape: Shape) -> Result<(), Stop> {
        let to = self.target(shape, Access::Modify)?;
        let value = self.cpu.io_in(self.port(), shape.element.bytes())?;
        self.store(to, shape.element, u64::from(value))?;
        self.advance(RDI, shape);
        Ok(())
    }

    fn element_out(&mut self, shape: Shape) -> Result<(), Stop> {
        let from = self.source(shape)?;
        let value = self.load(from, shape.element)?;
        let value = u32::try_from(value).map_err(|_| Stop::Unhandled)?;
        self.cpu.io_out(self.port(), shape.element.bytes(), value)?;
        self.advance(RSI, shape);
        Ok(())
    }
}
