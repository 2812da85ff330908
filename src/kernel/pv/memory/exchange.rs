//! `XENMEM_exchange`: frames for as many others, contiguous or with low addresses.
//!
//! A chunk of frames at a time, as small as both sides' extents allow. The frames that the guest gives are its own and
//! referred to by nobody else; while new ones are looked for they belong to the hypervisor, so that nobody comes to
//! refer to them, and go back as they are if there are none.

use alloc::vec::Vec;

use abi::errno::Errno;
use abi::memory::*;
use machine::mem::frames::{self, Again, HYPERVISOR};
use machine::mem::m2p;
use model::addr::Mfn;
use model::pv::mmu::{Entries, Memory};
use sync::Cx;
use sync::place::Root;

use super::below;
use super::op::{max_order, name_frames};
use crate::domain::memory::FILL_STEP;
use crate::domain::{self, Domain};
use crate::guest_memory::GuestPtr;
use crate::hypercall::{Answer, Args, Outcome};
use crate::pv::mmu::{Budget, with};
use crate::run::Running;

/// Frames after which pending work is looked for.
const STEP: u64 = 64;
/// Why a new frame can be given back.
const OURS: &str = "the hypervisor has the one reference";

/// The extents of a chunk.
struct Chunk {
    /// Which one.
    index: u64,
    /// log2 of the extents that the guest gives, and gets; one of the two is 0.
    orders: [u32; 2],
}

pub(super) fn exchange(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let ptr = GuestPtr::<MemoryExchange>::new(args[1]);
    let mut arg = ptr.read(cx, run)?;
    let result = check(cx, run, &arg).and_then(|()| chunks(cx, run, &mut arg));
    let is_whole = arg.nr_exchanged == arg.input.nr_extents;
    ptr.write(cx, run, &arg)?;
    result?;
    Ok(if is_whole { Outcome::DONE } else { Outcome::Again(*args) })
}

fn check(cx: &mut Cx<'_, Root>, run: &Running, arg: &MemoryExchange) -> Result<(), Errno> {
    let (input, output) = (&arg.input, &arg.output);
    if input.extent_order.max(output.extent_order) > max_order(run) {
        return Err(Errno::EPERM);
    }
    let frames = |side: &MemoryReservation| side.nr_extents.checked_mul(1 << side.extent_order);
    if arg.nr_exchanged > input.nr_extents
        || input.domid != output.domid
        || frames(input).is_none()
        || frames(input) != frames(output)
    {
        return Err(Errno::EINVAL);
    }
    domain::own_from_guest(cx, &run.domain, input.domid)
}

/// Chunk after chunk, as far as a bounded part goes.
fn chunks(cx: &mut Cx<'_, Root>, run: &Running, arg: &mut MemoryExchange) -> Result<(), Errno> {
    let (input, output) = (arg.input.extent_order, arg.output.extent_order);
    let orders = [output.saturating_sub(input), input.saturating_sub(output)];
    let limit = below(arg.output.mem_flags & XENMEMF_ADDRESS_BITS_MASK);
    let mut done = 0;
    while arg.nr_exchanged < arg.input.nr_extents && done < STEP {
        let chunk = Chunk { index: arg.nr_exchanged >> orders[0], orders };
        let given = list(cx, run, &arg.input, chunk.index, orders[0])?;
        let taken = take(cx, &run.domain, &given, input)?;
        let new = match new_frames(1 << orders[1], output, limit) {
            Ok(Some(new)) => new,
            other => {
                taken.iter().for_each(|&mfn| hand_over(mfn, HYPERVISOR, run.domain.id));
                // Of the new frames some have been filled with zeros: the call goes on with this chunk.
                return if other == Err(Again) { Ok(()) } else { Err(Errno::ENOMEM) };
            }
        };
        // From here on nothing fails but the guest's own lists.
        let_go(cx, &run.domain, &taken);
        let result = give(cx, run, arg, &chunk, &new);
        arg.nr_exchanged = (chunk.index + 1) << orders[0];
        result?;
        done += taken.len() as u64;
    }
    Ok(())
}

/// The extents of a chunk in a list of the guest's.
fn list(
    cx: &mut Cx<'_, Root>,
    run: &Running,
    side: &MemoryReservation,
    chunk: u64,
    order: u32,
) -> Result<Vec<u64>, Errno> {
    let mut extents = Vec::new();
    extents.try_reserve_exact(1 << order).map_err(|_| Errno::ENOMEM)?;
    for n in 0..1 << order {
        extents.push(GuestPtr::<u64>::new(side.extent_start).at((chunk << order) + n).read(cx, run)?);
    }
    Ok(extents)
}

/// Takes frames away from the domain, to whose own reference there is no other; or none of them.
fn take(cx: &mut Cx<'_, Root>, domain: &Domain, extents: &[u64], order: u32) -> Result<Vec<Mfn>, Errno> {
    let mut taken = Vec::new();
    taken.try_reserve_exact(extents.len() << order).map_err(|_| Errno::ENOMEM)?;
    for mfn in extents.iter().flat_map(|&first| (0..1 << order).map(move |n| Mfn::new(first.wrapping_add(n)))) {
        let is_special = cx.lock(&domain.memory).0.is_special(mfn);
        if is_special || frames::hand_over(mfn, domain.id, HYPERVISOR).is_err() {
            taken.iter().for_each(|&mfn| hand_over(mfn, HYPERVISOR, domain.id));
            return Err(Errno::EINVAL);
        }
        taken.push(mfn);
    }
    Ok(taken)
}

fn hand_over(mfn: Mfn, from: model::ids::DomId, to: model::ids::DomId) {
    frames::hand_over(mfn, from, to).expect("a frame that was taken over has one reference, which is ours");
}

/// New frames, which belong to the hypervisor so far. [`Again`]: a bounded part of the work is done.
fn new_frames(extents: usize, order: u32, limit: Option<Mfn>) -> Result<Option<Vec<Mfn>>, Again> {
    let mut new = Vec::new();
    if new.try_reserve_exact(extents).is_err() {
        return Ok(None);
    }
    let mut most = FILL_STEP;
    for _ in 0..extents {
        match frames::allocate_part(HYPERVISOR, order as u8, limit, &mut most) {
            Ok(Some(first)) => new.push(first),
            other => {
                let all = new.into_iter().rev().flat_map(|first| (0..1 << order).map(move |n| first.raw() + n));
                all.for_each(|raw| frames::release_untouched(Mfn::new(raw)).expect(OURS));
                return other.map(|_| None);
            }
        }
    }
    Ok(Some(new))
}

fn release(mfn: Mfn) {
    frames::release(mfn).expect(OURS);
}

/// Gives what was taken to the allocator, when no processor knows it any more.
fn let_go(cx: &mut Cx<'_, Root>, domain: &Domain, taken: &[Mfn]) {
    with(cx, domain, false, &Budget::new(), |session| {
        // They may have been mapped, if only to be read, until a moment ago.
        let records = || taken.iter().filter_map(|&mfn| frames::record(mfn));
        let now = session.tables.stamp();
        records().for_each(|frame| frame.stamp(now));
        // The first flush does for all.
        records().for_each(|frame| session.tables.flush_since(frame.type_word().stamp()));
    });
    for &mfn in taken {
        m2p::set(mfn, m2p::INVALID);
        release(mfn);
    }
}

/// Gives the new frames to the domain, and tells their numbers.
fn give(cx: &mut Cx<'_, Root>, run: &Running, arg: &MemoryExchange, chunk: &Chunk, new: &[Mfn]) -> Result<(), Errno> {
    let order = arg.output.extent_order;
    let mut result = Ok(());
    for (n, &first) in (0..).zip(new) {
        (0..1 << order).for_each(|n| hand_over(Mfn::new(first.raw() + n), HYPERVISOR, run.domain.id));
        let extent = GuestPtr::<u64>::new(arg.output.extent_start).at((chunk.index << chunk.orders[1]) + n);
        match extent.read(cx, run) {
            Ok(number) => {
                name_frames(first, number, order);
                result = result.and(extent.write(cx, run, &first.raw()));
            }
            Err(errno) => result = Err(errno),
        }
    }
    result
}
