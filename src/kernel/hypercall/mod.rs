//! Hypercalls of PVH and HVM guests: number in RAX, arguments in RDI, RSI, RDX, R10, R8, R9, result in RAX
//! (`xen/include/public/arch-x86/xen-x86_64.h`).

pub mod assist;
mod compat;
pub mod console;
mod evtchn;
mod grant;
mod hvm;
pub(crate) mod memory;
mod multicall;
pub mod params;
mod physmap;
mod sched;
pub mod table;
pub mod vcpu;
pub mod version;

use abi::errno::Errno;
use abi::memory::XENMEM_MAXIMUM_RAM_PAGE;
use abi::nr;
use abi::sched::SCHEDOP_YIELD;
use abi::vcpu::VCPUOP_IS_UP;
use abi::version::XENVER_VERSION;
use machine::mem::frames;
use machine::virt::Virt;
use model::regs::Regs;
use sync::Cx;
use sync::place::Root;

use crate::run::{Next, Running};
use crate::stretch;

/// The arguments of a hypercall.
pub type Args = [u64; 6];

/// How a hypercall ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this result.
    Done(u64),
    /// With this result, once the virtual CPU runs again: the scheduler is to be asked now.
    Reschedule(u64),
    /// A bounded part of it is done: it is to be executed again with these arguments.
    Again(Args),
    /// With the registers as they are.
    AsIs,
    /// The virtual CPU does not go on.
    Gone,
}

impl Outcome {
    /// Success without a value.
    pub const DONE: Self = Self::Done(0);
}

/// What a handler gives back.
pub type Answer = Result<Outcome, Errno>;

/// A handler. It holds no lock.
pub type Handler = fn(&mut Cx<'_, Root>, &mut Running, &Args) -> Answer;

/// A hypercall by the running virtual CPU, whose instruction has `len` bytes.
#[inline]
pub fn enter(cx: &mut Cx<'_, Root>, run: &mut Running, len: u8) -> Next {
    if !run.context.hw.is_long_kernel() {
        return enter_otherwise(cx, run, len);
    }
    let regs = &run.context.regs;
    let (number, first) = (regs.rax, regs.rdi);
    if number == nr::SET_TIMER_OP {
        return enter_set_timer(cx, run, len);
    }
    match quick(run, number, first, regs.rsi) {
        Some(result) => finish_quick(run, result, len),
        None => enter_by_table(cx, run, len),
    }
}

/// `set_timer_op`, quick where no lock is in the way. Apart, so that [`enter`] calls nothing and saves no registers.
#[inline(never)]
fn enter_set_timer(cx: &mut Cx<'_, Root>, run: &mut Running, len: u8) -> Next {
    match vcpu::try_set_timer(&run.domain, run.id, run.context.regs.rdi) {
        Some(result) => finish_quick(run, result, len),
        None => enter_by_table(cx, run, len),
    }
}

/// A call that is not quick.
#[inline(never)]
fn enter_by_table(cx: &mut Cx<'_, Root>, run: &mut Running, len: u8) -> Next {
    let regs = &run.context.regs;
    let (number, first) = (regs.rax, regs.rdi);
    let args = [first, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
    run.context.hypercalls.add(number, first);
    match dispatch(cx, run, number, &args) {
        Ok(Outcome::Again(args)) => {
            set_args(&mut run.context.regs, args);
            Next::Enter
        }
        answer => finish(run, answer, len),
    }
}

/// Hypercalls that do little. `None`, and nothing has been done, for others.
#[inline(always)]
fn quick(run: &Running, number: u64, first: u64, second: u64) -> Option<u64> {
    match number {
        nr::XEN_VERSION if first as u32 == XENVER_VERSION => Some(version::VERSION),
        nr::VCPU_OP if first as u32 == VCPUOP_IS_UP => {
            Some(vcpu::is_up(&run.domain, second).map_or_else(Errno::to_rax, u64::from))
        }
        nr::MEMORY_OP if first as u32 == XENMEM_MAXIMUM_RAM_PAGE => Some(frames::count()),
        nr::SCHED_OP if first as u32 == SCHEDOP_YIELD && crate::sched::is_alone() => Some(0),
        _ if table::find(number).is_none() => Some(Errno::ENOSYS.to_rax()),
        _ => None,
    }
}

/// The same by 32-bit code, or by user mode, which is refused.
#[cold]
fn enter_otherwise(cx: &mut Cx<'_, Root>, run: &mut Running, len: u8) -> Next {
    if run.context.hw.cpl() != 0 {
        return finish(run, Err(Errno::EPERM), len);
    }
    let number = run.context.regs.rax & 0xffff_ffff;
    let args = compat::args(&run.context.regs);
    run.context.hypercalls.add(number, args[0]);
    stretch::at_call(number, args[0]);
    let answer = compat::dispatch(cx, run, number, &args);
    if let Ok(Outcome::Again(args)) = answer {
        compat::set_args(&mut run.context.regs, args);
        return Next::Enter;
    }
    let next = finish(run, answer, len);
    run.context.regs.rax &= 0xffff_ffff;
    next
}

/// One call, by number.
fn dispatch(cx: &mut Cx<'_, Root>, run: &mut Running, number: u64, args: &Args) -> Answer {
    stretch::at_call(number, args[0]);
    if run.is_pv() {
        return table::find_pv(number).map_or(Err(Errno::ENOSYS), |handler| handler(cx, run, args));
    }
    let Some(entry) = table::find(number) else { return Err(Errno::ENOSYS) };
    if entry.guests == table::Guests::Pv {
        return Err(Errno::ENOSYS);
    }
    (entry.handler)(cx, run, args)
}

#[inline(always)]
fn finish(run: &mut Running, answer: Answer, len: u8) -> Next {
    match answer {
        Ok(Outcome::Done(value)) => finish_with(run, value, len, Next::Enter),
        answer => finish_otherwise(run, answer, len),
    }
}

#[inline(never)]
fn finish_otherwise(run: &mut Running, answer: Answer, len: u8) -> Next {
    match answer {
        Ok(Outcome::Done(value)) => finish_with(run, value, len, Next::Enter),
        Ok(Outcome::Reschedule(value)) => finish_with(run, value, len, Next::Schedule),
        Ok(Outcome::AsIs | Outcome::Again(_)) => Next::Enter,
        Ok(Outcome::Gone) => Next::Schedule,
        Err(errno) => finish_with(run, errno.to_rax(), len, Next::Enter),
    }
}

#[inline(always)]
fn finish_quick(run: &mut Running, result: u64, len: u8) -> Next {
    run.context.hypercalls.note_quick(run.context.regs.rax, run.context.regs.rdi);
    finish_with(run, result, len, Next::Enter)
}

#[inline(always)]
fn finish_with(run: &mut Running, value: u64, len: u8, next: Next) -> Next {
    let context = &mut *run.context;
    let regs: &mut Regs = &mut context.regs;
    regs.rax = value;
    context.hw.skip(regs, len);
    next
}

fn set_args(regs: &mut Regs, args: Args) {
    [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
}

/// SYSCALL by a PV guest's kernel; RIP is behind it.
#[inline]
pub fn enter_pv(cx: &mut Cx<'_, Root>, run: &mut Running) -> Next {
    let regs = &run.context.regs;
    let number = regs.rax;
    let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
    run.context.hypercalls.add(number, args[0]);
    stretch::at_call(number, args[0]);
    let answer = match table::find_pv(number) {
        Some(handler) => handler(cx, run, &args),
        None => Err(Errno::ENOSYS),
    };
    match answer {
        Ok(Outcome::Done(value)) => run.context.regs.rax = value,
        Err(errno) => run.context.regs.rax = errno.to_rax(),
        Ok(other) => return finish_pv(run, other),
    }
    Next::Enter
}

/// `SCHEDOP_block` by a PV guest's kernel, the commonest of the calls that take long; as [`enter_pv`].
pub fn block_pv(cx: &mut Cx<'_, Root>, run: &mut Running) -> Next {
    let regs = &mut run.context.regs;
    let (number, first) = (regs.rax, regs.rdi);
    regs.rax = 0;
    run.context.hypercalls.add(number, first);
    stretch::at_call(number, first);
    sched::block(cx, run);
    Next::Schedule
}

/// What ends otherwise than by a result alone.
fn finish_pv(run: &mut Running, outcome: Outcome) -> Next {
    let regs = &mut run.context.regs;
    match outcome {
        Outcome::Done(value) => regs.rax = value,
        Outcome::Reschedule(value) => {
            regs.rax = value;
            return Next::Schedule;
        }
        Outcome::Again(args) => {
            set_args(regs, args);
            // Back to the SYSCALL, whose two other registers are lost anyway.
            regs.rip = regs.rip.wrapping_sub(2);
        }
        Outcome::AsIs => {}
        Outcome::Gone => return Next::Schedule,
    }
    Next::Enter
}

/// The first argument of calls whose first argument is a 32-bit command.
fn command(args: &Args) -> u32 {
    args[0] as u32
}
