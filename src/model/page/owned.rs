//! How many frames of RAM a PV domain owns.

use core::sync::atomic::{AtomicU64, Ordering};

/// A PV domain's frames of RAM. One counts from when it is allocated until its last reference is gone.
///
/// What the domain owns for other ends, `shared_info` and the grant table, does not count as long as it lives, as with
/// Xen (`tot_pages`).
#[derive(Default)]
pub struct Owned(AtomicU64);

/// A frame was given back that never counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeverCounted;

impl Owned {
    /// None.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts `count` more, if there may be; `most` is how many may be.
    pub fn take(&self, count: u64, most: u64) -> bool {
        let more = |pages: u64| pages.checked_add(count).filter(|&pages| pages <= most);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// At the domain's end frames for other ends become RAM, as which they are given back.
    pub fn become_ram(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// `count` are the domain's no more. Refused, with nothing changed, if there are not so many.
    pub fn give_back(&self, count: u64) -> Result<(), NeverCounted> {
        let less = |pages: u64| pages.checked_sub(count);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).map(|_| ()).map_err(|_| NeverCounted)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ids::DomId;
    use crate::page::{Effect, Frame};

    const OWNER: DomId = DomId(3);

    #[test]
    fn no_more_frames_than_there_may_be() {
        let owned = Owned::new();
        assert!(owned.take(3, 4));
        assert!(!owned.take(2, 4));
        assert!(!owned.take(u64::MAX, u64::MAX));
        assert_eq!(owned.count(), 3);
    }

    #[test]
    fn a_frame_that_never_counted_is_not_given_back() {
        let owned = Owned::new();
        assert!(owned.take(1, 4));
        assert_eq!(owned.give_back(1), Ok(()));
        assert_eq!(owned.give_back(1), Err(NeverCounted));
        assert_eq!(owned.count(), 0);
    }

    /// A domain of four frames of RAM, `shared_info` and two frames of a grant table; the hypervisor holds `shared_info`
    /// and one frame of RAM beyond the end of the domain's memory.
    #[test]
    fn at_a_domains_end_the_frames_count_that_are_referred_to_still() {
        let table: [Frame; 7] = core::array::from_fn(|_| Frame::new());
        let owned = Owned::new();
        assert!(owned.take(4, 4));
        table.iter().for_each(|frame| frame.allocate(OWNER).expect("clean"));
        for held in [3, 4] {
            table[held].get_owned(OWNER).expect("in use");
        }
        owned.become_ram(3);
        for frame in &table {
            if let Ok(Effect::Free { .. }) = frame.release() {
                assert_eq!(owned.give_back(1), Ok(()));
            }
        }
        assert_eq!(owned.count(), 2);
        for held in [3, 4] {
            assert_eq!(table[held].put(), Ok(Effect::Free { owner: OWNER }));
            assert_eq!(owned.give_back(1), Ok(()));
        }
        assert_eq!(owned.count(), 0);
    }
}
