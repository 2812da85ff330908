//! Interrupts posted to a virtual CPU whose processor delivers them by itself (SDM 3C 29.6).
//!
//! ```text
//!   anyone:  request set -> ON set -> was it clear?  then tell: wake, or interrupt the CPU that is in the guest
//!   its own: ON clear -> requests taken to IRR          (the processor does the same in the guest, when told)
//! ```
//! Who finds ON set need not tell: somebody has or will, and who clears ON sees the request, because it was there before. So its
//! own CPU clears ON whenever it looks, before an entry or a sleep; a request after that is told anew. That it is told to
//! the right place is up to two fences: the poster looks where the virtual CPU is after he has posted, and
//! its CPU looks at ON after it has said that it enters the guest, or that the virtual CPU sleeps.

#[cfg(not(loom))]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The posted-interrupt descriptor, as the processor reads it (SDM 3C table 29-1).
#[repr(C, align(64))]
pub struct Posted {
    requests: [AtomicU32; 8],
    control: AtomicU64,
    free: [u64; 3],
}

/// Something is posted that nobody has taken.
const ON: u64 = 1 << 0;

/// Vector 0, which no priority lets through. Bochs 3.0 takes a notification that comes too late, when IRR and the requests are
/// empty, for vector 255. So one of both has this, from [`Posted::mark`] on.
const MARK: u32 = 1 << 0;

impl Default for Posted {
    fn default() -> Self {
        Self { requests: core::array::from_fn(|_| AtomicU32::new(0)), control: AtomicU64::new(0), free: [0; 3] }
    }
}

impl Posted {
    /// Posts a vector. Whether the virtual CPU is to be told: nobody else was asked to.
    #[must_use]
    pub fn post(&self, vector: u8) -> bool {
        self.requests[usize::from(vector >> 5)].fetch_or(1 << (vector & 31), Ordering::Relaxed);
        // Releases the request to who clears ON.
        self.control.fetch_or(ON, Ordering::AcqRel) & ON == 0
    }

    /// Whether there is something to take.
    #[inline]
    pub fn is_outstanding(&self) -> bool {
        self.control.load(Ordering::Relaxed) & ON != 0
    }

    /// Has the requests never be empty; of IRR's first word it takes the mark that the processor brought there.
    pub fn mark(&self, irr: u32) -> u32 {
        if self.requests[0].load(Ordering::Relaxed) & MARK == 0 {
            self.requests[0].fetch_or(MARK, Ordering::Relaxed);
        }
        irr & !MARK
    }

    /// Takes what is posted: each word of 32 vectors that has some, by its number.
    pub fn take(&self, mut give: impl FnMut(u8, u32)) {
        self.control.fetch_and(!ON, Ordering::AcqRel); // pairs with the one in `post`
        for (word, requests) in (0..).zip(&self.requests) {
            let mark = if word == 0 { MARK } else { 0 };
            if requests.load(Ordering::Relaxed) & !mark != 0 {
                give(word, requests.fetch_and(mark, Ordering::Relaxed) & !mark);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn taken(posted: &Posted) -> Vec<u8> {
        let mut all = Vec::new();
        posted.take(|word, bits| all.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| word * 32 + bit)));
        all
    }

    #[test]
    fn the_descriptor_is_laid_out_as_the_processor_reads_it() {
        assert_eq!((size_of::<Posted>(), align_of::<Posted>()), (64, 64));
        assert_eq!((core::mem::offset_of!(Posted, requests), core::mem::offset_of!(Posted, control)), (0, 32));
    }

    #[test]
    fn only_the_first_of_several_is_told() {
        let posted = Posted::default();
        assert!(!posted.is_outstanding());
        assert!(posted.post(0x31));
        assert!(!posted.post(0xff) && !posted.post(0x31));
        assert!(posted.is_outstanding());
    }

    #[test]
    fn what_was_taken_is_gone_and_the_next_is_told_again() {
        let posted = Posted::default();
        for vector in [0x10, 0x1f, 0x20, 0xff] {
            let _ = posted.post(vector);
        }
        assert_eq!(taken(&posted), [0x10, 0x1f, 0x20, 0xff]);
        assert!(!posted.is_outstanding());
        assert_eq!(taken(&posted), []);
        assert!(posted.post(0x20));
    }

    #[test]
    fn the_mark_stays_and_is_no_request() {
        let posted = Posted::default();
        assert_eq!(posted.mark(0x0001_0001), 0x0001_0000);
        assert!(posted.post(0x11));
        assert_eq!(taken(&posted), [0x11]);
        assert_eq!(posted.requests[0].load(Ordering::Relaxed), MARK);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn a_request_is_taken_or_told_whatever_the_order() {
        loom::model(|| {
            let posted = Arc::new(Posted::default());
            let posters = [0x21, 0x42].map(|vector| {
                let posted = posted.clone();
                thread::spawn(move || posted.post(vector))
            });
            let mut seen = 0;
            posted.take(|_, bits| seen += bits.count_ones());
            let told = posters.map(|poster| poster.join().unwrap());
            if posted.is_outstanding() {
                assert!(told.contains(&true));
                posted.take(|_, bits| seen += bits.count_ones());
            }
            assert_eq!(seen, 2);
        });
    }
}
