//! How a virtual CPU sleeps, and what ends that.

use core::sync::atomic::Ordering;

use model::evtchn::{EvtchnPort, SharedBits};
use model::regs::Rflags;
use model::sched::Key;
use sync::Cx;
use sync::place::Root;

use crate::domain::{attention, life};
use crate::hvm::{self, apic};
use crate::run::Running;
use crate::time::Kind;
use crate::{events, pv, sched, time};

/// Whether something waits for the virtual CPU that ends its sleep.
fn has_work(cx: &mut Cx<'_, Root>, run: &mut Running) -> bool {
    if run.is_pv() { pv::events::has_work(run) } else { hvm::events::has_work(cx, run) }
}

/// Sleeps until there is work.
pub fn block(cx: &mut Cx<'_, Root>, run: &mut Running) {
    let key = run.vcpu().key;
    sched::sleep(cx, key);
    if has_work(cx, run) {
        sched::wake(cx, key);
    }
}

/// Sleeps in a poll that [`model::evtchn::Channels::poll`] has entered.
pub fn sleep_polling(cx: &mut Cx<'_, Root>, run: &mut Running, ports: &[EvtchnPort]) {
    let key = run.vcpu().key;
    sched::sleep(cx, key);
    let is_pending = ports.iter().any(|&port| run.domain.shared.is_pending(port));
    // As in Xen, what cannot be delivered with interrupts off does not end the poll: spinlocks poll like that.
    let takes_interrupts = run.is_pv() || run.context.regs.rflags & Rflags::IF.bits() != 0;
    let told = attention::NMI | attention::START | attention::SCHEDULE;
    let is_told = run.vcpu().attention.load(Ordering::Acquire) & told != 0;
    if is_pending || is_told || (takes_interrupts && has_work(cx, run)) {
        sched::wake(cx, key);
    }
}

/// A virtual CPU that slept in a poll goes on.
pub fn end_poll(cx: &mut Cx<'_, Root>, run: &Running) {
    cx.lock(&run.domain.channels).0.stop_polling(run.id);
    let (mut state, mut cx) = cx.lock(&run.vcpu().state);
    state.poll.stop(&mut cx);
}

/// The time of a timer has come.
pub fn timer(cx: &mut Cx<'_, Root>, key: Key, kind: Kind) {
    let Some(vcpu) = sched::lookup(cx, key) else { return };
    match kind {
        Kind::Singleshot => events::timer(cx, &vcpu.domain, vcpu.id),
        Kind::Periodic => {
            {
                let (mut state, mut cx) = cx.lock(&vcpu.vcpu().state);
                let next = time::now().saturating_add(state.period_ns);
                if state.period_ns != 0 {
                    // Without memory for the timer the ticks end, and the guest sees it.
                    state.periodic.set(&mut cx, next, (key, Kind::Periodic));
                }
            }
            events::timer(cx, &vcpu.domain, vcpu.id);
        }
        Kind::Poll => sched::wake(cx, key),
        Kind::Apic => {
            let offset = vcpu.vcpu().tsc_offset.load(Ordering::Relaxed);
            apic::expired(cx, vcpu.vcpu(), offset);
        }
        Kind::Watchdog => life::bite(cx, &vcpu.domain),
    }
}
