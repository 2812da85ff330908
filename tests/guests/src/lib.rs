//! What a tiny guest, PVH or PV, needs to ask its hypervisor questions: entry, interrupts, console, hypercalls, checks.
//!
//! Nothing here is hidden from the tests: a guest owns its machine, so reads and writes of physical memory,
//! ports and MSRs are safe functions, and a fault that a test provokes is caught by [`attempt!`].
#![no_std]

pub mod acpi;
pub mod check;
pub mod console;
pub mod cpu;
pub mod events;
pub mod hypercall;
pub mod interrupts;
pub mod lapic;
pub mod mem;
pub mod pv;
pub mod smp;
pub mod start;
pub mod time;

core::arch::global_asm!(include_str!("boot.S"), options(att_syntax));

unsafe extern "Rust" {
    /// The binary's entry, called once on the first virtual CPU.
    fn guest_main(boot: &start::Boot);
}

#[unsafe(no_mangle)]
extern "C" fn guest_entry(start_info: u64) -> ! {
    interrupts::init();
    interrupts::load();
    hypercall::init();
    let boot = start::Boot::new(start_info);
    console::init(&boot);
    // SAFETY: the binary that links this crate defines it with this signature.
    unsafe { guest_main(&boot) };
    check::done()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("FAIL the guest does not panic: {info}");
    hypercall::shutdown(abi::sched::SHUTDOWN_CRASH)
}
