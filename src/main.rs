//! Entry and panic handler.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use machine::start::Wishes;

static WISHES: Wishes =
    Wishes { memory_limit: kernel::boot::memory_limit, settings: kernel::boot::settings, then: kernel::boot::run };

/// Where `boot/header.S` comes to: `info` is the boot loader's information, `loaded` where the image lies.
#[unsafe(no_mangle)]
extern "C" fn euxen_start(info: u64, loaded: u64) -> ! {
    // SAFETY: the entry code calls this once, in the state that `start` asks for.
    unsafe { machine::start::start(info, loaded, &WISHES) }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    machine::panic::on_panic(info)
}
