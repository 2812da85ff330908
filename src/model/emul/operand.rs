//! Where an operand is, and reading and writing it (SDM 1 3.7).

use super::register::{Gpr, Width};
use super::segment::name_of;
use super::{Cpu, Step, Stop};
use crate::addr::GuestVirt;
use crate::regs::Regs;
use iced_x86::{CodeSize, Instruction, OpKind, Register};

/// What is done to an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// Written by a write that is the first change of the instruction.
    Write,
    /// Written after something else: that it can be is made sure of beforehand.
    Modify,
}

/// Where an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Register(Gpr),
    Memory(GuestVirt),
}

/// The width of addresses that the instruction computes with.
fn address_width(insn: &Instruction) -> Width {
    let named = [insn.memory_base(), insn.memory_index()].into_iter().find_map(|register| match register {
        Register::RIP => Some(Width::QWORD),
        Register::EIP => Some(Width::DWORD),
        _ => Gpr::of(register).map(|gpr| gpr.width),
    });
    named.unwrap_or(match (insn.memory_displ_size(), insn.code_size()) {
        (2, _) => Width::WORD,
        (4, _) => Width::DWORD,
        (8, _) | (_, CodeSize::Code64) => Width::QWORD,
        (_, CodeSize::Code16) => Width::WORD,
        _ => Width::DWORD,
    })
}

/// The offset of the memory operand in its segment, plus `extra` bytes.
pub(super) fn effective_offset(insn: &Instruction, regs: &Regs, extra: u64) -> Result<u64, Stop> {
    let part = |register| match register {
        // The displacement is already relative to zero.
        Register::None | Register::RIP | Register::EIP => Ok(0),
        other => Gpr::of(other).map(|gpr| gpr.read(regs)).ok_or(Stop::Unhandled),
    };
    let index = part(insn.memory_index())?.wrapping_mul(u64::from(insn.memory_index_scale()));
    let offset =
        part(insn.memory_base())?.wrapping_add(index).wrapping_add(insn.memory_displacement64()).wrapping_add(extra);
    Ok(offset & address_width(insn).mask())
}

impl<C: Cpu> Step<'_, C> {
    /// The width of operand `n`, where it is a general register or an integer in memory.
    pub(super) fn width(&self, n: u32) -> Result<Width, Stop> {
        let width = match self.kind(n)? {
            OpKind::Register => Gpr::of(self.register(n)?).map(|gpr| gpr.width),
            OpKind::Memory => Width::of_memory(self.insn.memory_size()),
            _ => None,
        };
        width.ok_or(Stop::Unhandled)
    }

    pub(super) fn kind(&self, n: u32) -> Result<OpKind, Stop> {
        self.insn.try_op_kind(n).map_err(|_| Stop::Unhandled)
    }

    fn register(&self, n: u32) -> Result<Register, Stop> {
        self.insn.try_op_register(n).map_err(|_| Stop::Unhandled)
    }

    /// Finds operand `n`; memory is checked as far as it can be without being read.
    pub(super) fn place(&mut self, n: u32, width: Width, access: Access) -> Result<Place, Stop> {
        match self.kind(n)? {
            OpKind::Register => Gpr::of(self.register(n)?).map(Place::Register).ok_or(Stop::Unhandled),
            OpKind::Memory => {
                let offset = effective_offset(self.insn, self.cpu.regs(), 0)?;
                self.memory_at(offset, width, access)
            }
            _ => Err(Stop::Unhandled),
        }
    }

    /// The memory operand with this offset in its segment.
    pub(super) fn memory_at(&mut self, offset: u64, width: Width, access: Access) -> Result<Place, Stop> {
        let segment = name_of(self.insn.memory_segment()).ok_or(Stop::Unhandled)?;
        let at = self.linear(segment, offset, width, access)?;
        if access == Access::Modify {
            self.cpu.probe_write(at, usize::from(width.bytes()))?;
        }
        Ok(Place::Memory(at))
    }

    pub(super) fn get(&mut self, place: Place, width: Width) -> Result<u64, Stop> {
        match place {
            Place::Register(gpr) => Ok(gpr.read(self.cpu.regs()) & width.mask()),
            Place::Memory(at) => self.load(at, width),
        }
    }

    pub(super) fn put(&mut self, place: Place, width: Width, value: u64) -> Result<(), Stop> {
        match place {
            Place::Register(gpr) => {
                gpr.write(self.cpu.regs_mut(), value);
                Ok(())
            }
            Place::Memory(at) => self.store(at, width, value),
        }
    }

    pub(super) fn load(&mut self, at: GuestVirt, width: Width) -> Result<u64, Stop> {
        let mut bytes = [0; 8];
        self.cpu.read(at, &mut bytes[..usize::from(width.bytes())])?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(super) fn store(&mut self, at: GuestVirt, width: Width, value: u64) -> Result<(), Stop> {
        self.cpu.write(at, &value.to_le_bytes()[..usize::from(width.bytes())])?;
        Ok(())
    }

    /// The value of source operand `n`, an immediate extended or cut to `width`.
    pub(super) fn value(&mut self, n: u32, width: Width) -> Result<u64, Stop> {
        if let Ok(immediate) = self.insn.try_immediate(n) {
            return Ok(immediate & width.mask());
        }
        let place = self.place(n, width, Access::Read)?;
        self.get(place, width)
    }
}
