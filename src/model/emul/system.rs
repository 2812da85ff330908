//! Instructions that belong to a kernel, or that a kernel may keep from its programs: which one it is, with its operands.

use super::Instruction;
use super::control::{self, ControlOp};
use super::operand::effective_offset;
use super::register::{Gpr, Width};
use super::segment::name_of;
use crate::regs::{Regs, SegmentName};
use iced_x86::{Mnemonic, OpKind, Register};

/// A system instruction, with what its operands were when it was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// CPUID.
    Cpuid,
    /// RDMSR.
    Rdmsr,
    /// WRMSR.
    Wrmsr,
    /// RDTSC.
    Rdtsc,
    /// RDTSCP.
    Rdtscp,
    /// XSETBV.
    Xsetbv,
    /// HLT.
    Hlt,
    /// WBINVD or WBNOINVD.
    Wbinvd,
    /// INVLPG.
    Invlpg {
        /// Offset in the segment.
        offset: u64,
        /// The segment, of which FS and GS have a base in 64-bit code.
        segment: SegmentName,
    },
    /// CLI or STI.
    SetInterrupts,
    /// CLTS, or MOV to or from a control register.
    Control(ControlOp),
    /// MOV to debug register `dr` from general register `gpr`.
    WriteDebug {
        /// 0 to 15.
        dr: u8,
        /// Source, as in [`Regs::gpr`].
        gpr: u8,
    },
    /// MOV from debug register `dr` to general register `gpr`.
    ReadDebug {
        /// 0 to 15.
        dr: u8,
        /// Destination, as in [`Regs::gpr`].
        gpr: u8,
    },
    /// IN.
    In(Port),
    /// OUT.
    Out(Port),
    /// INS or OUTS, for [`super::execute`].
    StringIo(Port),
}

/// The port of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The first byte's.
    pub number: u16,
    /// 1, 2 or 4.
    pub size: u8,
}

/// Which system instruction it is; `None` if it is none of these.
pub fn system(insn: &Instruction, regs: &Regs) -> Option<System> {
    Some(match insn.mnemonic() {
        Mnemonic::Cpuid => System::Cpuid,
        Mnemonic::Rdmsr => System::Rdmsr,
        Mnemonic::Wrmsr => System::Wrmsr,
        Mnemonic::Rdtsc => System::Rdtsc,
        Mnemonic::Rdtscp => System::Rdtscp,
        Mnemonic::Xsetbv => System::Xsetbv,
        Mnemonic::Hlt => System::Hlt,
        Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => System::Wbinvd,
        Mnemonic::Cli | Mnemonic::Sti => System::SetInterrupts,
        Mnemonic::Clts => System::Control(ControlOp::Clts),
        Mnemonic::Mov => moved(insn)?,
        Mnemonic::Invlpg => {
            System::Invlpg { offset: effective_offset(insn, regs, 0).ok()?, segment: name_of(insn.memory_segment())? }
        }
        Mnemonic::In => System::In(port(insn, regs, 0, 1)?),
        Mnemonic::Out => System::Out(port(insn, regs, 1, 0)?),
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd | Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => {
            let size = Width::of_memory(insn.memory_size())?.bytes();
            System::StringIo(Port { number: dx(regs), size })
        }
        _ => return None,
    })
}

/// The system instruction that `bytes` begin with, and its length, if it is one of the frequent ones in their plain
/// encoding in 64-bit code: what needs no general decoder. [`super::decode`] and [`system`] say the same of these.
#[inline]
pub fn frequent(bytes: &[u8; 8]) -> Option<(System, u8)> {
    let (rex, [first, second, third]) = match *bytes {
        [rex @ 0x40..=0x4f, a, b, c, ..] => (rex, [a, b, c]),
        [a, b, c, ..] => (0, [a, b, c]),
    };
    if first != 0x0f {
        return None;
    }
    let plain = |what| (rex == 0).then_some((what, 2));
    match second {
        0x06 => plain(System::Control(ControlOp::Clts)),
        0x30 => plain(System::Wrmsr),
        0x31 => plain(System::Rdtsc),
        0x32 => plain(System::Rdmsr),
        0xa2 => plain(System::Cpuid),
        0x20 | 0x22 if third >= 0xc0 && rex & 2 == 0 => {
            let cr = (third >> 3) & 7 | (rex & 4) << 1;
            let gpr = third & 7 | (rex & 1) << 3;
            let known = matches!(cr, 0 | 2 | 3 | 4 | 8);
            let op = if second == 0x20 { ControlOp::Read { cr, gpr } } else { ControlOp::Write { cr, gpr } };
            known.then_some((System::Control(op), if rex == 0 { 3 } else { 4 }))
        }
        _ => None,
    }
}

fn moved(insn: &Instruction) -> Option<System> {
    if let Some(op) = control::moved(insn) {
        return Some(System::Control(op));
    }
    if insn.op0_kind() != OpKind::Register || insn.op1_kind() != OpKind::Register {
        return None;
    }
    let (to, from) = (insn.op0_register(), insn.op1_register());
    if let (Some(dr), Some(gpr)) = (debug(to), Gpr::of(from)) {
        return Some(System::WriteDebug { dr, gpr: gpr.number });
    }
    let (dr, gpr) = (debug(from)?, Gpr::of(to)?);
    Some(System::ReadDebug { dr, gpr: gpr.number })
}

fn debug(register: Register) -> Option<u8> {
    let n = (register as u32).checked_sub(Register::DR0 as u32)?;
    u8::try_from(n).ok().filter(|&n| n < 16)
}

fn dx(regs: &Regs) -> u16 {
    let [low, high, ..] = regs.rdx.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// The port in operand `which`, with the size of the register in operand `data`.
fn port(insn: &Instruction, regs: &Regs, data: u32, which: u32) -> Option<Port> {
    let size = Gpr::of(insn.try_op_register(data).ok()?)?.width.bytes();
    let number = match insn.try_op_kind(which).ok()? {
        OpKind::Register => dx(regs),
        _ => u16::from(insn.immediate8()),
    };
    Some(Port { number, size })
}
