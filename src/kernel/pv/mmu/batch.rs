//! Calls with a list of operations: they stop after a bounded part, and what they could not finish at their end is
//! finished by calls of the same number (`MMU_UPDATE_PREEMPTED`).

use alloc::sync::Arc;

use abi::errno::Errno;
use abi::xen::{DOMID_IO, DOMID_SELF, DOMID_XEN};
use model::ids::DomId;
use model::pv::mmu::{HYPERVISOR, IO, Stop};
use sync::Cx;
use sync::place::Root;

use super::{Budget, with};
use crate::domain::{self, Domain};
use crate::guest_memory::GuestPtr;
use crate::hypercall::{Answer, Args, Outcome};
use crate::run::Running;

/// In the count: the call goes on with an earlier one.
const PREEMPTED: u32 = 1 << 31;

/// Whether a call has one operation, on the caller's own frames, and nowhere to tell how many were done.
#[inline]
pub(super) fn is_single(args: &Args) -> bool {
    args[1] as u32 == 1 && args[2] == 0 && args[3] as u32 == u32::from(DOMID_SELF)
}

/// Where a call stands in its list.
pub(super) struct Batch {
    /// Where the next operation is.
    pub(super) at: u64,
    /// Operations from there on.
    pub(super) left: u32,
    /// Whose frames are meant.
    pub(super) foreign: u32,
    /// How much the call may still do.
    pub(super) budget: Budget,
    /// Where the number of operations done goes; 0 for nowhere.
    pdone: u64,
    /// Operations done by earlier parts of the call, and by this one.
    done: u32,
    /// Registers that are no arguments of it: the guest finds them as they were.
    others: [u64; 2],
}

impl Batch {
    /// A call's arguments. The answer is there at once if the call only finishes an earlier one.
    #[inline]
    pub(super) fn start(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Result<Self, Answer> {
        let mut batch = Self {
            at: args[0],
            left: args[1] as u32,
            foreign: args[3] as u32,
            budget: Budget::new(),
            pdone: args[2],
            done: 0,
            others: [args[4], args[5]],
        };
        if batch.left & PREEMPTED != 0 {
            if batch.left == PREEMPTED && batch.at == 0 {
                return Err(batch.finish(cx, run, batch.foreign as i32));
            }
            batch.left &= !PREEMPTED;
            if batch.pdone != 0 {
                batch.done = GuestPtr::<u32>::new(batch.pdone).read(cx, run).unwrap_or(0);
            }
        }
        Ok(batch)
    }

    /// Whether pending work is looked for before the next operation. An operation costs as much as some entries.
    #[inline]
    pub(super) fn has_to_stop(&self) -> bool {
        self.budget.charge(4);
        self.budget.is_spent()
    }

    /// One operation of this size is done.
    #[inline]
    pub(super) fn next(&mut self, size: usize) {
        self.at = self.at.wrapping_add(size as u64);
        self.left -= 1;
        self.done += 1;
    }

    /// The end of this part of the call. `has_changed`: page tables may be left to be undone.
    #[inline]
    pub(super) fn end(
        self,
        cx: &mut Cx<'_, Root>,
        run: &mut Running,
        result: Result<(), Stop>,
        has_changed: bool,
    ) -> Answer {
        if self.pdone != 0 {
            // As in Xen, where that fails nobody is told.
            let _ = GuestPtr::<u32>::new(self.pdone).write(cx, run, &self.done);
        }
        let code = match result {
            Ok(()) => 0,
            Err(Stop::Refused(errno)) => -errno.number(),
            Err(Stop::Again) => {
                return Ok(self.again(self.at, self.left, self.pdone, self.foreign));
            }
        };
        if has_changed { self.finish(cx, run, code) } else { answer(code) }
    }

    /// Finishes what the operations left to be undone; then the call ends with `code`.
    fn finish(&self, cx: &mut Cx<'_, Root>, run: &Running, code: i32) -> Answer {
        match with(cx, &run.domain, false, &self.budget, |session| session.mmu().finish()) {
            Some(Err(Stop::Again)) => Ok(self.again(0, 0, 0, code as u32)),
            _ => answer(code),
        }
    }

    fn again(&self, at: u64, left: u32, pdone: u64, foreign: u32) -> Outcome {
        let [fifth, sixth] = self.others;
        Outcome::Again([at, (left | PREEMPTED).into(), pdone, foreign.into(), fifth, sixth])
    }
}

fn answer(code: i32) -> Answer {
    Ok(Outcome::Done(i64::from(code) as u64))
}

/// The domain whose frames a call means.
pub(super) enum Owner {
    /// The caller.
    Own,
    /// Another one; the caller has the right to name it.
    Other(Arc<Domain>),
    /// Devices' memory.
    Io,
    /// The hypervisor.
    Xen,
}

impl Owner {
    /// By number, as [`DOMID_SELF`] and so on. The caller's own number is [`Errno::ESRCH`], as in Xen.
    pub(super) fn from_guest(cx: &mut Cx<'_, Root>, run: &Running, raw: u16) -> Result<Self, Errno> {
        if raw == DOMID_SELF {
            return Ok(Self::Own);
        }
        if raw == run.domain.id.0 {
            return Err(Errno::ESRCH);
        }
        match raw {
            DOMID_IO => Ok(Self::Io),
            DOMID_XEN if is_privileged(run) => Ok(Self::Xen),
            DOMID_XEN => Err(Errno::EPERM),
            _ => Ok(Self::Other(other(cx, run, raw)?)),
        }
    }

    /// The number that frames have.
    pub(super) fn id(&self, own: DomId) -> DomId {
        match self {
            Self::Own => own,
            Self::Other(domain) => domain.id,
            Self::Io => IO,
            Self::Xen => HYPERVISOR,
        }
    }
}

/// Another domain, which the caller may only name if it has the right.
pub(super) fn other(cx: &mut Cx<'_, Root>, run: &Running, raw: u16) -> Result<Arc<Domain>, Errno> {
    let domain = domain::find(cx, DomId(raw)).ok_or(Errno::ESRCH)?;
    if is_privileged(run) { Ok(domain) } else { Err(Errno::EPERM) }
}

/// Whether the caller may map and manage others' memory.
#[inline]
pub fn is_privileged(run: &Running) -> bool {
    run.domain.pv.as_ref().is_some_and(|pv| pv.is_initial)
}
