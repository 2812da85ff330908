//! A domain's frame that the hypervisor reads and writes while the guest may do the same.
//!
//! There is never a Rust reference to guest memory. A [`PinnedFrame`] holds a counted reference, so the frame stays
//! the domain's for as long; plain bytes are copied, and what both sides share by nature is reached by atomic
//! accesses at an offset.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use model::addr::{Mfn, PAGE_SIZE};
use model::ids::DomId;
use model::page::Refused;

use super::{frames, layout};

/// Domains proper have numbers below this (`DOMID_FIRST_RESERVED`).
const FIRST_RESERVED: u16 = 0x7ff0;

/// A reference to a frame of a domain.
pub struct PinnedFrame(Mfn);

impl PinnedFrame {
    /// Takes a reference, if `owner` is a domain and owns the frame.
    pub fn get(mfn: Mfn, owner: DomId) -> Result<Self, Refused> {
        if owner.0 >= FIRST_RESERVED {
            return Err(Refused::NotOwner);
        }
        frames::get_owned(mfn, owner)?;
        Ok(Self(mfn))
    }

    /// The frame.
    pub fn mfn(&self) -> Mfn {
        self.0
    }

    #[inline(always)]
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= PAGE_SIZE as usize), "an access within the page");
        layout::direct(self.0.base()).wrapping_add(offset)
    }

    /// Copies bytes out of the frame. Another CPU may write them meanwhile: each byte is some value it has had.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let from = self.at(offset, out.len());
        // SAFETY: the range lies in the frame, which is a domain's and stays it; `out` is ours and apart from it.
        unsafe { copy(from, out.as_mut_ptr(), out.len()) };
    }

    /// Copies bytes into the frame.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: as above.
        unsafe { copy(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Fills bytes of the frame with zeros.
    pub fn clear(&self, offset: usize, len: usize) {
        let to = self.at(offset, len);
        // SAFETY: as above.
        unsafe { core::ptr::write_bytes(to, 0, len) };
    }

    /// The byte at `offset`, to be used atomically.
    #[inline]
    pub fn byte(&self, offset: usize) -> &AtomicU8 {
        let at = self.at(offset, 1);
        // SAFETY: it lies in the frame, which outlives the reference, and is used by atomic accesses alone.
        unsafe { AtomicU8::from_ptr(at) }
    }

    /// The 32-bit word at `offset`, a multiple of 4, to be used atomically.
    #[inline]
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "an aligned word");
        let at = self.at(offset, 4);
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(at.cast()) }
    }

    /// The 64-bit word at `offset`, a multiple of 8, to be used atomically.
    #[inline]
    pub fn long(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "an aligned word");
        let at = self.at(offset, 8);
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(at.cast()) }
    }

    /// `LEN` bytes from `offset`, a multiple of 8, on.
    #[inline(always)]
    pub fn part<const LEN: usize>(&self, offset: usize) -> PartView<'_, LEN> {
        assert!(offset.is_multiple_of(8), "an aligned part");
        PartView { at: self.at(offset, LEN), _part: PhantomData }
    }

    /// Reads the 64-bit word at `offset`, a multiple of 8, at once.
    pub fn read_long(&self, offset: usize) -> u64 {
        self.long(offset).load(Ordering::Relaxed)
    }
}

/// `LEN` bytes of a pinned frame that are used often: where they are is known.
pub struct PinnedPart<const LEN: usize> {
    at: *mut u8,
    _frame: PinnedFrame,
}

// SAFETY: the pointer is into the frame that comes along, and all use of it is atomic.
unsafe impl<const LEN: usize> Send for PinnedPart<LEN> {}

impl<const LEN: usize> PinnedPart<LEN> {
    /// The bytes from `offset`, a multiple of 8, on.
    pub fn new(frame: PinnedFrame, offset: usize) -> Self {
        Self { at: frame.part::<LEN>(offset).at, _frame: frame }
    }

    /// The same for a while, as a pointer alone.
    #[inline(always)]
    pub fn view(&self) -> PartView<'_, LEN> {
        PartView { at: self.at, _part: PhantomData }
    }
}

/// See [`PinnedPart::view`] and [`PinnedFrame::part`].
#[derive(Clone, Copy)]
pub struct PartView<'a, const LEN: usize> {
    at: *mut u8,
    _part: PhantomData<&'a PinnedFrame>,
}

impl<'a, const LEN: usize> PartView<'a, LEN> {
    /// The byte at `offset` of the part, to be used atomically.
    #[inline(always)]
    pub fn byte(self, offset: usize) -> &'a AtomicU8 {
        assert!(offset < LEN, "a byte of the part");
        // SAFETY: it lies in the frame, which lives as long as the part, and is used by atomic accesses alone.
        unsafe { AtomicU8::from_ptr(self.at.add(offset)) }
    }

    /// The 32-bit word at `offset` of the part, a multiple of 4, to be used atomically.
    #[inline(always)]
    pub fn word(self, offset: usize) -> &'a AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= LEN, "an aligned word of the part");
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.at.add(offset).cast()) }
    }

    /// The 64-bit word at `offset`, a multiple of 8, to be used atomically.
    #[inline(always)]
    pub fn long(self, offset: usize) -> &'a AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= LEN, "an aligned word of the part");
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.at.add(offset).cast()) }
    }
}

impl Drop for PinnedFrame {
    fn drop(&mut self) {
        frames::put(self.0);
    }
}

/// Copies in whole words as far as they go, then in bytes.
///
/// # Safety
/// Both ranges are valid and apart. One may change meanwhile, by hands that Rust does not know.
#[inline]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    let words = len / 8;
    // SAFETY: by the caller. The processor, not the compiler, does the accesses, so a race has no more effect than a
    // torn value.
    unsafe {
        core::arch::asm!(
            "rep movsq",
            "mov ecx, {rest:e}",
            "rep movsb",
            rest = in(reg) len % 8,
            inout("rcx") words => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}
