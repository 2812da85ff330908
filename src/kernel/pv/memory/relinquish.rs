//! The end of a PV domain's memory, in bounded steps: what its virtual CPUs hold, then every frame that it owns.
//!
//! No CPU runs any of its virtual CPUs any more, and so none has its page tables in CR3, or uses what it knows of them
//! before it loads CR3 anew.

use alloc::vec::Vec;

use machine::mem::frames;
use model::addr::Mfn;
use model::ids::VcpuId;
use model::pv::mmu::Stop;
use sync::Cx;
use sync::place::Root;

use super::exchange;
use crate::domain::Domain;
use crate::pv::mmu::{Budget, Session, with};

/// How far the end of a domain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relinquish {
    /// What its virtual CPUs hold is given back.
    Vcpus,
    /// The frames from this one on are.
    Frames(Mfn),
    /// All is done.
    Done,
}

/// Frames of the machine that a step looks at.
const STEP: u64 = 4096;

impl Relinquish {
    /// The next bounded step.
    #[must_use]
    pub fn step(self, cx: &mut Cx<'_, Root>, domain: &Domain) -> Self {
        if self == Self::Vcpus && !exchange::end(cx, domain) {
            return self;
        }
        let budget = Budget::new();
        let special = match self {
            Self::Vcpus => cx.lock(&domain.memory).0.take_special(),
            _ => Vec::new(),
        };
        if let Some(pv) = &domain.pv {
            pv.pages.become_ram(special.len() as u64);
        }
        let next = with(cx, domain, false, &budget, |session| match self {
            Self::Vcpus => {
                drop_vcpus(session);
                special.iter().for_each(|&mfn| session.mmu().put_writable(mfn));
                Self::Frames(Mfn::new(0))
            }
            Self::Frames(from) => drop_frames(session, from, &budget),
            Self::Done => Self::Done,
        });
        next.unwrap_or(Self::Done)
    }
}

/// Does all steps at once, for a domain that never ran.
pub fn relinquish_all(cx: &mut Cx<'_, Root>, domain: &Domain) {
    let mut at = Relinquish::Vcpus;
    while at != Relinquish::Done {
        at = at.step(cx, domain);
    }
}

fn drop_vcpus(session: &mut Session<'_>) {
    for at in 0..session.vcpus.len() {
        let tables = core::mem::take(&mut session.vcpus[at]);
        let Some(pv) = &session.tables.domain.pv else { return };
        for (n, frame) in (0..).zip(tables.gdt).filter_map(|(n, frame)| Some((n, frame?))) {
            pv.space.set_gdt_page(VcpuId(at as u32), n, None);
            session.mmu().put_descriptor_page(frame);
        }
        for (n, frame) in (0..).zip(tables.ldt).filter_map(|(n, frame)| Some((n, frame?))) {
            pv.space.set_ldt_page(VcpuId(at as u32), n, None);
            session.mmu().put_descriptor_page(frame);
        }
        [tables.kernel, tables.user].into_iter().flatten().for_each(|base| session.mmu().put_base(base));
    }
    while let Some(mfn) = session.written.pop() {
        session.mmu().put_writable(mfn);
    }
}

/// Gives up the domain's frames from `from` on, as far as a step goes.
fn drop_frames(session: &mut Session<'_>, from: Mfn, budget: &Budget) -> Relinquish {
    let owner = session.tables.domain.id;
    let end = frames::count();
    let until = end.min(from.raw() + STEP);
    for raw in from.raw()..until {
        let mfn = Mfn::new(raw);
        if frames::record(mfn).is_none_or(|frame| frame.count().owner() != Some(owner)) {
            continue;
        }
        budget.charge(4);
        if session.mmu().relinquish(mfn) == Err(Stop::Again) || budget.is_spent() {
            return Relinquish::Frames(mfn);
        }
    }
    if until < end { Relinquish::Frames(Mfn::new(until)) } else { finish(session) }
}

/// What was left to be undone is, before the end.
fn finish(session: &mut Session<'_>) -> Relinquish {
    match session.mmu().finish() {
        Ok(()) => Relinquish::Done,
        Err(_) => Relinquish::Frames(Mfn::new(frames::count())),
    }
}
