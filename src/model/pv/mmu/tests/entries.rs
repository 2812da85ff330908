//! What an update of an entry stores, and what it takes and gives back.

use super::*;
use crate::pv::mmu::Written;
use crate::pv::mmu::testing::{DEVICE, FORBIDDEN, IO_FRAME, frames};

fn value(world: &World<'_>, table: u64, index: usize) -> u64 {
    world.machine.contents[table as usize][index]
}

fn writable_uses(world: &World<'_>, mfn: u64) -> u32 {
    world.machine.frames[mfn as usize].type_word().count()
}

#[test]
fn an_entry_takes_a_reference_and_a_use_and_gives_back_those_of_the_one_before() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    assert_eq!((references(&world, DATA), writable_uses(&world, DATA)), (2, 1));
    assert_eq!(update(&mut world, L1, 5, entry(DATA, WRITE)), Answer::Done);
    assert_eq!((references(&world, DATA), writable_uses(&world, DATA)), (3, 2));
    assert_eq!((references(&world, 5), writable_uses(&world, 5)), (1, 0));
    assert_eq!(update(&mut world, L1, 5, entry(DATA, READ)), Answer::Done);
    assert_eq!((references(&world, DATA), writable_uses(&world, DATA)), (3, 1));
    assert_eq!(update(&mut world, L1, 5, entry(DATA, WRITE)), Answer::Done);
    assert_eq!((references(&world, DATA), writable_uses(&world, DATA)), (3, 2));
    assert_eq!(update(&mut world, L1, 5, 0xfff0), Answer::Done);
    assert_eq!((references(&world, DATA), writable_uses(&world, DATA)), (2, 1));
    assert_eq!(value(&world, L1, 5), 0xfff0);
}

#[test]
fn what_the_processor_has_noted_is_kept_where_that_is_asked_for() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    let table = Mfn::new(L1);
    let noted = Operation::Note { table, index: 5, bits: bits::DIRTY };
    for (keep_ad, bits, new) in [(true, bits::DIRTY, READ), (false, 0, READ), (true, bits::DIRTY, WRITE)] {
        world.run(PRIVILEGED, noted);
        let operation = Operation::Update { table, index: 5, value: entry(5, new), keep_ad, foreign: PRIVILEGED };
        assert_eq!(world.run(PRIVILEGED, operation), Answer::Done);
        assert_eq!(value(&world, L1, 5), entry(5, new | bits));
    }
}

#[test]
fn a_device_is_mapped_by_who_may_as_he_wants_it_cached() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    let uncached = WRITE | 1 << 4;
    for device in [DEVICE, IO_FRAME] {
        let device = device.raw();
        assert_eq!(update(&mut world, L1, 5, entry(device, uncached)), Answer::Done);
        assert_eq!(value(&world, L1, 5), entry(device, uncached));
        assert_eq!(update_by(&mut world, PRIVILEGED, L1, 5, entry(device, READ), crate::pv::mmu::IO), Answer::Done);
        assert_eq!(update_by(&mut world, OTHER, OTHERS_L1, 5, entry(device, WRITE), OTHER), EPERM);
        assert_eq!(update_by(&mut world, OTHER, OTHERS_L1, 5, entry(device, uncached), OTHER), EINVAL);
        assert_eq!(update(&mut world, L2, 1, entry(device, WRITE)), EINVAL);
    }
    assert_eq!(update(&mut world, L1, 5, entry(FORBIDDEN.raw(), READ)), EPERM);
    assert_eq!(update(&mut world, L1, 5, bits::ADDRESS | READ), EINVAL);
}

#[test]
fn a_store_that_faulted_is_done_and_one_that_compares_may_differ() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    let old = entry(5, WRITE);
    let write = |world: &mut World<'_>, table, old, value| {
        world.mmu(PRIVILEGED, |mmu| mmu.emulated_write(Mfn::new(table), 5, old, value))
    };
    assert_eq!(write(&mut world, L1, Some(0), 0), Ok(Written::Differs(old)));
    assert_eq!(write(&mut world, L1, Some(old), entry(5, bits::PRESENT)), Ok(Written::Done));
    let kernel = entry(5, READ | bits::GUEST_KERNEL);
    assert_eq!(value(&world, L1, 5), kernel);
    assert_eq!(write(&mut world, L1, Some(kernel), entry(L2, WRITE)), Err(Stop::Refused(Errno::EBUSY)));
    assert_eq!(write(&mut world, L1, None, entry(6, WRITE)), Ok(Written::Done));
    assert_eq!(write(&mut world, L2, None, 0), Err(Stop::Refused(Errno::EINVAL)));
    assert_eq!(write(&mut world, DATA, None, 0), Err(Stop::Refused(Errno::EINVAL)));
    world.end(false);
}

#[test]
fn plain_memory_can_be_written_by_an_update_and_descriptors_cannot() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    for mfn in [UNUSED, DATA] {
        assert_eq!(update(&mut world, mfn, 3, 0x1234_5678), Answer::Done);
        assert_eq!(value(&world, mfn, 3), 0x1234_5678);
        fill(&mut world, mfn, &[]);
    }
    assert_eq!(world.run(PRIVILEGED, Operation::GetDescriptors { mfn: Mfn::new(UNUSED) }), Answer::Done);
    assert_eq!(update(&mut world, UNUSED, 3, 0), EINVAL);
    let flat = 0x00cf_9300_0000_ffff;
    let set = |world: &mut World<'_>, mfn, offset, value| {
        world.run(PRIVILEGED, Operation::UpdateDescriptor { mfn: Mfn::new(mfn), offset, value })
    };
    assert_eq!(set(&mut world, UNUSED, 24, flat), Answer::Done);
    assert_eq!(value(&world, UNUSED, 3), flat | 3 << 45);
    assert_eq!(set(&mut world, DATA, 24, flat), Answer::Done);
    assert_eq!(set(&mut world, UNUSED, 25, flat), EINVAL);
    assert_eq!(set(&mut world, UNUSED, 64, flat), EINVAL);
    assert_eq!(set(&mut world, L1, 24, flat), EINVAL);
    assert_eq!(set(&mut world, UNUSED, 24, 0x0000_8900_0000_0067), EINVAL);
    // Nor is it mapped to be written, nor made of what is.
    assert_eq!(update(&mut world, L1, 5, entry(UNUSED, WRITE)), EBUSY);
    assert_eq!(update(&mut world, L1, 5, entry(UNUSED, READ)), Answer::Done);
    assert_eq!(world.run(PRIVILEGED, Operation::GetDescriptors { mfn: Mfn::new(DATA) }), EINVAL);
}

#[test]
fn the_domains_own_use_keeps_a_frame_from_becoming_a_table() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    let mfn = Mfn::new(UNUSED);
    assert_eq!(world.run(PRIVILEGED, Operation::GetWritable { mfn, owner: PRIVILEGED }), Answer::Done);
    assert_eq!(pin(&mut world, UNUSED, 1), EINVAL);
    assert_eq!(world.run(PRIVILEGED, Operation::PutWritable { which: 0 }), Answer::Done);
    assert_eq!(pin(&mut world, UNUSED, 1), Answer::Done);
    assert_eq!(world.run(PRIVILEGED, Operation::GetWritable { mfn, owner: PRIVILEGED }), EBUSY);
}
