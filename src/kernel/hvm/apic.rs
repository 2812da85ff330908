//! A virtual CPU's local APIC: accesses of the guest, interrupts to and from other virtual CPUs, its timer.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use machine::cpu;
use machine::virt::Virt;
use model::addr::GuestPhys;
use model::chip::lapic::{Deadline, DeliveryMode, Effect, Ipi, Lapic, Mode, Now, Wakeup, lowest_priority};
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
    read(cx, run, |lapic| lapic.read(offset, len.min(8) as u8, now))
}

/// Writes the register page.
pub fn write_page(cx: &mut Cx<'_, Root>, run: &mut Running, offset: u16, len: usize, value: u64) {
    let now = now(run);
    let _ = write(cx, run, offset, |lapic| Ok(lapic.write(offset, len.min(8) as u8, value, now)));
    if run.context.has_apic_page && matches!(offset, ICR | ICR_HIGH) {
        // The processor did not carry it out, and has the old one in the page.
        for offset in [ICR, ICR_HIGH] {
            let value = cx.lock(&run.vcpu().state).0.lapic.read(offset, 4, now);
            run.context.hw.set_apic_register(offset, value as u32);
        }
    }
}

/// Reads an MSR of the local APIC.
pub fn read_msr(cx: &mut Cx<'_, Root>, run: &mut Running, what: Managed) -> Result<u64, Fault> {
    match what {
        Managed::TscDeadline => Ok(cx.lock(&run.vcpu().state).0.lapic.tsc_deadline()),
        Managed::ApicBase => Ok(run.vcpu().apic_base.load(Ordering::Relaxed)),
        Managed::X2apic(register) => {
            let now = now(run);
            read(cx, run, |lapic| lapic.read_msr(0x800 + register, now).map_err(|_| Fault))
        }
        _ => Err(Fault),
    }
}

/// Writes an MSR of the local APIC.
pub fn write_msr(cx: &mut Cx<'_, Root>, run: &mut Running, what: Managed, value: u64) -> Result<(), Fault> {
    match what {
        Managed::TscDeadline => {
            let (vcpu, context) = run.parts();
            let (mut state, mut cx) = cx.lock(&vcpu.state);
            state.lapic.set_tsc_deadline(value);
            arm(&mut cx, vcpu, &mut state, context.tsc_offset);
            Ok(())
        }
        Managed::ApicBase => {
            write(cx, run, 0, |lapic| lapic.set_apic_base(value).map(|()| Effect::None).map_err(|_| Fault))?;
            let base = cx.lock(&run.vcpu().state).0.lapic.apic_base();
            run.vcpu().apic_base.store(base, Ordering::Relaxed);
            Ok(())
        }
        Managed::X2apic(register) => {
            let now = now(run);
            write(cx, run, (register << 4) as u16, |lapic| {
                lapic.write_msr(0x800 + register, value, now).map_err(|_| Fault)
            })
        }
        _ => Err(Fault),
    }
}

/// CR8 of a guest whose accesses exit.
pub fn cr8(cx: &mut Cx<'_, Root>, run: &Running) -> u64 {
    u64::from(cx.lock(&run.vcpu().state).0.lapic.cr8())
}

/// Sets CR8 of a guest whose accesses exit.
pub fn set_cr8(cx: &mut Cx<'_, Root>, run: &mut Running, value: u64) -> Result<(), Fault> {
    write(cx, run, TPR, |lapic| lapic.set_cr8(value).map(|()| Effect::None).map_err(|_| Fault))
}

/// Takes over what the guest and its processor have changed without an exit: the task priority, or all vectors.
pub fn fetch(context: &mut Context, state: &mut VcpuState) {
    if state.posted.is_some() {
        context.hw.merge_posted();
        state.lapic.take_back(|offset| context.hw.apic_register(offset));
    } else if let (Some(cr8), None) = (context.hw.cr8(), context.hw.posted()) {
        let tpr = if context.has_apic_page { context.hw.apic_register(TPR) as u8 } else { cr8 << 4 };
        if state.lapic.tpr() != tpr && (context.has_apic_page || state.lapic.cr8() != cr8) {
            state.lapic.set_tpr(tpr);
        }
    }
}

/// Brings the processor's part up to date, after [`fetch`] and what changed then: the registers that it serves, and the vectors
/// if it delivers them.
pub fn show(context: &mut Context, state: &mut VcpuState) {
    let lapic = &mut state.lapic;
    // The processor knows the page at its usual place alone.
    let is_elsewhere = lapic.mmio_base().is_some_and(|base| base != LOCAL_APIC);
    let mode = if is_elsewhere { Mode::Disabled } else { lapic.mode() };
    context.hw.serve_apic(mode, lapic.is_enabled());
    context.has_apic_page = context.hw.has_apic_page();
    let posted = context.hw.posted();
    if posted.is_some() != state.posted.is_some() {
        state.posted = posted.cloned();
    }
    if context.has_apic_page || state.posted.is_some() {
        lapic.each_steady(|offset, value| context.hw.set_apic_register(offset, value));
        context.hw.set_apic_register(TPR, u32::from(lapic.tpr()));
    }
    if state.posted.is_some() {
        let (requested, in_service) = lapic.hand_over();
        context.hw.set_interrupt_status(requested, in_service);
    } else if context.hw.cr8().is_some() {
        context.hw.set_cr8(lapic.cr8(), lapic.cr8_threshold());
    }
}

/// The guest reads a register.
fn read<R>(cx: &mut Cx<'_, Root>, run: &mut Running, f: impl FnOnce(&mut Lapic) -> R) -> R {
    let (vcpu, context) = run.parts();
    let (mut state, _) = cx.lock(&vcpu.state);
    fetch(context, &mut state);
    let value = f(&mut state.lapic);
    if state.posted.is_some() {
        show(context, &mut state); // it may have been an error, which interrupts
    }
    value
}

/// The guest writes the register at `offset`; 0 for what is none of them. What follows: messages, the timer, and a look at what
/// is pending.
fn write(
    cx: &mut Cx<'_, Root>,
    run: &mut Running,
    offset: u16,
    f: impl FnOnce(&mut Lapic) -> Result<Effect, Fault>,
) -> Result<(), Fault> {
    if matches!(offset, ICR | ICR_HIGH | SELF_IPI) {
        return command(cx, run, f);
    }
    let (vcpu, context) = run.parts();
    let (mut state, mut cx) = cx.lock(&vcpu.state);
    fetch(context, &mut state);
    let written = f(&mut state.lapic);
    if offset != EOI {
        arm(&mut cx, vcpu, &mut state, context.tsc_offset);
    }
    if offset != EOI || state.posted.is_some() {
        show(context, &mut state);
    }
    if state.posted.is_none() {
        vcpu.note(attention::APIC);
    }
    // There is no I/O APIC to be told of an EOI.
    written.map(|_| ())
}

/// The guest writes a part of the interrupt command, or an interrupt to itself: nothing else changes.
fn command(
    cx: &mut Cx<'_, Root>,
    run: &mut Running,
    f: impl FnOnce(&mut Lapic) -> Result<Effect, Fault>,
) -> Result<(), Fault> {
    let effect = {
        let vcpu = run.vcpu();
        let (mut state, _) = cx.lock(&vcpu.state);
        let effect = f(&mut state.lapic)?;
        // One to itself has arrived already, or an error has: seen before the next entry.
        let VcpuState { lapic, posted, .. } = &mut *state;
        match posted {
            Some(posted) => {
                let _ = lapic.post(posted);
            }
            None if effect == Effect::None => vcpu.note(attention::APIC),
            None => {}
        }
        effect
    };
    if let Effect::Ipi(ipi) = effect {
        send(cx, &run.domain, CpuidPolicy::apic_id(run.id), &ipi);
    }
    Ok(())
}

/// The guest has written a register by the page that its processor serves, or an interrupt to itself that the processor refuses.
pub fn written(cx: &mut Cx<'_, Root>, run: &mut Running, offset: u16) {
    let value = run.context.hw.apic_register(offset);
    match offset {
        ICR => command_by_page(cx, run, value),
        SELF_IPI => {
            let _ = write_msr(cx, run, Managed::X2apic(u32::from(SELF_IPI >> 4)), u64::from(value));
        }
        _ => write_page(cx, run, offset, 4, u64::from(value)),
    }
}

/// The guest has written an interrupt command there. Where it goes was written before, which does not exit (SDM 3C 29.4.3.2).
fn command_by_page(cx: &mut Cx<'_, Root>, run: &mut Running, low: u32) {
    let high = run.context.hw.apic_register(ICR_HIGH);
    let now = Now { ns: 0, tsc: 0 }; // of which the command makes nothing
    if low & !ICR_KEPT != 0 {
        run.context.hw.set_apic_register(ICR, low & ICR_KEPT);
    }
    let _ = command(cx, run, |lapic| {
        let _ = lapic.write(ICR_HIGH, 4, u64::from(high), now);
        Ok(lapic.write(ICR, 4, u64::from(low), now))
    });
}

/// As [`show`], for a virtual CPU that starts.
pub fn start(cx: &mut Cx<'_, Root>, run: &mut Running) {
    let (vcpu, context) = run.parts();
    show(context, &mut cx.lock(&vcpu.state).0);
}

/// INIT. Its processor's part, which may have vectors still, follows when it starts.
pub fn init(state: &mut VcpuState) {
    state.lapic.init();
    if let Some(posted) = state.posted.take() {
        posted.take(|_, _| {});
    }
}

/// Whether an interrupt waits that the priorities allow. What is posted later is told anew.
pub fn is_interrupted(cx: &mut Cx<'_, Root>, run: &mut Running) -> bool {
    let (vcpu, context) = run.parts();
    if context.hw.posted().is_some() {
        context.hw.merge_posted();
        return context.hw.is_interrupted();
    }
    let (mut state, _) = cx.lock(&vcpu.state);
    fetch(context, &mut state);
    state.lapic.highest_pending().is_some()
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
    let told = {
        let (mut state, mut cx) = cx.lock(&vcpu.state);
        let is_pending = state.lapic.expire(now);
        arm(&mut cx, vcpu, &mut state, tsc_offset);
        pass_on(&mut state, is_pending)
    };
    tell(cx, vcpu, told);
}

/// How a virtual CPU hears of an interrupt that its local APIC has accepted.
enum Told {
    /// It looks.
    ToLook,
    /// Its processor is notified.
    Notified,
    /// Not at all: there is none, or it has yet to see what was posted before.
    Nothing,
}

/// Posts what the local APIC has taken in, if its processor delivers it. `is_interrupt`: an interrupt, not only an error.
fn pass_on(state: &mut VcpuState, is_interrupt: bool) -> Told {
    match &state.posted {
        Some(posted) if state.lapic.post(posted) => Told::Notified,
        None if is_interrupt => Told::ToLook,
        _ => Told::Nothing,
    }
}

fn tell(cx: &mut Cx<'_, Root>, vcpu: &Vcpu, told: Told) {
    match told {
        Told::ToLook => {
            vcpu.note(attention::APIC);
            sched::wake(cx, vcpu.key);
        }
        Told::Notified => sched::notify(cx, vcpu.key),
        Told::Nothing => {}
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
    let (wakeup, told) = {
        let (mut state, _) = cx.lock(&vcpu.state);
        if !ipi.reaches(sender, &state.lapic) {
            return false;
        }
        let wakeup = state.lapic.deliver(ipi.message);
        (wakeup, pass_on(&mut state, wakeup == Wakeup::Interrupt))
    };
    match wakeup {
        Wakeup::None | Wakeup::Interrupt | Wakeup::ExtInt => tell(cx, vcpu, told), // there is no PIC
        Wakeup::Nmi => {
            vcpu.note(attention::NMI);
            sched::wake(cx, vcpu.key);
        }
        Wakeup::Init => startup::init(cx, domain, vcpu),
        Wakeup::Startup(page) => startup::startup(cx, domain, vcpu, page),
    }
    true
}
