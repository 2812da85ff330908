//! Domains beside each other: one that takes what it gets and says how much that was, one that wakes by a timer and says how
//! late, and pests.
//!
//! Each measures from `from=` on, a system time in ms that all domains share, for `for=` ms.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use abi::nr;
use abi::sched::{Poll, SCHEDOP_POLL, SCHEDOP_YIELD};
use abi::vcpu::{RunstateInfo, VCPUOP_GET_RUNSTATE_INFO};
use abi::xen::VIRQ_TIMER;
use guest::check::zero;
use guest::hypercall;
use guest::interrupts::{self, Frame};
use guest::start::Boot;
use guest::time::{self, MILLISECOND};
use guest::{check, cpu, events, println, pv};
use zerocopy::FromZeros;

/// The window, in ns of system time.
static FROM: AtomicU64 = AtomicU64::new(0);
static TO: AtomicU64 = AtomicU64::new(0);
/// What all virtual CPUs did in it.
static RAN_NS: AtomicU64 = AtomicU64::new(0);
static LOOPS: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);

fn number(boot: &Boot, name: &str, default: u64) -> u64 {
    boot.option(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Maps what is needed, and reads the window.
fn prepare(boot: &Boot) {
    interrupts::on(events::VECTOR, upcall);
    zero(events::init(), "the shared page is mapped");
    let from = number(boot, "from", 1000) * MILLISECOND;
    FROM.store(from, SeqCst);
    TO.store(from + number(boot, "for", 1000) * MILLISECOND, SeqCst);
}

fn me() -> u32 {
    if pv::is_pv() { pv::smp::me() } else { super::smp::me() as u32 }
}

fn upcall(_frame: &mut Frame) {
    let me = me();
    let mut words = events::acknowledge(me);
    while words != 0 {
        let word = words.trailing_zeros();
        words &= words - 1;
        events::pending_word(word * 64).store(0, SeqCst);
    }
}

/// How long this virtual CPU has run, in ns.
fn ran_ns() -> u64 {
    let me = me();
    let mut info = RunstateInfo::new_zeroed();
    hypercall::vcpu_op(VCPUOP_GET_RUNSTATE_INFO, me, &mut info);
    info.time[0]
}

fn take() {
    while time::now() < FROM.load(SeqCst) {
        cpu::pause();
    }
    let before = ran_ns();
    let mut loops = 0u64;
    while time::now() < TO.load(SeqCst) {
        for _ in 0..1000 {
            loops = core::hint::black_box(loops + 1);
        }
    }
    RAN_NS.fetch_add(ran_ns() - before, SeqCst);
    LOOPS.fetch_add(loops, SeqCst);
    DONE.fetch_add(1, SeqCst);
    // The others still measure.
    while time::now() < TO.load(SeqCst) + 100 * MILLISECOND {
        cpu::pause();
    }
}

/// Has all `n=` virtual CPUs do this, and waits so many seconds for the last.
fn on_all(boot: &Boot, work: fn(), seconds: u64) {
    let all = number(boot, "n", 1) as u32;
    if all > 1 {
        super::smp::start_all(boot, work);
    }
    work();
    check!(time::wait_for(seconds * time::SECOND, || DONE.load(SeqCst) == all), "all virtual CPUs have measured");
}

/// Takes what it gets on `n=` virtual CPUs.
pub fn share(boot: &Boot) {
    prepare(boot);
    on_all(boot, take, 10);
    println!("SHARE ran {} us, loops {}", RAN_NS.load(SeqCst) / 1000, LOOPS.load(SeqCst) / 1000);
}

/// All of its `n=` virtual CPUs yield, and nothing else: how often in the window.
pub fn turns(boot: &Boot) {
    prepare(boot);
    on_all(boot, take_turns, 60);
    println!("TURNS {}", LOOPS.load(SeqCst));
}

fn take_turns() {
    let (from, to) = (FROM.load(SeqCst), TO.load(SeqCst));
    let mut turns = 0;
    loop {
        hypercall::yield_cpu();
        match time::now() {
            now if now < from => {}
            now if now < to => turns += 1,
            _ => break,
        }
    }
    LOOPS.fetch_add(turns, SeqCst);
    DONE.fetch_add(1, SeqCst);
    // The others count still.
    while time::now() < to + 200 * MILLISECOND {
        hypercall::yield_cpu();
    }
}

/// Wakes every `period=` us, and says how late.
pub fn ticker(boot: &Boot) {
    prepare(boot);
    let period = number(boot, "period", 1000) * 1000;
    let Ok(port) = events::bind_virq(VIRQ_TIMER, 0) else {
        check!(false, "VIRQ_TIMER can be bound");
        return;
    };
    events::set_mask(port, false);
    let (mut worst, mut sum, mut ticks) = (0, 0, 0u64);
    let mut deadline = FROM.load(SeqCst);
    cpu::cli();
    while deadline < TO.load(SeqCst) {
        hypercall::call(nr::SET_TIMER_OP, [deadline, 0, 0, 0, 0]);
        while time::now() < deadline {
            cpu::sti_hlt_cli();
        }
        let late = time::now() - deadline;
        (worst, sum, ticks) = (late.max(worst), sum + late, ticks + 1);
        // What was missed is not caught up with.
        deadline = (deadline + period).max(time::now() + period / 2);
    }
    println!("TICKER worst {} us, mean {} ns, of {ticks}", worst / 1000, sum / ticks.max(1));
}

/// Does one thing as often as it can, until the window is over.
pub fn pest(boot: &Boot) {
    prepare(boot);
    let kind = boot.option("kind").unwrap_or("yield");
    let Ok(port) = events::bind_ipi(0) else {
        check!(false, "an IPI port can be bound");
        return;
    };
    events::set_mask(port, false);
    let Ok(timer) = events::bind_virq(VIRQ_TIMER, 0) else {
        check!(false, "VIRQ_TIMER can be bound");
        return;
    };
    events::set_mask(timer, false);
    cpu::sti();
    let mut count = 0u64;
    while time::now() < TO.load(SeqCst) {
        match kind {
            "yield" => _ = hypercall::call(nr::SCHED_OP, [SCHEDOP_YIELD.into(), 0, 0, 0, 0]),
            "poll" => {
                let port_list = [port];
                let mut poll = Poll {
                    ports: port_list.as_ptr() as u64,
                    nr_ports: 1,
                    timeout: time::now() + 1,
                    ..Poll::new_zeroed()
                };
                hypercall::op(nr::SCHED_OP, SCHEDOP_POLL, &mut poll);
            }
            "timer" => _ = hypercall::call(nr::SET_TIMER_OP, [1, 0, 0, 0, 0]),
            "send" => _ = events::send(port),
            "exit" => _ = cpu::cpuid(1, 0),
            "bad" => _ = hypercall::call(nr::SCHED_OP, [SCHEDOP_POLL.into(), 0x8000_0000_0000, 0, 0, 0]),
            "sleep" => {
                cpu::cli();
                hypercall::call(nr::SET_TIMER_OP, [time::now() + 20_000, 0, 0, 0, 0]);
                cpu::sti_hlt_cli();
                cpu::sti();
            }
            _ => {}
        }
        count += 1;
    }
    println!("PEST {kind}: {count}");
}
