//! `mmuext_op`: pins, page-table bases, flushes, the LDT (`xen/include/public/xen.h`).

use alloc::sync::Arc;

use abi::errno::Errno;
use abi::xen::*;
use machine::mem::PinnedFrame;
use machine::virt::Virt;
use machine::{cpu, pv};
use model::addr::{Mfn, PAGE_SIZE};
use model::pv::mmu::{Mmu, Stop};
use sync::Cx;
use sync::place::Root;

use super::batch::{Batch, Owner, is_single};
use super::va::{flush_mask, is_guests};
use super::{Session, Tables, base, descriptors, with};
use crate::caches;
use crate::domain::{Domain, flush};
use crate::guest_memory;
use crate::hypercall::{Answer, Args, Outcome};
use crate::pv::is_initial;
use crate::run::Running;

/// `mmuext_op`: `args[1]` operations from the list at `args[0]`, the number of those done to `args[2]`, on frames of
/// domain `args[3]`.
pub fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    if !is_single(args) {
        return list(cx, run, args, None);
    }
    // By far the most calls are of one operation, and most of those are about this CPU alone.
    let op = op_of(guest_memory::read3(run, args[0])?);
    match op.cmd {
        MMUEXT_TLB_FLUSH_LOCAL => run.context.hw.flush(),
        MMUEXT_INVLPG_LOCAL => pv::invlpg(op.arg1),
        _ => return list(cx, run, args, Some(op)),
    }
    Ok(Outcome::DONE)
}

/// The operations one after the other; the first may have been read.
#[inline(never)]
fn list(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args, mut first: Option<MmuextOp>) -> Answer {
    let mut batch = match Batch::start(cx, run, args) {
        Ok(batch) => batch,
        Err(answer) => return answer,
    };
    let other = if batch.foreign == u32::from(DOMID_SELF) { None } else { other(cx, run, batch.foreign)? };
    let (mut result, mut has_work) = (Ok(()), false);
    while batch.left > 0 {
        if batch.has_to_stop() {
            result = Err(Stop::Again);
            break;
        }
        let op = first.take().map_or_else(|| guest_memory::read3(run, batch.at).map(op_of), Ok);
        result = match op {
            Ok(op) => one(cx, run, &batch, other.as_ref(), op, &mut has_work),
            Err(errno) => Err(errno.into()),
        };
        if result.is_err() {
            break;
        }
        batch.next(size_of::<MmuextOp>());
    }
    batch.end(cx, run, result, has_work)
}

fn op_of([cmd, arg1, arg2]: [u64; 3]) -> MmuextOp {
    MmuextOp { cmd: cmd as u32, pad: 0, arg1, arg2 }
}

#[cold]
fn other(cx: &mut Cx<'_, Root>, run: &Running, foreign: u32) -> Result<Option<Arc<Domain>>, Errno> {
    match Owner::from_guest(cx, run, foreign as u16)? {
        Owner::Own => Ok(None),
        Owner::Other(domain) if domain.pv.is_some() => Ok(Some(domain)),
        Owner::Other(_) => Err(Errno::EINVAL),
        Owner::Io | Owner::Xen => Err(Errno::EPERM),
    }
}

#[inline]
fn one(
    cx: &mut Cx<'_, Root>,
    run: &mut Running,
    batch: &Batch,
    other: Option<&Arc<Domain>>,
    op: MmuextOp,
    has_work: &mut bool,
) -> Result<(), Stop> {
    match op.cmd {
        MMUEXT_TLB_FLUSH_LOCAL..=MMUEXT_FLUSH_CACHE | MMUEXT_FLUSH_CACHE_GLOBAL => {
            if other.is_some() {
                Err(Errno::EPERM.into())
            } else {
                Ok(flush_op(cx, run, op)?)
            }
        }
        MMUEXT_MARK_SUPER | MMUEXT_UNMARK_SUPER => Err(Errno::EOPNOTSUPP.into()),
        MMUEXT_NEW_BASEPTR | MMUEXT_NEW_USER_BASEPTR | MMUEXT_SET_LDT => {
            if other.is_some() {
                return Err(Errno::EPERM.into());
            }
            // The session borrows the domain, and the operation changes what else the CPU has.
            let domain = run.domain.clone();
            let answer = with(cx, &domain, false, &batch.budget, |session| {
                let answer = change_tables(session, run, op);
                *has_work = session.has_work();
                answer
            });
            answer.unwrap_or(Err(Errno::EINVAL.into()))
        }
        MMUEXT_PIN_L1_TABLE..=MMUEXT_UNPIN_TABLE | MMUEXT_CLEAR_PAGE | MMUEXT_COPY_PAGE => {
            let domain = other.unwrap_or(&run.domain);
            let answer = with(cx, domain, false, &batch.budget, |session| {
                let answer = frame_op(&mut session.mmu(), op);
                // What another's call leaves to be undone, that domain's own calls and its end finish.
                *has_work |= session.has_work() && other.is_none();
                answer
            });
            answer.unwrap_or(Err(Errno::EINVAL.into()))
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

#[inline]
fn flush_op(cx: &mut Cx<'_, Root>, run: &mut Running, op: MmuextOp) -> Result<(), Errno> {
    match op.cmd {
        MMUEXT_TLB_FLUSH_LOCAL => run.context.hw.flush(),
        MMUEXT_INVLPG_LOCAL => pv::invlpg(op.arg1),
        MMUEXT_TLB_FLUSH_ALL => flush::all(cx, &run.domain),
        MMUEXT_INVLPG_ALL if is_guests(op.arg1) => flush::all(cx, &run.domain),
        MMUEXT_TLB_FLUSH_MULTI => flush_mask(cx, run, op.arg2).map_err(|_| Errno::EINVAL)?,
        MMUEXT_INVLPG_MULTI if is_guests(op.arg1) => flush_mask(cx, run, op.arg2).map_err(|_| Errno::EINVAL)?,
        // Nobody's page is there.
        MMUEXT_INVLPG_ALL | MMUEXT_INVLPG_MULTI => {}
        // Who has no devices has no memory that processors do not keep coherent.
        MMUEXT_FLUSH_CACHE if is_initial(run) => cpu::write_back_caches(),
        MMUEXT_FLUSH_CACHE_GLOBAL if is_initial(run) => caches::write_back_everywhere(),
        MMUEXT_FLUSH_CACHE => return Err(Errno::EACCES),
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

fn change_tables(session: &mut Session<'_>, run: &mut Running, op: MmuextOp) -> Result<(), Stop> {
    match op.cmd {
        MMUEXT_NEW_BASEPTR => base::set_kernel(session, run, Mfn::new(op.arg1)),
        MMUEXT_NEW_USER_BASEPTR => base::set_user(session, run, Mfn::new(op.arg1)),
        _ => Ok(descriptors::set_ldt(session, run, op.arg1, op.arg2 as u32)?),
    }
}

fn frame_op(mmu: &mut Mmu<'_, Tables<'_>>, op: MmuextOp) -> Result<(), Stop> {
    let mfn = Mfn::new(op.arg1);
    match op.cmd {
        MMUEXT_UNPIN_TABLE => mmu.unpin(mfn),
        MMUEXT_CLEAR_PAGE => write_page(mmu, mfn, |to| to.clear(0, PAGE_SIZE as usize)),
        MMUEXT_COPY_PAGE => {
            let from = Mfn::new(op.arg2);
            mmu.get_page(from)?;
            let copied = PinnedFrame::get(from, mmu.domain).map(|from| write_page(mmu, mfn, |to| copy(&from, to)));
            mmu.put_page(from);
            copied.unwrap_or(Err(Errno::EINVAL.into()))
        }
        MMUEXT_PIN_L1_TABLE => mmu.pin(mfn, 1),
        MMUEXT_PIN_L2_TABLE => mmu.pin(mfn, 2),
        MMUEXT_PIN_L3_TABLE => mmu.pin(mfn, 3),
        MMUEXT_PIN_L4_TABLE => mmu.pin(mfn, 4),
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// Writes to a frame of the domain's that is no page table.
fn write_page(mmu: &mut Mmu<'_, Tables<'_>>, mfn: Mfn, write: impl FnOnce(&PinnedFrame)) -> Result<(), Stop> {
    let owner = mmu.domain;
    match mmu.get_writable(mfn, owner) {
        Err(Stop::Refused(_)) => return Err(Errno::EINVAL.into()),
        answer => answer?,
    }
    let frame = PinnedFrame::get(mfn, owner).map(|frame| write(&frame));
    mmu.put_writable(mfn);
    frame.map_err(|_| Errno::EINVAL.into())
}

fn copy(from: &PinnedFrame, to: &PinnedFrame) {
    let mut part = [0; 512];
    for at in (0..PAGE_SIZE as usize).step_by(part.len()) {
        from.read(at, &mut part);
        to.write(at, &part);
    }
}
