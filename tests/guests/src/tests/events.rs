//! Event channels, timers and the clock of an unprivileged guest (`event_channel.h`, `vcpu.h`, `sched.h`).

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use abi::event_channel::*;
use abi::sched::{self, SCHEDOP_BLOCK, SCHEDOP_POLL};
use abi::vcpu::{self, *};
use abi::xen::{DOMID_SELF, SharedInfo, VIRQ_DEBUG, VIRQ_TIMER};
use abi::{Errno, nr};
use guest::check::{equal, fails, zero};
use guest::events as ev;
use guest::hypercall::{self, Ret};
use guest::interrupts::{self, Frame};
use guest::start::Boot;
use guest::time::{self, MILLISECOND};
use guest::{check, cpu, mem, println};
use zerocopy::FromZeros;

static LAST: AtomicU32 = AtomicU32::new(0);

fn upcall(_frame: &mut Frame) {
    let mut words = ev::acknowledge(0);
    while words != 0 {
        let word = words.trailing_zeros();
        words &= words - 1;
        let ready = ev::pending_word(word * 64).load(SeqCst) & !ev::mask_word(word * 64).load(SeqCst);
        for bit in (0..64).filter(|bit| ready >> bit & 1 == 1) {
            ev::clear(word * 64 + bit);
            LAST.store(word * 64 + bit, SeqCst);
        }
    }
}

/// Runs the test.
pub fn run(_boot: &Boot) {
    interrupts::on(ev::VECTOR, upcall);
    let ready = ev::init();
    zero(ready, "the shared page is mapped and the callback vector set");
    if ready != Ret(0) {
        return;
    }
    fresh_page();
    let Ok(ipi) = ev::bind_ipi(0) else {
        check!(false, "an IPI port can be bound");
        return;
    };
    println!("port: {ipi}");
    pending_and_masked(ipi);
    delivery(ipi);
    status(ipi);
    let timer = virqs();
    clock();
    if let Some(timer) = timer {
        timers(timer);
        poll(ipi, timer);
        block(ipi, timer);
    }
    runstate();
    vcpu_info_moves(ipi);
    ends(ipi);
}

fn fresh_page() {
    let page = ev::shared_info();
    let masks = core::mem::offset_of!(SharedInfo, evtchn_mask) as u64;
    let all_masked = (0..64).all(|i| mem::peek64(page + masks + i * 8) == !0);
    println!("masks: {}", if all_masked { "all set" } else { "clear at the start" });
    // A port that was never bound is masked or not as the hypervisor left it; the guest decides, as Linux does.
    (0..4096).for_each(|port| ev::set_mask(port, true));
}

fn pending_and_masked(port: u32) {
    cpu::cli();
    ev::acknowledge(0);
    zero(ev::send(port), "a send to a masked port succeeds");
    check!(ev::is_pending(port), "a masked port becomes pending");
    check!(!ev::upcall_pending(0) && ev::selector(0).load(SeqCst) == 0, "a masked port raises no upcall");
    zero(ev::unmask(port), "a pending port can be unmasked");
    check!(!ev::is_masked(port), "EVTCHNOP_unmask clears the mask bit");
    check!(ev::upcall_pending(0), "unmasking a pending port raises the upcall");
    equal(ev::selector(0).load(SeqCst), 1 << (port / 64), "and sets the selector's bit of its word");
    ev::clear(port);
    ev::acknowledge(0);
}

fn delivery(port: u32) {
    let before = interrupts::count(ev::VECTOR);
    // The upcall above may have been taken as an interrupt already; let it come, then start anew.
    cpu::sti();
    cpu::pause();
    cpu::cli();
    let start = interrupts::count(ev::VECTOR);
    println!("upcalls left over: {}", start - before);
    LAST.store(0, SeqCst);
    zero(ev::send(port), "a send to an open port succeeds");
    check!(interrupts::count(ev::VECTOR) == start, "with interrupts off no upcall comes");
    cpu::sti();
    cpu::pause();
    cpu::cli();
    check!(interrupts::count(ev::VECTOR) == start + 1, "the upcall comes by the callback vector, once";
        "{} times", interrupts::count(ev::VECTOR) - start);
    equal(LAST.load(SeqCst).into(), port.into(), "the upcall's handler finds the port");
    if guest::pv::is_pv() {
        return;
    }
    check!(!guest::lapic::bit(guest::lapic::reg::ISR, ev::VECTOR), "the callback vector passes by the local APIC");
}

fn status(port: u32) {
    match ev::status(port) {
        Ok(status) => {
            equal(status.status.into(), EVTCHNSTAT_IPI.into(), "EVTCHNOP_status calls an IPI port that");
            equal(status.vcpu.into(), 0, "EVTCHNOP_status tells its vCPU");
        }
        Err(error) => check!(false, "EVTCHNOP_status succeeds"; "{}", error),
    }
    let unbound = ev::alloc_unbound(0);
    check!(unbound.is_ok(), "a port for a domain to come can be allocated"; "{}", unbound.unwrap_or_else(|e| { println!("{e}"); 0 }));
    if let Ok(unbound) = unbound {
        let seen = ev::status(unbound).map(|s| (s.status, s.peer & 0xffff));
        check!(seen == Ok((EVTCHNSTAT_UNBOUND, 0)), "EVTCHNOP_status calls it unbound, for domain 0");
        zero(ev::send(unbound), "a send to an unbound port is dropped in silence");
        zero(ev::close(unbound), "it can be closed");
        let closed = ev::status(unbound).map(|s| s.status);
        check!(closed == Ok(EVTCHNSTAT_CLOSED), "EVTCHNOP_status calls it closed then");
        fails(ev::close(unbound), Errno::EINVAL, "a closed port cannot be closed again");
        fails(ev::send(unbound), Errno::EINVAL, "a send to a closed port is EINVAL");
    }
    let mut beyond = Status { dom: DOMID_SELF, port: EVTCHN_2L_NR_CHANNELS, ..Status::new_zeroed() };
    fails(ev::op(EVTCHNOP_STATUS, &mut beyond), Errno::EINVAL, "the status of a port beyond the last is EINVAL");
    let mut moved = BindVcpu { port, vcpu: 0 };
    fails(ev::op(EVTCHNOP_BIND_VCPU, &mut moved), Errno::EINVAL, "an IPI port cannot be moved");
}

fn virqs() -> Option<u32> {
    let timer = ev::bind_virq(VIRQ_TIMER, 0);
    check!(timer.is_ok(), "VIRQ_TIMER can be bound"; "{}", timer.err().unwrap_or(Ret(0)));
    check!(ev::bind_virq(VIRQ_TIMER, 0) == Err(Ret::err(Errno::EEXIST)), "and not a second time");
    check!(ev::bind_virq(24, 0) == Err(Ret::err(Errno::EINVAL)), "a VIRQ beyond the last is EINVAL");
    check!(ev::bind_virq(VIRQ_DEBUG, 4096) == Err(Ret::err(Errno::ENOENT)), "a VIRQ of no vCPU is ENOENT");
    check!(ev::bind_ipi(4096) == Err(Ret::err(Errno::ENOENT)), "an IPI to no vCPU is ENOENT");
    let timer = timer.ok()?;
    let seen = ev::status(timer).map(|s| (s.status, s.peer));
    check!(seen == Ok((EVTCHNSTAT_VIRQ, VIRQ_TIMER)), "EVTCHNOP_status tells the VIRQ");
    Some(timer)
}

fn clock() {
    let (mut last, mut monotone) = (time::now(), true);
    let first = last;
    for _ in 0..10_000 {
        let now = time::now();
        monotone &= now >= last;
        last = now;
    }
    check!(monotone, "the clock never goes back");
    check!(last > first, "the clock goes forward");
    let seconds = u64::from(mem::peek32(ev::shared_info() + core::mem::offset_of!(SharedInfo, wc_sec) as u64));
    println!("clock: {} ns after {} s", last, seconds);
    // The processor may be away for a while between any two reads, so each is put between two others.
    let khz = u64::from(cpu::cpuid(hypercall::cpuid_base().unwrap_or(0) + 3, 0).ecx);
    if khz == 0 && guest::pv::is_initial() {
        return; // Xen does not tell its initial domain.
    }
    let (before, start, after) = (cpu::tsc(), time::now(), cpu::tsc());
    while cpu::tsc() - after < khz * 10 {
        cpu::pause();
    }
    let (least, end, most) = (cpu::tsc() - after, time::now(), cpu::tsc() - before);
    let (least, passed, most) = (least * 1_000_000 / khz, end - start, most * 1_000_000 / khz);
    let is_right = (least - least / 50..=most + most / 50).contains(&passed);
    check!(is_right, "10 ms by the TSC's frequency of leaf 3 are 10 ms of the clock"; "{} to {} and {} ns", least, most, passed);
}

fn single_shot(timeout_abs_ns: u64, flags: u32) -> Ret {
    hypercall::vcpu_op(VCPUOP_SET_SINGLESHOT_TIMER, 0, &mut SetSingleshotTimer { timeout_abs_ns, flags, pad: 0 })
}

fn comes(port: u32, within: u64) -> bool {
    let came = time::wait_for(within, || ev::is_pending(port));
    ev::clear(port);
    ev::acknowledge(0);
    came
}

fn timers(timer: u32) {
    // Masked ports become pending too, which is all that is looked at here.
    ev::set_mask(timer, true);
    zero(hypercall::vcpu_op(VCPUOP_STOP_PERIODIC_TIMER, 0, &mut 0u64), "VCPUOP_stop_periodic_timer succeeds");
    // A PV vCPU begins with a tick each 10 ms; the last may have come just now.
    comes(timer, 0);
    let due = time::now() + 2 * MILLISECOND;
    zero(single_shot(due, 0), "VCPUOP_set_singleshot_timer succeeds");
    check!(comes(timer, 500 * MILLISECOND), "the single-shot timer fires");
    check!(time::now() >= due, "and not before its time");
    check!(!comes(timer, 10 * MILLISECOND), "the single-shot timer fires once");
    zero(single_shot(1, 0), "a single-shot timer in the past can be set");
    check!(comes(timer, 500 * MILLISECOND), "and fires at once");
    // The flag may be ignored, and Xen 4.17 does so.
    let future = single_shot(1, VCPU_SSHOTTMR_FUTURE);
    check!(future == Ret(0) || future == Ret::err(Errno::ETIME), "one that must lie in the future is ETIME"; "{}", future);
    comes(timer, 5 * MILLISECOND);
    // In an emulator much time can pass between any two instructions.
    let is_in_time = (0..10).any(|_| {
        let due = time::now() + 30 * MILLISECOND;
        comes(timer, 0);
        zero(single_shot(due, 0), "a single-shot timer can be set again");
        zero(hypercall::vcpu_op(VCPUOP_STOP_SINGLESHOT_TIMER, 0, &mut 0u64), "VCPUOP_stop_singleshot_timer succeeds");
        time::now() < due
    });
    check!(is_in_time, "a timer can be stopped before it fires");
    check!(!comes(timer, 50 * MILLISECOND), "a stopped timer does not fire");
    let set = |time: u64| hypercall::call(nr::SET_TIMER_OP, [time, 0, 0, 0, 0]);
    zero(set(time::now() + 2 * MILLISECOND), "set_timer_op succeeds");
    check!(comes(timer, 500 * MILLISECOND), "set_timer_op's timer fires");
    zero(set(0), "set_timer_op stops with zero");
    let mut period = SetPeriodicTimer { period_ns: 2 * MILLISECOND };
    zero(hypercall::vcpu_op(VCPUOP_SET_PERIODIC_TIMER, 0, &mut period), "VCPUOP_set_periodic_timer succeeds");
    let ticks = (0..3).filter(|_| comes(timer, 500 * MILLISECOND)).count();
    equal(ticks as u64, 3, "the periodic timer fires again and again");
    zero(hypercall::vcpu_op(VCPUOP_STOP_PERIODIC_TIMER, 0, &mut 0u64), "the periodic timer can be stopped");
    comes(timer, 0);
    let mut short = SetPeriodicTimer { period_ns: 1000 };
    fails(hypercall::vcpu_op(VCPUOP_SET_PERIODIC_TIMER, 0, &mut short), Errno::EINVAL, "a period below 1 ms is EINVAL");
}

fn poll_for(ports: &[u32], timeout: u64) -> Ret {
    let mut arg = sched::Poll { ports: ports.as_ptr() as u64, nr_ports: ports.len() as u32, pad: 0, timeout };
    hypercall::op(nr::SCHED_OP, SCHEDOP_POLL, &mut arg)
}

fn poll(ipi: u32, timer: u32) {
    ev::set_mask(ipi, true);
    ev::set_mask(timer, true);
    let due = time::now() + 3 * MILLISECOND;
    zero(poll_for(&[ipi], due), "SCHEDOP_poll with a timeout succeeds");
    check!(time::now() >= due, "SCHEDOP_poll sleeps until its timeout");
    zero(ev::send(ipi), "a masked port can be sent to");
    let start = time::now();
    zero(poll_for(&[timer, ipi], start + 1000 * MILLISECOND), "SCHEDOP_poll of a pending port succeeds");
    check!(time::now() - start < 500 * MILLISECOND, "SCHEDOP_poll of a pending port returns at once");
    ev::clear(ipi);
    ev::acknowledge(0);
    let start = time::now();
    single_shot(start + 3 * MILLISECOND, 0);
    zero(poll_for(&[timer], start + 2000 * MILLISECOND), "SCHEDOP_poll of a port to come succeeds");
    check!(ev::is_pending(timer), "SCHEDOP_poll wakes when its port becomes pending");
    check!(time::now() - start < 1000 * MILLISECOND, "and not only at its timeout");
    ev::clear(timer);
    ev::acknowledge(0);
    fails(poll_for(&[EVTCHN_2L_NR_CHANNELS], 1), Errno::EINVAL, "SCHEDOP_poll of a port beyond the last is EINVAL");
    fails(poll_for(&[ipi; 129], 1), Errno::EINVAL, "SCHEDOP_poll of more than 128 ports is EINVAL");
}

fn block(ipi: u32, timer: u32) {
    let block = || hypercall::call(nr::SCHED_OP, [SCHEDOP_BLOCK.into(), 0, 0, 0, 0]);
    cpu::cli();
    ev::set_mask(timer, false);
    ev::set_mask(ipi, false);
    let (start, before) = (time::now(), interrupts::count(ev::VECTOR));
    single_shot(start + 3 * MILLISECOND, 0);
    zero(block(), "SCHEDOP_block succeeds");
    check!(ev::is_pending(timer) || interrupts::count(ev::VECTOR) > before, "SCHEDOP_block sleeps until an event");
    cpu::sti();
    cpu::pause();
    cpu::cli();
    check!(interrupts::count(ev::VECTOR) > before, "the event is delivered after SCHEDOP_block");
    cpu::cli();
    ev::send(ipi);
    let start = time::now();
    zero(block(), "SCHEDOP_block with an event pending succeeds");
    check!(time::now() - start < 500 * MILLISECOND, "SCHEDOP_block with an event pending returns at once");
    cpu::sti();
    cpu::pause();
    cpu::cli();
    let due = time::now() + 3 * MILLISECOND;
    single_shot(due, 0);
    let before = interrupts::count(ev::VECTOR);
    while interrupts::count(ev::VECTOR) == before && time::now() < due + 1000 * MILLISECOND {
        cpu::sti_hlt_cli();
    }
    check!(interrupts::count(ev::VECTOR) > before, "an event wakes a CPU that halts with interrupts on");
    ev::set_mask(timer, true);
}

static AREA: mem::Page = mem::Page::new();
static VCPU_INFO: mem::Page = mem::Page::new();

fn runstate() {
    let mut info = RunstateInfo::new_zeroed();
    zero(hypercall::vcpu_op(VCPUOP_GET_RUNSTATE_INFO, 0, &mut info), "VCPUOP_get_runstate_info succeeds");
    equal(info.state.into(), RUNSTATE_RUNNING.into(), "a vCPU that asks is running");
    let (sum, now) = (info.time.iter().sum::<u64>(), time::now());
    println!("runstate: {:?} sum {} now {}", info.time, sum, now);
    check!(info.state_entry_time <= now, "it began to run in the past"; "{}", info.state_entry_time);
    check!(info.time[vcpu::RUNSTATE_BLOCKED as usize] > 0, "the time it was blocked is counted");
    let mut area = RegisterRunstateMemoryArea { addr: AREA.addr() };
    zero(
        hypercall::vcpu_op(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut area),
        "VCPUOP_register_runstate_memory_area succeeds",
    );
    let shown: RunstateInfo = mem::read(AREA.addr());
    equal(shown.state.into(), RUNSTATE_RUNNING.into(), "the runstate area shows a running vCPU");
    poll_for(&[], time::now() + 2 * MILLISECOND);
    let later: RunstateInfo = mem::read(AREA.addr());
    check!(later.time[2] > shown.time[2], "the runstate area follows a sleep");
    let mut time_area = RegisterTimeMemoryArea { addr: AREA.addr() + 1024 };
    let registered = hypercall::vcpu_op(VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, 0, &mut time_area);
    zero(registered, "VCPUOP_register_vcpu_time_memory_area succeeds");
    if registered == Ret(0) {
        let by_area = time::by_record(AREA.addr() + 1024);
        check!(time::now().abs_diff(by_area) < 100 * MILLISECOND, "both time records tell the same time");
    }
}

fn vcpu_info_moves(port: u32) {
    let mut arg = RegisterVcpuInfo { mfn: VCPU_INFO.gfn(), offset: 4096 - 32, rsvd: 0 };
    let crossing = hypercall::vcpu_op(VCPUOP_REGISTER_VCPU_INFO, 0, &mut arg);
    check!(!crossing.is_ok(), "a vcpu_info that crosses its page is refused");
    ev::set_mask(port, true);
    ev::send(port);
    arg.offset = 64;
    zero(hypercall::vcpu_op(VCPUOP_REGISTER_VCPU_INFO, 0, &mut arg), "VCPUOP_register_vcpu_info succeeds");
    let moved = VCPU_INFO.addr() + 64;
    check!(mem::peek64(moved + 8) != 0, "all words are selected in the new vcpu_info");
    check!(time::by_record(moved + 32) > 0, "the new vcpu_info has the time");
    fails(hypercall::vcpu_op(VCPUOP_REGISTER_VCPU_INFO, 0, &mut arg), Errno::EINVAL, "it moves only once");
    mem::poke8(moved, 0);
    mem::poke64(moved + 8, 0);
    ev::clear(port);
    ev::unmask(port);
    ev::send(port);
    check!(mem::peek8(moved) != 0, "an event raises the upcall in the new vcpu_info");
    mem::poke8(moved, 0);
    mem::poke64(moved + 8, 0);
    ev::clear(port);
}

fn ends(port: u32) {
    zero(ev::close(port), "an IPI port can be closed");
    check!(!ev::is_pending(port), "a closed port is not pending");
    fails(ev::send(port), Errno::EINVAL, "a send to it is EINVAL then");
    fails(ev::send(0), Errno::EINVAL, "a send to port 0 is EINVAL");
    fails(ev::send(EVTCHN_2L_NR_CHANNELS), Errno::EINVAL, "a send to a port beyond the last is EINVAL");
    fails(ev::send(!0), Errno::EINVAL, "a send to port ~0 is EINVAL");
    fails(ev::unmask(!0), Errno::EINVAL, "port ~0 cannot be unmasked");
    fails(hypercall::call(nr::EVENT_CHANNEL_OP, [99, 0, 0, 0, 0]), Errno::ENOSYS, "an unknown sub-operation is ENOSYS");
    let reused = ev::bind_ipi(0);
    check!(reused.is_ok_and(|reused| reused <= port), "a closed port's number is used again");
}
