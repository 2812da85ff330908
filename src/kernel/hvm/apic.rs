//! A virtual CPU's local APIC: accesses of the guest, interrupts to and from other virtual CPUs, its timer.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use machine::cpu;
use machine::virt::Virt;
use model::addr::GuestPhys;
use model::chip::lapic::{Deadline, DeliveryMode, Effect, Ipi, Lapic, Now, Wakeup, lowest_priority};
use model::ids::VcpuId;
use model::policy::{CpuidPolicy, Managed};
use model::pvh::LOCAL_APIC;
use sync::Cx;
use sync::place::{Root, before};

use super::msr::Fault;
use super::startup;
use crate::domain::{Context, Domain, Vcpu, VcpuState, attention};
use crate::run::Running;
use crate::time::Kind;
use crate::{sched, time};

/// Offsets in the register page: task priority, end of interrupt, the two halves of the interrupt command, and x2APIC's
/// interrupt to oneself.
const TPR: u16 = 0x80;
const EOI: u16 = 0xb0;
const ICR: u16 = 0x300;
const ICR_HIGH: u16 = 0x310;
const SELF_IPI: u16 = 0x3f0;

/// What is kept of the lower half of an interrupt command: all but the delivery status and what is reserved.
const ICR_KEPT: u32 = 0xc_cfff;

fn now(run: &Running) -> Now {
    Now { ns: time::now(), tsc: cpu::rdtsc().wrapping_add(run.context.tsc_offset) }
}

/// Where in the register page an address is, in xAPIC mode.
pub fn page_offset(cx: &mut Cx<'_, Root>, run: &Running, gpa: GuestPhys) -> Option<u16> {
    cx.lock(&run.vcpu().state).0.lapic.mmio_offset(gpa)
}

/// Reads the register page.
pub fn read_page(cx: &mut Cx<'_, Root>, run: &mut Running, offset: u16, len: usize) -> u64 {
    let now = now(run);
    sync_cr8(cx, run);
    cx.lock(&run.vcpu().state).0.lapic.read(offset, len.min(8) as u8, now)
}

/// Writes the register page.
pub fn write_page(cx: &mut Cx<'_, Root>, run: &mut Running, offset: u16, len: usize, value: u64) {
    let now = now(run);
    sync_cr8(cx, run);
    let effect = cx.lock(&run.vcpu().state).0.lapic.write(offset, len.min(8) as u8, value, now);
    after(cx, run, effect, offset);
}

/// Reads an MSR of the local APIC.
pub fn read_msr(cx: &mut Cx<'_, Root>, run: &mut Running, what: Managed) -> Result<u64, Fault> {
    match what {
        Managed::TscDeadline => Ok(cx.lock(&run.vcpu().state).0.lapic.tsc_deadline()),
        Managed::ApicBase => Ok(run.vcpu().apic_base.load(Ordering::Relaxed)),
        Managed::X2apic(register) => {
            let now = now(run);
            sync_cr8(cx, run);
            cx.lock(&run.vcpu().state).0.lapic.read_msr(0x800 + register, now).map_err(|_| Fault)
        }
        _ => Err(Fault),
    }
}

/// Writes an MSR of the local APIC.
pub fn write_msr(cx: &mut Cx<'_, Root>, run: &mut Running, what: Managed, value: u64) -> Result<(), Fault> {
    let now = now(run);
    sync_cr8(cx, run);
    let mut offset = 0;
    let effect = {
        let (mut state, _) = cx.lock(&run.vcpu().state);
        match what {
            Managed::TscDeadline => {
                state.lapic.set_tsc_deadline(value);
                Effect::None
            }
            Managed::ApicBase => {
                state.lapic.set_apic_base(value).map_err(|_| Fault)?;
                run.vcpu().apic_base.store(state.lapic.apic_base(), Ordering::Relaxed);
                Effect::None
            }
            Managed::X2apic(register) => {
                offset = (register << 4) as u16;
                state.lapic.write_msr(0x800 + register, value, now).map_err(|_| Fault)?
            }
            _ => return Err(Fault),
        }
    };
    after(cx, run, effect, offset);
    Ok(())
}

/// CR8 of a guest whose accesses exit.
pub fn cr8(cx: &mut Cx<'_, Root>, run: &Running) -> u64 {
    u64::from(cx.lock(&run.vcpu().state).0.lapic.cr8())
}

/// Sets CR8 of a guest whose accesses exit.
pub fn set_cr8(cx: &mut Cx<'_, Root>, run: &mut Running, value: u64) -> Result<(), Fault> {
    cx.lock(&run.vcpu().state).0.lapic.set_cr8(value).map_err(|_| Fault)?;
    after(cx, run, Effect::None, TPR);
    Ok(())
}

/// Takes over a task priority that the guest has changed without an exit.
pub fn sync_cr8(cx: &mut Cx<'_, Root>, run: &Running) {
    if let Some(cr8) = run.context.hw.cr8() {
        let tpr = if run.context.has_apic_page { run.context.hw.apic_register(TPR) as u8 } else { cr8 << 4 };
        let (mut state, _) = cx.lock(&run.vcpu().state);
        if state.lapic.tpr() != tpr && (run.context.has_apic_page || state.lapic.cr8() != cr8) {
            state.lapic.set_tpr(tpr);
        }
    }
}

/// The guest has written a register by the page that its processor serves.
pub fn written(cx: &mut Cx<'_, Root>, run: &mut Running, offset: u16) {
    let value = run.context.hw.apic_register(offset);
    if offset == ICR {
        return command(cx, run, value);
    }
    write_page(cx, run, offset, 4, u64::from(value));
}

/// The guest has written an interrupt command there. Where it goes was written before, which does not exit (SDM 3C 29.4.3.2).
fn command(cx: &mut Cx<'_, Root>, run: &mut Running, low: u32) {
    let high = run.context.hw.apic_register(ICR_HIGH);
    let now = Now { ns: 0, tsc: 0 }; // of which the command makes nothing
    let effect = {
        let (mut state, _) = cx.lock(&run.vcpu().state);
        let _ = state.lapic.write(ICR_HIGH, 4, u64::from(high), now);
        state.lapic.write(ICR, 4, u64::from(low), now)
    };
    if low & !ICR_KEPT != 0 {
        run.context.hw.set_apic_register(ICR, low & ICR_KEPT);
    }
    after(cx, run, effect, ICR);
}

/// As [`show`], for a virtual CPU that starts.
pub fn start(cx: &mut Cx<'_, Root>, run: &mut Running) {
    let (vcpu, context) = run.parts();
    show(context, &cx.lock(&vcpu.state).0.lapic);
}

/// Brings the page that the processor serves up to date, if it serves it in the mode in which the local APIC is.
pub fn show(context: &mut Context, lapic: &Lapic) {
    let is_there = lapic.mmio_base() == Some(LOCAL_APIC);
    context.has_apic_page = context.hw.serve_apic_page(is_there);
    if context.has_apic_page {
        lapic.each_steady(|offset, value| context.hw.set_apic_register(offset, value));
        context.hw.set_apic_register(TPR, u32::from(lapic.tpr()));
    }
}

/// What follows a write of the register at `offset`: messages, the timer, and a look at what is pending.
fn after(cx: &mut Cx<'_, Root>, run: &mut Running, effect: Effect, offset: u16) {
    if let Effect::Ipi(ipi) = effect {
        send(cx, &run.domain, CpuidPolicy::apic_id(run.id), &ipi);
    }
    if matches!(offset, ICR | ICR_HIGH | SELF_IPI) {
        // It changes nothing else; one to itself has arrived already.
        if effect == Effect::None {
            run.vcpu().note(attention::APIC);
        }
        return;
    }
    if run.context.hw.cr8().is_some() {
        let (cr8, threshold) = {
            let (state, _) = cx.lock(&run.vcpu().state);
            (state.lapic.cr8(), state.lapic.cr8_threshold())
        };
        run.context.hw.set_cr8(cr8, threshold);
    }
    let (vcpu, context) = run.parts();
    if offset != EOI {
        let (mut state, mut cx) = cx.lock(&vcpu.state);
        arm(&mut cx, vcpu, &mut state, context.tsc_offset);
        show(context, &state.lapic);
    }
    vcpu.note(attention::APIC);
}

/// Sets the timer that stands for the local APIC's own.
fn arm<P: before::Timer>(cx: &mut Cx<P>, vcpu: &Vcpu, state: &mut VcpuState, tsc_offset: u64) {
    let deadline = match state.lapic.next_deadline() {
        Some(Deadline::Ns(ns)) => ns,
        Some(Deadline::Tsc(tsc)) => time::clock().ns_at(tsc.wrapping_sub(tsc_offset)),
        None => return state.apic_timer.stop(cx),
    };
    // Without memory for the timer the guest loses this tick.
    state.apic_timer.set(cx, deadline, (vcpu.key, Kind::Apic));
}

/// The timer's time has come.
pub fn expired(cx: &mut Cx<'_, Root>, vcpu: &Vcpu, tsc_offset: u64) {
    let now = Now { ns: time::now(), tsc: cpu::rdtsc().wrapping_add(tsc_offset) };
    let is_pending = {
        let (mut state, mut cx) = cx.lock(&vcpu.state);
        let is_pending = state.lapic.expire(now);
        arm(&mut cx, vcpu, &mut state, tsc_offset);
        is_pending
    };
    if is_pending {
        vcpu.note(attention::APIC);
        sched::wake(cx, vcpu.key);
    }
}

/// Routes an interprocessor interrupt.
fn send(cx: &mut Cx<'_, Root>, domain: &Domain, sender: u32, ipi: &Ipi) {
    if ipi.message.mode == DeliveryMode::LOWEST_PRIORITY {
        if let Some(vcpu) = chosen(cx, domain, sender, ipi).and_then(|id| domain.vcpu(id)) {
            offer(cx, domain, vcpu, sender, ipi);
        }
        return;
    }
    // The commonest: to one, by its id.
    let one = ipi.single().map(|id| VcpuId(id / CpuidPolicy::apic_id(VcpuId(1)))).and_then(|id| domain.vcpu(id));
    if one.is_some_and(|vcpu| offer(cx, domain, vcpu, sender, ipi)) {
        return;
    }
    for vcpu in &domain.vcpus {
        offer(cx, domain, vcpu, sender, ipi);
    }
}

/// Which of the targets of a lowest-priority message gets it.
fn chosen(cx: &mut Cx<'_, Root>, domain: &Domain, sender: u32, ipi: &Ipi) -> Option<VcpuId> {
    let lapics: Vec<_> = domain.vcpus.iter().map(|vcpu| (vcpu.id, cx.lock(&vcpu.state).0.lapic.clone())).collect();
    lowest_priority(lapics.iter().filter(|(_, lapic)| ipi.reaches(sender, lapic)).map(|(id, lapic)| (*id, lapic)))
}

/// Hands a message to a virtual CPU, if it is for it. Says whether it is.
fn offer(cx: &mut Cx<'_, Root>, domain: &Domain, vcpu: &Vcpu, sender: u32, ipi: &Ipi) -> bool {
    let wakeup = {
        let (mut state, _) = cx.lock(&vcpu.state);
        if !ipi.reaches(sender, &state.lapic) {
            return false;
        }
        state.lapic.deliver(ipi.message)
    };
    match wakeup {
        Wakeup::None | Wakeup::ExtInt => {} // there is no PIC
        Wakeup::Interrupt => {
            vcpu.note(attention::APIC);
            sched::wake(cx, vcpu.key);
        }
        Wakeup::Nmi => {
            vcpu.note(attention::NMI);
            sched::wake(cx, vcpu.key);
        }
        Wakeup::Init => startup::init(cx, domain, vcpu),
        Wakeup::Startup(page) => startup::startup(cx, domain, vcpu, page),
    }
    true
}
