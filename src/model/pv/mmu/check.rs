//! Finds out whether what the records say of a domain's frames is true.

use crate::addr::Mfn;

/// Something that must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Of this frame.
    pub mfn: Mfn,
    /// At this entry, if it is one's.
    pub index: Option<usize>,
    /// What it is.
    pub what: &'static str,
}
