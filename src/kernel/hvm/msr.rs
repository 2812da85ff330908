//! RDMSR and WRMSR, by the domain's policy.

use core::sync::atomic::Ordering;

use machine::cpu;
use machine::virt::{GuestMsr, Virt};
use model::addr::GuestPhys;
use model::policy::msr::nr;
use model::policy::{Managed, Read, Write};
use model::regs::{Event, Regs};
use sync::Cx;
use sync::place::Root;

use super::exit::inject;
use super::{apic, control, startup};
use crate::run::{Next, Running};

/// The access is `#GP(0)`.
pub struct Fault;

/// RDMSR of the register in ECX.
pub fn read(cx: &mut Cx<'_, Root>, run: &mut Running, len: u8) -> Next {
    let value = match run.context.regs.rcx as u32 {
        // Read often, at hand, and in every policy.
        nr::EFER => run.context.hw.msr(GuestMsr::Efer),
        nr::APIC_BASE => run.vcpu().apic_base.load(Ordering::Relaxed),
        msr => match read_by_policy(cx, run, msr) {
            Ok(value) => value,
            Err(Fault) => return inject(run, Event::GP),
        },
    };
    let context = &mut *run.context;
    let regs: &mut Regs = &mut context.regs;
    (regs.rax, regs.rdx) = (value & 0xffff_ffff, value >> 32);
    context.hw.skip(regs, len);
    Next::Enter
}

#[inline(never)]
fn read_by_policy(cx: &mut Cx<'_, Root>, run: &mut Running, msr: u32) -> Result<u64, Fault> {
    match run.domain.msrs.read(msr) {
        Read::Value(value) => Ok(value),
        Read::Switched => switched(msr).map(|msr| run.context.hw.msr(msr)).ok_or(Fault),
        Read::Managed(managed) => read_managed(cx, run, managed),
        Read::Fault => Err(Fault),
    }
}

/// WRMSR of EDX:EAX to the register in ECX.
pub fn write(cx: &mut Cx<'_, Root>, run: &mut Running, len: u8) -> Next {
    let regs = &run.context.regs;
    let (msr, value) = (regs.rcx as u32, regs.rax & 0xffff_ffff | regs.rdx << 32);
    let written = match run.domain.msrs.write(msr, value) {
        Write::Ignore => Ok(()),
        Write::Switched => switched(msr).map(|msr| run.context.hw.set_msr(msr, value)).ok_or(Fault),
        Write::Managed(managed) => write_managed(cx, run, managed, value),
        Write::Fault => Err(Fault),
    };
    if written.is_err() {
        return inject(run, Event::GP);
    }
    let context = &mut *run.context;
    context.hw.skip(&mut context.regs, len);
    Next::Enter
}

/// The back-end's name of a register that it switches.
fn switched(msr: u32) -> Option<GuestMsr> {
    Some(match msr {
        0xc000_0080 => GuestMsr::Efer,
        0xc000_0081 => GuestMsr::Star,
        0xc000_0082 => GuestMsr::Lstar,
        0xc000_0083 => GuestMsr::Cstar,
        0xc000_0084 => GuestMsr::SyscallMask,
        0xc000_0100 => GuestMsr::FsBase,
        0xc000_0101 => GuestMsr::GsBase,
        0xc000_0102 => GuestMsr::KernelGsBase,
        0xc000_0103 => GuestMsr::TscAux,
        0x174 => GuestMsr::SysenterCs,
        0x175 => GuestMsr::SysenterEsp,
        0x176 => GuestMsr::SysenterEip,
        0x277 => GuestMsr::Pat,
        _ => return None,
    })
}

fn read_managed(cx: &mut Cx<'_, Root>, run: &mut Running, managed: Managed) -> Result<u64, Fault> {
    match managed {
        Managed::Tsc => Ok(cpu::rdtsc().wrapping_add(run.context.tsc_offset)),
        Managed::TscAdjust => Ok(run.context.tsc_offset),
        Managed::TscDeadline | Managed::ApicBase | Managed::X2apic(_) => apic::read_msr(cx, run, managed),
        Managed::SpecCtrl | Managed::HypercallPage | Managed::PredCmd | Managed::Efer => Err(Fault),
    }
}

fn write_managed(cx: &mut Cx<'_, Root>, run: &mut Running, managed: Managed, value: u64) -> Result<(), Fault> {
    match managed {
        Managed::Tsc => set_offset(run, value.wrapping_sub(cpu::rdtsc())),
        Managed::TscAdjust => set_offset(run, value),
        Managed::TscDeadline | Managed::ApicBase | Managed::X2apic(_) => {
            return apic::write_msr(cx, run, managed, value);
        }
        Managed::HypercallPage => return startup::write_hypercall_page(cx, run, GuestPhys::new(value)),
        Managed::Efer => return control::set_efer(run, value),
        Managed::SpecCtrl | Managed::PredCmd => return Err(Fault),
    }
    Ok(())
}

/// A guest that moves its TSC moves it against the clock it was given; it is its own.
fn set_offset(run: &mut Running, offset: u64) {
    run.context.tsc_offset = offset;
    run.vcpu().tsc_offset.store(offset, Ordering::Relaxed);
    run.context.hw.set_tsc_offset(offset);
}
