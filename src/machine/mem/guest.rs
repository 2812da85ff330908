//! Memory of a translated guest, by guest-physical address, while its map cannot change.
//!
//! Each frame that a [`P2m`] has holds a counted reference, which goes only after the frame was taken out of the
//! map. Whoever has the map for himself therefore reads and writes what it maps without a reference of his own.

use model::addr::{Gfn, GuestPhys, Mfn, PAGE_SIZE};
use model::p2m::P2m;

use super::pinned::copy;
use super::{NestedTables, layout};

/// The memory that a map leads to.
pub struct GuestMemory<'a>(&'a mut P2m);

impl<'a> GuestMemory<'a> {
    /// Of a domain's map, whose references its owner keeps as [`model::p2m`] says.
    pub fn new(p2m: &'a mut P2m) -> Self {
        Self(p2m)
    }

    /// The frame of ordinary memory at a guest frame, that may be read, or written too.
    #[inline]
    fn ram(&mut self, gfn: Gfn, for_writing: bool) -> Option<Mfn> {
        let (mfn, kind) = self.0.find(&NestedTables, gfn)?;
        (kind.is_ram() && (!for_writing || kind.is_writable())).then_some(mfn)
    }

    /// A little-endian word of 4 or 8 bytes, aligned to its size, read at once; `None` where there is no memory.
    #[inline]
    pub fn word(&mut self, at: GuestPhys, len: usize) -> Option<u64> {
        let mfn = self.ram(at.frame(), false)?;
        let from = layout::direct(mfn.base()).wrapping_add(at.offset());
        // SAFETY: the word lies in the frame, being aligned; the frame is RAM that the map keeps alive.
        unsafe {
            match len {
                8 => Some(from.cast::<u64>().read_volatile()),
                4 => Some(u64::from(from.cast::<u32>().read_volatile())),
                _ => None,
            }
        }
    }

    /// Copies bytes of one page out; `false` where there is no memory.
    #[inline]
    pub fn read(&mut self, at: GuestPhys, out: &mut [u8]) -> bool {
        assert!(at.offset() + out.len() <= PAGE_SIZE as usize, "an access within the page");
        let Some(mfn) = self.ram(at.frame(), false) else { return false };
        let from = layout::direct(mfn.base()).wrapping_add(at.offset());
        // SAFETY: the range lies in the frame, which the map keeps alive; `out` is ours and apart from it.
        unsafe { copy(from, out.as_mut_ptr(), out.len()) };
        true
    }

    /// Copies bytes into one page; `false` where there is no memory that may be written.
    #[inline]
    pub fn write(&mut self, at: GuestPhys, bytes: &[u8]) -> bool {
        assert!(at.offset() + bytes.len() <= PAGE_SIZE as usize, "an access within the page");
        let Some(mfn) = self.ram(at.frame(), true) else { return false };
        let to = layout::direct(mfn.base()).wrapping_add(at.offset());
        // SAFETY: as above.
        unsafe { copy(bytes.as_ptr(), to, bytes.len()) };
        true
    }
}
