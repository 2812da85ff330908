//! A set of physical CPUs.

use crate::ids::CpuId;

/// Physical CPUs that a set can name.
pub const MAX_CPUS: u32 = 256;

const WORDS: usize = MAX_CPUS as usize / 64;

/// A set of CPUs with numbers below [`MAX_CPUS`].
#[derive(Clone, Copy, Debug, Default, Eq)]
pub struct CpuSet([u64; WORDS]);

/// Word by word: a comparison of arrays is a call of `memcmp`, ten times as long.
impl PartialEq for CpuSet {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl CpuSet {
    /// None.
    pub const EMPTY: CpuSet = CpuSet([0; WORDS]);
    /// Every CPU there can be.
    pub const ALL: CpuSet = CpuSet([u64::MAX; WORDS]);

    /// Those whose bits are set, 64 to a word.
    pub fn from_words(words: [u64; WORDS]) -> Self {
        Self(words)
    }

    /// Just this one; empty if the number is too high.
    pub fn only(cpu: CpuId) -> Self {
        let mut set = Self::EMPTY;
        set.insert(cpu);
        set
    }

    /// Adds one; a number of [`MAX_CPUS`] or more is not added.
    pub fn insert(&mut self, cpu: CpuId) {
        if let Some(word) = self.0.get_mut(cpu.0 as usize / 64) {
            *word |= 1 << (cpu.0 % 64);
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, cpu: CpuId) {
        if let Some(word) = self.0.get_mut(cpu.0 as usize / 64) {
            *word &= !(1 << (cpu.0 % 64));
        }
    }

    /// Whether it is in.
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.0.get(cpu.0 as usize / 64).is_some_and(|word| word & (1 << (cpu.0 % 64)) != 0)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Those in both.
    pub fn and(&self, other: &CpuSet) -> CpuSet {
        CpuSet(core::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// Those in one of them.
    pub fn or(&self, other: &CpuSet) -> CpuSet {
        CpuSet(core::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// Those in `self` and not in `other`.
    pub fn without(&self, other: &CpuSet) -> CpuSet {
        CpuSet(core::array::from_fn(|i| self.0[i] & !other.0[i]))
    }

    /// The lowest.
    pub fn first(&self) -> Option<CpuId> {
        let word = self.0.iter().position(|&word| word != 0)?;
        Some(CpuId(word as u32 * 64 + self.0[word].trailing_zeros()))
    }

    /// All in order.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> {
        let mut rest = *self;
        core::iter::from_fn(move || {
            let cpu = rest.first()?;
            rest.remove(cpu);
            Some(cpu)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_up_to_the_last_cpu() {
        let mut set = CpuSet::EMPTY;
        for cpu in [255, 0, 64, 256, 7] {
            set.insert(CpuId(cpu));
        }
        assert_eq!(set.iter().map(|c| c.0).collect::<Vec<_>>(), [0, 7, 64, 255]);
        set.remove(CpuId(0));
        assert_eq!(set.first(), Some(CpuId(7)));
        assert!(!set.contains(CpuId(256)) && CpuSet::ALL.contains(CpuId(255)));
        assert!(CpuSet::only(CpuId(256)).is_empty());
    }

    #[test]
    fn sets_intersect_and_subtract() {
        let mut low = CpuSet::only(CpuId(3));
        low.insert(CpuId(100));
        assert_eq!(low.and(&CpuSet::only(CpuId(100))), CpuSet::only(CpuId(100)));
        assert_eq!(low.without(&CpuSet::only(CpuId(100))), CpuSet::only(CpuId(3)));
    }
}
