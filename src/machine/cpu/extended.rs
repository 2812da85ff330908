//! A guest's vector and floating-point state, which the hypervisor never uses and switches with the vCPU.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::features;
use crate::mem::OwnedPages;

/// XSAVE (or FXSAVE) area of a virtual CPU, with its XCR0.
pub struct Extended {
    area: OwnedPages,
    xcr0: u64,
}

/// The state components that guests may use: x87, SSE, AVX, AVX-512, and PKRU; none that needs IA32_XSS, MPX or AMX
/// (SDM 1 13.1).
const COMPONENTS: u64 = 0x2e7;

/// How this machine saves the state.
static HOW: AtomicU8 = AtomicU8::new(BY_FXSAVE);
const BY_FXSAVE: u8 = 0;
const BY_XSAVE: u8 = 1;
/// What has not changed since it was restored is not written (SDM 1 13.9).
const BY_XSAVEOPT: u8 = 2;

static AVAILABLE: AtomicU64 = AtomicU64::new(3);

/// Finds out how, once, on the first CPU: CPUID takes long where a hypervisor is beneath.
pub fn prepare() {
    if !features::has_xsave() {
        return;
    }
    let [low, _, _, high] = features::leaf(0xd, 0);
    AVAILABLE.store((u64::from(high) << 32 | u64::from(low)) & COMPONENTS, Ordering::Relaxed);
    let has_xsaveopt = features::leaf(0xd, 1)[0] & 1 != 0;
    HOW.store(if has_xsaveopt { BY_XSAVEOPT } else { BY_XSAVE }, Ordering::Relaxed);
}

/// The components of XCR0 that guests may enable on this machine. 3 without XSAVE, as FXSAVE holds these.
#[inline]
pub fn components() -> u64 {
    AVAILABLE.load(Ordering::Relaxed)
}

fn how() -> u8 {
    HOW.load(Ordering::Relaxed)
}

/// Bytes that an XSAVE area with all of [`components`] needs.
fn area_bytes() -> usize {
    let end = |component: u32| {
        let [size, offset, ..] = features::leaf(0xd, component);
        size as usize + offset as usize
    };
    let parts = (2..63).filter(|&n| components() & 1 << n != 0).map(end);
    parts.max().unwrap_or(0).max(576)
}

impl Extended {
    /// The state after reset (SDM 3A table 9-1). `None` when memory is short.
    pub fn new() -> Option<Self> {
        let order = area_bytes().div_ceil(4096).next_power_of_two().trailing_zeros() as u8;
        let area = OwnedPages::zeroed(order)?;
        // SAFETY: the area is ours and larger than both fields: FCW at byte 0, MXCSR at byte 24 (SDM 1 10.5.1).
        unsafe {
            area.ptr().cast::<u16>().write(0x37f);
            area.ptr().add(24).cast::<u32>().write(0x1f80);
        }
        Some(Self { area, xcr0: 1 })
    }

    /// XCR0 as the guest set it.
    pub fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// Sets XCR0 of the guest whose state is in the processor's registers. The caller has checked the value against
    /// [`components`] and the rules of XSETBV.
    pub fn set_xcr0(&mut self, value: u64) {
        self.xcr0 = value & components() | 1;
        if how() != BY_FXSAVE {
            write_xcr0(self.xcr0);
        }
    }

    /// Makes x87 and SSE registers those of an FXSAVE image, for the guest whose state is in the processor's registers. All
    /// others are as after reset.
    pub fn set_legacy(&mut self, image: &[u8; 512]) {
        let area = self.area.ptr();
        // SAFETY: the area is ours and at least as long as the image and a header of 64 bytes. The last bytes of the image,
        // which the processor does not use in this form (SDM 1 10.5.1), are left out.
        unsafe {
            area.copy_from_nonoverlapping(image.as_ptr(), 416);
            // MXCSR: a reserved bit would fault.
            let mxcsr = area.add(24).cast::<u32>();
            mxcsr.write(mxcsr.read() & 0xffbf);
            // XSTATE_BV: x87 and SSE are in the area; XCOMP_BV: the standard form (SDM 1 13.4.2).
            area.add(512).cast::<[u64; 8]>().write([3, 0, 0, 0, 0, 0, 0, 0]);
        }
        self.restore();
    }

    /// Puts the state into the registers of this CPU.
    pub fn restore(&mut self) {
        let area = self.area.ptr();
        if how() == BY_FXSAVE {
            // SAFETY: the area is 512 bytes or more, aligned to 16, in the form that FXSAVE64 left.
            unsafe { asm!("fxrstor64 [{0}]", in(reg) area, options(nostack, readonly)) };
            return;
        }
        enable_all(read_xcr0());
        // SAFETY: the area is large enough for all components and aligned to 64, in the form that XSAVE64 left.
        unsafe {
            asm!("xrstor64 [{0}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack, readonly))
        };
        if self.xcr0 != components() {
            write_xcr0(self.xcr0);
        }
    }

    /// Takes the state out of the registers of this CPU.
    pub fn save(&mut self) {
        let area = self.area.ptr();
        if how() == BY_FXSAVE {
            // SAFETY: the area is 512 bytes or more and aligned to 16.
            unsafe { asm!("fxsave64 [{0}]", in(reg) area, options(nostack)) };
            return;
        }
        // An emulator may let a guest set it without an exit.
        self.xcr0 = read_xcr0();
        enable_all(self.xcr0);
        // SAFETY: the area is large enough for all components and aligned to 64.
        unsafe {
            if how() == BY_XSAVEOPT {
                asm!("xsaveopt64 [{0}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            } else {
                asm!("xsave64 [{0}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            }
        };
    }
}

/// Makes XCR0, which is `now`, all that guests may have.
fn enable_all(now: u64) {
    if now != components() {
        write_xcr0(components());
    }
}

fn read_xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the callers have XSAVE, and CR4.OSXSAVE is set.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

fn write_xcr0(value: u64) {
    // SAFETY: the callers have XSAVE, the value is a subset of what CPUID offers, with x87, and CR4.OSXSAVE is set.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nomem, nostack))
    };
}
