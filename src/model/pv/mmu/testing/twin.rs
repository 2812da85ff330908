//! The naive twin: what each record has to say, recomputed from what the domains hold and what their tables say.

use super::machine::OWN_ENTRY;
use super::{DEVICE, DOMAINS, ENTRIES, FRAMES, IO_FRAME, PRIVILEGED, SLOTS, World};
use crate::addr::Mfn;
use crate::ids::DomId;
use crate::page::Type;
use crate::pv::mmu::{HYPERVISOR, IO, descriptor, entry};
use alloc::format;
use alloc::string::String;

/// What was counted of a frame.
#[derive(Clone, Copy, Default)]
struct Counted {
    references: u32,
    /// Uses as a table, by level.
    tables: [u32; 5],
    writable: u32,
    descriptors: u32,
    is_pinned: bool,
}

impl Counted {
    fn use_as(&mut self, level: u8) {
        self.references += 1;
        self.tables[usize::from(level)] += 1;
    }
    fn uses(&self) -> (Type, u32) {
        let mut found = (Type::None, 0);
        let tables = (1..=4).map(|level| (Type::table(level).expect("1 to 4"), self.tables[usize::from(level)]));
        for (kind, uses) in tables.chain([(Type::Writable, self.writable), (Type::Descriptors, self.descriptors)]) {
            if uses > 0 {
                found = if found.1 == 0 { (kind, uses) } else { (Type::None, u32::MAX) };
            }
        }
        found
    }
}

fn require(is: bool, mfn: usize, what: &str) -> Result<(), String> {
    if is { Ok(()) } else { Err(format!("mfn {mfn}: {what}")) }
}

/// Everything that has to be so of a record.
#[inline]
fn require_all(all: &[bool], mfn: usize, what: impl Fn() -> String) -> Result<(), String> {
    if all.iter().all(|is| *is) { Ok(()) } else { Err(format!("mfn {mfn}: {}: {all:?}", what())) }
}

/// Compares each record with what it has to say.
pub fn compare(world: &World<'_>) -> Result<(), String> {
    let counted = count(world)?;
    for (mfn, frame) in world.machine.frames.iter().enumerate() {
        let (count, word, counted) = (frame.count(), frame.type_word(), &counted[mfn]);
        let (kind, uses) = counted.uses();
        let seen = || format!("{word:?}, {count:?}; counted {kind:?} x{uses}, {} references", counted.references);
        require(uses != u32::MAX, mfn, "in use as two things at once")?;
        let as_counted = [
            word.count() == uses,
            uses == 0 || word.kind() == kind,
            word.is_validated() == (uses > 0 && kind != Type::Writable),
            word.is_pinned() == counted.is_pinned,
            count.count() == counted.references,
        ];
        require_all(&as_counted, mfn, seen)?;
        require(world.machine.free >> mfn & 1 == u64::from(counted.references == 0), mfn, "free, or not")?;
        let is_open = world.machine.open[mfn];
        require(is_open.is_some() == (uses > 0 && kind == Type::L4), mfn, "open, or not")?;
        // Processors note nothing in tables of level 4 here, so that the partner is exactly the same.
        require(is_open.is_none_or(|partner| partner == world.machine.contents[mfn]), mfn, "the partner differs")?;
    }
    Ok(())
}

fn count(world: &World<'_>) -> Result<[Counted; FRAMES as usize], String> {
    let mut all = [Counted::default(); FRAMES as usize];
    let at = |mfn: &Mfn| mfn.raw() as usize;
    for (mfn, counted) in all.iter_mut().enumerate() {
        counted.references = (world.own >> mfn & 1) as u32;
    }
    for held in &world.held {
        for (mfn, level) in &held.pins {
            all[at(mfn)].use_as(*level);
            all[at(mfn)].is_pinned = true;
        }
        held.bases.iter().for_each(|mfn| all[at(mfn)].use_as(4));
        for mfn in &held.writable {
            all[at(mfn)].references += 1;
            all[at(mfn)].writable += 1;
        }
        for mfn in &held.descriptors {
            all[at(mfn)].references += 1;
            all[at(mfn)].descriptors += 1;
        }
        held.pages.iter().for_each(|mfn| all[at(mfn)].references += 1);
    }
    for level in (1..=4).rev() {
        for mfn in 0..FRAMES as usize {
            count_table(world, &mut all, mfn, level)?;
        }
    }
    for (mfn, counted) in all.iter().enumerate() {
        if counted.descriptors > 0 {
            let is_checked = |value: &u64| descriptor::checked(*value) == Some(*value);
            require(world.machine.contents[mfn].iter().all(is_checked), mfn, "a descriptor that was not checked")?;
        }
    }
    Ok(all)
}

/// Adds what the entries of a frame take, if it is a table of this level.
fn count_table(world: &World<'_>, all: &mut [Counted], mfn: usize, level: u8) -> Result<(), String> {
    let frame = &world.machine.frames[mfn];
    let word = frame.type_word();
    let is_used = all[mfn].tables[usize::from(level)] > 0;
    let is_partial = word.is_partial() && word.kind().level() == Some(level);
    if !is_used && !is_partial {
        return Ok(());
    }
    require(is_used != is_partial, mfn, "partial, and in use")?;
    let owner = frame.count().owner().unwrap_or_default();
    require(DOMAINS.contains(&owner), mfn, "a table of nobody's")?;
    let entries = if is_used { ENTRIES } else { frame.progress() };
    // What keeps a partial table is a reference of its own.
    all[mfn].references += u32::from(is_partial);
    for (index, &value) in world.machine.contents[mfn][..entries].iter().enumerate() {
        if level == 4 && SLOTS.contains(&index) {
            require(is_partial || value == OWN_ENTRY, mfn, "the hypervisor's entries are gone")?;
        } else if entry::is_present(value) {
            count_entry(world, all, mfn, level, owner, value)?;
        }
    }
    Ok(())
}

fn count_entry(
    world: &World<'_>,
    all: &mut [Counted],
    mfn: usize,
    level: u8,
    owner: DomId,
    value: u64,
) -> Result<(), String> {
    let target = entry::frame(value);
    let noted = entry::ACCESSED | entry::DIRTY;
    require(entry::check(level, value, owner == PRIVILEGED).is_ok(), mfn, "an entry with forbidden bits")?;
    require(entry::stored(level, value & !noted) == value & !noted, mfn, "an entry that is not as it is stored")?;
    let whose = world.machine.frame(target).and_then(|frame| frame.count().owner());
    let is_device = target == DEVICE || target == IO_FRAME;
    let is_allowed = match (level, whose) {
        (1, None | Some(IO)) => owner == PRIVILEGED && is_device,
        (_, Some(HYPERVISOR) | None) => false,
        (1, Some(whose)) => whose == owner || owner == PRIVILEGED,
        (_, Some(whose)) => whose == owner,
    };
    require_all(&[is_allowed], mfn, || format!("an entry that leads to {target}, of {whose:?}"))?;
    let is_uncached = value & entry::CACHE != 0;
    require(level != 1 || is_device || !is_uncached, mfn, "memory that is not cached")?;
    if is_device {
        return Ok(());
    }
    let counted = &mut all[target.raw() as usize];
    match level {
        1 => {
            counted.references += 1;
            counted.writable += u32::from(entry::is_writable(value));
        }
        _ => counted.use_as(level - 1),
    }
    Ok(())
}
