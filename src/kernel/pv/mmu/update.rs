//! `mmu_update`: writes to page tables, by the machine address of the entry (`xen/include/public/xen.h`).

use alloc::sync::Arc;

use abi::errno::Errno;
use abi::xen::*;
use machine::mem::{frames, m2p};
use model::addr::{Gfn, MachineAddr, Mfn, PAGE_SHIFT};
use model::page::Type;
use model::pv::mmu::{Stop, entry};
use sync::Cx;
use sync::place::Root;

use super::batch::{Batch, Owner, is_privileged, is_single, other};
use super::va::change_quickly;
use super::{Budget, forget_frames, session, with};
use crate::domain::Domain;
use crate::guest_memory;
use crate::hypercall::{Answer, Args, Outcome};
use crate::run::Running;

/// Whose page tables are meant, and whose frames.
struct Targets {
    /// `None` is the caller.
    tables: Option<Arc<Domain>>,
    frames: Owner,
}

/// `mmu_update`: `args[1]` updates from the list at `args[0]`, the number of those done to `args[2]`, of the domains that
/// `args[3]` names: below, whose frames; above, one more than whose page tables.
pub fn update(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    if !is_single(args) {
        return list(cx, run, args, None);
    }
    let request = read(run, args[0])?;
    match single(cx, run, request) {
        Some(Ok(())) => Ok(Outcome::DONE),
        Some(Err(errno)) => Err(errno),
        // It goes on, or what it leaves to be undone does: to write an entry again that is written does no harm.
        None => list(cx, run, args, Some(request)),
    }
}

#[inline]
fn read(run: &Running, at: u64) -> Result<MmuUpdate, Errno> {
    guest_memory::read2(run, at).map(|[ptr, val]| MmuUpdate { ptr, val })
}

/// Where an entry is: in which frame, and which of its entries it is.
#[inline]
fn place(request: MmuUpdate) -> (Mfn, usize) {
    let at = MachineAddr::new(request.ptr);
    (at.frame(), at.offset() / 8)
}

/// Does the commonest kind of update, if it can be done to its end at once.
#[inline]
fn single(cx: &mut Cx<'_, Root>, run: &Running, request: MmuUpdate) -> Option<Result<(), Errno>> {
    let domain = &*run.domain;
    let pv = domain.pv.as_ref().filter(|_| request.ptr & 7 == MMU_NORMAL_PT_UPDATE)?;
    let (table, index) = place(request);
    let (answer, others) = {
        let (mut state, cx) = cx.lock(&pv.mmu);
        if change_quickly(domain, table, index, request.val) {
            return Some(Ok(()));
        }
        session(&mut state, cx, domain, pv, is_privileged(run), &Budget::new(), |session| {
            match session.mmu().update(table, index, request.val, false, domain.id) {
                Err(Stop::Again) => None,
                _ if session.has_work() => None,
                Ok(()) => Some(Ok(())),
                Err(Stop::Refused(errno)) => Some(Err(errno)),
            }
        })
    };
    forget_frames(cx, others);
    answer
}

/// The updates one after the other; the first may have been read.
#[inline(never)]
fn list(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args, mut first: Option<MmuUpdate>) -> Answer {
    let mut batch = match Batch::start(cx, run, args) {
        Ok(batch) => batch,
        Err(answer) => return answer,
    };
    let targets = if batch.foreign == u32::from(DOMID_SELF) {
        Targets { tables: None, frames: Owner::Own }
    } else {
        targets(cx, run, batch.foreign)?
    };
    let (mut result, mut has_work) = (Ok(()), false);
    while batch.left > 0 {
        if batch.has_to_stop() {
            result = Err(Stop::Again);
            break;
        }
        result = match first.take().map_or_else(|| read(run, batch.at), Ok) {
            Ok(request) => one(cx, run, &batch, &targets, request, &mut has_work),
            Err(errno) => Err(errno.into()),
        };
        if result.is_err() {
            break;
        }
        batch.next(size_of::<MmuUpdate>());
    }
    batch.end(cx, run, result, has_work)
}

#[cold]
fn targets(cx: &mut Cx<'_, Root>, run: &Running, foreign: u32) -> Result<Targets, Errno> {
    let tables = match (foreign >> 16).checked_sub(1) {
        None => None,
        Some(id) if id == u32::from(run.domain.id.0) => None,
        Some(id) => Some(other(cx, run, id as u16)?),
    };
    Ok(Targets { tables, frames: Owner::from_guest(cx, run, foreign as u16)? })
}

#[inline]
fn one(
    cx: &mut Cx<'_, Root>,
    run: &mut Running,
    batch: &Batch,
    targets: &Targets,
    request: MmuUpdate,
    has_work: &mut bool,
) -> Result<(), Stop> {
    let command = request.ptr & 7;
    let mut value = request.val;
    match command {
        MMU_NORMAL_PT_UPDATE | MMU_PT_UPDATE_PRESERVE_AD | MMU_PT_UPDATE_NO_TRANSLATE => {}
        MMU_MACHPHYS_UPDATE => return Ok(machphys(cx, run, batch, targets, request)?),
        _ => return Err(Errno::ENOSYS.into()),
    }
    if let Owner::Other(owner) = &targets.frames
        && command != MMU_PT_UPDATE_NO_TRANSLATE
    {
        value = translated(cx, owner, value)?;
    }
    let domain = targets.tables.as_deref().unwrap_or(&run.domain);
    let owner = targets.frames.id(domain.id);
    let (table, index) = place(request);
    let Some(pv) = &domain.pv else { return Err(Errno::EOPNOTSUPP.into()) };
    let is_keeping = command == MMU_PT_UPDATE_PRESERVE_AD;
    let (answer, others) = {
        let (mut state, cx) = cx.lock(&pv.mmu);
        if !is_keeping && owner == domain.id && change_quickly(domain, table, index, value) {
            return Ok(());
        }
        session(&mut state, cx, domain, pv, is_privileged(run), &batch.budget, |session| {
            let answer = if owner != domain.id && is_upper_table(table) {
                Err(Errno::EINVAL.into())
            } else {
                session.mmu().update(table, index, value, is_keeping, owner)
            };
            *has_work = session.has_work();
            answer
        })
    };
    forget_frames(cx, others);
    answer
}

/// Whether a frame is a page table whose entries lead to the domain's own frames alone.
fn is_upper_table(mfn: Mfn) -> bool {
    frames::record(mfn).is_some_and(|frame| matches!(frame.type_word().kind(), Type::L2 | Type::L3 | Type::L4))
}

/// An entry with the machine frame of a translated domain's frame.
#[cold]
fn translated(cx: &mut Cx<'_, Root>, owner: &Domain, value: u64) -> Result<u64, Errno> {
    if owner.pv.is_some() || !entry::is_present(value) {
        return Ok(value);
    }
    let gfn = Gfn::new(entry::frame(value).raw());
    let mfn = cx.lock(&owner.memory).0.ram(gfn, entry::is_writable(value)).ok_or(Errno::EINVAL)?;
    Ok(value & !entry::ADDRESS | mfn.raw() << PAGE_SHIFT)
}

/// `MMU_MACHPHYS_UPDATE`: says by which number its owner knows a frame.
fn machphys(
    cx: &mut Cx<'_, Root>,
    run: &Running,
    batch: &Batch,
    targets: &Targets,
    request: MmuUpdate,
) -> Result<(), Errno> {
    if targets.tables.is_some() {
        return Err(Errno::EPERM);
    }
    if let Owner::Other(owner) = &targets.frames
        && owner.pv.is_none()
    {
        return Err(Errno::EINVAL);
    }
    let mfn = MachineAddr::new(request.ptr).frame();
    let owner = targets.frames.id(run.domain.id);
    // With the lock, no frame of the caller's is freed between the look and the change.
    let answer = with(cx, &run.domain, false, &batch.budget, |_| {
        let is_owned = frames::record(mfn).is_some_and(|frame| frame.count().owner() == Some(owner));
        if is_owned && m2p::set(mfn, request.val) { Ok(()) } else { Err(Errno::EINVAL) }
    });
    answer.unwrap_or(Err(Errno::EINVAL))
}
