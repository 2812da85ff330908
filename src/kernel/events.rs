//! Carrying out what event channels ask for: whom to wake, what to tell the other end.

use alloc::sync::Arc;

use abi::xen::VIRQ_TIMER;
use model::evtchn::{Closed, Error, EvtchnPort, Peer, Sent, Wake};
use model::ids::VcpuId;
use sync::Cx;
use sync::place::before;

use crate::domain::{self, Domain};
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
