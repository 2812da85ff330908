//! Which frame of the machine is which frame of a guest in the making.

use crate::addr::{Mfn, Pfn};
use alloc::vec::Vec;

/// Frames in a row in both numberings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    pfn: u64,
    mfn: u64,
    count: u64,
}

/// The frames that a guest has got so far, from 0 on.
#[derive(Clone, Debug, Default)]
pub struct Numbering {
    runs: Vec<Run>,
    /// How many there are.
    len: u64,
}

impl Numbering {
    /// None yet.
    pub const fn new() -> Self {
        Self { runs: Vec::new(), len: 0 }
    }

    /// How many frames there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next `count` frames.
    pub fn push(&mut self, mfn: Mfn, count: u64) {
        let (pfn, mfn) = (self.len, mfn.raw());
        self.len += count;
        match self.runs.last_mut() {
            Some(last) if last.mfn + last.count == mfn => last.count += count,
            _ => self.runs.push(Run { pfn, mfn, count }),
        }
    }

    /// The machine's frame of a guest's.
    pub fn mfn(&self, pfn: Pfn) -> Option<Mfn> {
        let after = self.runs.partition_point(|run| run.pfn <= pfn.raw());
        let run = self.runs.get(after.checked_sub(1)?)?;
        let n = pfn.raw() - run.pfn;
        (n < run.count).then(|| Mfn::new(run.mfn + n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_frame_is_found_where_it_was_put(blocks in prop::collection::vec((0u64..50, 1u64..5), 0..20)) {
            let (mut numbering, mut list) = (Numbering::new(), Vec::new());
            for (mfn, count) in blocks {
                numbering.push(Mfn::new(mfn), count);
                list.extend((0..count).map(|n| Mfn::new(mfn + n)));
            }
            prop_assert_eq!(numbering.len(), list.len() as u64);
            for (pfn, mfn) in (0..).zip(&list) {
                prop_assert_eq!(numbering.mfn(Pfn::new(pfn)), Some(*mfn));
            }
            prop_assert_eq!(numbering.mfn(Pfn::new(list.len() as u64)), None);
        }
    }
}
