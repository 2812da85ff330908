//! The map against a twin that keeps each guest frame by itself.

use super::*;
use crate::paging::Flush;
use crate::paging::testing::Memory;
use proptest::prelude::*;
use std::collections::BTreeMap;

const M2: u64 = 512;
const G1: u64 = 512 * 512;

fn empty(nested: Nested) -> (Memory, P2m) {
    let mut memory = Memory::new(usize::MAX);
    let p2m = P2m::new(&mut memory, nested, Size::Gib1).expect("room");
    (memory, p2m)
}

fn gfn(raw: u64) -> Gfn {
    Gfn::new(raw)
}

fn mfn(raw: u64) -> Mfn {
    Mfn::new(raw)
}

#[test]
fn what_is_set_is_found_with_its_order() {
    for nested in [Nested::Ept, Nested::Npt] {
        let (mut memory, mut p2m) = empty(nested);
        let step = p2m.set_entry(&mut memory, gfn(2 * M2), 9, mfn(7 * M2), Kind::RamRw);
        assert_eq!(step, Ok(Step { done: M2, flush: Flush::None }));
        let expected = Entry { mfn: mfn(7 * M2 + 5), kind: Kind::RamRw, access: Rights::all(), order: 9 };
        assert_eq!(p2m.get(&memory, gfn(2 * M2 + 5)), Found::Entry(expected));
        assert_eq!(p2m.get(&memory, gfn(M2)), Found::Hole { order: 9 });
        assert_eq!(p2m.get(&memory, gfn(G1)), Found::Hole { order: 18 });
        assert_eq!(p2m.max_gfn(), Some(gfn(3 * M2 - 1)));
    }
}

#[test]
fn frames_that_do_not_exist_are_refused() {
    let (mut memory, mut p2m) = empty(Nested::Ept);
    let mut set = |first: u64, order| p2m.set_entry(&mut memory, gfn(first), order, mfn(0), Kind::RamRw);
    assert_eq!(set(MAX_GFN.raw(), 0), Err(Refused::NoSuchGfn));
    assert_eq!(set(MAX_GFN.raw() - 1, 1), Err(Refused::NoSuchGfn));
    assert_eq!(set(u64::MAX, 9), Err(Refused::NoSuchGfn));
    assert_eq!(set(0, 64), Err(Refused::NoSuchGfn));
    assert_eq!(p2m.remove(&mut memory, gfn(u64::MAX), 2, 1), Err(Refused::NoSuchGfn));
    assert_eq!(p2m.get(&memory, gfn(u64::MAX)), Found::Hole { order: 27 });
    assert_eq!(p2m.max_gfn(), None);
}

#[test]
fn a_frame_that_is_weakened_replaced_or_removed_needs_a_flush() {
    for nested in [Nested::Ept, Nested::Npt] {
        let (mut memory, mut p2m) = empty(nested);
        let mut set = |to, kind| p2m.set_entry(&mut memory, gfn(9), 0, mfn(to), kind).map(|step| step.flush);
        assert_eq!(set(1, Kind::RamRw), Ok(Flush::None));
        assert_eq!(set(1, Kind::RamRw), Ok(Flush::None));
        assert_eq!(set(1, Kind::RamRo), Ok(Flush::Needed));
        assert_eq!(set(2, Kind::RamRo), Ok(Flush::Needed));
        let mut remove = || p2m.remove(&mut memory, gfn(9), 1, 1).map(|step| step.flush);
        assert_eq!(remove(), Ok(Flush::Needed));
        assert_eq!(remove(), Ok(Flush::None));
    }
}

#[test]
fn without_memory_nothing_is_lost() {
    let mut memory = Memory::new(2);
    let mut p2m = P2m::new(&mut memory, Nested::Ept, Size::Gib1).expect("room");
    assert!(p2m.set_entry(&mut memory, gfn(0), 18, mfn(0), Kind::RamRw).is_ok());
    let nothing = Step::default();
    assert_eq!(p2m.remove(&mut memory, gfn(3), 1, 1), Err(Refused::OutOfMemory(nothing)));
    assert_eq!(p2m.get(&memory, gfn(3)).entry().map(|entry| (entry.mfn, entry.order)), Some((mfn(3), 18)));
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Set { gfn: u64, mfn: u64, order: u8, kind: Kind, access: Rights },
    Remove { gfn: u64, count: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let number = || (0u64..4, prop_oneof![Just(0u64), 0u64..512]).prop_map(|(block, offset)| block * M2 + offset);
    let kind = prop::sample::select(Kind::ALL.to_vec());
    let access = (0u8..8).prop_map(Rights::from_bits_truncate);
    let set = (number(), number(), prop_oneof![Just(0u8), Just(3), Just(9)], kind, access);
    prop_oneof![
        3 => set.prop_map(|(gfn, mfn, order, kind, access)| Op::Set { gfn, mfn, order, kind, access }),
        1 => (number(), 1u64..700).prop_map(|(gfn, count)| Op::Remove { gfn, count }),
    ]
}

/// Each guest frame that is mapped, without the order.
type Twin = BTreeMap<u64, (Mfn, Kind, Rights)>;

/// Applies an operation to both. Says whether the map asked for a flush, and whether the twin lost or changed any.
fn apply(op: Op, p2m: &mut P2m, memory: &mut Memory, twin: &mut Twin) -> (Flush, bool) {
    let mut changed = false;
    let step = match op {
        Op::Set { gfn: first, mfn: to, order, kind, access } => {
            for i in 0..1 << order {
                let new = (mfn(to + i), kind, kind.rights() & (access | Rights::READ));
                changed |= twin.insert(first + i, new).is_some_and(|old| old != new);
            }
            p2m.set(memory, gfn(first), mfn(to), 1 << order, kind, access, usize::MAX)
        }
        Op::Remove { gfn: first, count } => {
            for i in 0..count {
                changed |= twin.remove(&(first + i)).is_some();
            }
            p2m.remove(memory, gfn(first), count, usize::MAX)
        }
    };
    (step.expect("room").flush, changed)
}

/// Empties the map as the end of a domain does, and gives back what it told.
fn take_all(p2m: &mut P2m, memory: &mut Memory) -> Twin {
    let (mut taken, mut from) = (Twin::new(), gfn(0));
    loop {
        match p2m.take_next(memory, from, 100) {
            Taken::Empty => return taken,
            Taken::More(gfn) => from = gfn,
            Taken::Entry(first, entry) => {
                for i in 0..1 << entry.order {
                    let old = taken.insert(first.raw() + i, (mfn(entry.mfn.raw() + i), entry.kind, entry.access));
                    assert_eq!(old, None, "told twice");
                }
                from = first;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_map_agrees_with_one_record_per_guest_frame(is_ept in any::<bool>(), ops in prop::collection::vec(op(), 1..12)) {
        let (mut memory, mut p2m) = empty(if is_ept { Nested::Ept } else { Nested::Npt });
        let (mut twin, mut max) = (Twin::new(), None);
        for op in ops {
            let was_empty = twin.is_empty();
            let (flush, changed) = apply(op, &mut p2m, &mut memory, &mut twin);
            prop_assert!(!changed || flush == Flush::Needed);
            prop_assert!(!was_empty || flush == Flush::None);
            max = max.max(twin.last_key_value().map(|(&last, _)| gfn(last)));
            prop_assert_eq!(p2m.max_gfn(), max);
            for i in 0..6 * M2 {
                let found = p2m.get(&memory, gfn(i)).entry().map(|entry| (entry.mfn, entry.kind, entry.access));
                prop_assert_eq!(found, twin.get(&i).copied(), "gfn {:#x}", i);
            }
        }
        prop_assert_eq!(take_all(&mut p2m, &mut memory), twin);
        while !p2m.free(&mut memory, 2) {}
        prop_assert_eq!(memory.used(), 0);
    }
}
