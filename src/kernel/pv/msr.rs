//! RDMSR and WRMSR of a PV guest's kernel, by the domain's policy.

use machine::cpu;
use machine::virt::{GuestMsr, Virt};
use model::policy::{Managed, Read, Write};
use model::regs::vector;

use crate::run::Running;

/// The local APIC's base as every PV guest reads it: on, where it is on every PC.
const APIC_BASE: u64 = 0xfee0_0000 | 1 << 11;
/// The bit of the first processor.
const BOOT_PROCESSOR: u64 = 1 << 8;

/// The register in ECX; `None` for `#GP`.
pub fn read(run: &mut Running) -> Option<u64> {
    // The processor looks at 32 bits.
    let msr = run.context.regs.rcx as u32;
    let value = match run.domain.msrs.read(msr) {
        Read::Value(value) => Some(value),
        Read::Switched => switched(msr).map(|msr| run.context.hw.msr(msr)),
        Read::Managed(Managed::Tsc) => Some(cpu::rdtsc()),
        Read::Managed(Managed::ApicBase) => Some(APIC_BASE | if run.id.0 == 0 { BOOT_PROCESSOR } else { 0 }),
        Read::Managed(_) | Read::Fault => None,
    };
    value.or_else(|| fake(run, msr))
}

/// A guest that has no handler for `#GP` yet reads 0 where the machine has the register, as in Xen: kernels look around
/// early. Xen's own numbers excepted.
fn fake(run: &mut Running, msr: u32) -> Option<u64> {
    let is_early = run.context.pv().trap(vector::GP).address == 0;
    let could = is_early && msr >> 16 != 0x4000 && cpu::msr::read_checked(msr).is_some();
    could.then_some(0)
}

/// Writes EDX:EAX to the register in ECX; `false` for `#GP`.
pub fn write(run: &mut Running) -> bool {
    let regs = &run.context.regs;
    let (msr, value) = (regs.rcx as u32, regs.rax & 0xffff_ffff | regs.rdx << 32);
    match run.domain.msrs.write(msr, value) {
        Write::Ignore => true,
        Write::Switched => match switched(msr) {
            Some(msr) => {
                run.context.hw.set_msr(msr, value);
                true
            }
            None => false,
        },
        // The builder fills in the page that a kernel's notes name. None is filled in later.
        Write::Managed(_) | Write::Fault => false,
    }
}

/// The name of a register that is switched with the virtual CPU.
pub fn switched(msr: u32) -> Option<GuestMsr> {
    Some(match msr {
        0xc000_0100 => GuestMsr::FsBase,
        0xc000_0101 => GuestMsr::GsBase,
        0xc000_0102 => GuestMsr::KernelGsBase,
        0xc000_0103 => GuestMsr::TscAux,
        _ => return None,
    })
}
