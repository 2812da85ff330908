//! XSAVE components: which a guest may use, and how large its save area is (SDM 1 13.4; leaf 0xd in SDM 2A CPUID).

use super::cpuid::Leaf;

/// x87 state. Always in XCR0.
pub(super) const X87: u64 = 1 << 0;
/// XMM registers.
pub(super) const SSE: u64 = 1 << 1;
/// Upper halves of the YMM registers.
pub(super) const YMM: u64 = 1 << 2;
/// The three components of AVX-512.
pub(super) const AVX512: u64 = 7 << 5;
/// PKRU.
pub(super) const PKRU: u64 = 1 << 9;

/// What a guest may have in XCR0 if host and features allow it.
pub(super) const KNOWN: u64 = X87 | SSE | YMM | AVX512 | PKRU;

/// Bytes of the legacy area and the header.
const HEADER_END: u32 = 576;

/// One component above SSE, as subleaf `bit` of leaf 0xd tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Component {
    pub(super) bit: u32,
    /// Bytes.
    pub(super) size: u32,
    /// In the standard format.
    pub(super) offset: u32,
    /// Begins at a multiple of 64 in the compacted format.
    pub(super) aligned: bool,
}

impl Component {
    pub(super) fn from_leaf(bit: u32, leaf: Leaf) -> Self {
        Self { bit, size: leaf[0], offset: leaf[1], aligned: leaf[2] & 2 != 0 }
    }

    pub(super) fn to_leaf(self) -> Leaf {
        [self.size, self.offset, u32::from(self.aligned) << 1, 0]
    }
}

/// Bytes of a standard-format area for these components of XCR0.
pub(super) fn standard_size(components: &[Component], xcr0: u64) -> u32 {
    let enabled = components.iter().filter(|c| xcr0 & (1 << c.bit) != 0);
    enabled.map(|c| c.offset.saturating_add(c.size)).fold(HEADER_END, u32::max)
}

/// Bytes of a compacted area for these components.
pub(super) fn compacted_size(components: &[Component], xcr0: u64) -> u32 {
    let enabled = components.iter().filter(|c| xcr0 & (1 << c.bit) != 0);
    enabled.fold(HEADER_END, |end, c| {
        let start = if c.aligned { end.next_multiple_of(64) } else { end };
        start.saturating_add(c.size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const YMM_PART: Component = Component { bit: 2, size: 256, offset: 576, aligned: false };
    const PKRU_PART: Component = Component { bit: 9, size: 8, offset: 2688, aligned: false };
    const ODD: Component = Component { bit: 5, size: 64, offset: 1088, aligned: true };

    #[test]
    fn an_area_is_as_large_as_its_last_enabled_component_needs() {
        let all = [YMM_PART, ODD, PKRU_PART];
        assert_eq!(standard_size(&all, X87 | SSE), 576);
        assert_eq!(standard_size(&all, X87 | SSE | YMM), 832);
        assert_eq!(standard_size(&all, X87 | PKRU), 2696);
    }

    #[test]
    fn a_compacted_area_has_no_gaps_but_alignment() {
        let all = [YMM_PART, PKRU_PART];
        assert_eq!(compacted_size(&all, X87 | PKRU), 584);
        assert_eq!(compacted_size(&all, X87 | SSE | YMM | PKRU), 840);
        assert_eq!(compacted_size(&[PKRU_PART, ODD], X87 | PKRU | 1 << 5), 640 + 64);
    }
}
