//! A set of interrupt vectors in the layout of IRR, ISR and TMR (SDM 3A figure 10-20).

/// A set of vectors, 32 a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VectorSet([u32; 8]);

impl VectorSet {
    pub(super) const EMPTY: Self = Self([0; 8]);

    /// Of eight registers.
    pub(super) fn from_words(word: impl Fn(u8) -> u32) -> Self {
        Self([0, 1, 2, 3, 4, 5, 6, 7].map(word))
    }

    fn place(vector: u8) -> (usize, u32) {
        (usize::from(vector >> 5), 1 << (vector & 31))
    }

    pub(super) fn contains(&self, vector: u8) -> bool {
        let (word, bit) = Self::place(vector);
        self.0[word] & bit != 0
    }

    pub(super) fn insert(&mut self, vector: u8) {
        let (word, bit) = Self::place(vector);
        self.0[word] |= bit;
    }

    pub(super) fn remove(&mut self, vector: u8) {
        let (word, bit) = Self::place(vector);
        self.0[word] &= !bit;
    }

    pub(super) fn set(&mut self, vector: u8, present: bool) {
        if present { self.insert(vector) } else { self.remove(vector) }
    }

    /// The member of the highest priority, which is the highest number.
    pub(super) fn highest(&self) -> Option<u8> {
        (0u8..8).rev().find_map(|n| {
            let word = self.0[usize::from(n)];
            let [bit, ..] = word.checked_ilog2()?.to_le_bytes();
            Some(n * 32 + bit)
        })
    }

    /// The 32 vectors of register `n` below 8; none beyond.
    pub(super) fn word(&self, n: u8) -> u32 {
        self.0.get(usize::from(n)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_of_a_set_is_the_largest_member() {
        let mut set = VectorSet::EMPTY;
        assert_eq!(set.highest(), None);
        for vector in [0, 31, 32, 200, 255] {
            set.insert(vector);
            assert_eq!(set.highest(), Some(vector));
        }
        set.remove(255);
        assert_eq!(set.highest(), Some(200));
        assert_eq!(set.word(0), 0x8000_0001);
        assert!(set.contains(32) && !set.contains(33));
    }
}
