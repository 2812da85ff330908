//! Finds out whether what the record of one frame says can be true, by the frame's entries and what they lead to.
//!
//! A debug option has it done for the frames that an operation touched. [`super::sweep`] does it for all of a
//! domain's, and counts.

use super::{HYPERVISOR, IO, Memory, descriptor, entry};
use crate::addr::Mfn;
use crate::ids::DomId;
use crate::page::{Type, TypeWord};
use core::fmt;

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

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}, entry {index}: {}", self.mfn, self.what),
            None => write!(f, "{}: {}", self.mfn, self.what),
        }
    }
}

/// Checks a frame of `domain`, whose page tables' lock is held, and calls `visit` for each entry that has references,
/// with the level of its table. Frames of others are left alone.
pub fn check_frame<M: Memory>(
    memory: &M,
    domain: DomId,
    mfn: Mfn,
    mut visit: impl FnMut(u8, u64),
) -> Result<(), Violation> {
    let Some(frame) = memory.frame(mfn) else { return Ok(()) };
    let (count, word) = (frame.count(), frame.type_word());
    if count.owner() != Some(domain) {
        return Ok(());
    }
    let violation = |what| Violation { mfn, index: None, what };
    check_word(word).map_err(violation)?;
    let needed = u64::from(word.count()) + u64::from(word.is_partial()) + u64::from(count.is_allocated());
    // Uses come and go on other CPUs; what was there at both times is compared.
    if u64::from(count.count()) < needed && frame.type_word() == word && frame.count() == count {
        return Err(violation("uses without references"));
    }
    let entries = match (word.is_validated(), word.is_partial()) {
        (true, _) => M::ENTRIES,
        (_, true) => frame.progress(),
        _ => 0,
    };
    if entries > M::ENTRIES {
        return Err(violation("more entries than there are"));
    }
    for index in 0..entries {
        let value = memory.read(mfn, index);
        let violation = |what| Violation { mfn, index: Some(index), what };
        let Some(level) = word.kind().level() else {
            if descriptor::checked(value) != Some(value) {
                return Err(violation("a descriptor that was not checked"));
            }
            continue;
        };
        let is_slot = level == 4 && (M::FIRST_SLOT..=M::LAST_SLOT).contains(&index);
        if entry::is_present(value) && !is_slot {
            check_entry(memory, domain, level, value).map_err(violation)?;
            visit(level, value);
        }
    }
    Ok(())
}

fn check_word(word: TypeWord) -> Result<(), &'static str> {
    let (kind, is_used) = (word.kind(), word.count() > 0);
    let is_checked = kind.is_table() || kind == Type::Descriptors;
    match (word.is_validated(), word.is_partial()) {
        (true, true) => Err("validated and partial"),
        (true, _) if !is_used || !is_checked => Err("validated, but nothing that is"),
        (_, true) if is_used || !is_checked => Err("partial, but in use or nothing that can be"),
        (false, false) if is_used && kind != Type::Writable => Err("in use, but not validated"),
        (false, _) if word.is_pinned() => Err("pinned, but not validated"),
        _ => Ok(()),
    }
}

fn check_entry<M: Memory>(memory: &M, domain: DomId, level: u8, value: u64) -> Result<(), &'static str> {
    entry::check(level, value, true).map_err(|_| "forbidden bits")?;
    if entry::stored(level, value) != value {
        return Err("not as it is stored");
    }
    let target = entry::frame(value);
    let record = memory.frame(target);
    let owner = record.and_then(|frame| frame.count().owner());
    match (level, record, owner) {
        (_, _, Some(HYPERVISOR)) => Err("leads to the hypervisor's memory"),
        (1, _, None | Some(IO)) if memory.may_map_device(target) => Ok(()),
        (1, Some(frame), Some(_)) => {
            let word = frame.type_word();
            let is_writable = word.kind() == Type::Writable && word.count() > 0;
            if entry::is_writable(value) && !is_writable { Err("can be written, but is not writable") } else { Ok(()) }
        }
        (2..=4, Some(frame), Some(owner)) if owner == domain => {
            let is_table = Type::table(level - 1).is_some_and(|kind| frame.type_word().is_valid_table(kind));
            if is_table { Ok(()) } else { Err("leads to no table of the level below") }
        }
        _ => Err("leads to what the domain must not reach"),
    }
}
