//! What is interrupted goes on, or is undone by others.

use super::*;
use crate::page::Type;
use crate::pv::mmu::testing::{HYPERVISORS, frames};

/// Four levels of tables from `UNUSED` on.
fn fill_tree(world: &mut World<'_>) {
    for level in 0..3 {
        let next = entry(UNUSED + level + 1, WRITE);
        fill(world, UNUSED + level, &[(0, next), (6, next)]);
    }
    let map = |index| (index, entry(UNUSED + 4 + index as u64 % 2, WRITE));
    fill(world, UNUSED + 3, &[map(0), map(1), map(2), map(5), map(7)]);
}

#[test]
fn a_pin_that_is_interrupted_at_every_entry_comes_to_its_end() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    world.machine.interrupts = 1;
    fill_tree(&mut world);
    let mut times = 1;
    while pin(&mut world, UNUSED, 4) == Answer::Again {
        times += 1;
    }
    assert!((5..40).contains(&times), "{times}");
    assert_eq!(pin(&mut world, UNUSED, 4), EINVAL);
    assert_eq!(unpin(&mut world, UNUSED), Answer::Done);
    let mut times = 1;
    while finish(&mut world) == Answer::Again {
        times += 1;
    }
    assert!((5..40).contains(&times), "{times}");
    assert_eq!([0, 1, 2, 3, 4, 5].map(|n| references(&world, UNUSED + n)), [1; 6]);
}

#[test]
fn a_pin_that_is_refused_at_the_last_entry_leaves_nothing() {
    for interrupts in [0, 1, 2, 3, 5] {
        let records = frames();
        let mut world = World::with_guests(&records, 1);
        world.machine.interrupts = interrupts;
        fill_tree(&mut world);
        world.machine.contents[UNUSED as usize + 3][7] = entry(HYPERVISORS.raw(), READ);
        let mut answer = Answer::Again;
        while answer == Answer::Again {
            answer = pin(&mut world, UNUSED, 4);
        }
        assert_eq!(answer, EBUSY);
        while finish(&mut world) == Answer::Again {}
        assert_eq!([0, 1, 2, 3, 4, 5].map(|n| references(&world, UNUSED + n)), [1; 6]);
        world.end(false);
    }
}

#[test]
fn without_memory_for_a_partner_there_is_no_table_of_level_4() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    world.machine.has_memory = false;
    fill_tree(&mut world);
    assert_eq!(pin(&mut world, UNUSED, 4), Answer::Refused(Errno::ENOMEM));
    assert_eq!(finish(&mut world), Answer::Done);
    assert_eq!([0, 1, 2, 3, 4, 5].map(|n| references(&world, UNUSED + n)), [1; 6]);
    world.machine.has_memory = true;
    assert_eq!(pin(&mut world, UNUSED, 4), Answer::Done);
}

/// A pin of a tree that is given up after `steps` interruptions.
fn leave_pin_after(world: &mut World<'_>, level: u8, steps: usize) -> bool {
    world.machine.interrupts = 1;
    let is_partial = (0..steps).all(|_| pin(world, UNUSED, level) == Answer::Again);
    world.machine.interrupts = 0;
    is_partial
}

#[test]
fn who_wants_another_table_that_leads_to_a_partial_one_goes_on_with_it() {
    let records = frames();
    let mut world = World::with_guests(&records, 1);
    fill_tree(&mut world);
    assert!(leave_pin_after(&mut world, 4, 2));
    assert_eq!(update(&mut world, L4, 1, entry(UNUSED + 1, WRITE)), Answer::Done);
    assert_eq!(pin(&mut world, UNUSED, 4), Answer::Done);
}

#[test]
fn a_partial_table_that_is_wanted_as_something_else_is_undone_at_every_stage() {
    for wanted in 0..4 {
        for steps in 1.. {
            let records = frames();
            let mut world = World::with_guests(&records, 1);
            fill_tree(&mut world);
            if !leave_pin_after(&mut world, 4, steps) {
                break;
            }
            let mfn = UNUSED + wanted;
            let operation = match wanted {
                0 => Operation::GetDescriptors { mfn: Mfn::new(mfn) },
                1 => Operation::GetWritable { mfn: Mfn::new(mfn), owner: PRIVILEGED },
                2 => {
                    Operation::Update { table: Mfn::new(mfn), index: 0, value: 0, keep_ad: false, foreign: PRIVILEGED }
                }
                _ => Operation::Release { mfn: Mfn::new(mfn) },
            };
            world.run(PRIVILEGED, operation);
            world.end(steps % 2 == 0);
        }
    }
}

/// What a new entry names was left partial as a table of another level and has the last use of the table that the
/// entry is in: undoing it takes the ground away.
#[test]
fn an_update_does_not_go_on_in_a_table_that_was_given_up_meanwhile() {
    for level in [2, 1] {
        let records = frames();
        let mut world = World::with_guests(&records, 1);
        // UNUSED, one level above, uses UNUSED + 1, where the update is, and is stopped after that.
        let last = if level == 1 { UNUSED + 2 } else { UNUSED + 3 };
        fill(&mut world, UNUSED, &[(0, entry(UNUSED + 1, WRITE)), (1, entry(last, WRITE))]);
        fill(&mut world, UNUSED + 1, &[(0, if level == 1 { entry(DATA, WRITE) } else { entry(L1, WRITE) })]);
        fill(&mut world, last, &[]);
        let before = [L1, DATA].map(|mfn| references(&world, mfn));
        let table = Type::table(level).expect("a level");
        while !records[UNUSED as usize + 1].type_word().is_valid_table(table) {
            assert!(leave_pin_after(&mut world, level + 1, 1));
        }
        assert!(records[UNUSED as usize].type_word().is_partial());
        // As a table one level below UNUSED + 1, or as memory to write to.
        let answer = update(&mut world, UNUSED + 1, 0, entry(UNUSED, WRITE));
        assert_eq!(answer, Answer::Again, "level {level}");
        assert_eq!([L1, DATA].map(|mfn| references(&world, mfn)), before);
        // The frame is plain memory when it is asked again.
        assert_eq!(update(&mut world, UNUSED + 1, 0, entry(UNUSED, WRITE)), Answer::Done);
        world.end(false);
    }
}
