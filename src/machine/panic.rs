//! The end of the hypervisor by its own fault: registers, a backtrace with names, and a stop or a restart.

use core::arch::asm;
use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::cpu::trap::TrapFrame;
use crate::mem::layout;
use crate::{boot, console, cpu, irq, percpu};

static ENDING: AtomicBool = AtomicBool::new(false);
static REBOOT: AtomicBool = AtomicBool::new(true);

/// Whether a panic restarts the machine (`noreboot` says not).
pub fn set_reboot(reboot: bool) {
    REBOOT.store(reboot, Ordering::Relaxed);
}

fn say(text: fmt::Arguments<'_>) {
    console::print_forced(text);
}

/// A Rust panic: our own mistake.
pub fn on_panic(info: &PanicInfo<'_>) -> ! {
    begin();
    say(format_args!("\n(euxen) PANIC on {}: {}\n", percpu::this_cpu(), info.message()));
    if let Some(place) = info.location() {
        say(format_args!("(euxen)   at {place}\n"));
    }
    let frame: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {0}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    backtrace(frame);
    end()
}

/// An exception in the hypervisor: our own mistake, or the machine's.
pub fn on_exception(frame: &TrapFrame) -> ! {
    begin();
    let cr2: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {0}, cr2", out(reg) cr2, options(nomem, nostack, preserves_flags)) };
    say(format_args!(
        "\n(euxen) PANIC on {}: exception {} ({}), error code {:#x}, cr2 {cr2:016x}\n",
        percpu::this_cpu(),
        frame.vector,
        name(frame.vector),
        frame.error,
    ));
    registers(frame);
    symbol(frame.rip);
    backtrace(frame.rbp);
    end()
}

/// An NMI: another CPU is ending the hypervisor, or the machine complains.
pub fn on_nmi() {
    if ENDING.load(Ordering::Acquire) {
        cpu::stop();
    }
}

/// Stops the other CPUs. A second panic while one is printed ends at once.
fn begin() {
    if ENDING.swap(true, Ordering::AcqRel) {
        cpu::stop();
    }
    irq::lapic::stop_others();
}

fn end() -> ! {
    if REBOOT.load(Ordering::Relaxed) {
        say(format_args!("(euxen) the machine restarts\n"));
        cpu::reset();
    }
    say(format_args!("(euxen) the machine stops here, as `noreboot` says\n"));
    cpu::stop()
}

fn registers(f: &TrapFrame) {
    say(format_args!("(euxen)   rip {:016x} cs {:04x} rflags {:08x}\n", f.rip, f.cs, f.rflags));
    say(format_args!("(euxen)   rsp {:016x} ss {:04x}\n", f.rsp, f.ss));
    let rows = [
        [("rax", f.rax), ("rbx", f.rbx), ("rcx", f.rcx), ("rdx", f.rdx)],
        [("rsi", f.rsi), ("rdi", f.rdi), ("rbp", f.rbp), ("r8 ", f.r8)],
        [("r9 ", f.r9), ("r10", f.r10), ("r11", f.r11), ("r12", f.r12)],
        [("r13", f.r13), ("r14", f.r14), ("r15", f.r15), ("   ", 0)],
    ];
    for row in rows {
        say(format_args!("(euxen)  "));
        row.iter()
            .filter(|(name, _)| *name != "   ")
            .for_each(|(name, value)| say(format_args!(" {name} {value:016x}")));
        say(format_args!("\n"));
    }
}

fn symbol(address: u64) {
    match boot::symbols::find(address) {
        Some((name, offset)) => {
            say(format_args!("(euxen)   {address:016x} {:#}+{offset:#x}\n", rustc_demangle::demangle(name)));
        }
        None => say(format_args!("(euxen)   {address:016x}\n")),
    }
}

/// Follows the frame pointers as long as they go up within this CPU's stack.
fn backtrace(mut frame: u64) {
    let here: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {0}, rsp", out(reg) here, options(nomem, nostack, preserves_flags)) };
    let top = (here | (percpu::BLOCK - 1)) - 64;
    let bottom = here & !(percpu::BLOCK - 1);
    for _ in 0..32 {
        if !frame.is_multiple_of(8) || frame < bottom || frame + 16 > top {
            return;
        }
        // SAFETY: the words lie within the stack block of this CPU, above a frame that is in use.
        let (next, address) = unsafe { (*(frame as *const u64), *(frame as *const u64).add(1)) };
        if !(layout::IMAGE..layout::DIRECT_MAP).contains(&address) {
            return;
        }
        symbol(address - 1);
        if next <= frame {
            return;
        }
        frame = next;
    }
}

fn name(vector: u64) -> &'static str {
    const NAMES: [&str; 32] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "?", "#TS", "#NP", "#SS", "#GP", "#PF", "?",
        "#MF", "#AC", "#MC", "#XM", "#VE", "#CP", "?", "?", "?", "?", "?", "?", "#HV", "#VC", "#SX", "?",
    ];
    NAMES.get(vector as usize).copied().unwrap_or("?")
}
