//! Guests that end badly, or not at all: the hypervisor says why, and goes on.

use core::arch::asm;

use abi::sched;
use guest::start::Boot;
use guest::{cpu, events, hypercall, interrupts, println, time};

/// A fault with an IDT of no gates: a triple fault.
pub fn triple(_boot: &Boot) {
    println!("triple: now");
    interrupts::lidt(0, 0);
    // SAFETY: the last instruction of this guest.
    unsafe { asm!("ud2", options(noreturn)) };
}

/// A jump to where the guest maps something and the hypervisor does not.
pub fn wild(boot: &Boot) {
    let hole = boot.hole().unwrap_or(0xf000_0000);
    println!("wild: jump to {hole:#x}");
    // SAFETY: the last instruction of this guest.
    unsafe { asm!("jmp {}", in(reg) hole, options(noreturn)) };
}

/// The first CPU, and any other, halts with interrupts off: a power-off.
pub fn haltoff(boot: &Boot) {
    super::smp::start_all(boot, || cpu::cli_hlt());
    println!("haltoff: now");
    cpu::cli_hlt();
}

/// Prints a line a second, for ever.
pub fn spin(_boot: &Boot) {
    let ready = events::init();
    println!("spin: {ready}");
    let mut next = time::now();
    let mut seconds = 0u64;
    loop {
        while time::now() < next {
            cpu::pause();
        }
        println!("spin: second {seconds}");
        seconds += 1;
        next += time::SECOND;
    }
}

/// Asks for a reboot.
pub fn reboot(_boot: &Boot) {
    println!("reboot: now");
    hypercall::shutdown(sched::SHUTDOWN_REBOOT);
}

/// Says that it has crashed.
pub fn crash(_boot: &Boot) {
    println!("crash: now");
    hypercall::shutdown(sched::SHUTDOWN_CRASH);
}

/// Sets a watchdog and never pats it.
pub fn dog(_boot: &Boot) {
    let mut arg = sched::Watchdog { id: 0, timeout: 1 };
    let number = hypercall::op(abi::nr::SCHED_OP, sched::SCHEDOP_WATCHDOG, &mut arg);
    println!("watchdog: {number}");
    loop {
        cpu::pause();
    }
}
