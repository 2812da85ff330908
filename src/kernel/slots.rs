//! Slots by number, each behind a lock of its own, that take memory as numbers come into use.

use alloc::boxed::Box;
use alloc::vec::Vec;

use sync::{Lock, Once, Place};

/// Slots are given memory for this many numbers at once.
pub const CHUNK: usize = 64;

/// `CHUNKS` times [`CHUNK`] of them.
pub struct Slots<P, T, const CHUNKS: usize>([Once<Chunk<P, T>>; CHUNKS]);

type Chunk<P, T> = Box<[Lock<P, T>; CHUNK]>;

impl<P: Place, T: Default, const CHUNKS: usize> Slots<P, T, CHUNKS> {
    /// None has memory yet.
    pub const fn new() -> Self {
        Self([const { Once::new() }; CHUNKS])
    }

    /// The slot of a number that is or was in use.
    #[inline]
    pub fn get(&self, number: usize) -> Option<&Lock<P, T>> {
        self.0.get(number / CHUNK)?.get().map(|chunk| &chunk[number % CHUNK])
    }

    /// The slot of a number that may come into use. `None` if there is no memory for it, or no such number.
    pub fn get_or_make(&self, number: usize) -> Option<&Lock<P, T>> {
        let chunk = self.0.get(number / CHUNK)?;
        if chunk.get().is_none() {
            let mut slots = Vec::new();
            slots.try_reserve_exact(CHUNK).ok()?;
            slots.resize_with(CHUNK, || Lock::new(T::default()));
            // Where another was faster, his is as good.
            let _ = chunk.set(slots.into_boxed_slice().try_into().ok()?);
        }
        self.get(number)
    }
}
