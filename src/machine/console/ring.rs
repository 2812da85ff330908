//! The last 64 KiB that were printed.

const SIZE: usize = 64 << 10;

/// A ring of bytes, each known by its position since boot.
pub struct Ring {
    bytes: [u8; SIZE],
    end: u64,
}

impl Ring {
    /// Nothing printed yet.
    pub const fn new() -> Self {
        Self { bytes: [0; SIZE], end: 0 }
    }

    /// Adds a byte, in place of the oldest when full.
    pub fn push(&mut self, byte: u8) {
        self.bytes[self.end as usize % SIZE] = byte;
        self.end += 1;
    }

    /// Copies from position `from`, or from the oldest byte if that one is gone. Gives back where it began and how many.
    pub fn copy(&self, from: u64, out: &mut [u8]) -> (u64, usize) {
        let start = from.max(self.end.saturating_sub(SIZE as u64)).min(self.end);
        let count = out.len().min((self.end - start) as usize);
        for (slot, position) in out[..count].iter_mut().zip(start..) {
            *slot = self.bytes[position as usize % SIZE];
        }
        (start, count)
    }
}
