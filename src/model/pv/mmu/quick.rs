//! The commonest changes of entries of level 1: nothing is taken but perhaps a writable use of the frame that the entry names
//! already, nothing is freed, nobody is waited for.

use super::writable::put_type;
use super::{Entries, IO, entry};
use crate::addr::Mfn;
use crate::ids::DomId;
use crate::page::Type;

/// Writes an entry of a valid table of level 1 of the domain's, whose page tables' lock is held, if both the old and the
/// new one are present and differ in nothing but whether they allow writing, and in what does not matter at all. `owner`: whose
/// memory the entry may name. `false`, and nothing has changed, if it is anything else.
#[inline]
pub fn update_quickly<E: Entries>(
    entries: &mut E,
    domain: DomId,
    table: Mfn,
    index: usize,
    value: u64,
    owner: DomId,
) -> bool {
    let is_leaf_table = |frame: E::Record| {
        frame.type_word().is_valid_table(Type::L1) && frame.count().owner() == Some(domain) && index < E::ENTRIES
    };
    if !entries.frame(table).is_some_and(is_leaf_table) {
        return false;
    }
    let old = entries.read(table, index);
    if !entry::is_present(old & value) {
        return false;
    }
    // What was checked of the old entry holds for the new one.
    let stored = entry::stored(1, value);
    match (old ^ value) & !entry::HARMLESS {
        0 => entries.write(table, index, stored),
        entry::WRITABLE => return update_writable(entries, table, index, old, stored, owner),
        _ => return false,
    }
    true
}

/// The frame's reference stays; the writable use comes, or goes.
#[inline]
fn update_writable<E: Entries>(entries: &mut E, table: Mfn, index: usize, old: u64, stored: u64, owner: DomId) -> bool {
    let Some(frame) = entries.frame(entry::frame(old)) else { return false };
    if entry::is_writable(old) {
        // A device's memory has no uses.
        if frame.count().owner().is_none_or(|owner| owner == IO) {
            return false;
        }
        entries.write(table, index, stored);
        put_type(entries, frame, Type::Writable);
        return true;
    }
    let may_write = frame.count().owner() == Some(owner) && owner != IO && frame.get_type(Type::Writable).is_ok();
    if may_write {
        entries.write(table, index, stored);
    }
    may_write
}
