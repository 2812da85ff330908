//! Debug registers of virtual CPUs that take turns on one CPU: one that writes them, one that has a breakpoint on, one that is
//! single-stepped without having touched any, and the first, which touches none before the end.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

use guest::check::equal;
use guest::interrupts::{self, Frame};
use guest::start::Boot;
use guest::{check, hypercall};

use super::smp::{me, start_all};

const WRITER: usize = 1;
const WATCHER: usize = 2;
const STEPPER: usize = 3;

/// DR0 to DR3, DR6 and DR7.
type Registers = [u64; 6];

const TF: u64 = 0x100;
const DR6: u64 = 0xffff_0ff0;
const DR6_BD: u64 = 1 << 13;
const DR6_BS: u64 = 1 << 14;
const DR7: u64 = 0x400;
const AFTER_RESET: Registers = [0, 0, 0, 0, DR6, DR7];
/// Stores of four bytes at DR0.
const WATCH: u64 = 0x000d_0401;

static WATCHED: AtomicU32 = AtomicU32::new(0);
/// How often each has had its turn, and the first registers it found that were not its own.
static TURNS: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];
static WRONG: [[AtomicU64; 6]; 4] = [const { [const { AtomicU64::new(0) }; 6] }; 4];
static IS_WRONG: [AtomicBool; 4] = [const { AtomicBool::new(false) }; 4];
/// Debug exceptions of the watcher and of the stepper, and where the latter's step ends.
static HITS: AtomicU32 = AtomicU32::new(0);
static STEPS: AtomicU32 = AtomicU32::new(0);
static STEP_ENDS: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
static DONE: AtomicU32 = AtomicU32::new(0);

fn registers() -> Registers {
    let (dr0, dr1, dr2, dr3, dr6, dr7);
    // SAFETY: a read of a debug register has no effect.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", "mov {}, dr6", "mov {}, dr7", out(reg) dr0,
            out(reg) dr1, out(reg) dr2, out(reg) dr3, out(reg) dr6, out(reg) dr7, options(nomem, nostack));
    }
    [dr0, dr1, dr2, dr3, dr6, dr7]
}

fn set_registers([dr0, dr1, dr2, dr3, dr6, dr7]: Registers) {
    // SAFETY: the handler takes what these bring.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", "mov dr6, {}", "mov dr7, {}", in(reg) dr0,
            in(reg) dr1, in(reg) dr2, in(reg) dr3, in(reg) dr6, in(reg) dr7, options(nomem, nostack));
    }
}

fn set_dr6(value: u64) {
    // SAFETY: a status that steers nothing.
    unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack)) };
}

/// Looks whether the registers are the caller's own.
fn compare(own: Registers) {
    let (me, seen) = (me(), registers());
    if seen != own && !IS_WRONG[me].swap(true, SeqCst) {
        WRONG[me].iter().zip(seen).for_each(|(slot, value)| slot.store(value, SeqCst));
    }
}

/// The stepper's leaves the registers alone.
fn debug_exception(frame: &mut Frame) {
    if me() == WATCHER {
        HITS.fetch_add(1, SeqCst);
    } else {
        STEPS.fetch_add(1, SeqCst);
        STEP_ENDS.store(frame.rip, SeqCst);
        frame.rflags &= !TF;
    }
}

/// One instruction under the trap flag.
#[inline(never)]
fn step() {
    // SAFETY: the handler takes the flag away.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop") };
}

/// Takes turns until the first says stop.
fn turns(mut each: impl FnMut()) {
    while !STOP.load(SeqCst) {
        each();
        TURNS[me()].fetch_add(1, SeqCst);
        hypercall::yield_cpu();
    }
}

/// Its first breakpoint, which is off, is where the stepper's step ends.
fn write() {
    while STEP_ENDS.load(SeqCst) == 0 {
        hypercall::yield_cpu();
    }
    let mut own = [STEP_ENDS.load(SeqCst), 0x1111, 0x2222, 0x3333, DR6 | DR6_BS | 2, DR7];
    set_registers(own);
    turns(|| {
        compare(own);
        own[3] += 1;
        set_registers(own);
    });
}

fn watch() {
    let own = [WATCHED.as_ptr() as u64, !0x44, !0x55, !0x66, DR6 | DR6_BD | 4, WATCH];
    set_registers(own);
    turns(|| {
        compare(own);
        WATCHED.store(1, SeqCst);
        let mut hit = own;
        hit[4] = DR6 | DR6_BD | 1;
        compare(hit);
        set_dr6(own[4]);
    });
}

fn be_stepped() {
    turns(step);
    compare([0, 0, 0, 0, DR6 | DR6_BS, DR7]);
    set_dr6(DR6);
    compare(AFTER_RESET);
    step();
    compare([0, 0, 0, 0, DR6 | DR6_BS, DR7]);
}

fn work() {
    match me() {
        WRITER => write(),
        WATCHER => watch(),
        _ => be_stepped(),
    }
    DONE.fetch_add(1, SeqCst);
}

/// Runs the test.
pub fn run(boot: &Boot) {
    let turns = boot.option("turns").and_then(|text| text.parse().ok()).unwrap_or(50);
    interrupts::on(1, debug_exception);
    start_all(boot, work);
    while TURNS[1..].iter().any(|count| count.load(SeqCst) < turns) {
        hypercall::yield_cpu();
    }
    STOP.store(true, SeqCst);
    while DONE.load(SeqCst) < 3 {
        hypercall::yield_cpu();
    }
    compare(AFTER_RESET);
    for (me, who) in [
        (0, "one that touched none"),
        (WRITER, "one that wrote them"),
        (WATCHER, "one with a breakpoint on"),
        (STEPPER, "one that was single-stepped"),
    ] {
        let seen = WRONG[me].each_ref().map(|value| value.load(SeqCst));
        check!(!IS_WRONG[me].load(SeqCst), "{} has its own debug registers", who; "{:x?}", seen);
    }
    equal(HITS.load(SeqCst).into(), TURNS[WATCHER].load(SeqCst).into(), "each watched store gives one #DB");
    equal(STEPS.load(SeqCst).into(), u64::from(TURNS[STEPPER].load(SeqCst)) + 1, "and so does each step");
}
