//! What two virtual CPUs cost each other: switches on one CPU, wake-ups and interrupts across two.
//!
//! Lines as of `cost.rs`. On one CPU the figures are instructions; on two they are ticks, as the other CPU works meanwhile, and so
//! the names say.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use abi::nr;
use abi::sched::{SCHEDOP_BLOCK, SCHEDOP_YIELD};
use abi::xen::VIRQ_TIMER;
use guest::check::zero;
use guest::interrupts::{self, Frame};
use guest::start::Boot;
use guest::{check, cpu, events, hypercall, lapic, pv, time};

use super::cost::row;

const MANY: u64 = 2000;
/// The vector of the IPI.
const IPI: u8 = 0x52;

/// The second one's APIC id.
static SECOND_APIC: AtomicU32 = AtomicU32::new(0);

/// What the second one does next.
static PHASE: AtomicU32 = AtomicU32::new(0);
const YIELD: u32 = 1;
const ANSWER: u32 = 2;
const SPIN: u32 = 3;
const SLEEP: u32 = 4;
const END: u32 = 5;

/// How far the second one is: the phase that it is in.
static IS_IN: AtomicU32 = AtomicU32::new(0);
/// The ports by which the two wake each other.
static TO_FIRST: AtomicU32 = AtomicU32::new(0);
static TO_SECOND: AtomicU32 = AtomicU32::new(0);
/// What came to each, and when the last came.
static CAME: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static AT: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn me() -> usize {
    if pv::is_pv() { pv::smp::me() as usize % 2 } else { super::smp::me() % 2 }
}

fn came() {
    let me = me();
    AT[me].store(cpu::tsc(), SeqCst);
    CAME[me].fetch_add(1, SeqCst);
}

fn upcall(_frame: &mut Frame) {
    let me = me();
    AT[me].store(cpu::tsc(), SeqCst);
    let mut words = events::acknowledge(me as u32);
    while words != 0 {
        let word = words.trailing_zeros();
        words &= words - 1;
        events::pending_word(word * 64).store(0, SeqCst);
    }
    CAME[me].fetch_add(1, SeqCst);
}

fn interrupt(_frame: &mut Frame) {
    came();
    lapic::eoi();
}

/// Sleeps until something has come since `before`.
fn sleep_until(me: usize, before: u64) {
    while CAME[me].load(SeqCst) == before {
        cpu::sti_hlt_cli();
    }
}

/// The second virtual CPU.
fn second() {
    if !pv::is_pv() {
        lapic::enable(0xff);
        SECOND_APIC.store(lapic::id(), SeqCst);
    }
    let mut before = 0;
    loop {
        let phase = PHASE.load(SeqCst);
        IS_IN.store(phase, SeqCst);
        match phase {
            YIELD => hypercall::yield_cpu(),
            ANSWER => {
                sleep_until(1, before);
                before += 1;
                events::send(TO_FIRST.load(SeqCst));
            }
            SPIN => {
                cpu::sti();
                while PHASE.load(SeqCst) == SPIN {
                    cpu::pause();
                }
                cpu::cli();
                before = CAME[1].load(SeqCst);
            }
            SLEEP => {
                sleep_until(1, before);
                before += 1;
            }
            END => return,
            _ => cpu::pause(),
        }
    }
}

/// Tells the second one what to do, and waits until it does.
fn enter(phase: u32) {
    PHASE.store(phase, SeqCst);
    if IS_IN.load(SeqCst) == SLEEP || IS_IN.load(SeqCst) == ANSWER {
        events::send(TO_SECOND.load(SeqCst));
    }
    while IS_IN.load(SeqCst) != phase {
        hypercall::yield_cpu();
    }
}

/// Runs the test: on one CPU, or with `across` on two.
pub fn run(boot: &Boot) {
    interrupts::on(events::VECTOR, upcall);
    interrupts::on(IPI, interrupt);
    zero(events::init(), "the shared page is mapped");
    let (Ok(first), Ok(second_port)) = (events::bind_ipi(0), events::bind_ipi(1)) else {
        check!(false, "an IPI port can be bound");
        return;
    };
    TO_FIRST.store(first, SeqCst);
    TO_SECOND.store(second_port, SeqCst);
    events::set_mask(first, false);
    events::set_mask(second_port, false);
    if pv::is_pv() {
        pv::smp::set_work(second);
        zero(pv::smp::prepare(), "the first vCPU has its number");
        let started = pv::smp::start(1, &mut pv::smp::context(1));
        zero(started.1, "the second vCPU is started");
    } else {
        super::smp::start_all(boot, second);
    }
    cpu::cli();
    if boot.has("across") {
        across();
    } else {
        on_one();
    }
    enter(END);
    check!(true, "the costs are measured");
}

fn on_one() {
    enter(YIELD);
    let start = cpu::tsc();
    for _ in 0..MANY {
        hypercall::call(nr::SCHED_OP, [SCHEDOP_YIELD.into(), 0, 0, 0, 0]);
    }
    row("switch to another of the domain's vCPUs by yield", (cpu::tsc() - start) / MANY / 2);
    enter(ANSWER);
    let start = cpu::tsc();
    for _ in 0..MANY {
        round_trip();
    }
    row("wake another vCPU and sleep, which switches", (cpu::tsc() - start) / MANY / 2);
    timer();
}

/// Wakes the second one and sleeps until it has answered.
fn round_trip() {
    let before = CAME[0].load(SeqCst);
    events::send(TO_SECOND.load(SeqCst));
    while CAME[0].load(SeqCst) == before {
        if pv::is_pv() {
            hypercall::call(nr::SCHED_OP, [SCHEDOP_BLOCK.into(), 0, 0, 0, 0]);
            cpu::cli();
        } else {
            cpu::sti_hlt_cli();
        }
    }
}

/// From the deadline to the handler, of one that sleeps. The clock's rate rounds what is asked for, by far less.
fn timer() {
    let Ok(port) = events::bind_virq(VIRQ_TIMER, 0) else {
        check!(false, "VIRQ_TIMER can be bound");
        return;
    };
    events::set_mask(port, false);
    let per_ms = {
        let (tsc, now) = (cpu::tsc(), time::now());
        while time::now() < now + 50 * time::MILLISECOND {}
        (cpu::tsc() - tsc) / 50
    };
    let (count, mut late) = (100, 0);
    for _ in 0..count {
        let before = CAME[0].load(SeqCst);
        let (tsc, now) = (cpu::tsc(), time::now());
        hypercall::call(nr::SET_TIMER_OP, [now + time::MILLISECOND, 0, 0, 0, 0]);
        while CAME[0].load(SeqCst) == before {
            cpu::sti_hlt_cli();
        }
        late += AT[0].load(SeqCst).saturating_sub(tsc + per_ms);
    }
    row("from a timer's deadline to the handler of one that slept", late / count);
}

fn across() {
    enter(SPIN);
    row("ticks from an event to its handler, on another CPU, running", deliveries(send_event));
    if !pv::is_pv() {
        row("ticks from an IPI to its handler, on another CPU, running", deliveries(send_ipi));
    }
    enter(SLEEP);
    row("ticks from an event to its handler, on another CPU, asleep", deliveries(send_event));
    if !pv::is_pv() {
        row("ticks from an IPI to its handler, on another CPU, asleep", deliveries(send_ipi));
    }
    enter(ANSWER);
    let start = cpu::tsc();
    for _ in 0..MANY {
        round_trip();
    }
    row("ticks for two on two CPUs to wake each other, both asleep", (cpu::tsc() - start) / MANY / 2);
}

fn send_event() {
    events::send(TO_SECOND.load(SeqCst));
}

fn send_ipi() {
    lapic::send(SECOND_APIC.load(SeqCst), IPI.into());
}

/// Ticks from a send to the second one's handler.
fn deliveries(send: fn()) -> u64 {
    let mut all = 0;
    for _ in 0..MANY {
        let before = CAME[1].load(SeqCst);
        let start = cpu::tsc();
        send();
        while CAME[1].load(SeqCst) == before {
            cpu::pause();
        }
        all += AT[1].load(SeqCst) - start;
        // It is asleep again by then, if it sleeps.
        let rest = cpu::tsc();
        while cpu::tsc() - rest < 20_000 {
            cpu::pause();
        }
    }
    all / MANY
}
