//! Copying from and to a PV guest's memory, by its own addresses.
//!
//! The guest's page tables are loaded while its virtual CPU is, so the processor translates, with the right that a
//! page gives: nothing that the guest cannot write is written. What faults ends the copy, by the exception table. The
//! hole is refused first. Where the processor has SMAP, access to user pages, which all of a guest's are, is let
//! in for the copy alone.
//!
//! The caller is in a window of the flush protocol, so that no translation is used that is older than the frame's type.

use core::arch::asm;
use core::mem::{MaybeUninit, offset_of};
use core::sync::atomic::{AtomicBool, Ordering};

use model::addr::GuestVirt;
use model::regs::Regs;

use crate::mem::layout::{HOLE_END, M2P};

static HAS_SMAP: AtomicBool = AtomicBool::new(false);

/// Says whether the processor has SMAP, and it is on.
pub(super) fn set_smap(has_smap: bool) {
    HAS_SMAP.store(has_smap, Ordering::Relaxed);
}

/// Whether an address is not in the hole. A range from such an address leaves it only through addresses that fault.
#[inline]
pub fn is_guests(address: GuestVirt) -> bool {
    const _: () = assert!(M2P.is_multiple_of(1 << 43) && HOLE_END - M2P == 1 << 43);
    let mut top = address.raw();
    // SAFETY: a shift, which the compiler would make a comparison with two constants of 64 bits of.
    unsafe { asm!("shr {}, 43", inout(reg) top, options(pure, nomem, nostack)) };
    top as u32 != (M2P >> 43) as u32
}

/// Lets accesses to user pages in as long as it lives.
struct Window(bool);

impl Window {
    #[inline(always)]
    fn open() -> Self {
        let flag: u8;
        // SAFETY: reads one byte, which is not written after the start.
        unsafe {
            asm!("mov {}, [rip + {}]", out(reg_byte) flag, sym HAS_SMAP, options(pure, readonly, nostack, preserves_flags));
        }
        let has_smap = flag != 0;
        if has_smap {
            // SAFETY: the processor has it; what follows until CLAC is an access to a guest's address.
            unsafe { asm!("stac", options(nostack)) };
        }
        Self(has_smap)
    }
}

impl Drop for Window {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0 {
            // SAFETY: as above.
            unsafe { asm!("clac", options(nostack)) };
        }
    }
}

/// Copies `out.len()` bytes from a guest's address. Says how many are left: 0 if all were copied.
#[inline]
#[must_use]
pub fn copy_from(from: GuestVirt, out: &mut [u8]) -> usize {
    if !is_guests(from) {
        return out.len();
    }
    let _window = Window::open();
    // SAFETY: `out` is ours and as long; the other end is a guest's address, and faults there.
    unsafe { copy(from.raw(), out.as_mut_ptr() as u64, out.len()) }
}

/// Calls `f` with the `count` bytes from a guest's address. `None` if that is more than `N`, or not all can be read.
#[inline]
pub fn with_bytes<const N: usize, R>(from: GuestVirt, count: usize, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
    let mut bytes = [const { MaybeUninit::<u8>::uninit() }; N];
    if count > N || !is_guests(from) {
        return None;
    }
    let left = {
        let _window = Window::open();
        // SAFETY: as in `copy_from`.
        unsafe { copy(from.raw(), bytes.as_mut_ptr() as u64, count) }
    };
    // SAFETY: so many have been copied if none is left.
    (left == 0).then(|| f(unsafe { bytes[..count].assume_init_ref() }))
}

/// Copies bytes to a guest's address. Says how many are left: 0 if all were copied.
#[inline]
#[must_use]
pub fn copy_to(to: GuestVirt, bytes: &[u8]) -> usize {
    if !is_guests(to) {
        return bytes.len();
    }
    let _window = Window::open();
    // SAFETY: as in `copy_from`.
    unsafe { copy(bytes.as_ptr() as u64, to.raw(), bytes.len()) }
}

/// Copies, in whole words as far as they go, then in bytes; says how many bytes are left after a fault.
///
/// # Safety
/// One of the ranges is ours, the other begins at a guest's address and the hypervisor has no reference to any of it.
#[inline]
unsafe fn copy(from: u64, to: u64, len: usize) -> usize {
    let mut left = len;
    // SAFETY: by the caller; a fault goes on at the third or fourth label with RCX as it stands.
    unsafe {
        asm!(
            "2: rep movsq",
            "mov ecx, {rest:e}",
            "3: rep movsb",
            "jmp 5f",
            "4: lea rcx, [{rest} + rcx * 8]",
            "5:",
            ".pushsection .exception_table, \"a\"",
            ".long 2b - ., 4b - .",
            ".long 3b - ., 5b - .",
            ".popsection",
            rest = in(reg) left % 8,
            inout("rcx") left / 8 => left,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack)
        );
    }
    left
}

/// Fills `len` bytes from a guest's address with zeros. Says how many are left: 0 if all were filled.
#[must_use]
pub fn clear(to: GuestVirt, len: usize) -> usize {
    if !is_guests(to) || len >= 1 << 46 {
        return len;
    }
    let _window = Window::open();
    let left;
    // SAFETY: as in `copy`.
    unsafe {
        asm!(
            "2: rep stosq",
            "mov ecx, {rest:e}",
            "3: rep stosb",
            "jmp 5f",
            "4: lea rcx, [{rest} + rcx * 8]",
            "5:",
            ".pushsection .exception_table, \"a\"",
            ".long 2b - ., 4b - .",
            ".long 3b - ., 5b - .",
            ".popsection",
            rest = in(reg) len % 8,
            inout("rcx") len / 8 => left,
            inout("rdi") to.raw() => _,
            in("rax") 0u64,
            options(nostack)
        );
    }
    left
}

macro_rules! words {
    ($(#[$doc:meta])* $read:ident, $(#[$doc_write:meta])* $write:ident, $count:literal) => {
        $(#[$doc])*
        #[inline]
        pub fn $read(from: GuestVirt) -> Option<[u64; $count]> {
            let mut out = [0; $count];
            if !is_guests(from) {
                return None;
            }
            let _window = Window::open();
            for (n, word) in out.iter_mut().enumerate() {
                *word = read_word(from.raw().wrapping_add(8 * n as u64))?;
            }
            Some(out)
        }

        $(#[$doc_write])*
        #[inline]
        #[must_use]
        pub fn $write(to: GuestVirt, words: [u64; $count]) -> bool {
            if !is_guests(to) {
                return false;
            }
            let _window = Window::open();
            words.iter().enumerate().all(|(n, &word)| write_word(to.raw().wrapping_add(8 * n as u64), word))
        }
    };
}

words!(/// Reads a word of 64 bits; `None` if a part of it cannot be read.
    read1, /// Writes a word of 64 bits; `false` if it cannot be written.
    write1, 1);
words!(/// Reads two words, as [`read1`].
    read2, /// Writes two words, as [`write1`]; the first may be written where `false` is the answer.
    write2, 2);
words!(/// Reads three words.
    read3, /// Writes three words.
    write3, 3);

macro_rules! frames {
    ($(#[$doc:meta])* $name:ident($($error:ident)?), $rip:literal) => {
        $(#[$doc])*
        #[inline(always)]
        #[must_use]
        pub fn $name(to: GuestVirt, regs: &Regs, cs: u64, rflags: u64 $(, $error: u32)?) -> bool {
            if !is_guests(to) {
                return false;
            }
            let _window = Window::open();
            // SAFETY: as in `write_word`; a fault in any of the stores goes on at the label.
            unsafe {
                asm!(
                    "mov {word}, [{regs} + {rcx}]",
                    "20: mov [{to}], {word}",
                    "mov {word}, [{regs} + {r11}]",
                    "21: mov [{to} + 8], {word}",
                    $(concat!("22: mov qword ptr [{to} + 16], {", stringify!($error), "}"),)?
                    "mov {word}, [{regs} + {rip}]",
                    "23: mov [{to} + {at}], {word}",
                    "24: mov [{to} + {at} + 8], {cs}",
                    "25: mov [{to} + {at} + 16], {rflags}",
                    "mov {word}, [{regs} + {rsp}]",
                    "26: mov [{to} + {at} + 24], {word}",
                    "movzx {word:e}, word ptr [{regs} + {ss}]",
                    "27: mov [{to} + {at} + 32], {word}",
                    ".pushsection .exception_table, \"a\"",
                    ".long 20b - ., {fault} - .",
                    ".long 21b - ., {fault} - .",
                    $(concat!("/* {", stringify!($error), "} */ .long 22b - ., {fault} - ."),)?
                    ".long 23b - ., {fault} - .",
                    ".long 24b - ., {fault} - .",
                    ".long 25b - ., {fault} - .",
                    ".long 26b - ., {fault} - .",
                    ".long 27b - ., {fault} - .",
                    ".popsection",
                    to = in(reg) to.raw(),
                    regs = in(reg) regs,
                    $($error = in(reg) u64::from($error),)?
                    cs = in(reg) cs,
                    rflags = in(reg) rflags,
                    word = out(reg) _,
                    fault = label { return false },
                    at = const $rip,
                    rcx = const offset_of!(Regs, rcx),
                    r11 = const offset_of!(Regs, r11),
                    rip = const offset_of!(Regs, rip),
                    rsp = const offset_of!(Regs, rsp),
                    ss = const offset_of!(Regs, ss),
                    options(nostack, preserves_flags)
                );
            }
            true
        }
    };
}

frames!(/// Writes the frame of an exception or event (`model::pv::frame`): RCX, R11, RIP, `cs`, `rflags`, RSP and SS. `false` if some
    /// of them cannot be written.
    write_frame(), 16);
frames!(/// Likewise, with an error code before RIP.
    write_frame_with_error(error), 24);

macro_rules! unrolled {
    ($(#[$doc:meta])* $read:ident, $count:literal: $($word:ident $label:literal + $at:literal,)*) => {
        $(#[$doc])*
        #[inline(always)]
        #[must_use]
        pub fn $read(from: GuestVirt) -> Option<[u64; $count]> {
            if !is_guests(from) {
                return None;
            }
            $(let $word: u64;)*
            let failed: u32;
            let window = Window::open();
            // SAFETY: as in `read_word`; a fault in any of them goes on behind the last.
            unsafe {
                asm!(
                    $(concat!($label, ": mov {", stringify!($word), "}, [{from} + ", $at, "]"),)*
                    "xor {failed:e}, {failed:e}",
                    "40:",
                    ".pushsection .exception_table, \"a\"",
                    $(concat!(".long ", $label, "b - ., 40b - ."),)*
                    ".popsection",
                    from = in(reg) from.raw(),
                    $($word = out(reg) $word,)*
                    failed = inout(reg) 1u32 => failed,
                    options(nostack)
                );
            }
            drop(window);
            (failed == 0).then_some([$($word),*])
        }
    };
}

unrolled!(/// Reads eight words, each by an instruction of its own; `None` if some of them cannot be read.
    read8, 8: a "20" + 0, b "21" + 8, c "22" + 16, d "23" + 24, e "24" + 32, f "25" + 40, g "26" + 48,
    h "27" + 56,);
unrolled!(/// Reads nine words, each by an instruction of its own; `None` if some of them cannot be read.
    read9, 9: a "20" + 0, b "21" + 8, c "22" + 16, d "23" + 24, e "24" + 32, f "25" + 40, g "26" + 48,
    h "27" + 56, i "28" + 64,);

/// Writes words to a guest's address; `false` if some of them cannot be written.
#[inline]
#[must_use]
pub fn write_words<const N: usize>(to: GuestVirt, words: &[u64; N]) -> bool {
    if !is_guests(to) {
        return false;
    }
    let _window = Window::open();
    let left: usize;
    // SAFETY: as in `copy`; a fault goes on at the third label with RCX as it stands.
    unsafe {
        asm!(
            "2: rep movsq",
            "3:",
            ".pushsection .exception_table, \"a\"",
            ".long 2b - ., 3b - .",
            ".popsection",
            inout("rcx") N => left,
            inout("rsi") words.as_ptr() => _,
            inout("rdi") to.raw() => _,
            options(nostack, preserves_flags)
        );
    }
    left == 0
}

/// Reads 32 bits from a guest's address; `None` if they cannot be read.
#[inline(always)]
#[must_use]
pub fn read_half(from: GuestVirt) -> Option<u32> {
    if !is_guests(from) {
        return None;
    }
    let (half, failed): (u32, u32);
    let window = Window::open();
    // SAFETY: as in `read_word`.
    unsafe {
        asm!(
            "2: mov {half:e}, [{from}]",
            "xor {failed:e}, {failed:e}",
            "3:",
            ".pushsection .exception_table, \"a\"",
            ".long 2b - ., 3b - .",
            ".popsection",
            from = in(reg) from.raw(),
            half = out(reg) half,
            failed = inout(reg) 1u32 => failed,
            options(nostack)
        );
    }
    drop(window);
    (failed == 0).then_some(half)
}

/// Reads a word of a guest's descriptor tables in the hole, where the page may be missing.
pub(super) fn read_own(from: u64) -> Option<u64> {
    debug_assert_eq!(crate::mem::layout::slot(from), crate::mem::layout::slot(crate::mem::layout::PER_DOMAIN));
    read_word(from)
}

#[inline(always)]
fn read_word(from: u64) -> Option<u64> {
    let (word, failed): (u64, u32);
    // SAFETY: `Window` is open and the address a guest's; a fault goes on at the third label.
    unsafe {
        asm!(
            "2: mov {word}, [{from}]",
            "xor {failed:e}, {failed:e}",
            "3:",
            ".pushsection .exception_table, \"a\"",
            ".long 2b - ., 3b - .",
            ".popsection",
            from = in(reg) from,
            word = out(reg) word,
            failed = inout(reg) 1u32 => failed,
            options(nostack)
        );
    }
    (failed == 0).then_some(word)
}

#[inline(always)]
fn write_word(to: u64, word: u64) -> bool {
    // SAFETY: as above; a fault goes on at the label.
    unsafe {
        asm!(
            "2: mov [{to}], {word}",
            ".pushsection .exception_table, \"a\"",
            ".long 2b - ., {fault} - .",
            ".popsection",
            to = in(reg) to,
            word = in(reg) word,
            fault = label { return false },
            options(nostack, preserves_flags)
        );
    }
    true
}
