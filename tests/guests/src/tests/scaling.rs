//! What the operations that matter most cost while other domains do the same: rows as of `cost.rs`, in ticks.
//!
//! From `from=` on, a system time in ms that all domains share, each operation has `phase=` ms. Of the domains that share a CPU,
//! `sharers=` of them, one at a time measures, in the order of `turn=`; those of different CPUs measure at once. `peer=` is the
//! number of the domain with which this one makes a pair; one of the two has `first` as well. Nothing is printed before all is
//! over, and by all but the one with `tells` not for some seconds after that. With `busy` nobody sleeps while he waits.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};

use abi::event_channel::{BindInterdomain, EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_SEND, Send};
use abi::nr;
use abi::sched::SCHEDOP_YIELD;
use abi::xen::VIRQ_TIMER;
use guest::check::zero;
use guest::interrupts::{self, Frame};
use guest::start::Boot;
use guest::time::{self, MILLISECOND};
use guest::{check, cpu, events, hypercall, mem, println, pv};

use super::cost::{hypercall_loop, row};
use super::pv::cost as pv_cost;
use crate::{hypercall_ticks, ticks};

const MANY: u64 = 1000;

/// The ports to itself and to the other of the pair; 0 for none.
static OWN: AtomicU32 = AtomicU32::new(0);
static PAIR: AtomicU32 = AtomicU32::new(0);
static IS_FIRST: AtomicBool = AtomicBool::new(false);
/// When the operation's time is over, in ns of system time.
static UNTIL: AtomicU64 = AtomicU64::new(0);
/// How often the other of the pair has sent.
static CAME: AtomicU64 = AtomicU64::new(0);

/// An operation's row, who has it, and its ticks.
type Operation = (&'static str, Who, fn() -> u64);

#[derive(Clone, Copy, PartialEq)]
enum Who {
    All,
    Pv,
    Pvh,
    Pairs,
}

const OPERATIONS: [Operation; 9] = [
    ("empty hypercall", Who::All, || hypercall_loop(MANY, nr::XEN_VERSION, [0; 4])),
    ("set_timer_op, 1000 s ahead", Who::All, timer),
    ("event to itself", Who::All, to_itself),
    ("yield, nobody waits", Who::All, yields),
    ("CPUID", Who::Pvh, cpuid),
    ("update_va_mapping, UVMF_INVLPG", Who::Pv, || pv_cost::mapping_of_an_entry(MANY)),
    ("mmu_update, one L1 entry", Who::Pv, || pv_cost::update_of_an_entry(MANY)),
    ("event to the other of a pair, pending", Who::Pairs, to_the_other),
    ("event to the other of a pair, asleep, and back", Who::Pairs, round_trip),
];

fn upcall(_frame: &mut Frame) {
    let mut words = events::acknowledge(0);
    while words != 0 {
        let word = words.trailing_zeros();
        words &= words - 1;
        let ports = events::pending_word(word * 64).swap(0, SeqCst);
        let pair = PAIR.load(SeqCst);
        if pair != 0 && pair / 64 == word && ports >> (pair % 64) & 1 == 1 {
            CAME.fetch_add(1, SeqCst);
        }
    }
}

fn number(boot: &Boot, name: &str, default: u64) -> u64 {
    boot.option(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Waits until then, of which the last two milliseconds awake.
fn wait_until(then: u64, busy: bool) {
    while !busy && time::now() + 2 * MILLISECOND < then {
        hypercall::call(nr::SET_TIMER_OP, [then - 2 * MILLISECOND, 0, 0, 0, 0]);
        cpu::sti_hlt_cli();
    }
    while time::now() < then {
        cpu::pause();
    }
}

/// Runs the test.
pub fn run(boot: &Boot) {
    interrupts::on(events::VECTOR, upcall);
    zero(events::init(), "the shared page is mapped");
    cpu::cli();
    let (from, phase) = (number(boot, "from", 1000) * MILLISECOND, number(boot, "phase", 50) * MILLISECOND);
    let (turn, sharers) = (number(boot, "turn", 0), number(boot, "sharers", 1));
    let (peer, busy) = (number(boot, "peer", 0) as u16, boot.has("busy"));
    check!(time::now() + 20 * MILLISECOND < from, "what is measured has not begun"; "{} ms", time::now() / MILLISECOND);
    let ready = bind(peer, boot.has("first"), from - 10 * MILLISECOND, busy);
    check!(ready, "the ports are bound");

    let mine = |who| match who {
        Who::All => true,
        Who::Pv => pv::is_pv(),
        Who::Pvh => !pv::is_pv(),
        Who::Pairs => peer != 0,
    };
    let (mut seen, mut in_time) = ([None; OPERATIONS.len()], true);
    for (at, (_, who, operation)) in (turn * OPERATIONS.len() as u64..).zip(OPERATIONS) {
        let begins = from + at * phase;
        if mine(who) {
            wait_until(begins, busy);
            UNTIL.store(begins + phase, SeqCst);
            let number = (at % OPERATIONS.len() as u64) as usize;
            mark(number + 1);
            seen[number] = Some(operation());
            mark(0);
            in_time &= time::now() < begins + phase;
        }
    }
    let all = from + sharers * OPERATIONS.len() as u64 * phase;
    wait_until(all, busy);
    let switch = (sharers > 1).then(|| yields() / sharers);
    let over = all + 2 * phase + sharers * 160 * MILLISECOND;
    in_time &= time::now() < over;
    wait_until(over, busy);
    mark(63);
    if boot.has("tells") {
        println!("SCALING measured");
    }
    // Long enough for a person at the console, if nobody sleeps.
    wait_until(over + 4 * time::SECOND, busy);
    for (ticks, (name, ..)) in seen.iter().zip(OPERATIONS) {
        if let Some(ticks) = ticks {
            row(name, *ticks);
        }
    }
    if let Some(switch) = switch {
        row("switch to another domain by yield, all wait", switch);
    }
    check!(in_time, "all was measured in its time");
}

#[repr(align(64))]
struct Marks([AtomicU8; 64]);

/// Says to what watches the machine that the operation of this number begins, or with 0 that one has ended, and with 63 all
/// (`tests/writes`).
fn mark(number: usize) {
    static MARKS: Marks = Marks([const { AtomicU8::new(0) }; 64]);
    // SAFETY: an instruction without effect, and a store to an atomic.
    unsafe {
        core::arch::asm!("nop dword ptr [rax + 0x4e585545]", "mov byte ptr [{}], 1", in(reg) MARKS.0[number].as_ptr())
    };
}

/// A port to itself, the timer's, and one to the other of the pair, which has the same numbers.
fn bind(peer: u16, is_first: bool, when: u64, busy: bool) -> bool {
    let (Ok(timer), Ok(own)) = (events::bind_virq(VIRQ_TIMER, 0), events::bind_ipi(0)) else { return false };
    events::set_mask(timer, false);
    events::set_mask(own, false);
    OWN.store(own, SeqCst);
    IS_FIRST.store(is_first, SeqCst);
    if peer == 0 {
        return true;
    }
    let pair = if is_first {
        events::alloc_unbound(peer).ok()
    } else {
        wait_until(when, busy);
        let mut arg = BindInterdomain { remote_dom: peer, pad: 0, remote_port: own + 1, local_port: 0 };
        events::op(EVTCHNOP_BIND_INTERDOMAIN, &mut arg).is_ok().then_some(arg.local_port)
    };
    // The binding itself makes it pending.
    if let Some(pair) = pair {
        events::clear(pair);
        events::set_mask(pair, false);
        PAIR.store(pair, SeqCst);
    }
    pair.is_some()
}

fn timer() -> u64 {
    let far = 1000 * time::SECOND;
    // SAFETY: the argument is a number.
    unsafe { hypercall_ticks!(MANY, ["mov eax, 15", "add rdi, 1000"], [], out("rax") _, inout("rdi") far => _) }
}

fn yields() -> u64 {
    hypercall_loop(MANY, nr::SCHED_OP, [SCHEDOP_YIELD.into(), 0, 0, 0])
}

fn cpuid() -> u64 {
    // SAFETY: RBX is kept in R13 around the loop.
    unsafe {
        ticks!(MANY, ["mov r13, rbx", "mov eax, 1", "cpuid", "mov rbx, r13"], out("r13") _, out("rax") _, out("rcx") _,
            out("rdx") _)
    }
}

/// Each time what was sent is taken back, with interrupts off.
fn to_itself() -> u64 {
    let port = OWN.load(SeqCst);
    let arg = Send { port };
    let word = core::ptr::from_ref(events::pending_word(port)) as u64;
    let (keep, info) = (!(1u64 << (port % 64)), events::vcpu_info(0));
    // SAFETY: the body clears what the send set, in the shared page.
    unsafe {
        hypercall_ticks!(MANY, ["mov eax, 32"],
            ["lock and qword ptr [r14], r9", "mov byte ptr [r15], 0", "mov qword ptr [r15 + 8], 0"],
            out("rax") _, in("rdi") u64::from(EVTCHNOP_SEND), in("rsi") mem::addr_of(&arg), in("r14") word, in("r9") keep,
            in("r15") info)
    }
}

/// Both send to each other at once, and neither looks.
fn to_the_other() -> u64 {
    let arg = Send { port: PAIR.load(SeqCst) };
    let ticks = hypercall_loop(MANY, nr::EVENT_CHANNEL_OP, [EVTCHNOP_SEND.into(), mem::addr_of(&arg), 0, 0]);
    // The other may still send; what comes after this is of the next operation.
    let until = UNTIL.load(SeqCst);
    wait_until(until - until.saturating_sub(time::now()) / 4, true);
    events::acknowledge(0);
    events::clear(arg.port);
    CAME.store(0, SeqCst);
    ticks
}

/// The first sends and sleeps until the other, which slept, has answered.
fn round_trip() -> u64 {
    let (port, is_first) = (PAIR.load(SeqCst), IS_FIRST.load(SeqCst));
    let (many, until) = (MANY / 10, UNTIL.load(SeqCst));
    // Where one was late with the operation before, the two do not agree on what came, and would wait for ever.
    hypercall::call(nr::SET_TIMER_OP, [until, 0, 0, 0, 0]);
    let start = cpu::tsc();
    for came in 0..many {
        if is_first {
            events::send(port);
        }
        while CAME.load(SeqCst) == came {
            if time::now() >= until {
                return 0;
            }
            cpu::sti_hlt_cli();
        }
        if !is_first {
            events::send(port);
        }
    }
    (cpu::tsc() - start) / many
}
