//! Checks: each prints `PASS sentence` or `FAIL sentence: what was seen`.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use abi::Errno;

use crate::hypercall::Ret;
use crate::println;

static PASSED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

/// Prints a check's line and counts it; for the macros.
pub fn report(ok: bool, sentence: fmt::Arguments<'_>, seen: fmt::Arguments<'_>) {
    if ok {
        PASSED.fetch_add(1, Relaxed);
        println!("PASS {sentence}");
    } else {
        FAILED.fetch_add(1, Relaxed);
        println!("FAIL {sentence}: {seen}");
    }
}

/// `check!(condition, "sentence {}", x; "seen {}", y)`.
#[macro_export]
macro_rules! check {
    ($ok:expr, $sentence:literal $(, $arg:expr)*; $seen:literal $(, $value:expr)* $(,)?) => {
        $crate::check::report($ok, format_args!($sentence $(, $arg)*), format_args!($seen $(, $value)*))
    };
    ($ok:expr, $sentence:literal $(, $arg:expr)* $(,)?) => {
        $crate::check::report($ok, format_args!($sentence $(, $arg)*), format_args!("it does not"))
    };
}

/// Checks that a number is the expected one.
pub fn equal(seen: u64, wanted: u64, sentence: &str) {
    report(seen == wanted, format_args!("{sentence}"), format_args!("{seen:#x}, not {wanted:#x}"));
}

/// Checks that a hypercall returns zero.
pub fn zero(ret: Ret, sentence: &str) {
    report(ret == Ret(0), format_args!("{sentence}"), format_args!("{ret}"));
}

/// Checks that a hypercall fails with this error.
pub fn fails(ret: Ret, errno: Errno, sentence: &str) {
    report(ret == Ret::err(errno), format_args!("{sentence}"), format_args!("{ret}, not -{errno}"));
}

/// Prints the totals and powers off.
pub fn done() -> ! {
    println!("GUEST-DONE {} passed, {} failed", PASSED.load(Relaxed), FAILED.load(Relaxed));
    crate::hypercall::shutdown(abi::sched::SHUTDOWN_POWEROFF)
}
