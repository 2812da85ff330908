//! The failsafe callback: a virtual CPU goes on with a selector that cannot be loaded any more. For a machine with one
//! CPU, on which another virtual CPU takes turns with this one.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

use abi::nr;
use guest::check::{equal, zero};
use guest::hypercall::{self, Ret};
use guest::interrupts::{self, Frame};
use guest::mem::{self, Page};
use guest::pv::{self, mmu, smp, traps, user};
use guest::start::Boot;
use guest::time::{self, MILLISECOND};
use guest::{check, cpu, events};

static DESCRIPTORS: Page = Page::new();
static TURNS: AtomicU32 = AtomicU32::new(0);
static TAKE_AWAY: AtomicBool = AtomicBool::new(false);
static MASK: AtomicU32 = AtomicU32::new(0);
static CS: AtomicU64 = AtomicU64::new(0);

/// The selector of the segment that is taken away.
const SELECTOR: u64 = 8 | 3;
/// A flat data segment of DPL 3.
const SEGMENT: u64 = 0x00cf_f300_0000_ffff;

fn describe(descriptor: u64) -> Ret {
    let at = (pv::p2m(DESCRIPTORS.addr() >> 12) << 12) + 8;
    hypercall::call(nr::UPDATE_DESCRIPTOR, [at, descriptor, 0, 0, 0])
}

/// The other virtual CPU.
fn work() {
    loop {
        TURNS.fetch_add(1, SeqCst);
        if TAKE_AWAY.swap(false, SeqCst) {
            describe(0);
        }
        hypercall::yield_cpu();
    }
}

fn note(frame: &mut Frame) {
    MASK.store(u32::from(mem::peek8(events::vcpu_info(0) + 1)), SeqCst);
    CS.store(frame.cs, SeqCst);
}

fn calls() -> u32 {
    interrupts::count(traps::FAILSAFE)
}

/// Runs the test.
pub fn run(_boot: &Boot) {
    interrupts::on(traps::FAILSAFE, note);
    zero(mmu::protect(&DESCRIPTORS), "a page is made read-only");
    let frames = [pv::p2m(DESCRIPTORS.addr() >> 12)];
    zero(hypercall::call(nr::SET_GDT, [frames.as_ptr() as u64, 512, 0, 0, 0]), "it is the descriptor table");
    zero(smp::prepare(), "this vCPU has its number");
    smp::set_work(work);
    let started = smp::start(1, &mut smp::context(1));
    check!(started == (Ret(0), Ret(0)), "another vCPU is started"; "{} {}", started.0, started.1);
    let takes_turns = time::wait_for(5000 * MILLISECOND, || {
        hypercall::yield_cpu();
        TURNS.load(SeqCst) > 2
    });
    check!(takes_turns, "it takes turns with this one");
    of_kernel();
    of_user();
}

/// Gives the CPU away until the callback has come, or for a while.
fn give_away(before: u32) {
    time::wait_for(200 * MILLISECOND, || {
        hypercall::yield_cpu();
        calls() != before
    });
}

fn fs() -> u64 {
    let selector: u64;
    // SAFETY: FS is only read.
    unsafe { asm!("mov {0:x}, fs", "movzx {0:e}, {0:x}", out(reg) selector, options(nomem, nostack)) };
    selector
}

fn of_kernel() {
    let before = calls();
    zero(describe(SEGMENT), "there is a segment");
    // SAFETY: flat segments; nobody uses FS.
    unsafe { asm!("mov ds, {0:x}", "mov es, {0:x}", "mov fs, {1:x}", in(reg) 0xe02bu64, in(reg) SELECTOR) };
    give_away(before);
    equal((calls() - before).into(), 0, "while it is there a vCPU goes on with it");
    equal(fs(), SELECTOR, "and has it still");
    // In one go, as the other vCPU may have its turn at any time.
    cpu::sti();
    let ret = describe(0);
    let meanwhile = fs();
    give_away(before);
    cpu::cli();
    zero(ret, "the segment is taken away");
    equal(meanwhile, SELECTOR, "the selector stays meanwhile");
    equal((calls() - before).into(), 1, "when the vCPU goes on the failsafe callback is called, once");
    let selectors = traps::failsafe_selectors().map(|selector| selector & 0xffff);
    check!(selectors == [0xe02b, 0xe02b, SELECTOR, 0], "it finds DS, ES, FS and GS on the stack"; "{:x?}", selectors);
    equal(CS.load(SeqCst) & 0xff_0000_0003, 0, "it interrupted the kernel, with events unmasked");
    equal(MASK.load(SeqCst).into(), 1, "and is entered with events masked, as it was registered");
    equal(fs(), 0, "FS is null then");
    give_away(calls());
    equal((calls() - before).into(), 1, "and it is not called again");
}

fn of_user() {
    zero(describe(SEGMENT), "the segment is there again");
    zero(user::init(), "the user's page tables are built and loaded");
    // mov eax, 0xb; mov fs, eax; jmp to itself
    user::set_code(&[0xb8, 0x0b, 0, 0, 0, 0x8e, 0xe0, 0xeb, 0xfe]);
    TAKE_AWAY.store(true, SeqCst);
    let frame = user::run(&user::frame());
    if frame.vector == 13 {
        // The other vCPU was quicker.
        return check!(frame.error == SELECTOR & !3, "a selector of nothing is #GP"; "{:#x}", frame.error);
    }
    equal(frame.vector, traps::FAILSAFE.into(), "a user's selector that is taken away is the failsafe callback");
    equal(traps::failsafe_selectors()[2] & 0xffff, SELECTOR, "it finds the selector");
    check!(frame.rip == user::CODE + 7 && frame.cs & 3 == 3, "the frame is the user's"; "{:#x} {:#x}", frame.rip, frame.cs);
}
