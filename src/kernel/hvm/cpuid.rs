//! CPUID, by the domain's policy.

use core::sync::atomic::Ordering;

use machine::virt::Virt;
use model::chip::lapic::base_is_on;
use model::policy::Dynamic;
use model::regs::Regs;
use sync::Cx;
use sync::place::Root;

use crate::run::{Next, Running};

/// CPUID of the leaf in EAX and the subleaf in ECX.
pub fn execute(_: &mut Cx<'_, Root>, run: &mut Running, len: u8) -> Next {
    let (leaf, subleaf) = (run.context.regs.rax as u32, run.context.regs.rcx as u32);
    let now = Dynamic {
        vcpu: run.id,
        cr4: run.context.hw.cr(4),
        xcr0: run.context.extended.xcr0(),
        apic_enabled: base_is_on(run.vcpu().apic_base.load(Ordering::Relaxed)),
        is_long: run.context.hw.is_long(),
    };
    let [eax, ebx, ecx, edx] = run.domain.cpuid.query(leaf, subleaf, &now);
    let context = &mut *run.context;
    let regs: &mut Regs = &mut context.regs;
    (regs.rax, regs.rbx) = (u64::from(eax), u64::from(ebx));
    (regs.rcx, regs.rdx) = (u64::from(ecx), u64::from(edx));
    context.hw.skip(regs, len);
    Next::Enter
}
