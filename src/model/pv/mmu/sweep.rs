//! Counts all that a domain's page tables take, in bounded steps, and compares it with what the records say.
//!
//! Tables are counted exactly: every use is an entry, a pin or a CR3. Writable uses and references may be more, since
//! other domains and the hypervisor have theirs. What is counted holds as long as no operation changes it: the lock
//! is held from the first step to the last, or the sweep begins again ([`super::Work::changes`]).

use super::check::{Violation, check_frame};
use super::{Memory, entry};
use crate::addr::Mfn;
use crate::ids::DomId;
use crate::page::Type;
use alloc::vec::Vec;

/// What was counted of a frame.
#[derive(Clone, Copy, Default)]
struct Counted {
    /// Uses as a table of the level in `level`, which is zero before the first.
    tables: u32,
    writable: u32,
    readable: u32,
    level: u8,
}

/// A sweep through all frames of a machine.
pub struct Sweep {
    domain: DomId,
    counted: Vec<Counted>,
    /// Frames that were looked at; more than there are in the second half, where counts are compared.
    next: usize,
}

impl Sweep {
    /// A sweep for a domain on a machine with so many frames.
    pub fn new(domain: DomId, frames: u64) -> Self {
        let frames = usize::try_from(frames).unwrap_or(0);
        Self { domain, counted: alloc::vec![Counted::default(); frames], next: 0 }
    }

    /// Begins again.
    pub fn restart(&mut self) {
        self.counted.fill(Counted::default());
        self.next = 0;
    }

    /// Looks at `budget` frames more. `bases`: the tables that the domain's CR3s name. With an answer the sweep is over.
    pub fn step<M: Memory>(&mut self, memory: &M, bases: &[Mfn], budget: usize) -> Option<Result<(), Violation>> {
        let frames = self.counted.len();
        for _ in 0..budget {
            if self.next == 2 * frames {
                return Some(Ok(()));
            }
            let step = match self.next.checked_sub(frames) {
                None => self.count(memory, self.next),
                Some(at) => self.compare(memory, at, bases),
            };
            if let Err(violation) = step {
                return Some(Err(violation));
            }
            self.next += 1;
        }
        None
    }

    fn count<M: Memory>(&mut self, memory: &M, at: usize) -> Result<(), Violation> {
        let counted = &mut self.counted;
        let mut doubled = None;
        check_frame(memory, self.domain, Mfn::new(at as u64), |level, value| {
            let target = entry::frame(value);
            let Some(counted) = usize::try_from(target.raw()).ok().and_then(|at| counted.get_mut(at)) else { return };
            match level {
                1 if entry::is_writable(value) => counted.writable += 1,
                1 => counted.readable += 1,
                _ if counted.tables > 0 && counted.level != level - 1 => doubled = Some(target),
                _ => {
                    counted.tables += 1;
                    counted.level = level - 1;
                }
            }
        })?;
        let what = "used as tables of two levels";
        doubled.map_or(Ok(()), |mfn| Err(Violation { mfn, index: None, what }))
    }

    fn compare<M: Memory>(&self, memory: &M, at: usize, bases: &[Mfn]) -> Result<(), Violation> {
        let mfn = Mfn::new(at as u64);
        let Some(frame) = memory.frame(mfn) else { return Ok(()) };
        let counted = self.counted[at];
        let violation = |what| Err(Violation { mfn, index: None, what });
        // First the type: a use that goes on another CPU takes its reference with it after.
        let word = frame.type_word();
        let count = frame.count();
        let is_own = count.owner() == Some(self.domain);
        let bases = bases.iter().filter(|base| **base == mfn).count() as u32;
        let tables = counted.tables + bases + u32::from(word.is_pinned());
        let level = if bases > 0 { 4 } else { counted.level };
        if counted.tables > 0 && bases > 0 && counted.level != 4 {
            return violation("used as tables of two levels");
        }
        if is_own && word.kind().is_table() && word.count() != tables {
            return violation("a table with more or fewer uses than there are");
        }
        if counted.tables + bases > 0 && (!is_own || word.kind().level() != Some(level)) {
            return violation("no table of the level that it is used as");
        }
        let is_memory = count.owner().is_some_and(|owner| owner != super::IO);
        let is_writable = word.kind() == Type::Writable && word.count() >= counted.writable;
        if is_memory && counted.writable > 0 && !is_writable {
            return violation("fewer writable uses than there are");
        }
        let references = tables + counted.writable + counted.readable;
        if is_memory && is_own && count.count() < references + u32::from(count.is_allocated()) {
            return violation("fewer references than there are");
        }
        Ok(())
    }
}
