//! What a guest may do, what it may not, and that nothing is ever wrong in between.

mod entries;
mod escapes;
mod partial;
mod property;

use super::testing::{Answer, ENTRIES, OTHER, Operation, PRIVILEGED, World, entry};
use super::{Stop, entry as bits};
use crate::addr::Mfn;
use crate::ids::DomId;
use abi::errno::Errno;

const READ: u64 = bits::PRESENT | bits::USER;
const WRITE: u64 = READ | bits::WRITABLE;

const EINVAL: Answer = Answer::Refused(Errno::EINVAL);
const EBUSY: Answer = Answer::Refused(Errno::EBUSY);
const EPERM: Answer = Answer::Refused(Errno::EPERM);

/// The guest of [`World::with_guests`]: its tables, and the first frame that it has written to.
const L4: u64 = 0;
const L3: u64 = 1;
const L2: u64 = 2;
const L1: u64 = 3;
const DATA: u64 = 4;
/// Frames that nothing refers to.
const UNUSED: u64 = 8;
/// The first frame of the other domain, its table of level 1, and its first memory.
const OTHERS: u64 = 18;
const OTHERS_L1: u64 = 21;
const OTHERS_DATA: u64 = 22;

fn update_by(world: &mut World<'_>, domain: DomId, table: u64, index: usize, value: u64, foreign: DomId) -> Answer {
    world.run(domain, Operation::Update { table: Mfn::new(table), index, value, keep_ad: false, foreign })
}

fn update(world: &mut World<'_>, table: u64, index: usize, value: u64) -> Answer {
    update_by(world, PRIVILEGED, table, index, value, PRIVILEGED)
}

fn pin(world: &mut World<'_>, mfn: u64, level: u8) -> Answer {
    world.run(PRIVILEGED, Operation::Pin { mfn: Mfn::new(mfn), level })
}

fn unpin(world: &mut World<'_>, mfn: u64) -> Answer {
    world.run(PRIVILEGED, Operation::Unpin { mfn: Mfn::new(mfn) })
}

fn release(world: &mut World<'_>, mfn: u64) -> Answer {
    world.run(PRIVILEGED, Operation::Release { mfn: Mfn::new(mfn) })
}

fn finish(world: &mut World<'_>) -> Answer {
    world.run(PRIVILEGED, Operation::Finish)
}

/// Fills a frame as a guest does before it makes a page table of it.
fn fill(world: &mut World<'_>, mfn: u64, entries: &[(usize, u64)]) {
    world.machine.contents[mfn as usize] = [0; ENTRIES];
    for (index, value) in entries {
        world.machine.contents[mfn as usize][*index] = *value;
    }
}

fn references(world: &World<'_>, mfn: u64) -> u32 {
    world.machine.frames[mfn as usize].count().count()
}
