//! Every interleaving of two CPUs on the words of one frame and of two, by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p model --lib --release loom`.
//!
//! What only the assertions use is in plain atomics, which are no points at which loom switches: such a note is made
//! at the same moment as the change that it goes with.

use super::{Frame, Stamp, Type, TypeEffect, TypeRefused};
use crate::ids::DomId;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Get,
    Put,
    Validate,
}

const STEPS: [Step; 3] = [Step::Get, Step::Put, Step::Validate];

/// A frame, and who uses it as what.
struct Watched {
    frame: Frame,
    writers: AtomicUsize,
    tables: AtomicUsize,
}

impl Watched {
    fn new() -> Self {
        let frame = Frame::new();
        frame.allocate(DomId(1)).expect("clean");
        Self { frame, writers: AtomicUsize::new(0), tables: AtomicUsize::new(0) }
    }

    /// Takes a use, as the page tables' engine does without its flushes.
    fn get(&self, kind: Type) -> bool {
        if self.frame.get_type(kind).is_ok() {
            return self.note(kind);
        }
        if kind == Type::Writable {
            let seen = self.frame.type_word();
            return seen.claim(kind).is_ok_and(|(next, _)| self.frame.exchange_type(seen, next)) && self.note(kind);
        }
        if self.frame.claim(kind).is_err() {
            return false;
        }
        assert_eq!(self.writers.load(SeqCst), 0, "nobody writes to what is being validated");
        self.frame.validated().expect("who has claimed a frame can finish it");
        self.note(kind)
    }

    fn note(&self, kind: Type) -> bool {
        let (mine, others) =
            if kind == Type::Writable { (&self.writers, &self.tables) } else { (&self.tables, &self.writers) };
        mine.fetch_add(1, SeqCst);
        assert_eq!(others.load(SeqCst), 0, "writable, and a page table");
        true
    }

    fn put(&self, kind: Type, now: u64) {
        if kind == Type::Writable { &self.writers } else { &self.tables }.fetch_sub(1, SeqCst);
        if self.frame.put_type(kind, now).expect("held") == TypeEffect::Undo {
            self.frame.undone().expect("who has ended the last use undoes it");
        }
    }

    /// Three steps of one CPU. Answers with the uses that it has left.
    fn run(&self, steps: [Step; 3]) -> Vec<Type> {
        let mut held = Vec::new();
        for step in steps {
            let kind = if step == Step::Get { Type::Writable } else { Type::L1 };
            if step == Step::Put {
                held.pop().into_iter().for_each(|kind| self.put(kind, 0));
            } else if self.get(kind) {
                held.push(kind);
            }
        }
        held
    }
}

#[test]
fn two_cpus_that_get_put_and_validate_one_frame_agree_at_every_moment() {
    let all = STEPS.iter().flat_map(|&a| STEPS.iter().flat_map(move |&b| STEPS.iter().map(move |&c| [a, b, c])));
    // Who puts before he has got anything does fewer than three, which is in what the others do.
    let all: Vec<[Step; 3]> =
        all.filter(|steps| steps[0] != Step::Put && (steps[1] != Step::Put || steps[2] != Step::Put)).collect();
    for (at, &one) in all.iter().enumerate() {
        for &other in &all[at..] {
            loom::model(move || {
                let watched = Arc::new(Watched::new());
                let theirs = watched.clone();
                let thread = thread::spawn(move || theirs.run(other));
                let mut held = watched.run(one);
                held.extend(thread.join().expect("no panic"));
                held.into_iter().for_each(|kind| watched.put(kind, 0));
                let word = watched.frame.type_word();
                assert!(word.count() == 0 && !word.is_partial() && !word.is_validated(), "{word:?}");
            });
        }
    }
}

/// A frame that is mapped twice to be written, and what the processor remembers of either mapping.
struct Mapped {
    watched: Watched,
    mapped: [AtomicBool; 2],
    remembered: [AtomicBool; 2],
}

/// Two frames, and the domain's flushes.
struct Two {
    lower: Mapped,
    upper: Watched,
    begun: AtomicU64,
    completed: AtomicU64,
}

impl Two {
    fn flush(&self) {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        for (remembered, mapped) in self.lower.remembered.iter().zip(&self.lower.mapped) {
            remembered.store(mapped.load(SeqCst), SeqCst);
        }
        self.completed.store(number, Ordering::SeqCst);
    }

    fn flush_since(&self, stamp: Stamp) {
        if !stamp.is_flushed(self.completed.load(Ordering::SeqCst)) {
            self.flush();
        }
    }

    fn unmap(&self, which: usize) {
        self.lower.mapped[which].store(false, SeqCst);
        let now = self.begun.load(Ordering::SeqCst);
        self.lower.watched.put(Type::Writable, now);
    }

    /// Makes the lower frame a table of level 1, and the upper one a table of level 2 that leads to it.
    fn validate(&self) -> Result<(), TypeRefused> {
        let upper = &self.upper.frame;
        if let Some(stamp) = upper.claim(Type::L2)? {
            self.flush_since(stamp);
        }
        let lower = self.lower.watched.frame.claim(Type::L1).and_then(|flush| {
            flush.into_iter().for_each(|stamp| self.flush_since(stamp));
            self.lower.watched.frame.validated()
        });
        if let Err(refused) = lower {
            upper.undone().expect("claimed here");
            return Err(refused);
        }
        assert!(self.lower.remembered.iter().all(|is| !is.load(SeqCst)), "a page table that can be written");
        upper.validated()?;
        self.upper.note(Type::L2);
        Ok(())
    }
}

#[test]
fn a_frame_that_two_cpus_unmap_is_no_table_before_both_mappings_are_forgotten() {
    loom::model(|| {
        let two = Arc::new(Two {
            lower: Mapped {
                watched: Watched::new(),
                mapped: [AtomicBool::new(true), AtomicBool::new(true)],
                remembered: [AtomicBool::new(true), AtomicBool::new(true)],
            },
            upper: Watched::new(),
            begun: AtomicU64::new(0),
            completed: AtomicU64::new(0),
        });
        assert!(two.lower.watched.get(Type::Writable) && two.lower.watched.get(Type::Writable));
        let theirs = two.clone();
        let thread = thread::spawn(move || {
            theirs.unmap(0);
            if theirs.upper.get(Type::Writable) {
                theirs.upper.put(Type::Writable, theirs.begun.load(Ordering::SeqCst));
            }
        });
        two.flush();
        two.unmap(1);
        let answer = two.validate();
        thread.join().expect("no panic");
        if answer.is_err() {
            two.validate().expect("nobody is left who could be in the way");
        }
        assert!(two.upper.frame.type_word().is_valid_table(Type::L2));
        assert!(two.lower.watched.frame.type_word().is_valid_table(Type::L1));
    });
}
