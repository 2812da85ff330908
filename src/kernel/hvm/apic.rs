//! A virtual CPU's local APIC: accesses of the guest, interrupts to and from other virtual CPUs, its timer.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use machine::cpu;
use machine::virt::Virt;
use model::addr::GuestPhys;
use model::chip::lapic::{Deadline, DeliveryMode, Effect, Ipi, Lapic, Message, Mode, Now, Wakeup, lowest_priority};
use model::ids::VcpuId;
use model::policy::Managed;
use model::pvh::LOCAL_APIC;
use sync::Cx;
use sync::place::{Root, before};

use super::msr::Fault;
use super::startup;
use crate::domain::{Context, Domain, Vcpu, VcpuState, attention};
use crate::run::Running;
use crate::time::Kind;
use crate::{sched, time};

/// Offsets in the register page: task priority, and the two halves of the interrupt command.
const TPR: u16 = 0x80;
const ICR: u16 = 0x300;
const ICR_HIGH: u16 = 0x310;

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
    after(cx, run, effect);
}

/// Reads an MSR of the local APIC.
pub fn read_msr(cx: &mut Cx<'_, Root>, run: &mut Running, what: Managed) -> Result<u64, Fault> {
    match what {
        Managed::TscDeadline => Ok(cx.lock(&run.vcpu().state).0.lapic.tsc_deadline()),
        Managed::ApicBase => Ok(cx.lock(&run.vcpu().state).0.lapic.apic_base()),
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
    let effect = {
        let (mut state, _) = cx.lock(&run.vcpu().state);
        match what {
            Managed::TscDeadline => {
                state.lapic.set_tsc_deadline(value);
                Effect::None
            }
            Managed::ApicBase => {
                state.lapic.set_apic_base(value).map_err(|_| Fault)?;
                run.vcpu().apic_is_on.store(state.lapic.mode() != Mode::Disabled, Ordering::Relaxed);
                Effect::None
            }
            Managed::X2apic(register) => state.lapic.write_msr(0x800 + register, value, now).map_err(|_| Fault)?,
            _ => return Err(Fault),
        }
    };
    after(cx, run, effect);
    Ok(())
}

/// CR8 of a guest whose accesses exit.
pub fn cr8(cx: &mut Cx<'_, Root>, run: &Running) -> u64 {
    u64::from(cx.lock(&run.vcpu().state).0.lapic.cr8())
}

/// Sets CR8 of a guest whose accesses exit.
pub fn set_cr8(cx: &mut Cx<'_, Root>, run: &mut Running, value: u64) -> Result<(), Fault> {
    cx.lock(&run.vcpu().state).0.lapic.set_cr8(value).map_err(|_| Fault)?;
    after(cx, run, Effect::None);
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
    let value = u64::from(run.context.hw.apic_register(offset));
    if offset == ICR {
        // Where it goes was written before, which does not exit (SDM 3C 29.4.3.2).
        let destination = u64::from(run.context.hw.apic_register(ICR_HIGH));
        write_page(cx, run, ICR_HIGH, 4, destination);
    }
    write_page(cx, run, offset, 4, value);
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

/// What follows an access: messages to others, the timer, and a look at what is pending.
fn after(cx: &mut Cx<'_, Root>, run: &mut Running, effect: Effect) {
    if run.context.hw.cr8().is_some() {
        let (cr8, threshold) = {
            let (state, _) = cx.lock(&run.vcpu().state);
            (state.lapic.cr8(), state.lapic.cr8_threshold())
        };
        run.context.hw.set_cr8(cr8, threshold);
    }
    if let Effect::Ipi(ipi) = effect {
        send(cx, run, &ipi);
    }
    let (vcpu, context) = run.parts();
    {
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
fn send(cx: &mut Cx<'_, Root>, run: &mut Running, ipi: &Ipi) {
    let domain = run.domain.clone();
    let sender = cx.lock(&run.vcpu().state).0.lapic.id();
    let mut targets: Vec<VcpuId> = Vec::new();
    for vcpu in &domain.vcpus {
        if ipi.reaches(sender, &cx.lock(&vcpu.state).0.lapic) {
            targets.push(vcpu.id);
        }
    }
    if ipi.message.mode == DeliveryMode::LOWEST_PRIORITY {
        targets = chosen(cx, &domain, &targets).into_iter().collect();
    }
    for id in targets {
        deliver(cx, &domain, &domain.vcpus[id.0 as usize], ipi.message);
    }
}

/// Which of the targets of a lowest-priority message gets it.
fn chosen(cx: &mut Cx<'_, Root>, domain: &Domain, targets: &[VcpuId]) -> Option<VcpuId> {
    let lapics: Vec<_> =
        targets.iter().map(|&id| (id, cx.lock(&domain.vcpus[id.0 as usize].state).0.lapic.clone())).collect();
    lowest_priority(lapics.iter().map(|(id, lapic)| (*id, lapic)))
}

/// Hands a message to a virtual CPU.
fn deliver(cx: &mut Cx<'_, Root>, domain: &Domain, vcpu: &Vcpu, message: Message) {
    let wakeup = cx.lock(&vcpu.state).0.lapic.deliver(message);
    match wakeup {
        Wakeup::None | Wakeup::ExtInt => return, // there is no PIC
        Wakeup::Interrupt => vcpu.note(attention::APIC),
        Wakeup::Nmi => vcpu.note(attention::NMI),
        Wakeup::Init => return startup::init(cx, domain, vcpu),
        Wakeup::Startup(page) => return startup::startup(cx, domain, vcpu, page),
    }
    sched::wake(cx, vcpu.key);
}
