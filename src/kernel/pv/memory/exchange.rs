//! `XENMEM_exchange`: frames for as many others, contiguous or with low addresses.
//!
//! A chunk of frames at a time, as small as both sides' extents allow, and each chunk in bounded parts: what has been done of
//! it stays with the virtual CPU ([`Exchange`]) while the call is repeated. The frames that the guest gives are its own and
//! referred to by nobody else; from then on they belong to the hypervisor, so that nobody comes to refer to them, and go
//! back as they are if there are no new ones.
//!
//! A guest may leave a call half done, and make another from an interrupt handler for example. Then the chunk is
//! given up: what it gave and has not been let go is its own again, and what it was to get is not its own.

use alloc::boxed::Box;
use alloc::vec::Vec;

use abi::errno::Errno;
use abi::memory::*;
use machine::mem::frames::{self, Again, HYPERVISOR};
use machine::mem::m2p;
use model::addr::Mfn;
use model::ids::DomId;
use model::pv::mmu::{Entries, Memory};
use sync::Cx;
use sync::place::Root;

use super::op::max_order;
use super::{below, forget};
use crate::domain::memory::FILL_STEP;
use crate::domain::{self, Domain};
use crate::guest_memory::GuestPtr;
use crate::hypercall::{Answer, Args, Outcome};
use crate::pv::mmu::{Budget, with};
use crate::run::Running;

/// Frames after which pending work is looked for, each stage of a frame counted.
const STEP: u64 = 128;

/// A chunk that is being exchanged.
pub struct Exchange {
    /// The call whose chunk it is: the first that `nr_exchanged` does not count.
    call: MemoryExchange,
    stage: Stage,
    /// Frames that the guest gives, of which the first `gone` are the allocator's again.
    taken: Vec<Mfn>,
    gone: usize,
    /// Frames that it gets, of which the first `given` are its own.
    new: Vec<Mfn>,
    given: usize,
    /// What the guest's list says of the extent that is at hand.
    entry: u64,
    /// What the call answers.
    wrong: Option<Errno>,
}

/// What comes next, in this order; a chunk can be undone until frames are let go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Take,
    Allocate,
    LetGo,
    Give,
    Done,
    /// It is given up.
    Undo,
    Undone,
}

pub(super) fn exchange(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let ptr = GuestPtr::<MemoryExchange>::new(args[1]);
    let mut arg = ptr.read(cx, run)?;
    let result = check(cx, run, &arg).and_then(|()| part(cx, run, &mut arg));
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
fn part(cx: &mut Cx<'_, Root>, run: &Running, arg: &mut MemoryExchange) -> Result<(), Errno> {
    let mut left = STEP;
    while left > 0 && arg.nr_exchanged < arg.input.nr_extents {
        let under_way = cx.lock(&run.vcpu().state).0.exchange.take();
        let mut chunk = match under_way {
            Some(chunk) => chunk,
            None => Exchange::begin(arg)?,
        };
        let is_own = chunk.call == *arg;
        if !is_own {
            chunk.give_up();
        }
        while left > 0 && !chunk.has_ended() {
            chunk.step(cx, run, &mut left);
        }
        match chunk.stage {
            Stage::Done => arg.nr_exchanged = chunk.next(),
            Stage::Undone if is_own => {}
            Stage::Undone => continue,
            _ => {
                cx.lock(&run.vcpu().state).0.exchange = Some(chunk);
                return Ok(());
            }
        }
        chunk.wrong.map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// Gives up what a virtual CPU of a domain that ends was at, a bounded part. Says whether nothing is left.
pub(super) fn end(cx: &mut Cx<'_, Root>, domain: &Domain) -> bool {
    let mut left = STEP;
    for vcpu in &domain.vcpus {
        let Some(mut chunk) = cx.lock(&vcpu.state).0.exchange.take() else { continue };
        chunk.give_up();
        chunk.undo(domain, &mut left);
        if !chunk.has_ended() {
            cx.lock(&vcpu.state).0.exchange = Some(chunk);
            return false;
        }
    }
    true
}

impl Exchange {
    /// The next chunk of a call.
    fn begin(call: &MemoryExchange) -> Result<Box<Self>, Errno> {
        let frames = 1 << call.input.extent_order.max(call.output.extent_order);
        let (mut taken, mut new) = (Vec::new(), Vec::new());
        taken.try_reserve_exact(frames).map_err(|_| Errno::ENOMEM)?;
        new.try_reserve_exact(frames).map_err(|_| Errno::ENOMEM)?;
        Ok(Box::new(Self { call: *call, stage: Stage::Take, taken, gone: 0, new, given: 0, entry: 0, wrong: None }))
    }

    fn frames(&self) -> usize {
        1 << self.call.input.extent_order.max(self.call.output.extent_order)
    }

    /// The call's `nr_exchanged` once this chunk is done.
    fn next(&self) -> u64 {
        let frames = self.frames() as u64;
        self.call.nr_exchanged + (frames >> self.call.input.extent_order)
    }

    fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Undone)
    }

    /// It will not be done.
    fn give_up(&mut self) {
        self.stage = Stage::Undo;
    }

    fn fail(&mut self, why: Errno) {
        self.wrong = Some(why);
        self.give_up();
    }

    /// Goes on in its stage by at most `left` frames, of which those done are taken off.
    fn step(&mut self, cx: &mut Cx<'_, Root>, run: &Running, left: &mut u64) {
        match self.stage {
            Stage::Take => self.take(cx, run, left),
            Stage::Allocate => self.allocate(left),
            Stage::LetGo => self.let_go(cx, &run.domain, left),
            Stage::Give => self.give(cx, run, left),
            Stage::Undo => self.undo(&run.domain, left),
            Stage::Done | Stage::Undone => {}
        }
    }

    /// The place in a side's list for the chunk's frame `at`, and the number of the frame in its extent.
    fn place(&self, side: &MemoryReservation, at: usize) -> (GuestPtr<u64>, u64) {
        let at = (self.call.nr_exchanged << self.call.input.extent_order) + at as u64;
        let extent = GuestPtr::new(side.extent_start).at(at >> side.extent_order);
        (extent, at & ((1 << side.extent_order) - 1))
    }

    /// Takes frames away from the domain, to whose own reference there is no other.
    fn take(&mut self, cx: &mut Cx<'_, Root>, run: &Running, left: &mut u64) {
        let domain = &run.domain;
        while *left > 0 && self.taken.len() < self.frames() {
            let (extent, n) = self.place(&self.call.input, self.taken.len());
            if n == 0 {
                match extent.read(cx, run) {
                    Ok(entry) => self.entry = entry,
                    Err(errno) => return self.fail(errno),
                }
            }
            let mfn = Mfn::new(self.entry.wrapping_add(n));
            let is_special = cx.lock(&domain.memory).0.is_special(mfn);
            if is_special || frames::hand_over(mfn, domain.id, HYPERVISOR).is_err() {
                return self.fail(Errno::EINVAL);
            }
            self.taken.push(mfn);
            *left -= 1;
        }
        if self.taken.len() == self.frames() {
            self.stage = Stage::Allocate;
        }
    }

    /// Finds new frames, which belong to the hypervisor so far.
    fn allocate(&mut self, left: &mut u64) {
        let order = self.call.output.extent_order;
        let limit = below(self.call.output.mem_flags & XENMEMF_ADDRESS_BITS_MASK);
        let mut most = FILL_STEP;
        while *left > 0 && self.new.len() < self.frames() {
            match frames::allocate_part(HYPERVISOR, order as u8, limit, &mut most) {
                Ok(Some(first)) => {
                    self.new.extend((0..1 << order).map(|n| Mfn::new(first.raw() + n)));
                    *left = left.saturating_sub(1 << order);
                }
                Ok(None) => return self.fail(Errno::ENOMEM),
                // Some have been filled with zeros.
                Err(Again) => *left = 0,
            }
        }
        if self.new.len() == self.frames() {
            self.stage = Stage::LetGo;
        }
    }

    /// Gives what was taken to the allocator, when no processor knows it any more.
    fn let_go(&mut self, cx: &mut Cx<'_, Root>, domain: &Domain, left: &mut u64) {
        let until = self.taken.len().min(self.gone + *left as usize);
        let part = &self.taken[self.gone..until];
        with(cx, domain, false, &Budget::new(), |session| {
            // They may have been mapped, if only to be read, until a moment ago.
            let records = || part.iter().filter_map(|&mfn| frames::record(mfn));
            let now = session.tables.stamp();
            records().for_each(|frame| frame.stamp(now));
            // The first flush does for all.
            records().for_each(|frame| session.tables.flush_since(frame.type_word().stamp()));
        });
        for &mfn in part {
            m2p::set(mfn, m2p::INVALID);
            frames::release(mfn).expect("the hypervisor has the one reference");
        }
        *left -= part.len() as u64;
        self.gone = until;
        if self.gone == self.taken.len() {
            self.stage = Stage::Give;
        }
    }

    /// Gives the new frames to the domain, and tells their numbers. Nothing fails here but the guest's own list, and the frames
    /// are its own all the same.
    fn give(&mut self, cx: &mut Cx<'_, Root>, run: &Running, left: &mut u64) {
        let until = self.new.len().min(self.given + *left as usize);
        for at in self.given..until {
            let mfn = self.new[at];
            let (extent, n) = self.place(&self.call.output, at);
            if n == 0 {
                let number = extent.read(cx, run);
                self.entry = number.unwrap_or(m2p::INVALID);
                self.wrong = number.and_then(|_| extent.write(cx, run, &mfn.raw())).err().or(self.wrong);
            }
            if self.entry != m2p::INVALID {
                m2p::set(mfn, self.entry.wrapping_add(n));
            }
            hand_over(mfn, HYPERVISOR, run.domain.id);
        }
        *left -= (until - self.given) as u64;
        self.given = until;
        if self.given == self.new.len() {
            self.stage = Stage::Done;
        }
    }

    /// Gives back to the domain what has not been let go, and to the allocator what the domain has not got.
    fn undo(&mut self, domain: &Domain, left: &mut u64) {
        while *left > 0 && self.taken.len() > self.gone {
            self.taken.pop().into_iter().for_each(|mfn| hand_over(mfn, HYPERVISOR, domain.id));
            *left -= 1;
        }
        while *left > 0 && self.new.len() > self.given {
            let release = |mfn| frames::release_untouched(mfn).expect("the hypervisor has the one reference");
            self.new.pop().into_iter().for_each(release);
            *left -= 1;
        }
        if self.taken.len() == self.gone && self.new.len() == self.given {
            forget(domain, (self.gone - self.given) as u64);
            self.stage = Stage::Undone;
        }
    }
}

fn hand_over(mfn: Mfn, from: DomId, to: DomId) {
    frames::hand_over(mfn, from, to).expect("a frame that was taken over has one reference, which is ours");
}
