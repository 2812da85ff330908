//! Operands of control-register accesses, for processors that do not tell them (APM 2 15.8.1).

use super::operand::Access;
use super::register::{Gpr, Width};
use super::{Cpu, Fault, Instruction, Step, Stop};
use iced_x86::{Mnemonic, OpKind, Register};

/// What an access to a control register does. The caller checks that CPL is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlOp {
    /// MOV to control register `cr` from general register `gpr`.
    Write {
        /// 0 to 15.
        cr: u8,
        /// Source, as in [`crate::regs::Regs::gpr`].
        gpr: u8,
    },
    /// MOV from control register `cr` to general register `gpr`.
    Read {
        /// 0 to 15.
        cr: u8,
        /// Destination, as in [`crate::regs::Regs::gpr`].
        gpr: u8,
    },
    /// CLTS.
    Clts,
    /// LMSW with this value.
    Lmsw {
        /// The 16-bit operand.
        value: u16,
    },
}

/// What `instruction` does to a control register; `None` if it is no such instruction.
pub fn control<C: Cpu>(cpu: &mut C, instruction: &Instruction) -> Result<Option<ControlOp>, Fault> {
    match instruction.mnemonic() {
        Mnemonic::Mov => Ok(moved(instruction)),
        Mnemonic::Clts => Ok(Some(ControlOp::Clts)),
        Mnemonic::Lmsw => lmsw(cpu, instruction),
        _ => Ok(None),
    }
}

pub(super) fn moved(instruction: &Instruction) -> Option<ControlOp> {
    if instruction.op0_kind() != OpKind::Register || instruction.op1_kind() != OpKind::Register {
        return None;
    }
    let (to, from) = (instruction.op0_register(), instruction.op1_register());
    if let (Some(cr), Some(gpr)) = (number(to), Gpr::of(from)) {
        return Some(ControlOp::Write { cr, gpr: gpr.number });
    }
    let (cr, gpr) = (number(from)?, Gpr::of(to)?);
    Some(ControlOp::Read { cr, gpr: gpr.number })
}

fn number(register: Register) -> Option<u8> {
    let n = (register as u32).checked_sub(Register::CR0 as u32)?;
    u8::try_from(n).ok().filter(|&n| n < 16)
}

fn lmsw<C: Cpu>(cpu: &mut C, instruction: &Instruction) -> Result<Option<ControlOp>, Fault> {
    let mut step = Step::new(cpu, instruction);
    let value = step.place(0, Width::WORD, Access::Read).and_then(|place| step.get(place, Width::WORD));
    match value {
        Ok(value) => Ok(u16::try_from(value).ok().map(|value| ControlOp::Lmsw { value })),
        Err(Stop::Fault(fault)) => Err(fault),
        Err(Stop::Unhandled) => Ok(None),
    }
}
