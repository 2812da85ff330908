//! `XENMEM_add_to_physmap` and its like: what a translated guest has at which of its frames.

use alloc::vec::Vec;

use abi::errno::Errno;
use abi::memory::*;
use model::addr::Gfn;
use sync::Cx;
use sync::place::Root;

use super::memory::{again, no_progress};
use super::{Answer, Args, Outcome};
use crate::domain::memory::Dropped;
use crate::domain::{self, flush};
use crate::guest_memory::GuestPtr;
use crate::run::Running;

/// Frames after which pending work is looked for.
const STEP: u64 = 64;

/// Whose memory is meant: the caller's own, which has to be translated.
fn check_domain(cx: &mut Cx<'_, Root>, run: &Running, domid: u16, space: u32) -> Result<(), Errno> {
    domain::own_from_guest(cx, &run.domain, domid)?;
    if space == XENMAPSPACE_DEV_MMIO || run.domain.pv.is_some() {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// `XENMEM_add_to_physmap` of 64-bit code, of which `done` frames are done.
pub(super) fn add_64(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args, done: u64) -> Answer {
    if done > u64::from(u16::MAX) {
        return Err(Errno::EDOM);
    }
    let arg = GuestPtr::<AddToPhysmap>::new(args[1]).read(cx, run)?;
    add(cx, run, args, &arg, done)
}

/// `XENMEM_add_to_physmap` with its argument.
pub(super) fn add(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args, arg: &AddToPhysmap, done: u64) -> Answer {
    if done > u64::from(u16::MAX) {
        return Err(Errno::EDOM);
    }
    if arg.space == XENMAPSPACE_GMFN_FOREIGN {
        return Err(Errno::ENOSYS); // it is for batches alone
    }
    check_domain(cx, run, arg.domid, arg.space)?;
    if arg.space == XENMAPSPACE_GMFN_RANGE {
        return range(cx, run, args, arg, done);
    }
    let dropped = place(cx, run, arg.space, arg.idx, Gfn::new(arg.gpfn))?;
    flush::after_change(cx, run, dropped.into_iter().flatten());
    Ok(Outcome::DONE)
}

/// `size` neighbouring frames move to as many others.
fn range(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args, arg: &AddToPhysmap, done: u64) -> Answer {
    let size = u64::from(arg.size);
    if size < done {
        return Err(Errno::EILSEQ);
    }
    let end = size.min(done + STEP);
    let mut dropped = Vec::new();
    dropped.try_reserve_exact(2 * (end - done) as usize).map_err(|_| Errno::ENOMEM)?;
    let result = (done..end).try_for_each(|n| {
        let at = |first: u64| first.checked_add(n).ok_or(Errno::EOVERFLOW);
        dropped.extend(place(cx, run, XENMAPSPACE_GMFN, at(arg.idx)?, Gfn::new(at(arg.gpfn)?))?.into_iter().flatten());
        Ok::<(), Errno>(())
    });
    flush::after_change(cx, run, dropped);
    result?;
    Ok(if end == size { Outcome::DONE } else { again(args, XENMEM_ADD_TO_PHYSMAP, end) })
}

/// `XENMEM_add_to_physmap_batch`: each frame has an error of its own.
pub(super) fn batch(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args, done: u64) -> Answer {
    if done > u64::from(u16::MAX) {
        return Err(Errno::EDOM);
    }
    let arg = GuestPtr::<AddToPhysmapBatch>::new(args[1]).read(cx, run)?;
    let space = u32::from(arg.space);
    if space == XENMAPSPACE_GMFN_RANGE {
        return Err(Errno::EOPNOTSUPP);
    }
    check_domain(cx, run, arg.domid, space)?;
    let size = u64::from(arg.size);
    if size < done {
        return Err(Errno::EILSEQ);
    }
    let end = size.min(done + STEP);
    for n in done..end {
        let idx = GuestPtr::<u64>::new(arg.idxs).at(n).read(cx, run)?;
        let gpfn = GuestPtr::<u64>::new(arg.gpfns).at(n).read(cx, run)?;
        let placed = if space == XENMAPSPACE_GMFN_FOREIGN {
            // Another domain's frames are for who has a right to them; the caller's own are not foreign.
            Err(domain::own_from_guest(cx, &run.domain, arg.foreign_domid).err().unwrap_or(Errno::EINVAL))
        } else {
            place(cx, run, space, idx, Gfn::new(gpfn))
        };
        let error = match placed {
            Ok(dropped) => {
                flush::after_change(cx, run, dropped.into_iter().flatten());
                0
            }
            Err(errno) => -errno.number(),
        };
        GuestPtr::<i32>::new(arg.errs).at(n).write(cx, run, &error)?;
    }
    Ok(if end == size { Outcome::DONE } else { again(args, XENMEM_ADD_TO_PHYSMAP_BATCH, end) })
}

/// Puts a frame at a place of the guest's choice. What was there is given up, after a flush.
fn place(cx: &mut Cx<'_, Root>, run: &Running, space: u32, idx: u64, to: Gfn) -> Result<[Option<Dropped>; 2], Errno> {
    match space {
        XENMAPSPACE_SHARED_INFO if idx == 0 => {
            let mfn = run.domain.shared.frame().mfn();
            cx.lock(&run.domain.memory).0.map_special(to, mfn)
        }
        XENMAPSPACE_GRANT_TABLE => {
            let mfn = super::grant::frame(cx, &run.domain, idx)?;
            cx.lock(&run.domain.memory).0.map_special(to, mfn)
        }
        XENMAPSPACE_GMFN => cx.lock(&run.domain.memory).0.relocate(Gfn::new(idx), to),
        _ => Err(Errno::EINVAL),
    }
}

/// `XENMEM_remove_from_physmap` of 64-bit code.
pub(super) fn remove_64(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64, done: u64) -> Answer {
    no_progress(done)?;
    let arg = GuestPtr::<RemoveFromPhysmap>::new(at).read(cx, run)?;
    remove(cx, run, arg.domid, arg.gpfn, done)
}

/// `XENMEM_remove_from_physmap` with its argument.
pub(super) fn remove(cx: &mut Cx<'_, Root>, run: &mut Running, domid: u16, gpfn: u64, done: u64) -> Answer {
    no_progress(done)?;
    check_domain(cx, run, domid, XENMAPSPACE_GMFN)?;
    let dropped = cx.lock(&run.domain.memory).0.remove(Gfn::new(gpfn))?.ok_or(Errno::ENOENT)?;
    flush::after_change(cx, run, [dropped]);
    Ok(Outcome::DONE)
}
