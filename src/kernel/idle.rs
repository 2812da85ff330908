//! Which way of sleeping idle CPUs have ([`policy::idle`](model::policy::idle)), and the trial by which that is found out.
//!
//! The trial is the real thing: the second CPU sleeps on the word of what is noted for it, and the first one notes something.
//! In each round the two go by turns from phase to phase. Every wait of the first one ends after a time, and so does the trial.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use machine::cpu::{self, features};
use machine::irq::{self, pending};
use machine::percpu::this_cpu;
use machine::smp;
use model::ids::CpuId;
use model::policy::idle::{Round, Trial, choose};

use crate::time;

static BY_MWAIT: AtomicBool = AtomicBool::new(false);

/// The CPU that sleeps in the trial.
const SLEEPER: CpuId = CpuId(1);

/// Where the trial is.
static PHASE: AtomicU32 = AtomicU32::new(AWAKE);

/// The sleeper waits for the next round.
const AWAKE: u32 = 0;
/// The sleeper is to sleep.
const ASKED: u32 = 1;
/// It sleeps, or is about to.
const ASLEEP: u32 = 2;
/// There is no round any more.
const OVER: u32 = 3;

/// Nanoseconds in which the sleeper is to sleep undisturbed: more than any emulator needs for an instruction.
const QUIET_NS: u64 = 40_000;
/// Nanoseconds that a write has to wake the sleeper: a hundred times what leaving C1 takes.
const WAKING_NS: u64 = 1_000_000;
/// Nanoseconds that the sleeper, awake, has to answer; it may just be coming up.
const ANSWER_NS: u64 = 100_000_000;

/// Whether idle CPUs sleep by MWAIT.
#[inline]
pub fn is_by_mwait() -> bool {
    BY_MWAIT.load(Ordering::Relaxed)
}

/// Decides, and says so. On the first CPU, once, when the others have come up; `wanted` is what the operator says.
pub fn prepare(wanted: Option<bool>) {
    let choice = choose(wanted, features::leaf, smp::online(), trial);
    PHASE.store(OVER, Ordering::Relaxed);
    log::info!("idle CPUs sleep by {choice}");
    BY_MWAIT.store(choice.by_mwait, Ordering::Relaxed);
}

/// The first CPU's part.
fn trial() -> Trial {
    // Later it mostly writes where it has written before, which an emulator may do by a shorter way.
    irq::note(SLEEPER, pending::KICK);
    Trial::run(round)
}

/// One round, on the first CPU.
fn round() -> Round {
    PHASE.store(ASKED, Ordering::Relaxed);
    if !leaves(ASKED, ANSWER_NS) {
        return Round::Missed;
    }
    if leaves(ASLEEP, QUIET_NS) {
        return Round::Early;
    }
    irq::note(SLEEPER, pending::KICK);
    if leaves(ASLEEP, WAKING_NS) {
        return Round::Woken;
    }
    irq::interrupt(SLEEPER);
    Round::Missed
}

/// Waits until the trial is no longer in this phase. Says whether that came in time.
fn leaves(phase: u32, within_ns: u64) -> bool {
    let end = time::now() + within_ns;
    while PHASE.load(Ordering::Acquire) == phase {
        if time::now() > end {
            return false;
        }
        cpu::relax();
    }
    true
}

/// What a CPU does that has come up, before it runs anything: the second one sleeps in the trial until that is over.
pub fn take_part() {
    if this_cpu() != SLEEPER {
        return;
    }
    // The first CPU may have lost patience meanwhile, so each step is from one phase to the next.
    let go = |from, to| PHASE.compare_exchange(from, to, Ordering::Release, Ordering::Relaxed).is_ok(); // pairs with `leaves`
    while PHASE.load(Ordering::Relaxed) != OVER {
        irq::take_pending();
        if go(ASKED, ASLEEP) {
            irq::wait(true);
            go(ASLEEP, AWAKE);
        }
        cpu::relax();
    }
}
