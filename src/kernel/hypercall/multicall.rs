//! `multicall`: several hypercalls in one.

use core::mem::offset_of;

use abi::errno::Errno;
use abi::xen::MulticallEntry;
use sync::Cx;
use sync::place::Root;

use super::{Answer, Args, Outcome, dispatch};
use crate::guest_memory::GuestPtr;
use crate::run::Running;

/// Calls after which pending work is looked for.
const STEP: u64 = 8;

/// Runs `args[1]` calls from the array at `args[0]`, each with its own result.
pub(super) fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let calls = GuestPtr::<MulticallEntry>::new(args[0]);
    let count = args[1] & 0xffff_ffff;
    for index in 0..count.min(STEP) {
        let mut call = calls.at(index).read(cx, run)?;
        let answer =
            if call.op == abi::nr::MULTICALL { Err(Errno::EINVAL) } else { dispatch(cx, run, call.op, &call.args) };
        let (result, reschedule) = match answer {
            Ok(Outcome::Done(value)) => (value, false),
            Ok(Outcome::Reschedule(value)) => (value, true),
            Ok(Outcome::Gone) => return Ok(Outcome::Gone),
            // IRET: the guest is elsewhere, and nothing comes after it. As in Xen its RAX is the result, if that can be
            // written where the guest is now.
            Ok(Outcome::AsIs) => {
                let rax = run.context.regs.rax;
                let _ = result_of(calls, index).write(cx, run, &rax);
                return Ok(Outcome::AsIs);
            }
            // The call goes on in its own entry, and the multicall from there.
            Ok(Outcome::Again(rest)) => {
                call.args = rest;
                calls.at(index).write(cx, run, &call)?;
                return Ok(again(args, index, count));
            }
            Err(errno) => (errno.to_rax(), false),
        };
        result_of(calls, index).write(cx, run, &result)?;
        if reschedule {
            let rest = again(args, index + 1, count);
            return Ok(if index + 1 == count { Outcome::Reschedule(0) } else { rest });
        }
    }
    if count <= STEP { Ok(Outcome::DONE) } else { Ok(again(args, STEP, count)) }
}

/// Where the result of a call goes.
fn result_of(calls: GuestPtr<MulticallEntry>, index: u64) -> GuestPtr<u64> {
    GuestPtr::new(calls.at(index).field(offset_of!(MulticallEntry, result)))
}

fn again(args: &Args, done: u64, count: u64) -> Outcome {
    let first = args[0].wrapping_add(done * size_of::<MulticallEntry>() as u64);
    Outcome::Again([first, count - done, args[2], args[3], args[4], args[5]])
}
