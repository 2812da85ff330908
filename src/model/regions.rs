//! Which machine memory is RAM, and what of it is free, before there is an allocator.

/// Bytes from `start` up to `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Span {
    /// Bytes in it.
    pub const fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
    /// Without any byte.
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }
    /// The whole pages inside.
    pub const fn pages_inside(self) -> Self {
        Self { start: self.start.next_multiple_of(4096), end: self.end & !4095 }
    }
    /// The whole pages that touch it.
    pub const fn pages_around(self) -> Self {
        Self { start: self.start & !4095, end: self.end.next_multiple_of(4096) }
    }
}

/// Entries a list can hold; firmware gives 10 to 100.
const MAX: usize = 512;

/// A sorted list of disjoint spans of whole pages, of fixed size as there is no heap yet.
#[derive(Clone)]
pub struct Regions {
    spans: [Span; MAX],
    len: usize,
}

impl Default for Regions {
    fn default() -> Self {
        Self::new()
    }
}

impl Regions {
    /// An empty list.
    pub const fn new() -> Self {
        Self { spans: [Span { start: 0, end: 0 }; MAX], len: 0 }
    }

    /// The spans in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Span> {
        self.spans[..self.len].iter().copied()
    }

    /// Adds the whole pages of a span that firmware reports; what overlaps is merged. Spans beyond the list's size are lost.
    pub fn add(&mut self, span: Span) {
        let mut new = span.pages_inside();
        if new.is_empty() {
            return;
        }
        let mut at = 0;
        while at < self.len {
            let old = self.spans[at];
            if old.end < new.start {
                at += 1;
            } else if new.end < old.start {
                break;
            } else {
                new = Span { start: new.start.min(old.start), end: new.end.max(old.end) };
                self.spans.copy_within(at + 1..self.len, at);
                self.len -= 1;
            }
        }
        self.insert(at, new);
    }

    /// Takes out every page that touches `span`.
    pub fn remove(&mut self, span: Span) {
        let gone = span.pages_around();
        let mut at = 0;
        while at < self.len && !gone.is_empty() {
            let old = self.spans[at];
            if old.end <= gone.start || gone.end <= old.start {
                at += 1;
                continue;
            }
            let below = Span { start: old.start, end: gone.start };
            let above = Span { start: gone.end, end: old.end };
            self.spans.copy_within(at + 1..self.len, at);
            self.len -= 1;
            if !above.is_empty() {
                self.insert(at, above);
            }
            if !below.is_empty() {
                self.insert(at, below);
                at += 1;
            }
        }
    }

    /// Takes the highest `count` contiguous pages that end at or below `limit` and start at or above 1 MiB.
    pub fn take_below(&mut self, limit: u64, count: u64) -> Option<u64> {
        let bytes = count * 4096;
        for span in self.spans[..self.len].iter().rev() {
            let end = span.end.min(limit);
            let start = end.saturating_sub(bytes);
            if start >= span.start.max(1 << 20) {
                self.remove(Span { start, end });
                return Some(start);
            }
        }
        None
    }

    fn insert(&mut self, at: usize, span: Span) {
        if self.len < MAX {
            self.spans.copy_within(at..self.len, at + 1);
            self.spans[at] = span;
            self.len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(regions: &Regions) -> Vec<(u64, u64)> {
        regions.iter().map(|span| (span.start >> 12, span.end >> 12)).collect()
    }

    fn pages(start: u64, end: u64) -> Span {
        Span { start: start << 12, end: end << 12 }
    }

    #[test]
    fn touching_and_overlapping_spans_become_one() {
        let mut regions = Regions::new();
        for (start, end) in [(20, 30), (0, 5), (5, 8), (28, 40), (60, 70)] {
            regions.add(pages(start, end));
        }
        assert_eq!(list(&regions), [(0, 8), (20, 40), (60, 70)]);
    }

    #[test]
    fn parts_of_pages_are_not_ram_and_what_touches_a_page_removes_it() {
        let mut regions = Regions::new();
        regions.add(Span { start: 0x1001, end: 0x9fff });
        assert_eq!(list(&regions), [(2, 9)]);
        regions.remove(Span { start: 0x4fff, end: 0x5001 });
        assert_eq!(list(&regions), [(2, 4), (6, 9)]);
    }

    #[test]
    fn pages_are_taken_from_the_top_below_the_limit_and_never_below_1_mib() {
        let mut regions = Regions::new();
        regions.add(pages(0, 0x80));
        regions.add(pages(0x100, 0x110));
        regions.add(pages(0x200, 0x210));
        assert_eq!(regions.take_below(0x20_8000, 2), Some(0x20_6000));
        assert_eq!(regions.take_below(0x20_0000, 16), Some(0x10_0000));
        assert_eq!(regions.take_below(0x20_0000, 1), None);
        assert_eq!(list(&regions), [(0, 0x80), (0x200, 0x206), (0x208, 0x210)]);
    }
}
