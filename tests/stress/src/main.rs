//! `stress SECONDS PROCESSES`: forks, maps, protects, remaps, writes, faults and uses files, and checks every byte.
//!
//! Its last line is `STRESS n rounds, n failures`, and its exit status 0 if there was no failure.
#![no_std]
#![no_main]

mod sys;
mod work;

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

core::arch::global_asm!(
    ".global _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call stress_main",
    "ud2",
);

/// Writes a text to the standard output.
pub fn print(text: &str) {
    sys::write(1, text.as_ptr() as u64, text.len() as u64);
}

/// Writes a number in decimal.
pub fn print_number(mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    print(core::str::from_utf8(&digits[at..]).unwrap_or("?"));
}

/// Prints what went wrong; a worker ends then.
pub fn fail(what: &str) -> ! {
    print("STRESS FAIL ");
    print(what);
    print("\n");
    sys::exit(1);
    loop {
        core::hint::spin_loop();
    }
}

/// The word of the command line, as a number.
fn argument(stack: *const u64, index: usize, otherwise: u64) -> u64 {
    // SAFETY: the kernel puts the count and the addresses of the words at the stack's start.
    let (count, address) = unsafe { (*stack, *stack.add(1 + index)) };
    if count <= index as u64 {
        return otherwise;
    }
    let mut number = 0u64;
    for i in 0.. {
        // SAFETY: a word ends with a NUL.
        let digit = unsafe { *((address + i) as *const u8) };
        if !digit.is_ascii_digit() {
            break;
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    number
}

/// Rounds done, in memory that all workers share.
fn shared_counter() -> &'static AtomicU64 {
    let page = sys::mmap(0, 4096, 3, 0x21, !0, 0); // shared, anonymous
    if !sys::is_ok(page) {
        fail("a shared page can be mapped");
    }
    // SAFETY: the mapping stays for ever and is aligned.
    unsafe { &*(page as *const AtomicU64) }
}

#[unsafe(no_mangle)]
extern "C" fn stress_main(stack: *const u64) -> ! {
    let (seconds, processes) = (argument(stack, 1, 5), argument(stack, 2, 4));
    let rounds = shared_counter();
    let end = sys::seconds() + seconds;
    for number in 0..processes {
        match sys::fork() {
            0 => {
                work::run(number, end, rounds);
                sys::exit(0);
            }
            child if child > 0 => {}
            _ => fail("a worker can be forked"),
        }
    }
    let mut failures = 0;
    for _ in 0..processes {
        let mut status = 0u32;
        sys::wait4(!0, core::ptr::from_mut(&mut status) as u64, 0, 0);
        // SAFETY: the kernel has written it.
        failures += u64::from(unsafe { core::ptr::read_volatile(&status) } != 0);
    }
    print("STRESS ");
    print_number(rounds.load(Relaxed));
    print(" rounds, ");
    print_number(failures);
    print(" failures\n");
    let is_well = failures == 0 && rounds.load(Relaxed) >= processes;
    sys::exit(u64::from(!is_well));
    fail("exit returns")
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    fail("the program does not panic")
}
