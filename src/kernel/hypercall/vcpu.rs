//! `vcpu_op` (`xen/include/public/vcpu.h`) and `set_timer_op`.

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use abi::errno::Errno;
use abi::hvm_vcpu::HvmContext;
use abi::vcpu::*;
use abi::xen::VcpuInfo;
use model::addr::{Gfn, GuestVirt, Mfn, PAGE_SIZE};
use model::ids::VcpuId;
use model::pv::is_guests;
use model::pv::mmu::Stop;
use sync::Cx;
use sync::place::Root;

use super::{Answer, Args, Outcome, command};
use crate::domain::{Domain, Start, attention};
use crate::guest_memory::{GuestPtr, pin};
use crate::hvm::startup;
use crate::run::Running;
use crate::time::Kind;
use crate::{events, pv, runstate, sched, time, updown};

/// The shortest period of the periodic timer, in ns, as in Xen: one millisecond.
const MIN_PERIOD_NS: u64 = 1_000_000;
/// The longest, as in Xen: about 292 years less than what 64 bits hold.
const MAX_PERIOD_NS: u64 = i64::MAX as u64;

/// From here on a deadline of `set_timer_op` is taken for a mistake, as in Xen: 13 days.
const FAR_NS: u64 = 1 << 50;
/// When its timer fires then.
const SOON_NS: u64 = 100_000_000;

/// `VCPUOP_*`: `args[0]` the command, `args[1]` the virtual CPU, `args[2]` the argument.
pub(super) fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let target = run.domain.vcpu_from_guest(args[1] & 0xffff_ffff)?.id;
    let is_self = target == run.id;
    let at = args[2];
    match command(args) {
        VCPUOP_INITIALISE if run.is_pv() => pv::start::initialise(cx, run, target, args),
        VCPUOP_INITIALISE => initialise(cx, run, target, at),
        VCPUOP_UP => up(cx, run, target),
        VCPUOP_DOWN => down(cx, run, target),
        VCPUOP_IS_UP => Ok(Outcome::Done(u64::from(is_up(&run.domain, args[1])?))),
        VCPUOP_GET_RUNSTATE_INFO => get_runstate(cx, run, target, at),
        VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA => register_runstate(cx, run, target, at),
        VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA => register_time(cx, run, target, at),
        VCPUOP_REGISTER_VCPU_INFO => register_info(cx, run, target, args),
        VCPUOP_SET_PERIODIC_TIMER => set_periodic(cx, run, target, at),
        VCPUOP_STOP_PERIODIC_TIMER => stop_periodic(cx, run, target),
        VCPUOP_SET_SINGLESHOT_TIMER if is_self => set_singleshot(cx, run, at),
        VCPUOP_STOP_SINGLESHOT_TIMER if is_self => {
            stop_singleshot(cx, run);
            Ok(Outcome::DONE)
        }
        VCPUOP_SET_SINGLESHOT_TIMER | VCPUOP_STOP_SINGLESHOT_TIMER => Err(Errno::EINVAL),
        VCPUOP_SEND_NMI if at != 0 => Err(Errno::EINVAL),
        VCPUOP_SEND_NMI => send_nmi(cx, run, target),
        // For a hardware domain whose virtual CPUs are each bound to a CPU.
        VCPUOP_GET_PHYSID => Err(Errno::EINVAL),
        _ => Err(Errno::ENOSYS),
    }
}

/// `VCPUOP_is_up`: whether the virtual CPU of a number that a guest gave is up.
#[inline]
pub fn is_up(domain: &Domain, raw: u64) -> Result<bool, Errno> {
    Ok(domain.vcpu_from_guest(raw & 0xffff_ffff)?.is_up.load(Ordering::Acquire))
}

fn initialise(cx: &mut Cx<'_, Root>, run: &mut Running, target: VcpuId, at: u64) -> Answer {
    let vcpu = run.domain.vcpu(target).ok_or(Errno::ENOENT)?;
    if !run.domain.shared.has_vcpu_info(target) {
        return Err(Errno::EINVAL);
    }
    let context = GuestPtr::<HvmContext>::new(at).read(cx, run)?;
    if cx.lock(&vcpu.state).0.is_initialised {
        return Err(Errno::EEXIST);
    }
    let registers = startup::from_hvm_context(&context)?;
    startup::check_controls(&run.domain, &registers)?;
    let (mut state, _) = cx.lock(&vcpu.state);
    if state.is_initialised {
        return Err(Errno::EEXIST);
    }
    state.start = Some(Start::Registers(Box::new(registers)));
    state.is_initialised = true;
    Ok(Outcome::DONE)
}

fn up(cx: &mut Cx<'_, Root>, run: &mut Running, target: VcpuId) -> Answer {
    let vcpu = run.domain.vcpu(target).ok_or(Errno::ENOENT)?;
    {
        let (mut state, _) = cx.lock(&vcpu.state);
        if !state.is_initialised {
            return Err(Errno::EINVAL);
        }
        state.waits_for_startup = false;
    }
    vcpu.note(attention::START);
    updown::bring_up(cx, &run.domain, target);
    Ok(Outcome::DONE)
}

fn down(cx: &mut Cx<'_, Root>, run: &mut Running, target: VcpuId) -> Answer {
    if target == run.id {
        run.context.regs.rax = 0;
        let gone = updown::take_down(cx, run);
        return Ok(if gone { Outcome::Gone } else { Outcome::Reschedule(0) });
    }
    if !is_up(&run.domain, target.0.into())? {
        return Ok(Outcome::DONE);
    }
    // Another virtual CPU is told to go; it does so at its next exit.
    let vcpu = run.domain.vcpu(target).ok_or(Errno::ENOENT)?;
    updown::take_down_other(cx, &run.domain, vcpu);
    Ok(Outcome::DONE)
}

fn get_runstate(cx: &mut Cx<'_, Root>, run: &mut Running, target: VcpuId, at: u64) -> Answer {
    let vcpu = run.domain.vcpu(target).ok_or(Errno::ENOENT)?;
    let info = runstate::info(cx, vcpu);
    GuestPtr::<RunstateInfo>::new(at).write(cx, run, &info)?;
    Ok(Outcome::DONE)
}

fn register_runstate(cx: &mut Cx<'_, Root>, run: &mut Running, target: VcpuId, at: u64) -> Answer {
    let arg = GuestPtr::<RegisterRunstateMemoryArea>::new(at).read(cx, run)?;
    let vcpu = run.domain.vcpu(target).ok_or(Errno::ENOENT)?;
    let info = runstate::info(cx, vcpu);
    if run.is_pv() && !is_guests(arg.addr, size_of::<RunstateInfo>()) {
        return Err(Errno::EFAULT);
    }
    // An area that cannot be written now is tried again each time, as in Xen; null gives it up.
    let _ = GuestPtr::<RunstateInfo>::new(arg.addr).write(cx, run, &info);
    vcpu.runstate_area.store(arg.addr, Ordering::Relaxed);
    Ok(Outcome::DONE)
}

fn register_time(cx: &mut Cx<'_, Root>, run: &mut Running, target: VcpuId, at: u64) -> Answer {
    let arg = GuestPtr::<RegisterTimeMemoryArea>::new(at).read(cx, run)?;
    run.domain.vcpu(target).ok_or(Errno::ENOENT)?;
    runstate::write_time_area(cx, run, GuestVirt::new(arg.addr))?;
    Ok(Outcome::DONE)
}

fn register_info(cx: &mut Cx<'_, Root>, run: &mut Running, target: VcpuId, args: &Args) -> Answer {
    let arg = GuestPtr::<RegisterVcpuInfo>::new(args[2]).read(cx, run)?;
    let offset = u64::from(arg.offset);
    if offset % 8 != 0 || offset > PAGE_SIZE - size_of::<VcpuInfo>() as u64 {
        return Err(Errno::ENXIO);
    }
    // For itself, or one that is down.
    if run.domain.shared.has_moved(target) || (target != run.id && is_up(&run.domain, args[1])?) {
        return Err(Errno::EINVAL);
    }
    let domain = run.domain.clone();
    let frame = if run.is_pv() {
        match pv::mmu::pin(cx, &domain, Mfn::new(arg.mfn)) {
            Ok(frame) => frame,
            Err(Stop::Refused(errno)) => return Err(errno),
            Err(Stop::Again) => return Ok(Outcome::Again(*args)),
        }
    } else {
        pin(cx, &domain, Gfn::new(arg.mfn), true).ok_or(Errno::EINVAL)?
    };
    if !domain.shared.move_vcpu_info(target, frame, arg.offset as usize) {
        return Err(Errno::EINVAL);
    }
    if target == run.id {
        run.find_info();
    }
    domain.shared.write_time(target, &time::time_info());
    // Whatever was announced in the old place is announced in the new one.
    let wake = cx.lock(&domain.channels).0.announce_all(target, &domain.shared);
    events::act(cx, &domain, wake);
    Ok(Outcome::DONE)
}

fn set_periodic(cx: &mut Cx<'_, Root>, run: &mut Running, target: VcpuId, at: u64) -> Answer {
    let arg = GuestPtr::<SetPeriodicTimer>::new(at).read(cx, run)?;
    if !(MIN_PERIOD_NS..=MAX_PERIOD_NS).contains(&arg.period_ns) {
        return Err(Errno::EINVAL);
    }
    let vcpu = run.domain.vcpu(target).ok_or(Errno::ENOENT)?;
    {
        let (mut state, mut cx) = cx.lock(&vcpu.state);
        state.period_ns = arg.period_ns;
        let deadline = time::now().saturating_add(arg.period_ns);
        if !state.periodic.set(&mut cx, deadline, (vcpu.key, Kind::Periodic)) {
            return Err(Errno::ENOMEM);
        }
    }
    Ok(Outcome::DONE)
}

fn stop_periodic(cx: &mut Cx<'_, Root>, run: &mut Running, target: VcpuId) -> Answer {
    let vcpu = run.domain.vcpu(target).ok_or(Errno::ENOENT)?;
    let (mut state, mut cx) = cx.lock(&vcpu.state);
    state.period_ns = 0;
    state.periodic.stop(&mut cx);
    Ok(Outcome::DONE)
}

fn set_singleshot(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<SetSingleshotTimer>::new(at).read(cx, run)?;
    // `VCPU_SSHOTTMR_future` is ignored, as by Xen: the past is now.
    if arg.timeout_abs_ns >= time::now() {
        return arm(cx, run, arg.timeout_abs_ns);
    }
    stop_singleshot(cx, run);
    let domain = run.domain.clone();
    events::timer(cx, &domain, run.id);
    Ok(Outcome::DONE)
}

fn stop_singleshot(cx: &mut Cx<'_, Root>, run: &Running) {
    let (mut state, mut cx) = cx.lock(&run.vcpu().state);
    state.singleshot.stop(&mut cx);
}

fn arm(cx: &mut Cx<'_, Root>, run: &mut Running, deadline_ns: u64) -> Answer {
    let vcpu = run.vcpu();
    let (mut state, mut cx) = cx.lock(&vcpu.state);
    if !state.singleshot.set(&mut cx, deadline_ns, (vcpu.key, Kind::Singleshot)) {
        return Err(Errno::ENOMEM);
    }
    Ok(Outcome::DONE)
}

fn send_nmi(cx: &mut Cx<'_, Root>, run: &mut Running, target: VcpuId) -> Answer {
    let vcpu = run.domain.vcpu(target).ok_or(Errno::ENOENT)?;
    vcpu.note(attention::NMI);
    sched::wake(cx, vcpu.key);
    Ok(Outcome::DONE)
}

/// `set_timer_op`: `args[0]` the deadline in ns of system time, 0 for none. It shares its timer with the single-shot one.
pub(super) fn set_timer(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    if args[0] == 0 {
        stop_singleshot(cx, run);
        return Ok(Outcome::DONE);
    }
    arm(cx, run, sane(args[0]))
}

/// [`set_timer`] by a running virtual CPU, without waiting. `None`, and nothing has been done, where a lock is not free.
#[inline(never)]
pub fn try_set_timer(domain: &Domain, id: VcpuId, deadline_ns: u64) -> Option<u64> {
    let vcpu = &domain.vcpus[id.0 as usize];
    let mut state = vcpu.state.try_lock()?;
    if deadline_ns == 0 {
        state.singleshot.try_stop()?;
        return Some(0);
    }
    let is_set = state.singleshot.try_set(sane(deadline_ns), (vcpu.key, Kind::Singleshot))?;
    Some(if is_set { 0 } else { Errno::ENOMEM.to_rax() })
}

/// The deadline that a guest means. As in Xen, one whose arithmetic has wrapped around looks at its work soon.
#[inline]
fn sane(deadline_ns: u64) -> u64 {
    if deadline_ns < FAR_NS {
        return deadline_ns;
    }
    let now = time::now();
    let is_wrapped = deadline_ns > i64::MAX as u64 || deadline_ns.saturating_sub(now) >= FAR_NS;
    if is_wrapped { now + SOON_NS } else { deadline_ns }
}
