//! `event_channel_op` (`xen/include/public/event_channel.h`).

use abi::errno::Errno;
use abi::event_channel::*;
use model::evtchn::{self as channels, EvtchnPort};
use model::ids::{DomId, VcpuId};
use sync::Cx;
use sync::place::Root;

use super::{Answer, Args, Outcome, command};
use crate::domain;
use crate::events;
use crate::guest_memory::GuestPtr;
use crate::run::Running;

/// Ports that one step of `EVTCHNOP_reset` closes.
const RESET_STEP: u32 = 256;

/// `EVTCHNOP_*`: `args[0]` the command, `args[1]` its argument.
pub(super) fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let at = args[1];
    match command(args) {
        EVTCHNOP_SEND => send(cx, run, at),
        EVTCHNOP_UNMASK => unmask(cx, run, at),
        EVTCHNOP_ALLOC_UNBOUND => alloc_unbound(cx, run, at),
        EVTCHNOP_BIND_INTERDOMAIN => bind_interdomain(cx, run, at),
        EVTCHNOP_BIND_VIRQ => bind_virq(cx, run, at),
        EVTCHNOP_BIND_IPI => bind_ipi(cx, run, at),
        EVTCHNOP_BIND_VCPU => bind_vcpu(cx, run, at),
        EVTCHNOP_CLOSE => close(cx, run, at),
        EVTCHNOP_STATUS => status(cx, run, at),
        EVTCHNOP_RESET => reset(cx, run, args),
        EVTCHNOP_SET_PRIORITY => set_priority(cx, run, at),
        // Physical interrupts and FIFO event channels are not built.
        _ => Err(Errno::ENOSYS),
    }
}

fn send(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<Send>::new(at).read(cx, run)?;
    events::send(cx, &run.domain, EvtchnPort::new(arg.port))?;
    Ok(Outcome::DONE)
}

fn unmask(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<Unmask>::new(at).read(cx, run)?;
    let wake = cx.lock(&run.domain.channels).0.unmask(EvtchnPort::new(arg.port), &run.domain.shared)?;
    events::act(cx, &run.domain, wake);
    Ok(Outcome::DONE)
}

fn alloc_unbound(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<AllocUnbound>::new(at);
    let mut arg = ptr.read(cx, run)?;
    domain::own_from_guest(cx, &run.domain, arg.dom)?;
    let remote = resolve(run, arg.remote_dom);
    let port = cx.lock(&run.domain.channels).0.alloc_unbound(remote)?;
    arg.port = port.raw();
    give_port(cx, run, ptr, &arg, port)
}

/// The domain that a guest names as its peer.
fn resolve(run: &Running, raw: u16) -> DomId {
    if raw == abi::xen::DOMID_SELF { run.domain.id } else { DomId(raw) }
}

/// Copies a new port out; if that fails it is closed again, and nothing has happened.
fn give_port<T>(cx: &mut Cx<'_, Root>, run: &mut Running, to: GuestPtr<T>, arg: &T, port: EvtchnPort) -> Answer
where
    T: zerocopy::IntoBytes + zerocopy::Immutable,
{
    if let Err(errno) = to.write(cx, run, arg) {
        let closed = cx.lock(&run.domain.channels).0.close(port, &run.domain.shared);
        if let Ok(closed) = closed {
            events::after_close(cx, closed);
        }
        return Err(errno);
    }
    Ok(Outcome::DONE)
}

fn bind_interdomain(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<BindInterdomain>::new(at);
    let mut arg = ptr.read(cx, run)?;
    let remote = resolve(run, arg.remote_dom);
    let remote_port = EvtchnPort::new(arg.remote_port);
    let own = &run.domain;
    let (port, wake) = if remote == own.id {
        channels::bind_loopback(&mut cx.lock(&own.channels).0, remote_port, &own.shared)?
    } else {
        let other = domain::find(cx, remote).ok_or(Errno::ESRCH)?;
        let (pair, _) = cx.lock_pair(&own.channels, &other.channels);
        let sync::Pair::Both(mut here, mut there) = pair else { return Err(Errno::EINVAL) };
        channels::bind_interdomain(&mut here, &mut there, remote_port, &own.shared)?
    };
    events::act(cx, &run.domain, wake);
    arg.local_port = port.raw();
    give_port(cx, run, ptr, &arg, port)
}

fn bind_virq(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<BindVirq>::new(at);
    let mut arg = ptr.read(cx, run)?;
    let port = cx.lock(&run.domain.channels).0.bind_virq(arg.virq, VcpuId(arg.vcpu))?;
    arg.port = port.raw();
    give_port(cx, run, ptr, &arg, port)
}

fn bind_ipi(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<BindIpi>::new(at);
    let mut arg = ptr.read(cx, run)?;
    let port = cx.lock(&run.domain.channels).0.bind_ipi(VcpuId(arg.vcpu))?;
    arg.port = port.raw();
    give_port(cx, run, ptr, &arg, port)
}

fn bind_vcpu(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<BindVcpu>::new(at).read(cx, run)?;
    cx.lock(&run.domain.channels).0.bind_vcpu(EvtchnPort::new(arg.port), VcpuId(arg.vcpu))?;
    Ok(Outcome::DONE)
}

fn close(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<Close>::new(at).read(cx, run)?;
    let closed = cx.lock(&run.domain.channels).0.close(EvtchnPort::new(arg.port), &run.domain.shared)?;
    events::after_close(cx, closed);
    Ok(Outcome::DONE)
}

fn status(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<Status>::new(at);
    let mut arg = ptr.read(cx, run)?;
    domain::own_from_guest(cx, &run.domain, arg.dom)?;
    let (status, vcpu) = cx.lock(&run.domain.channels).0.status(EvtchnPort::new(arg.port))?;
    arg.vcpu = vcpu.0;
    (arg.status, arg.peer, arg.peer_port) = match status {
        channels::Status::Closed => (EVTCHNSTAT_CLOSED, 0, 0),
        channels::Status::Unbound { domain } => (EVTCHNSTAT_UNBOUND, u32::from(domain.0), 0),
        channels::Status::Interdomain { domain, port } => (EVTCHNSTAT_INTERDOMAIN, u32::from(domain.0), port.raw()),
        channels::Status::Virq { virq } => (EVTCHNSTAT_VIRQ, virq, 0),
        channels::Status::Ipi => (EVTCHNSTAT_IPI, 0, 0),
    };
    ptr.write(cx, run, &arg)?;
    Ok(Outcome::DONE)
}

/// Ports have priorities only among FIFO event channels.
fn set_priority(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<SetPriority>::new(at).read(cx, run)?;
    cx.lock(&run.domain.channels).0.status(EvtchnPort::new(arg.port))?;
    Err(Errno::ENOSYS)
}

fn reset(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let arg = GuestPtr::<Reset>::new(args[1]).read(cx, run)?;
    domain::own_from_guest(cx, &run.domain, arg.dom)?;
    let mut from = 0;
    for _ in 0..RESET_STEP {
        let step = cx.lock(&run.domain.channels).0.close_next(from, &run.domain.shared);
        let Some((next, closed)) = step else { return Ok(Outcome::DONE) };
        events::after_close(cx, closed);
        from = next;
    }
    // What is closed by now is passed over.
    Ok(Outcome::Again(*args))
}
