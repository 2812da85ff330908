//! The mapper against a twin that keeps the list of what was asked for.

use super::super::format::{EPT, LONG, MemoryType, NPT, Rights};
use super::super::testing::Memory;
use super::*;
use proptest::prelude::*;

const RW: Attributes = Attributes::ram(Rights::READ.union(Rights::WRITE));
const M2: u64 = 512;
const G1: u64 = 512 * 512;

fn to(mfn: u64) -> Target {
    Target { mfn: Mfn::new(mfn), attributes: RW }
}

fn with_tree<R>(most: usize, f: impl FnOnce(&mut Memory, Mfn) -> R) -> R {
    let mut memory = Memory::new(most);
    let root = memory.allocate().expect("room for a root");
    f(&mut memory, root)
}

fn map_all(mapper: &mut Mapper<'_, Memory>, page: u64, count: u64, target: Target, largest: Size) -> Flush {
    let step = mapper.map(page, count, target, largest, usize::MAX).expect("room");
    assert_eq!(step.done, count);
    step.flush
}

#[test]
fn the_largest_entries_are_used_that_alignment_and_the_caller_allow() {
    with_tree(10, |memory, root| {
        let mut mapper = Mapper::new(memory, &EPT, root);
        let _ = map_all(&mut mapper, G1 - 1, G1 + M2 + 2, to(3 * G1 - 1), Size::Gib1);
        let size = |page| match mapper.lookup(page) {
            Lookup::Mapped { mfn, size, .. } if mfn == Mfn::new(page + 2 * G1) => size,
            other => panic!("{other:?}"),
        };
        let pages = [G1 - 1, G1, 2 * G1 - 1, 2 * G1, 2 * G1 + M2];
        assert_eq!(pages.map(size), [Size::Kib4, Size::Gib1, Size::Gib1, Size::Mib2, Size::Kib4]);
        let _ = map_all(&mut mapper, 4 * G1, M2, to(8 * G1), Size::Kib4);
        assert!(matches!(mapper.lookup(4 * G1), Lookup::Mapped { size: Size::Kib4, .. }));
        let _ = map_all(&mut mapper, 5 * G1, M2, to(8 * G1 + 1), Size::Gib1);
        assert!(matches!(mapper.lookup(5 * G1), Lookup::Mapped { size: Size::Kib4, .. }));
    });
}

#[test]
fn only_a_change_of_what_was_mapped_needs_a_flush() {
    with_tree(10, |memory, root| {
        let mut mapper = Mapper::new(memory, &NPT, root);
        assert_eq!(map_all(&mut mapper, 0, M2, to(0), Size::Mib2), Flush::None);
        assert_eq!(map_all(&mut mapper, 0, M2, to(0), Size::Mib2), Flush::None);
        assert_eq!(map_all(&mut mapper, 7, 1, to(100), Size::Mib2), Flush::Needed);
        assert_eq!(map_all(&mut mapper, M2, 1, to(100), Size::Mib2), Flush::None);
        let read_only = Target { attributes: Attributes::ram(Rights::READ), ..to(100) };
        assert_eq!(map_all(&mut mapper, M2, 1, read_only, Size::Mib2), Flush::Needed);
        assert_eq!(map_all(&mut mapper, M2, 1, Target::HOLE, Size::Mib2), Flush::Needed);
        assert_eq!(map_all(&mut mapper, M2, 1, Target::HOLE, Size::Mib2), Flush::None);
    });
}

#[test]
fn splitting_keeps_what_the_other_pages_say() {
    for format in [&LONG, &EPT, &NPT] {
        with_tree(10, |memory, root| {
            let mut mapper = Mapper::new(memory, format, root);
            let attributes = Attributes { memory: MemoryType::Wc, soft: 21, ..RW };
            let _ = map_all(&mut mapper, 0, G1, Target { attributes, ..to(G1) }, Size::Gib1);
            assert_eq!(map_all(&mut mapper, 5 * M2 + 3, 1, Target::HOLE, Size::Gib1), Flush::Needed);
            assert_eq!(mapper.lookup(5 * M2 + 3), Lookup::Hole { soft: 0, order: 0 });
            for (page, size) in [(5 * M2 + 4, Size::Kib4), (6 * M2 + 9, Size::Mib2)] {
                assert_eq!(mapper.lookup(page), Lookup::Mapped { mfn: Mfn::new(G1 + page), attributes, size });
            }
        });
    }
}

#[test]
fn without_memory_the_step_says_how_far_it_came() {
    with_tree(4, |memory, root| {
        let mut mapper = Mapper::new(memory, &EPT, root);
        let done = mapper.map(M2 - 3, 8, to(1), Size::Kib4, 10_000).expect_err("five tables are needed").0;
        assert_eq!(done, Step { done: 3, flush: Flush::None });
        assert_eq!(mapper.lookup(M2 - 1), Lookup::Mapped { mfn: Mfn::new(3), attributes: RW, size: Size::Kib4 });
        assert_eq!(mapper.lookup(M2), Lookup::Hole { soft: 0, order: 9 });
    });
}

#[test]
fn a_step_is_bounded_and_the_next_goes_on() {
    with_tree(10, |memory, root| {
        let mut mapper = Mapper::new(memory, &EPT, root);
        let first = mapper.map(0, 600, to(1), Size::Kib4, 2000).expect("room").done;
        assert!(first > 0 && first < 600, "{first} pages");
        let rest = map_all(&mut mapper, first, 600 - first, to(1 + first), Size::Kib4);
        assert_eq!(rest, Flush::None);
        assert!(
            (0..600).all(|page| matches!(mapper.lookup(page), Lookup::Mapped { mfn, .. } if mfn.raw() == page + 1))
        );
    });
}

#[test]
fn a_hole_of_the_whole_space_is_made_without_a_table_and_at_once() {
    with_tree(1, |memory, root| {
        let step = Mapper::new(memory, &LONG, root).unmap(0, u64::MAX, 600).expect("no table is needed");
        assert_eq!(step, Step { done: u64::MAX, flush: Flush::None });
    });
}

#[test]
fn pages_beyond_the_space_are_holes_and_are_not_mapped() {
    with_tree(10, |memory, root| {
        let mut mapper = Mapper::new(memory, &LONG, root);
        let _ = map_all(&mut mapper, PAGES - 1, 2, to(1), Size::Gib1);
        assert!(matches!(mapper.lookup(page_of(u64::MAX)), Lookup::Mapped { mfn, .. } if mfn == Mfn::new(1)));
        assert_eq!(mapper.lookup(PAGES), Lookup::Hole { soft: 0, order: 27 });
        assert_eq!(mapper.lookup(0), Lookup::Hole { soft: 0, order: 27 });
    });
}

#[test]
fn the_next_mapped_page_is_found_over_holes() {
    with_tree(20, |memory, root| {
        let mut mapper = Mapper::new(memory, &EPT, root);
        let _ = map_all(&mut mapper, 7 * G1 + 5 * M2 + 3, 1, to(9), Size::Gib1);
        let found = mapper.lookup(7 * G1 + 5 * M2 + 3);
        assert_eq!(mapper.next(0, PAGES, 100), Next::Page(7 * G1 + 5 * M2 + 3, found));
        assert_eq!(mapper.next(0, 7 * G1, 100), Next::None);
        assert_eq!(mapper.next(7 * G1 + 5 * M2 + 4, u64::MAX, 10_000), Next::None);
        assert_eq!(mapper.next(0, PAGES, 3), Next::More(3 * G1));
    });
}

#[test]
fn a_tree_is_freed_to_the_last_table_in_bounded_steps() {
    with_tree(100, |memory, root| {
        let mut mapper = Mapper::new(memory, &NPT, root);
        for i in 0..20 {
            let _ = map_all(&mut mapper, i * 77 * M2 + 3, 1, to(9), Size::Gib1);
        }
        let (mut calls, mut before) = (1, memory.used());
        while !free_tree(memory, &NPT, root, 3) {
            assert_eq!(memory.used(), before - 3);
            (calls, before) = (calls + 1, memory.used());
        }
        assert_eq!(memory.used(), 0);
        assert!(calls > 5);
    });
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    page: u64,
    count: u64,
    target: Target,
    largest: Size,
    budget: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    let number = || {
        let base = prop::sample::select(vec![0, M2, G1, 2 * G1, 512 * G1]);
        (base, prop::sample::select(vec![0, 1, M2 - 1, M2, 5 * M2, G1 - M2])).prop_map(|(base, more)| base + more)
    };
    let count = prop::sample::select(vec![1, 2, M2 - 1, M2, M2 + 1, G1, G1 + M2]);
    let attributes = prop_oneof![
        Just(Attributes::hole(0)),
        Just(Attributes::hole(5)),
        Just(Attributes { soft: 1, ..RW }),
        Just(Attributes { memory: MemoryType::Uc, ..RW })
    ];
    let how =
        (attributes, prop::sample::select(Size::ALL.to_vec()), prop::sample::select(vec![1usize, 3000, usize::MAX]));
    (number(), count, number(), how).prop_map(|(page, count, mfn, (attributes, largest, budget))| {
        let count = if largest == Size::Kib4 || budget == 1 { count.min(M2 + 1) } else { count };
        Asked { page, count, target: Target { mfn: Mfn::new(mfn), attributes }, largest, budget }
    })
}

/// What the list of what was asked for says of a page.
fn naive(done: &[Asked], page: u64) -> Target {
    let covers = |asked: &&Asked| (asked.page..asked.page + asked.count).contains(&page);
    let last = done.iter().rev().find(covers);
    last.map_or(Target::HOLE, |asked| asked.target.after(page - asked.page))
}

fn as_target(lookup: Lookup) -> Target {
    match lookup {
        Lookup::Mapped { mfn, attributes, .. } => Target { mfn, attributes },
        Lookup::Hole { soft, .. } => Target { attributes: Attributes::hole(soft), ..Target::HOLE },
    }
}

fn same(one: Target, other: Target) -> bool {
    one.attributes == other.attributes && (one.attributes.is_hole() || one.mfn == other.mfn)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_tables_map_what_was_asked_last(format in 0usize..3, list in prop::collection::vec(asked(), 1..8)) {
        let format = [&LONG, &EPT, &NPT][format];
        let mut memory = Memory::new(usize::MAX);
        let root = memory.allocate().expect("room");
        for i in 0..list.len() {
            let asked = list[i];
            let mut mapper = Mapper::new(&mut memory, format, root);
            let edges = [asked.page, asked.page + asked.count - 1].map(|page| (page, mapper.lookup(page)));
            let (mut at, mut flush) = (0, Flush::None);
            while at < asked.count {
                let target = asked.target.after(at);
                let step = mapper.map(asked.page + at, asked.count - at, target, asked.largest, asked.budget).expect("room");
                prop_assert!(step.done > 0);
                at += step.done;
                flush = flush.or(step.flush);
            }
            for (page, old) in edges {
                let changed = !same(as_target(old), asked.target.after(page - asked.page));
                let was_mapped = matches!(old, Lookup::Mapped { .. });
                prop_assert!(!(changed && was_mapped) || flush == Flush::Needed);
            }
            let edges = list[..=i].iter().flat_map(|asked| [asked.page, asked.page + asked.count]);
            for page in edges.flat_map(|page| [page.saturating_sub(1), page, page + 1]) {
                let expected = naive(&list[..=i], page);
                prop_assert!(same(as_target(mapper.lookup(page)), expected), "page {:#x}: {:?}", page, mapper.lookup(page));
            }
        }
        while !free_tree(&mut memory, format, root, 1000) {}
        prop_assert_eq!(memory.used(), 0);
    }
}
