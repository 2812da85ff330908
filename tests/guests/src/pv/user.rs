//! User mode: a second top table, and a way to run user code until its next trap.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use abi::xen::MMUEXT_NEW_USER_BASEPTR;
use zerocopy::FromZeros;

use super::{mmu, p2m, traps};
use crate::hypercall::Ret;
use crate::interrupts::Frame;
use crate::mem::{self, Page};

/// Where a user's code page is; its stack page follows.
pub const CODE: u64 = 0x8000_0000;
/// The top of a user's stack, which has a page of its own.
pub const STACK: u64 = CODE + 0x2000;
/// The bottom of that page.
pub const DATA: u64 = CODE + 0x1000;

static L4: Page = Page::new();
static L3: Page = Page::new();
static L2: Page = Page::new();
static L1: Page = Page::new();
static CODE_PAGE: Page = Page::new();
static STACK_PAGE: Page = Page::new();

/// The frame that user code left by its trap; zero while no user code runs.
static RESULT: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    fn pv_to_user(frame: *const Frame);
    fn pv_from_user() -> !;
}

/// The user's top table.
pub fn top() -> &'static Page {
    &L4
}

/// Builds the user's tables, and maps its pages for the kernel as well. The first error, or zero.
pub fn init() -> Ret {
    let frame = |page: &Page| p2m(page.addr() >> 12) << 12;
    mem::poke64(L1.addr(), frame(&CODE_PAGE) | mmu::KERNEL | mmu::USER);
    mem::poke64(L1.addr() + 8, frame(&STACK_PAGE) | mmu::KERNEL | mmu::USER | mmu::NX);
    mem::poke64(L2.addr() + mmu::index(CODE, 2) * 8, frame(&L1) | mmu::TABLE);
    mem::poke64(L3.addr() + mmu::index(CODE, 3) * 8, frame(&L2) | mmu::TABLE);
    mem::poke64(L4.addr() + mmu::index(CODE, 4) * 8, frame(&L3) | mmu::TABLE);
    for page in [&L1, &L2, &L3, &L4] {
        let ret = mmu::protect(page);
        if ret != Ret(0) {
            return ret;
        }
    }
    let Some((l3_entry, _)) = mmu::entry(CODE, 3) else { return Ret(-1) };
    let mfn = p2m(L4.addr() >> 12);
    let steps: [&dyn Fn() -> Ret; 3] = [&|| mmu::pin(4, mfn), &|| mmu::ext(MMUEXT_NEW_USER_BASEPTR, mfn, 0), &|| {
        mmu::update(l3_entry, frame(&L2) | mmu::TABLE)
    }];
    steps.iter().map(|step| step()).find(|ret| *ret != Ret(0)).unwrap_or(Ret(0))
}

/// Where the kernel sees the page at [`DATA`].
pub fn stack_alias() -> u64 {
    STACK_PAGE.addr()
}

/// Writes the user's code.
pub fn set_code(bytes: &[u8]) {
    for (i, byte) in (0..).zip(bytes) {
        mem::poke8(CODE_PAGE.addr() + i, *byte);
    }
}

/// A frame that starts 64-bit user code at its beginning.
pub fn frame() -> Frame {
    Frame {
        rip: CODE,
        cs: traps::KERNEL_CS.into(),
        rflags: 0x202,
        rsp: STACK,
        ss: traps::FLAT_SS.into(),
        ..Frame::new_zeroed()
    }
}

/// A frame that starts 32-bit user code at its beginning.
pub fn frame32() -> Frame {
    Frame { cs: traps::USER_CS32.into(), ..frame() }
}

/// Goes on in user mode by the iret hypercall and gives the frame of the next trap from there.
pub fn run(frame: &Frame) -> Frame {
    // Events that came meanwhile would be traps of the user's; they wait.
    let frame = Frame { rflags: frame.rflags & !0x200, ..*frame };
    let mut result = Frame::new_zeroed();
    RESULT.store(core::ptr::from_mut(&mut result) as u64, SeqCst);
    // SAFETY: `returned` writes the frame and comes back here by `pv_from_user`.
    unsafe { pv_to_user(&frame) };
    RESULT.store(0, SeqCst);
    core::hint::black_box(result)
}

/// Ends [`run`] if this is a trap from user mode.
pub fn returned(frame: &Frame) {
    if frame.cs & 3 != 3 {
        return;
    }
    let result = RESULT.load(SeqCst) as *mut Frame;
    if !result.is_null() {
        // SAFETY: `run` waits for this frame, on the stack that `pv_from_user` goes back to.
        unsafe {
            result.write(*frame);
            pv_from_user()
        }
    }
}
