//! A domain's grant table as far as a guest needs it to set itself up: how many frames it has, may have, and which.
//!
//! The frames themselves belong to the caller, which allocates zeroed ones and hands their numbers in. Entries, mapping
//! and copying are not here. Source: `xen/include/public/grant_table.h`; the errors are those of Xen 4.17.

use crate::addr::Mfn;
use abi::Errno;
use abi::grant_table as gnt;
use alloc::vec::Vec;

/// The frames of a domain's table if its configuration does not say more or less (`max_grant_frames`).
pub const DEFAULT_MAX_FRAMES: u32 = 64;
/// Version 1 entries in a frame: 8 bytes each.
pub const ENTRIES_PER_FRAME: u32 = 512;

/// A `GNTST_*` other than okay: it goes into the argument's `status`, and the call itself succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(i16);

impl Status {
    /// More frames than the domain may have, or no memory for them (`GNTST_general_error`).
    pub const GENERAL_ERROR: Status = Status(gnt::GNTST_GENERAL_ERROR);
    /// No such domain (`GNTST_bad_domain`).
    pub const BAD_DOMAIN: Status = Status(gnt::GNTST_BAD_DOMAIN);
    /// The caller has no right over that domain (`GNTST_permission_denied`).
    pub const PERMISSION_DENIED: Status = Status(gnt::GNTST_PERMISSION_DENIED);
    /// The argument names memory that is not there (`GNTST_bad_virt_addr`).
    pub const BAD_VIRT_ADDR: Status = Status(gnt::GNTST_BAD_VIRT_ADDR);

    /// The header's number.
    pub const fn raw(self) -> i16 {
        self.0
    }
}

/// A domain's table. It has at least one frame once [`GrantTable::grow`] was called for the first time.
#[derive(Debug)]
pub struct GrantTable {
    frames: Vec<Mfn>,
    max_frames: u32,
}

impl GrantTable {
    /// A table without frames that may have `max_frames`; zero counts as one, as a table has one from the start.
    pub fn new(max_frames: u32) -> Self {
        Self { frames: Vec::new(), max_frames: max_frames.max(1) }
    }

    /// `GNTTABOP_query_size`: frames in use and frames allowed.
    pub fn query_size(&self) -> (u32, u32) {
        (self.frames.len() as u32, self.max_frames)
    }

    /// How many frames the caller must hand to [`GrantTable::grow`] before the table has `nr_frames`.
    ///
    /// For `GNTTABOP_setup_table`. A table never shrinks.
    pub fn missing(&self, nr_frames: u32) -> Result<u32, Status> {
        if nr_frames > self.max_frames {
            return Err(Status::GENERAL_ERROR);
        }
        Ok(nr_frames.max(1).saturating_sub(self.frames.len() as u32))
    }

    /// As [`GrantTable::missing`], before frame `index` is mapped by `XENMEM_add_to_physmap`: `EINVAL` past the end.
    pub fn missing_for_index(&self, index: u64) -> Result<u32, Errno> {
        let index = u32::try_from(index).ok().filter(|&index| index < self.max_frames).ok_or(Errno::EINVAL)?;
        self.missing(index + 1).map_err(|_| Errno::EINVAL)
    }

    /// Adds a frame at the end, zeroed before. Gives it back where the table is full or memory is short.
    pub fn grow(&mut self, frame: Mfn) -> Result<(), Mfn> {
        if self.frames.len() as u64 >= u64::from(self.max_frames) || self.frames.try_reserve(1).is_err() {
            return Err(frame);
        }
        self.frames.push(frame);
        Ok(())
    }

    /// The frame of this index.
    pub fn frame(&self, index: u64) -> Option<Mfn> {
        self.frames.get(usize::try_from(index).ok()?).copied()
    }

    /// All frames in order, for `setup_table` and for the domain's end.
    pub fn frames(&self) -> &[Mfn] {
        &self.frames
    }

    /// `GNTTABOP_get_version`.
    pub fn version(&self) -> u32 {
        1
    }

    /// `GNTTABOP_set_version`: version 1 is what there is, 2 is not built (`ENOSYS`), others are unknown (`EINVAL`).
    /// The argument's `version` is filled with [`GrantTable::version`] even then.
    pub fn set_version(&self, version: u32) -> Result<(), Errno> {
        match version {
            1 => Ok(()),
            2 => Err(Errno::ENOSYS),
            _ => Err(Errno::EINVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_frames(count: u64, max: u32) -> GrantTable {
        let mut table = GrantTable::new(max);
        (0..count).for_each(|n| table.grow(Mfn::new(100 + n)).expect("it may have them"));
        table
    }

    #[test]
    fn a_table_tells_its_size_and_its_limit() {
        assert_eq!(with_frames(3, 64).query_size(), (3, 64));
    }

    #[test]
    fn a_table_grows_to_what_is_asked_and_never_shrinks() {
        let table = with_frames(3, 64);
        assert_eq!([table.missing(5), table.missing(3), table.missing(1)], [Ok(2), Ok(0), Ok(0)]);
        assert_eq!(GrantTable::new(64).missing(0), Ok(1));
    }

    #[test]
    fn more_frames_than_allowed_is_a_general_error() {
        assert_eq!(with_frames(1, 64).missing(65), Err(Status::GENERAL_ERROR));
        assert_eq!(with_frames(1, 64).missing(u32::MAX), Err(Status::GENERAL_ERROR));
        assert_eq!(with_frames(2, 2).grow(Mfn::new(9)), Err(Mfn::new(9)));
        assert_eq!(Status::GENERAL_ERROR.raw(), -1);
    }

    #[test]
    fn mapping_a_frame_by_index_grows_the_table_up_to_its_limit() {
        let table = with_frames(1, 64);
        assert_eq!(table.missing_for_index(0), Ok(0));
        assert_eq!(table.missing_for_index(63), Ok(63));
        assert_eq!(table.missing_for_index(64), Err(Errno::EINVAL));
        assert_eq!(table.missing_for_index(u64::MAX), Err(Errno::EINVAL));
    }

    #[test]
    fn frames_keep_their_index() {
        let table = with_frames(3, 64);
        assert_eq!(table.frame(2), Some(Mfn::new(102)));
        assert_eq!([table.frame(3), table.frame(u64::MAX)], [None, None]);
        assert_eq!(table.frames().len(), 3);
    }

    #[test]
    fn version_two_is_not_built_and_others_are_unknown() {
        let table = with_frames(1, 64);
        assert_eq!(table.set_version(1), Ok(()));
        assert_eq!(table.set_version(2), Err(Errno::ENOSYS));
        assert_eq!([table.set_version(0), table.set_version(3)], [Err(Errno::EINVAL); 2]);
        assert_eq!(table.version(), 1);
    }
}
