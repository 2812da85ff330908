//! For each known way in which guests have got out of Xen by its page types, the test that would have caught it.

use super::*;
use crate::page::{CountWord, Frame, TypeWord};
use crate::pv::mmu::testing::{HYPERVISORS, SLOTS, frames};

/// XSA-182 and its kin: a flag of an upper entry makes a large page that covers page tables.
#[test]
fn no_large_page_gives_write_access_to_a_page_table() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    for (table, target) in [(L2, L1), (L3, L2), (L4, L3)] {
        // In place, as a change of flags alone, and as a new entry.
        for index in [0, 1] {
            assert_eq!(update(&mut world, table, index, entry(target, WRITE | bits::LARGE)), EINVAL);
        }
    }
    fill(&mut world, UNUSED, &[(0, entry(0, WRITE | bits::LARGE))]);
    assert_eq!(pin(&mut world, UNUSED, 2), EINVAL);
    assert_eq!(pin(&mut world, UNUSED, 3), EINVAL);
    // What an entry of level 1 has at that place is how memory is cached, and is not kept.
    assert_eq!(update(&mut world, L1, 5, entry(UNUSED, WRITE | bits::LARGE)), Answer::Done);
    assert_eq!(world.machine.contents[L1 as usize][5], entry(UNUSED, WRITE));
}

#[test]
fn a_page_table_has_no_second_mapping_that_can_be_written() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    for table in [L1, L2, L3, L4] {
        assert_eq!(update(&mut world, L1, 5, entry(table, WRITE)), EBUSY);
        assert_eq!(update(&mut world, L1, 5, entry(table, READ)), Answer::Done);
        // Writing is asked for in place.
        assert_eq!(update(&mut world, L1, 5, entry(table, WRITE)), EBUSY);
    }
    // The other order: what can be written becomes no page table, not even if it is one of its own entries.
    fill(&mut world, UNUSED, &[(3, entry(UNUSED, WRITE))]);
    assert_eq!(pin(&mut world, UNUSED, 1), EBUSY);
    assert_eq!(pin(&mut world, DATA, 1), EINVAL);
    assert_eq!(update(&mut world, L2, 1, entry(DATA, WRITE)), EINVAL);
    // One table may stand in two places.
    assert_eq!(update(&mut world, L2, 1, entry(L1, WRITE)), Answer::Done);
    assert_eq!(update(&mut world, L2, 0, 0), Answer::Done);
    assert_eq!(update(&mut world, L1, 5, entry(L1, WRITE)), EBUSY);
}

/// XSA-240: tables that lead to themselves or to others of their own level.
#[test]
fn no_table_leads_to_itself_or_to_one_of_its_own_level() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    for (table, level) in [(L4, 4), (L3, 3), (L2, 2)] {
        for flags in [READ, WRITE] {
            assert_eq!(update(&mut world, table, 1, entry(table, flags)), EINVAL);
        }
        fill(&mut world, UNUSED, &[(0, entry(UNUSED, READ))]);
        assert_eq!(pin(&mut world, UNUSED, level), EINVAL);
        fill(&mut world, UNUSED, &[(0, entry(table, READ))]);
        assert_eq!(pin(&mut world, UNUSED, level), EINVAL);
    }
    // A circle through all levels.
    fill(&mut world, UNUSED, &[(1, entry(UNUSED + 1, WRITE))]);
    fill(&mut world, UNUSED + 1, &[(1, entry(UNUSED + 2, WRITE))]);
    fill(&mut world, UNUSED + 2, &[(1, entry(UNUSED, WRITE))]);
    assert_eq!(pin(&mut world, UNUSED, 4), EINVAL);
    assert_eq!(finish(&mut world), Answer::Done);
    assert_eq!([0, 1, 2].map(|n| references(&world, UNUSED + n)), [1; 3]);
}

/// XSA-273's neighbours and XSA-286: a table of one level is taken for one of another.
#[test]
fn a_table_of_level_2_is_none_of_level_3_nor_the_other_way_round() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    assert_eq!(update(&mut world, L4, 1, entry(L2, WRITE)), EINVAL);
    assert_eq!(update(&mut world, L3, 1, entry(L3, WRITE)), EINVAL);
    assert_eq!(update(&mut world, L3, 1, entry(L1, WRITE)), EINVAL);
    assert_eq!(update(&mut world, L2, 1, entry(L2, WRITE)), EINVAL);
    for level in [1, 2, 4] {
        assert_eq!(pin(&mut world, L3, level), EINVAL);
    }
    // One frame in the places of both, in the table that is being validated.
    fill(&mut world, UNUSED, &[]);
    fill(&mut world, UNUSED + 1, &[(0, entry(UNUSED, WRITE))]);
    fill(&mut world, UNUSED + 2, &[(0, entry(UNUSED + 1, WRITE)), (1, entry(UNUSED, WRITE))]);
    assert_eq!(pin(&mut world, UNUSED + 2, 4), EINVAL);
    assert_eq!(finish(&mut world), Answer::Done);
    assert_eq!([0, 1, 2].map(|n| references(&world, UNUSED + n)), [1; 3]);
}

/// XSA-299 and others: what is left half done is used as if it were done, or given back twice.
#[test]
fn a_table_that_is_validated_in_part_is_none() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    for index in 0..ENTRIES {
        world.machine.contents[UNUSED as usize][index] = entry(UNUSED + 1, READ);
    }
    world.machine.interrupts = 1;
    assert_eq!(pin(&mut world, UNUSED, 1), Answer::Again);
    let word = world.machine.frames[UNUSED as usize].type_word();
    assert!(word.is_partial() && word.count() == 0, "{word:?}");
    // No other may use it, without the lock, nor write to it.
    assert!(world.machine.frames[UNUSED as usize].get_type(crate::page::Type::Writable).is_err());
    // It is mapped to be written: what it has taken is given back first, bit by bit.
    let map = |world: &mut World<'_>| update(world, L1, 5, entry(UNUSED, WRITE));
    assert_eq!(map(&mut world), Answer::Again);
    while map(&mut world) == Answer::Again {}
    assert_eq!(references(&world, UNUSED + 1), 1);
    // Now it cannot become a table, and what it holds is anything.
    world.machine.contents[UNUSED as usize][0] = entry(HYPERVISORS.raw(), WRITE);
    assert_eq!(pin(&mut world, UNUSED, 1), EINVAL);
    // After that it is looked at from the first entry on.
    assert_eq!(update(&mut world, L1, 5, 0), Answer::Done);
    assert_eq!(pin(&mut world, UNUSED, 1), EBUSY);
}

/// XSA-212, XSA-280 and the like: a frame is given away while something still refers to it.
#[test]
fn a_frame_that_is_given_up_stays_until_nothing_refers_to_it() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    for mfn in [DATA, L1, L4] {
        assert_eq!(release(&mut world, mfn), Answer::Done);
        assert_eq!(world.machine.free >> mfn & 1, 0, "{mfn} is in use");
        // Once.
        assert_eq!(release(&mut world, mfn), EINVAL);
    }
    // It cannot be had by the other domain, whatever that names it as.
    assert_eq!(update_by(&mut world, OTHER, OTHERS_L1, 5, entry(DATA, READ), OTHER), EBUSY);
    assert_eq!(update_by(&mut world, OTHER, OTHERS_L1, 5, entry(DATA, READ), PRIVILEGED), EPERM);
    assert_eq!(update_by(&mut world, OTHER, DATA, 0, 0, OTHER), EINVAL);
    // The last entry that names it frees it, and not before no processor remembers it.
    assert_eq!(update(&mut world, L1, DATA as usize, 0), Answer::Done);
    assert_eq!(world.machine.free >> DATA & 1, 1);
    // Or else giving it up does, when all that is left is in the memory of processors.
    assert_eq!(update(&mut world, L1, 5, entry(UNUSED, READ)), Answer::Done);
    world.run(PRIVILEGED, Operation::Flush);
    assert_eq!(update(&mut world, L1, 5, 0), Answer::Done);
    let before = world.machine.flushes[0];
    assert_eq!(release(&mut world, UNUSED), Answer::Done);
    assert_eq!((world.machine.free >> UNUSED & 1, world.machine.flushes[0]), (1, before + 1));
}

/// XSA-345's kin: processors still write through what was a mapping when the frame has become a page table.
#[test]
fn a_frame_changes_its_type_only_after_processors_have_forgotten_the_old_one() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    fill(&mut world, DATA, &[]);
    let flushes = |world: &World<'_>| world.machine.flushes[0];
    let before = flushes(&world);
    assert_eq!(update(&mut world, L1, DATA as usize, entry(DATA, READ)), Answer::Done);
    assert_eq!(world.run(PRIVILEGED, Operation::Store { mfn: Mfn::new(DATA), index: 0, value: 0 }), Answer::Done);
    assert_eq!(flushes(&world), before);
    assert_eq!(pin(&mut world, DATA, 1), Answer::Done);
    assert_eq!(flushes(&world), before + 1);
    let store = Operation::Store { mfn: Mfn::new(DATA), index: 0, value: entry(HYPERVISORS.raw(), WRITE) };
    assert_eq!(world.run(PRIVILEGED, store), Answer::Nothing);
    // And back: a walk may still go through the table.
    assert_eq!(update(&mut world, L2, 1, entry(DATA, WRITE)), Answer::Done);
    assert_eq!(update(&mut world, L2, 1, 0), Answer::Done);
    assert_eq!(unpin(&mut world, DATA), Answer::Done);
    assert_eq!(finish(&mut world), Answer::Done);
    assert_eq!(flushes(&world), before + 1);
    assert_eq!(update(&mut world, L1, DATA as usize, entry(DATA, WRITE)), Answer::Done);
    assert_eq!(flushes(&world), before + 2);
    // A flush that the guest has asked for meanwhile is as good.
    assert_eq!(update(&mut world, L1, DATA as usize, entry(DATA, READ)), Answer::Done);
    assert_eq!(world.run(PRIVILEGED, Operation::Flush), Answer::Done);
    assert_eq!(pin(&mut world, DATA, 1), Answer::Done);
    assert_eq!(flushes(&world), before + 3);
}

#[test]
fn what_another_domain_had_mapped_is_forgotten_by_its_processors_too() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    assert_eq!(update_by(&mut world, PRIVILEGED, L1, 5, entry(OTHERS_DATA, WRITE), OTHER), Answer::Done);
    assert_eq!(update(&mut world, L1, 5, 0), Answer::Done);
    assert_eq!(update_by(&mut world, OTHER, OTHERS_L1, 4, 0, OTHER), Answer::Done);
    fill(&mut world, OTHERS_DATA, &[]);
    let before = world.machine.flushes;
    assert_eq!(world.run(OTHER, Operation::Pin { mfn: Mfn::new(OTHERS_DATA), level: 1 }), Answer::Done);
    assert_eq!(world.machine.flushes, before.map(|flushes| flushes + 1));
}

/// XSA-299 again: the number of uses overflows and comes to be zero.
#[test]
fn counts_do_not_overflow() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    let table = &records[L1 as usize];
    let (word, count) = (table.type_word(), table.count());
    assert!(table.exchange_type(word, TypeWord::from_raw(word.raw() | 0xffff_ffff)));
    let answer = world.mmu(PRIVILEGED, |mmu| mmu.update(Mfn::new(L2), 1, entry(L1, WRITE), false, PRIVILEGED));
    assert_eq!(answer, Err(Stop::Refused(Errno::EINVAL)));
    assert_eq!(table.count(), count, "the reference that goes with the use is given back");
    let full = table.type_word();
    assert!(table.exchange_type(full, word));
    assert_eq!(update(&mut world, L2, 1, entry(L1, WRITE)), Answer::Done);
    // References likewise.
    let full = CountWord::from_raw(count.raw() | 0xffff_ffff);
    assert!(full.get().is_err());
    assert!(Frame::new().get().is_err());
}

#[test]
fn the_hypervisors_entries_and_frames_are_out_of_reach() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    for index in SLOTS {
        for value in [0, entry(L3, WRITE), entry(UNUSED, READ)] {
            assert_eq!(update(&mut world, L4, index, value), EINVAL);
        }
    }
    for owner in [PRIVILEGED, crate::pv::mmu::HYPERVISOR, crate::pv::mmu::IO] {
        let value = entry(HYPERVISORS.raw(), READ);
        assert_eq!(update_by(&mut world, PRIVILEGED, L1, 5, value, owner), EBUSY);
    }
    assert_eq!(pin(&mut world, HYPERVISORS.raw(), 1), EINVAL);
    let get = Operation::GetWritable { mfn: HYPERVISORS, owner: crate::pv::mmu::HYPERVISOR };
    assert_eq!(world.run(PRIVILEGED, get), EINVAL);
    // What a guest has written at the hypervisor's places means nothing.
    let slot = *SLOTS.start();
    fill(&mut world, UNUSED, &[(slot, entry(HYPERVISORS.raw(), WRITE | bits::LARGE))]);
    assert_eq!(pin(&mut world, UNUSED, 4), Answer::Done);
    assert_eq!(unpin(&mut world, UNUSED), Answer::Done);
    assert_eq!(finish(&mut world), Answer::Done);
    assert_eq!(world.machine.contents[UNUSED as usize][slot], 0);
}

#[test]
fn a_foreign_frame_is_mapped_by_who_may_and_as_it_was_given() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    assert_eq!(update_by(&mut world, OTHER, OTHERS_L1, 5, entry(DATA, READ), PRIVILEGED), EPERM);
    assert_eq!(update(&mut world, L1, 5, entry(OTHERS_DATA, READ)), EBUSY);
    assert_eq!(update_by(&mut world, PRIVILEGED, L1, 5, entry(OTHERS_L1, WRITE), OTHER), EBUSY);
    assert_eq!(update_by(&mut world, PRIVILEGED, L1, 5, entry(OTHERS_DATA, READ), OTHER), Answer::Done);
    // Without the owner's name the right to write is not added.
    assert_eq!(update(&mut world, L1, 5, entry(OTHERS_DATA, WRITE)), EBUSY);
    assert_eq!(update(&mut world, L1, 5, entry(OTHERS_DATA, READ | bits::ACCESSED)), Answer::Done);
    // A table is made of own frames alone.
    assert_eq!(update_by(&mut world, PRIVILEGED, L2, 1, entry(OTHERS_L1, WRITE), OTHER), EINVAL);
    assert_eq!(update_by(&mut world, PRIVILEGED, OTHERS_L1, 5, 0, OTHER), EINVAL);
    assert_eq!(pin(&mut world, OTHERS, 4), EINVAL);
    // Another domain's table is left alone, even if it is the flags alone that would change.
    let value = entry(OTHERS_DATA, WRITE | bits::ACCESSED);
    assert_eq!(world.machine.contents[OTHERS_L1 as usize][4], entry(OTHERS_DATA, WRITE));
    assert_eq!(update_by(&mut world, PRIVILEGED, OTHERS_L1, 4, value, OTHER), EINVAL);
}

#[test]
fn who_may_read_anothers_frame_does_not_come_to_write_it_by_the_owners_name() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    let (table, owner) = (Mfn::new(OTHERS_L1), PRIVILEGED);
    // As a grant would: mapped on the domain's behalf.
    let answer = world.mmu(OTHER, |mmu| {
        mmu.is_privileged = true;
        mmu.update(table, 5, entry(DATA, READ), false, owner)
    });
    assert_eq!(answer, Ok(()));
    for keep_ad in [false, true] {
        for (foreign, refused) in [(owner, Errno::EPERM), (OTHER, Errno::EBUSY)] {
            let answer = world.mmu(OTHER, |mmu| mmu.update(table, 5, entry(DATA, WRITE), keep_ad, foreign));
            assert_eq!(answer, Err(Stop::Refused(refused)));
        }
    }
    assert_eq!(world.machine.contents[OTHERS_L1 as usize][5], entry(DATA, READ));
}
