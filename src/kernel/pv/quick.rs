//! The commonest privileged instructions, done within one stay in the guest.
//!
//! An instruction that touches only what this CPU has can be done without leaving (see [`super::stay`]); `emulate` does all
//! others, and these where something is special.

use abi::pv_vcpu::FLAT_KERNEL_CS64;
use machine::cpu;
use machine::pv::Vcpu;
use machine::virt::Virt;
use model::addr::GuestVirt;
use model::emul::{self, ControlOp, System};
use model::ids::VcpuId;
use model::policy::{Dynamic, Read};
use model::pv::frame::PvRegs;
use model::pv::privileged::{self, CPUID, FORCED};
use model::regs::{Cr0, Cr4, Rflags};

use super::msr::switched;
use crate::domain::Domain;

/// CPUID behind the prefix that forces its emulation.
pub const FORCED_CPUID: [u8; 7] = [FORCED[0], FORCED[1], FORCED[2], FORCED[3], FORCED[4], CPUID[0], CPUID[1]];

const MASK: u64 = u64::MAX >> 8;
const WORD: u64 = {
    let [a, b, c, d, e, f, g] = FORCED_CPUID;
    u64::from_le_bytes([a, b, c, d, e, f, g, 0])
};

/// What became of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quick {
    /// It is done.
    Done,
    /// The exception is the guest's own.
    Own,
    /// It has to be looked at more closely.
    Special,
}

/// Does the instruction that raised `#UD`, if it is CPUID behind its prefix.
#[inline(always)]
pub fn undefined(domain: &Domain, id: VcpuId, xcr0: u64, vcpu: &Vcpu, regs: &mut PvRegs<'_>) -> Quick {
    let Some([word]) = machine::pv::read1(GuestVirt::new(regs.rip)) else { return Quick::Special };
    if word & MASK != WORD {
        return Quick::Own;
    }
    if regs.rflags & Rflags::TF.bits() != 0 {
        return Quick::Special;
    }
    cpuid(domain, id, xcr0, vcpu, regs.reborrow(), true);
    regs.skip(FORCED_CPUID.len() as u64);
    Quick::Done
}

/// Does an instruction that raised `#GP(0)`, if it is one of these.
#[inline(never)]
pub fn protected(domain: &Domain, vcpu: &mut Vcpu, mut regs: PvRegs<'_>) -> Quick {
    if regs.rflags & Rflags::TF.bits() != 0 || regs.cs as u16 != FLAT_KERNEL_CS64 || !vcpu.is_kernel() {
        return Quick::Special;
    }
    let Some([word]) = machine::pv::read1(GuestVirt::new(regs.rip)) else { return Quick::Special };
    match emul::frequent(&word.to_le_bytes()) {
        Some((what, len)) if privileged(domain, vcpu, &mut regs, what) => {
            regs.skip(u64::from(len));
            Quick::Done
        }
        _ => Quick::Special,
    }
}

/// An instruction of the guest's kernel.
#[inline]
fn privileged(domain: &Domain, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>, what: System) -> bool {
    match what {
        System::Rdmsr => {
            // The processor looks at 32 bits.
            let msr = regs.rcx as u32;
            let value = match domain.msrs.read(msr) {
                Read::Value(value) => value,
                Read::Switched => match switched(msr) {
                    Some(msr) => vcpu.msr(msr),
                    None => return false,
                },
                _ => return false,
            };
            regs.set_pair(value);
        }
        System::Rdtsc => regs.set_pair(cpu::rdtsc()),
        System::Control(ControlOp::Read { cr: 0, gpr }) => {
            *regs.gpr_mut(gpr) = privileged::read_cr0(vcpu.cr(0) & Cr0::TS.bits() != 0);
        }
        System::Control(ControlOp::Read { cr: cr @ 2..=4, gpr }) => *regs.gpr_mut(gpr) = vcpu.cr(cr),
        System::Control(ControlOp::Clts) => vcpu.set_cr(0, vcpu.cr(0) & !Cr0::TS.bits()),
        _ => return false,
    }
    true
}

/// CPUID. In Linux's way of asking, a kernel finds OSXSAVE set as soon as there is XSAVE: it counts on that.
#[inline(always)]
pub fn cpuid(domain: &Domain, id: VcpuId, xcr0: u64, vcpu: &Vcpu, mut regs: PvRegs<'_>, is_forced: bool) {
    let (leaf, subleaf) = (regs.rax as u32, regs.rcx as u32);
    let has_leak = is_forced && domain.cpuid.xcr0() != 0 && vcpu.is_kernel();
    let cr4 = vcpu.cr(4) | if has_leak { Cr4::OSXSAVE.bits() } else { 0 };
    let now = Dynamic { vcpu: id, cr4, xcr0, apic_enabled: true, is_long: true };
    regs.set_four(domain.cpuid.query(leaf, subleaf, &now));
}
