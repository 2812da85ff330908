//! Stores of a PV guest's kernel to its page tables, which it has mapped read-only: the entry is written for it, if it may.

use machine::virt::{GuestMsr, Virt};
use model::addr::GuestVirt;
use model::emul::Instruction;
use model::pv::code::{self, Code, Missing};
use model::pv::mmu::{Entries as _, Stop, Written, entry};
use model::pv::store::{self, EntryStore, NoStore, Stored};
use model::regs::SegmentName;
use sync::Cx;
use sync::place::Root;

use super::emulate::{Emulated, give, retire};
use super::mmu::{self, Budget, Session};
use crate::guest_memory::{copy_in_part, window};
use crate::run::{Next, Running};

/// How the entry was written.
enum Outcome {
    Done,
    /// The guest executes its instruction again.
    Again,
    /// It is none that the guest may write so.
    Refused,
}

/// After a fault of the guest's kernel by a store to a page that is there.
#[inline]
pub fn write_fault(cx: &mut Cx<'_, Root>, run: &mut Running, at: GuestVirt) -> Emulated {
    let word = window(run, || machine::pv::read1(GuestVirt::new(run.context.regs.rip)));
    let plain = word.and_then(|[word]| store::plain(&word.to_le_bytes(), &run.context.regs, at.raw()));
    let Some((entry, len)) = plain else { return any(cx, run, at) };
    match write(cx, run, at, &entry) {
        Outcome::Done => {
            let regs = &mut run.context.regs;
            regs.rip = regs.rip.wrapping_add(u64::from(len));
            Some(retire(run).map(|()| Next::Enter))
        }
        Outcome::Again => Some(Ok(Next::Enter)),
        Outcome::Refused => None,
    }
}

/// Likewise by any instruction.
fn any(cx: &mut Cx<'_, Root>, run: &mut Running, at: GuestVirt) -> Emulated {
    let stored = match stored(run, at) {
        Ok(stored) => stored,
        Err(NoStore::Fault(fault)) => return Some(give(run, fault)),
        Err(NoStore::Unhandled) => return None,
    };
    match write(cx, run, at, &stored.store) {
        Outcome::Done => {
            *run.context.regs = stored.regs;
            Some(if stored.is_done { retire(run).map(|()| Next::Enter) } else { Ok(Next::Enter) })
        }
        Outcome::Again => Some(Ok(Next::Enter)),
        Outcome::Refused => None,
    }
}

/// What the guest's instruction would have stored.
fn stored(run: &Running, at: GuestVirt) -> Result<Stored, NoStore> {
    let insn = instruction(run)?;
    store::store(&insn, &run.context.regs, at.raw(), &mut Guest(run))
}

fn instruction(run: &Running) -> Result<Instruction, NoStore> {
    // A kernel's code is 64-bit code.
    let copy = &mut |at, out: &mut [u8]| copy_in_part(run, at, out);
    code::instruction(copy, &Code::LONG, run.context.regs.rip).map_err(|missing| match missing {
        Missing::Fault(fault) => NoStore::Fault(fault),
        Missing::Undefined => NoStore::Unhandled,
    })
}

/// Writes the entry of the table that is mapped, read-only, at `at`.
#[inline]
fn write(cx: &mut Cx<'_, Root>, run: &Running, at: GuestVirt, store: &EntryStore) -> Outcome {
    let vcpu = run.id.0 as usize;
    let written = mmu::with(cx, &run.domain, mmu::is_privileged(run), &Budget::new(), |session| {
        let base = session.vcpus[vcpu].kernel?;
        let (table, index) = mmu::find(base, at.raw()).ok()?;
        let mapped = session.tables.read(table, index);
        if mapped & (entry::PRESENT | entry::WRITABLE) != entry::PRESENT {
            return None;
        }
        write_entry(session, mapped, store)
    });
    written.flatten().unwrap_or(Outcome::Refused)
}

#[inline]
fn write_entry(session: &mut Session<'_>, mapped: u64, store: &EntryStore) -> Option<Outcome> {
    let target = entry::frame(mapped);
    // Whose it is, and whether it is a table, is checked where it is written; here it has to be memory.
    let current = match store.needs_current() {
        true if session.tables.frame(target).is_none() => return None,
        true => session.tables.read(target, store.index),
        false => 0,
    };
    let Ok((old, new)) = store.against(current) else { return Some(Outcome::Again) };
    match session.mmu().emulated_write(target, store.index, old, new) {
        Ok(Written::Done) => Some(Outcome::Done),
        Ok(Written::Differs(_)) | Err(Stop::Again) => Some(Outcome::Again),
        Err(Stop::Refused(_)) => None,
    }
}

/// The guest's memory, by its own addresses.
struct Guest<'a>(&'a Running);

impl store::Memory for Guest<'_> {
    fn copy_in(&mut self, at: u64, out: &mut [u8]) -> usize {
        copy_in_part(self.0, at, out)
    }

    fn base(&self, segment: SegmentName) -> u64 {
        let hw = &self.0.context.hw;
        hw.msr(if segment == SegmentName::Fs { GuestMsr::FsBase } else { GuestMsr::GsBase })
    }
}
