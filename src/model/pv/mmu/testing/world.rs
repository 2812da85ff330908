//! The machine with its two domains, what they hold, and one operation after another.

use super::machine::{Machine, View, stale};
use super::{DOMAINS, ENTRIES, FRAMES, Operation, PRIVILEGED, Source, entry, index_of, twin};
use crate::addr::Mfn;
use crate::ids::DomId;
use crate::page::Frame;
use crate::pv::mmu::{Mmu, Stop, Work, Written, entry as bits, sweep::Sweep};
use abi::errno::Errno;
use alloc::vec::Vec;

/// What a domain holds besides what its page tables do.
#[derive(Default)]
pub struct Held {
    /// Pinned tables, with their levels.
    pub pins: Vec<(Mfn, u8)>,
    /// Tables in CR3.
    pub bases: Vec<Mfn>,
    /// Writable uses of the hypervisor's.
    pub writable: Vec<Mfn>,
    /// Pages of descriptors.
    pub descriptors: Vec<Mfn>,
    /// References.
    pub pages: Vec<Mfn>,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It did what it was asked.
    Done,
    /// It may not be done.
    Refused(Errno),
    /// It was interrupted and is asked again, or not.
    Again,
    /// There was nothing to do it to.
    Nothing,
}

/// Everything.
pub struct World<'f> {
    /// The machine.
    pub machine: Machine<'f>,
    /// What is to be undone in each domain.
    pub work: [Work; 2],
    /// What each domain holds.
    pub held: [Held; 2],
    /// Frames whose owner's own reference is there: a bit each.
    pub own: u64,
}

impl<'f> World<'f> {
    /// Two domains without page tables.
    pub fn new(frames: &'f [Frame], seed: u64) -> Self {
        let own = ((1 << 36) - 1) | (0b11 << 38);
        Self { machine: Machine::new(frames, seed), work: Default::default(), held: Default::default(), own }
    }

    /// Each domain with four levels of page tables, of its first four frames, that map some of the others.
    pub fn with_guests(frames: &'f [Frame], seed: u64) -> Self {
        let mut world = Self::new(frames, seed);
        for (domain, from) in [(DOMAINS[0], 0), (DOMAINS[1], 18)] {
            let all = bits::PRESENT | bits::WRITABLE | bits::USER;
            for level in 0..3 {
                world.machine.contents[from + level][0] = entry((from + level) as u64 + 1, all);
            }
            for index in 0..ENTRIES {
                let is_table = index < 4;
                let value = entry((from + index) as u64, if is_table { all & !bits::WRITABLE } else { all });
                world.machine.contents[from + 3][index] = value;
            }
            let answer = world.run(domain, Operation::GetBase { mfn: Mfn::new(from as u64) });
            assert_eq!(answer, Answer::Done, "a guest starts");
        }
        world
    }

    /// A domain's page tables under their lock.
    pub fn mmu<R>(&mut self, domain: DomId, call: impl FnOnce(&mut Mmu<'_, View<'_, 'f>>) -> R) -> R {
        let work = &mut self.work[index_of(domain)];
        let mut view = self.machine.view(domain);
        call(&mut Mmu { memory: &mut view, domain, is_privileged: domain == PRIVILEGED, work })
    }

    /// Does one operation, and panics if something is not as it must be then.
    pub fn run(&mut self, domain: DomId, operation: Operation) -> Answer {
        let answer = match self.try_run(domain, operation) {
            None => Answer::Nothing,
            Some(Ok(())) => Answer::Done,
            Some(Err(Stop::Refused(errno))) => Answer::Refused(errno),
            Some(Err(Stop::Again)) => Answer::Again,
        };
        self.machine.remember();
        if let Err(wrong) = self.check() {
            panic!("{wrong} after {operation:?} of {domain}, {answer:?}");
        }
        answer
    }

    /// Whether everything is as it must be.
    fn check(&self) -> Result<(), alloc::string::String> {
        if let Some((mfn, what)) = stale(&self.machine) {
            return Err(alloc::format!("stale: {mfn}: {what}"));
        }
        twin::compare(self)
    }

    /// The checker that the hypervisor has, too.
    pub fn check_as_hypervisor(&mut self) {
        for domain in DOMAINS {
            let bases = self.held[index_of(domain)].bases.clone();
            let mut sweep = Sweep::new(domain, FRAMES);
            let view = self.machine.view(domain);
            let answer = loop {
                if let Some(answer) = sweep.step(&view, &bases, 7) {
                    break answer;
                }
            };
            assert_eq!(answer, Ok(()), "of {domain}");
        }
    }

    /// `None`: there was nothing to do it to.
    fn try_run(&mut self, domain: DomId, operation: Operation) -> Option<Result<(), Stop>> {
        let held = index_of(domain);
        let answer = match operation {
            Operation::Pin { mfn, level } => {
                let answer = self.mmu(domain, |mmu| mmu.pin(mfn, level));
                answer.map(|()| self.held[held].pins.push((mfn, level)))
            }
            Operation::Unpin { mfn } => {
                let answer = self.mmu(domain, |mmu| mmu.unpin(mfn));
                answer.map(|()| self.held[held].pins.retain(|(pinned, _)| *pinned != mfn))
            }
            Operation::GetBase { mfn } => {
                let answer = self.mmu(domain, |mmu| mmu.get_base(mfn));
                answer.map(|()| self.held[held].bases.push(mfn))
            }
            Operation::PutBase { which } => {
                let mfn = take(&mut self.held[held].bases, which)?;
                self.mmu(domain, |mmu| mmu.put_base(mfn));
                Ok(())
            }
            Operation::Update { table, index, value, keep_ad, foreign } => {
                self.mmu(domain, |mmu| mmu.update(table, index, value, keep_ad, foreign))
            }
            Operation::EmulatedWrite { table, index, compares, value } => {
                let actual = self.machine.contents.get(table.raw() as usize).map_or(0, |frame| frame[index]);
                let old = compares.map(|is_right| if is_right { actual } else { !actual });
                let answer = self.mmu(domain, |mmu| mmu.emulated_write(table, index, old, value));
                answer.map(|written| assert!(written != Written::Done || compares != Some(false)))
            }
            Operation::GetWritable { mfn, owner } => {
                let answer = self.mmu(domain, |mmu| mmu.get_writable(mfn, owner));
                answer.map(|()| self.held[held].writable.push(mfn))
            }
            Operation::PutWritable { which } => {
                let mfn = take(&mut self.held[held].writable, which)?;
                self.mmu(domain, |mmu| mmu.put_writable(mfn));
                Ok(())
            }
            Operation::GetDescriptors { mfn } => {
                let answer = self.mmu(domain, |mmu| mmu.get_descriptor_page(mfn));
                answer.map(|()| self.held[held].descriptors.push(mfn))
            }
            Operation::PutDescriptors { which } => {
                let mfn = take(&mut self.held[held].descriptors, which)?;
                self.mmu(domain, |mmu| mmu.put_descriptor_page(mfn));
                Ok(())
            }
            Operation::UpdateDescriptor { mfn, offset, value } => {
                self.mmu(domain, |mmu| mmu.update_descriptor(mfn, offset, value))
            }
            Operation::GetPage { mfn } => {
                let answer = self.mmu(domain, |mmu| mmu.get_page(mfn)).map_err(Stop::from);
                answer.map(|()| self.held[held].pages.push(mfn))
            }
            Operation::PutPage { which } => {
                let mfn = take(&mut self.held[held].pages, which)?;
                self.mmu(domain, |mmu| mmu.put_page(mfn));
                Ok(())
            }
            Operation::Release { mfn } => {
                let answer = self.mmu(domain, |mmu| mmu.release(mfn));
                answer.map(|()| self.own &= !(1 << mfn.raw()))
            }
            Operation::Allocate => {
                let mfn = u64::from(self.machine.free.trailing_zeros());
                let frame = self.machine.frame(Mfn::new(mfn))?;
                frame.allocate(domain).expect("a free frame is clean");
                self.machine.free &= !(1 << mfn);
                self.own |= 1 << mfn;
                Ok(())
            }
            Operation::Finish => self.mmu(domain, |mmu| mmu.finish()),
            Operation::Store { mfn, index, value } => {
                let reach = self.machine.remembered[held].writable;
                (reach.checked_shr(mfn.raw() as u32).unwrap_or(0) & 1 != 0).then_some(())?;
                self.machine.contents[mfn.raw() as usize][index] = value;
                Ok(())
            }
            Operation::Note { table, index, bits: noted } => {
                let word = self.machine.frame(table)?.type_word();
                let value = &mut self.machine.contents[table.raw() as usize][index];
                let is_used = word.is_validated() && word.kind().is_table() && bits::is_present(*value);
                (is_used && word.kind().level() < Some(4)).then_some(())?;
                *value |= noted;
                Ok(())
            }
            Operation::Flush => {
                self.machine.flush(domain);
                Ok(())
            }
            Operation::Memory { has } => {
                self.machine.has_memory = has;
                Ok(())
            }
        };
        Some(answer)
    }

    /// A run of operations of either domain, of which those that are interrupted are repeated, or not.
    pub fn run_some(&mut self, count: usize, source: &mut impl Source, mut note: impl FnMut(Operation, Answer)) {
        for _ in 0..count {
            let domain = DOMAINS[usize::from(source.below(3) == 0)];
            let operation = Operation::make(domain, source);
            let mut answer = self.run(domain, operation);
            let repeats = if answer == Answer::Again { source.below(4) } else { 0 };
            // Whoever asks until it is done sees it done, however often he is interrupted.
            let limit = if repeats == 3 { 100_000 } else { repeats };
            for again in 0..limit {
                answer = self.run(domain, operation);
                if answer != Answer::Again {
                    break;
                }
                assert!(again < 99_999, "never done: {operation:?}");
            }
            note(operation, answer);
        }
    }

    /// Ends the domains: after that all frames are free.
    pub fn end(&mut self, other_first: bool) {
        let mut order = DOMAINS;
        if other_first {
            order.reverse();
        }
        for domain in order {
            let held = core::mem::take(&mut self.held[index_of(domain)]);
            self.mmu(domain, |mmu| {
                held.bases.iter().for_each(|mfn| mmu.put_base(*mfn));
                held.writable.iter().for_each(|mfn| mmu.put_writable(*mfn));
                held.descriptors.iter().for_each(|mfn| mmu.put_descriptor_page(*mfn));
                held.pages.iter().for_each(|mfn| mmu.put_page(*mfn));
            });
            self.held[index_of(domain)].pins = held.pins;
            for mfn in (0..FRAMES).map(Mfn::new) {
                let is_own = self.machine.frame(mfn).and_then(|frame| frame.count().owner()) == Some(domain);
                let mut steps = 0;
                while self.mmu(domain, |mmu| mmu.relinquish(mfn)) == Err(Stop::Again) {
                    steps += 1;
                    assert!(steps < 100_000, "never given back: {mfn}");
                }
                if is_own {
                    self.own &= !(1 << mfn.raw());
                    self.held[index_of(domain)].pins.retain(|(pinned, _)| *pinned != mfn);
                }
                self.machine.remember();
                self.check().expect("all is well");
            }
            while self.mmu(domain, |mmu| mmu.finish()) == Err(Stop::Again) {}
        }
        self.check().expect("all is well");
        assert_eq!(self.machine.free, (1 << 38) - 1, "everything is given back");
    }
}

fn take(held: &mut Vec<Mfn>, which: usize) -> Option<Mfn> {
    (which < held.len()).then(|| held.swap_remove(which))
}
