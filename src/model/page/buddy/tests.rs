//! The allocator against a twin that keeps one flag per frame.

use super::*;
use proptest::prelude::*;

impl Links for Vec<Link> {
    fn get(&self, frame: u32) -> Option<Link> {
        self.as_slice().get(frame as usize).copied()
    }
    fn set(&mut self, frame: u32, link: Link) {
        self[frame as usize] = link;
    }
}

fn with_frames(first: u64, end: u64) -> (Buddy, Vec<Link>) {
    let (mut buddy, mut links) = (Buddy::new(), vec![Link::default(); end as usize]);
    buddy.add_range(&mut links, Mfn::new(first), Mfn::new(end));
    (buddy, links)
}

/// Whether an allocation can succeed: a free aligned run within one zone, all below the limit.
fn naive_has_room(free: &[bool], order: u8, limit: usize) -> bool {
    let size = 1 << order;
    free.chunks_exact(size).enumerate().any(|(i, run)| {
        let start = i * size;
        (start > 0 || order == 0) && start + size <= limit && run.iter().all(|&free| free)
    })
}

#[test]
fn high_frames_go_first_and_low_ones_stay_for_those_that_ask() {
    let (mut buddy, mut links) = with_frames(1, 1024);
    assert_eq!(buddy.allocate(&mut links, 0, None), Some(Mfn::new(512)));
    let low = buddy.allocate(&mut links, 0, Some(Mfn::new(256))).expect("frames below 1 MiB");
    assert_eq!(low, Mfn::new(128));
    assert_eq!(buddy.allocate(&mut links, 3, Some(Mfn::new(8))), None);
    assert_eq!(buddy.allocate(&mut links, 0, Some(Mfn::new(0))), None);
}

#[test]
fn a_gibibyte_comes_in_one_piece_and_no_more_than_that() {
    let (mut buddy, mut links) = with_frames(0, 1 << 20);
    assert_eq!(buddy.allocate(&mut links, MAX_ORDER + 1, None), None);
    let block = buddy.allocate(&mut links, MAX_ORDER, None).expect("a free GiB");
    assert_eq!(block.raw() % (1 << MAX_ORDER), 0);
    assert_eq!(buddy.free_frames(), (1 << 20) - (1 << MAX_ORDER));
}

#[test]
fn a_block_may_be_given_back_in_pieces_and_joins_again() {
    let (mut buddy, mut links) = with_frames(512, 1024);
    let block = buddy.allocate(&mut links, 9, None).expect("512 frames");
    assert_eq!(buddy.allocate(&mut links, 0, None), None);
    for frame in (0..512).rev() {
        buddy.free(&mut links, Mfn::new(block.raw() + frame), 0);
    }
    assert_eq!(buddy.allocate(&mut links, 9, None), Some(block));
}

#[test]
#[should_panic(expected = "freed twice")]
fn a_block_freed_twice_is_noticed() {
    let (mut buddy, mut links) = with_frames(0, 4);
    buddy.free(&mut links, Mfn::new(2), 1);
}

#[test]
#[should_panic(expected = "no block")]
fn an_unaligned_block_is_noticed() {
    let (mut buddy, mut links) = with_frames(0, 0);
    links.resize(4, Link::default());
    buddy.free(&mut links, Mfn::new(1), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { order: u8, limit_bits: Option<u32> },
    Free { which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..7, prop::option::of(0u32..11)).prop_map(|(order, limit_bits)| Step::Allocate { order, limit_bits }),
        2 => any::<usize>().prop_map(|which| Step::Free { which }),
    ]
}

proptest! {
    #[test]
    fn the_allocator_agrees_with_one_flag_per_frame(
        ranges in prop::collection::btree_set(0usize..700, 2..8),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let bounds: Vec<usize> = ranges.into_iter().collect();
        let (mut buddy, mut links) = with_frames(0, 0);
        links.resize(700, Link::default());
        let mut free = vec![false; 700];
        for range in bounds.chunks_exact(2) {
            buddy.add_range(&mut links, Mfn::new(range[0] as u64), Mfn::new(range[1] as u64));
            free[range[0]..range[1]].fill(true);
        }
        let mut held: Vec<(usize, u8)> = Vec::new();
        for step in steps {
            match step {
                Step::Allocate { order, limit_bits } => {
                    let limit = limit_bits.map_or(usize::MAX, |bits| 1 << bits);
                    let below = limit_bits.map(|bits| Mfn::new(1 << bits));
                    let block = buddy.allocate(&mut links, order, below);
                    prop_assert_eq!(block.is_some(), naive_has_room(&free, order, limit));
                    let Some(block) = block else { continue };
                    let start = block.raw() as usize;
                    let run = start..start + (1 << order);
                    prop_assert!(start.is_multiple_of(1 << order) && run.end <= limit);
                    prop_assert!(free[run.clone()].iter().all(|&free| free));
                    free[run].fill(false);
                    held.push((start, order));
                }
                Step::Free { which } if !held.is_empty() => {
                    let (start, order) = held.swap_remove(which % held.len());
                    buddy.free(&mut links, Mfn::new(start as u64), order);
                    free[start..start + (1 << order)].fill(true);
                }
                Step::Free { .. } => {}
            }
            prop_assert_eq!(buddy.free_frames(), free.iter().filter(|&&free| free).count() as u64);
        }
    }
}
