//! `sched_op` (`xen/include/public/sched.h`).

use abi::errno::Errno;
use abi::sched::*;
use model::evtchn::EvtchnPort;
use model::ids::{CpuId, DomId};
use model::sched::{CpuSet, MAX_CPUS};
use sync::Cx;
use sync::place::Root;

use super::{Answer, Args, Outcome, command};
use crate::domain::{self, life};
use crate::guest_memory::GuestPtr;
use crate::run::Running;
use crate::time::Kind;
use crate::{blocking, pv, sched, time};

/// Ports that one poll may name.
const MAX_POLLED: u32 = 128;

/// `SCHEDOP_*`: `args[0]` the command, `args[1]` its argument.
pub(super) fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    match command(args) {
        SCHEDOP_YIELD => {
            let asks = sched::yield_(run);
            Ok(if asks { Outcome::Reschedule(0) } else { Outcome::DONE })
        }
        SCHEDOP_BLOCK => {
            block(cx, run);
            Ok(Outcome::Reschedule(0))
        }
        SCHEDOP_SHUTDOWN => shutdown(cx, run, args[1]),
        SCHEDOP_SHUTDOWN_CODE => {
            let arg = GuestPtr::<Shutdown>::new(args[1]).read(cx, run)?;
            run.domain.life.set_code(arg.reason);
            Ok(Outcome::DONE)
        }
        SCHEDOP_POLL => {
            let arg = GuestPtr::<Poll>::new(args[1]).read(cx, run)?;
            poll(cx, run, &arg)
        }
        SCHEDOP_REMOTE_SHUTDOWN => remote_shutdown(cx, run, args[1]),
        SCHEDOP_PIN_OVERRIDE => pin_override(cx, run, args[1]),
        SCHEDOP_WATCHDOG => watchdog(cx, run, args[1]),
        _ => Err(Errno::ENOSYS),
    }
}

fn shutdown(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<Shutdown>::new(at).read(cx, run)?;
    // Without a toolstack nobody could resume it or build it anew.
    if matches!(arg.reason, SHUTDOWN_SUSPEND | SHUTDOWN_SOFT_RESET) {
        return Err(Errno::EOPNOTSUPP);
    }
    // Any other number ends the domain, as in Xen, which has eight bits for it.
    life::end(cx, run, life::Death::Asked(arg.reason & 0xff));
    Ok(Outcome::Gone)
}

/// Ends another domain, for a PV initial one.
fn remote_shutdown(cx: &mut Cx<'_, Root>, run: &Running, at: u64) -> Answer {
    let arg = GuestPtr::<RemoteShutdown>::new(at).read(cx, run)?;
    let domain = domain::find(cx, DomId(arg.domain_id)).ok_or(Errno::ESRCH)?;
    if !pv::is_initial(run) {
        return Err(Errno::EPERM);
    }
    if matches!(arg.reason, SHUTDOWN_SUSPEND | SHUTDOWN_SOFT_RESET) {
        return Err(Errno::EOPNOTSUPP);
    }
    life::end_remotely(cx, &domain, arg.reason & 0xff);
    Ok(Outcome::DONE)
}

/// Has a virtual CPU of the initial domain run on one CPU alone, or takes that back.
fn pin_override(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    if run.domain.id != DomId(0) {
        return Err(Errno::EPERM);
    }
    let arg = GuestPtr::<PinOverride>::new(at).read(cx, run)?;
    let vcpu = run.vcpu();
    let (hard, soft) = sched::affinity(cx, vcpu.key).ok_or(Errno::EINVAL)?;
    let usable = sched::usable_cpus(cx);
    let (mut state, mut cx) = cx.lock(&vcpu.state);
    let hard = match (u32::try_from(arg.pcpu), state.overridden) {
        (Ok(cpu), _) if cpu >= MAX_CPUS => return Err(Errno::EINVAL),
        (Ok(_), Some(_)) => return Err(Errno::EBUSY),
        (Ok(cpu), None) if usable.contains(CpuId(cpu)) => {
            state.overridden = Some(hard);
            CpuSet::only(CpuId(cpu))
        }
        (Ok(_), None) => return Err(Errno::EINVAL),
        (Err(_), _) => state.overridden.take().ok_or(Errno::EINVAL)?,
    };
    sched::set_affinity(&mut cx, vcpu.key, hard, soft);
    Ok(Outcome::DONE)
}

/// Sleeps until an upcall comes, and lets it through.
pub(super) fn block(cx: &mut Cx<'_, Root>, run: &mut Running) {
    if run.is_pv() {
        pv::events::unmask(run);
    }
    blocking::block(cx, run);
}

/// Starts, pats or stops one of the domain's watchdogs, which are timers of its first virtual CPU.
fn watchdog(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<Watchdog>::new(at).read(cx, run)?;
    let domain = run.domain.clone();
    let vcpu = &domain.vcpus[0];
    let (mut state, mut cx) = cx.lock(&vcpu.state);
    let slot = match arg.id {
        0 => state.watchdogs.iter().position(Option::is_none),
        id => (0..state.watchdogs.len()).find(|&slot| slot as u32 + 1 == id && state.watchdogs[slot].is_some()),
    };
    let slot = match slot {
        Some(slot) => slot,
        // A result of 32 bits in Xen, which is not extended to 64.
        None if arg.id == 0 => return Ok(Outcome::Done(Errno::ENOSPC.to_rax() & 0xffff_ffff)),
        None => return Err(Errno::EINVAL),
    };
    let mut timer = state.watchdogs[slot].take().unwrap_or_default();
    timer.stop(&mut cx);
    if arg.id != 0 && arg.timeout == 0 {
        return Ok(Outcome::DONE);
    }
    let deadline = time::now() + u64::from(arg.timeout) * 1_000_000_000;
    if !timer.set(&mut cx, deadline, (vcpu.key, Kind::Watchdog)) {
        return Err(Errno::ENOMEM);
    }
    state.watchdogs[slot] = Some(timer);
    Ok(Outcome::Done(if arg.id == 0 { slot as u64 + 1 } else { 0 }))
}

/// Sleeps until one of the ports is pending, an upcall comes, or the time is over.
pub(super) fn poll(cx: &mut Cx<'_, Root>, run: &mut Running, arg: &Poll) -> Answer {
    if arg.nr_ports > MAX_POLLED {
        return Err(Errno::EINVAL);
    }
    let mut ports = [EvtchnPort::new(0); MAX_POLLED as usize];
    let list = GuestPtr::<u32>::new(arg.ports);
    for (index, port) in (0..u64::from(arg.nr_ports)).zip(&mut ports) {
        *port = EvtchnPort::new(list.at(index).read(cx, run)?);
    }
    let ports = &ports[..arg.nr_ports as usize];
    let domain = run.domain.clone();
    let sleeps = cx.lock(&domain.channels).0.poll(run.id, ports, &domain.shared)?;
    if !sleeps || (arg.timeout != 0 && arg.timeout <= time::now()) {
        cx.lock(&domain.channels).0.stop_polling(run.id);
        return Ok(Outcome::DONE);
    }
    // Taken back before the guest goes on, however that comes.
    run.context.is_polling = true;
    if arg.timeout != 0 {
        let vcpu = run.vcpu();
        let (mut state, mut cx) = cx.lock(&vcpu.state);
        if !state.poll.set(&mut cx, arg.timeout, (vcpu.key, Kind::Poll)) {
            return Err(Errno::ENOMEM);
        }
    }
    blocking::sleep_polling(cx, run, ports);
    Ok(Outcome::Reschedule(0))
}
