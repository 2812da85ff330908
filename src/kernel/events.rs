//! Carrying out what event channels ask for: whom to wake, what to tell the other end.

use alloc::sync::Arc;
use core::cell::Cell;

use abi::xen::VIRQ_TIMER;
use model::evtchn::{self, Closed, Error, EvtchnPort, Peer, Sent, Wake};
use model::ids::{DomId, VcpuId};
use model::sched::Key;
use sync::place::{Channels, before};
use sync::{Cx, Guard};

use crate::domain::{self, Domain, Words};
use crate::{console, sched};

/// Wakes whom an operation on `domain`'s channels named. No lock of its channels is held.
#[inline]
pub fn act<P: before::DomainList>(cx: &mut Cx<P>, domain: &Arc<Domain>, wake: Wake) {
    if let Some(vcpu) = wake.upcall.and_then(|id| domain.vcpu(id)) {
        sched::wake(cx, vcpu.key);
    }
    for id in wake.pollers.iter() {
        if let Some(vcpu) = domain.vcpu(id) {
            sched::wake(cx, vcpu.key);
        }
    }
    if let Some(service) = wake.service {
        console::notified(cx, domain, service);
    }
}

/// `EVTCHNOP_send` by a virtual CPU of `domain`.
#[inline]
pub fn send<P: before::DomainList>(cx: &mut Cx<P>, domain: &Arc<Domain>, port: EvtchnPort) -> Result<(), Error> {
    let sent = cx.lock(&domain.channels).0.send(port, &domain.shared)?;
    match sent {
        Sent::Here(wake) => act(cx, domain, wake),
        Sent::There { peer, from } => deliver(cx, peer, from),
    }
    Ok(())
}

/// What is left to do of something that has been done without waiting.
#[derive(Clone, Copy)]
pub enum Owed {
    /// One that sleeps is to be woken.
    Sleeper(Key),
    /// More is to be done for a domain.
    Rest(DomId, Wake),
}

/// As [`send`] by a PV virtual CPU, whose words `info` are, without waiting: what is left for [`finish`] comes to `owed`. `None`,
/// and nothing has been done, where a lock is not free.
#[inline(always)]
pub fn try_send(
    domain: &Domain,
    sender: VcpuId,
    info: Words<'_>,
    port: EvtchnPort,
    owed: &Cell<Option<Owed>>,
) -> Option<Result<(), Error>> {
    let mut channels = domain.channels.try_lock()?;
    let Some(upcall) = channels.send_ipi(port, &domain.shared.near(sender, info)) else {
        return try_send_otherwise(channels, domain, port, owed);
    };
    drop(channels);
    // One who calls up himself is awake, and looks before he goes on.
    if upcall != Some(sender) {
        try_call_up(domain, upcall, owed);
    }
    Some(Ok(()))
}

/// To other ports, and where somebody polls.
#[inline(never)]
fn try_send_otherwise(
    mut channels: Guard<'_, Channels, evtchn::Channels>,
    domain: &Domain,
    port: EvtchnPort,
    owed: &Cell<Option<Owed>>,
) -> Option<Result<(), Error>> {
    let sent = channels.send(port, &domain.shared);
    drop(channels);
    match sent {
        Ok(Sent::Here(wake)) => try_act(domain, wake, owed),
        Ok(Sent::There { peer, from }) => domain::try_with(peer.domain, |other| {
            let wake = other.channels.try_lock()?.deliver(peer, from, &other.shared);
            try_act(other, wake, owed);
            Some(())
        })??,
        Err(error) => return Some(Err(error)),
    }
    Some(Ok(()))
}

fn try_act(domain: &Domain, wake: Wake, owed: &Cell<Option<Owed>>) {
    if wake.pollers.is_empty() && wake.service.is_none() {
        try_call_up(domain, wake.upcall, owed);
    } else {
        owed.set(Some(Owed::Rest(domain.id, wake)));
    }
}

#[inline(always)]
fn try_call_up(domain: &Domain, upcall: Option<VcpuId>, owed: &Cell<Option<Owed>>) {
    if let Some(vcpu) = upcall.and_then(|id| domain.vcpu(id))
        && !sched::try_wake(vcpu.key)
    {
        owed.set(Some(Owed::Sleeper(vcpu.key)));
    }
}

/// Does the rest. Another who has meanwhile got the key or the number of one that is gone is woken for nothing.
#[inline]
pub fn finish<P: before::DomainList>(cx: &mut Cx<P>, owed: Owed) {
    match owed {
        Owed::Sleeper(key) => sched::wake_sleeper(cx, key),
        Owed::Rest(domain, wake) => {
            if let Some(domain) = domain::find(cx, domain) {
                act(cx, &domain, wake);
            }
        }
    }
}

fn deliver<P: before::DomainList>(cx: &mut Cx<P>, peer: Peer, from: Peer) {
    if let Some(other) = domain::find(cx, peer.domain) {
        let wake = cx.lock(&other.channels).0.deliver(peer, from, &other.shared);
        act(cx, &other, wake);
    }
}

/// Tells the other end of a port that was closed.
pub fn after_close<P: before::DomainList>(cx: &mut Cx<P>, closed: Closed) {
    if let Closed::Peer { peer, from } = closed
        && let Some(other) = domain::find(cx, peer.domain)
    {
        cx.lock(&other.channels).0.peer_closed(peer, from);
    }
}

/// Raises a VIRQ for a virtual CPU.
pub fn raise_virq<P: before::DomainList>(cx: &mut Cx<P>, domain: &Arc<Domain>, vcpu: VcpuId, virq: u32) {
    let wake = cx.lock(&domain.channels).0.raise_virq(vcpu, virq, &domain.shared);
    act(cx, domain, wake);
}

/// Raises VIRQ_TIMER for a virtual CPU.
pub fn timer<P: before::DomainList>(cx: &mut Cx<P>, domain: &Arc<Domain>, vcpu: VcpuId) {
    raise_virq(cx, domain, vcpu, VIRQ_TIMER);
}
