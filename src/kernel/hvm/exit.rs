//! From an exit to what is done about it.

use machine::exit::{Exit, Kind, Length};
use machine::virt::Virt;
use model::regs::{Event, vector};
use sync::Cx;
use sync::place::Root;

use super::{apic, control, cpuid, emulate, events, io, msr};
use crate::domain::life::{self, Death};
use crate::hypercall;
use crate::run::{Next, Running};

/// Does what an exit asks for.
#[inline]
pub fn handle(cx: &mut Cx<'_, Root>, run: &mut Running, exit: Exit) -> Next {
    // The commonest, without more ado.
    if let Exit::Hypercall { len: Some(len) } = exit {
        run.vcpu().exits.count(Kind::Hypercall);
        return hypercall::enter(cx, run, len);
    }
    if let Exit::Cpuid { len: Some(len) } = exit {
        run.vcpu().exits.count(Kind::Cpuid);
        return cpuid::execute(cx, run, len);
    }
    if let Exit::Rdmsr { len: Some(len) } = exit {
        run.vcpu().exits.count(Kind::Rdmsr);
        return msr::read(cx, run, len);
    }
    run.context.last_exit = Some(exit);
    run.vcpu().exits.count(exit.kind());
    match exit {
        Exit::Host | Exit::InterruptWindow | Exit::NmiWindow | Exit::TprBelowThreshold => events::look_again(run, exit),
        Exit::Hypercall { len } => with_length(cx, run, len, hypercall::enter),
        Exit::Cpuid { len } => with_length(cx, run, len, cpuid::execute),
        Exit::Rdmsr { len } => with_length(cx, run, len, msr::read),
        Exit::Wrmsr { len } => with_length(cx, run, len, msr::write),
        Exit::Io(access) => io::handle(cx, run, access),
        Exit::Cr { access, len } => control::handle(cx, run, access, len),
        Exit::Hlt { len } => with_length(cx, run, len, events::halt),
        Exit::Pause { len } => with_length(cx, run, len, |_, run, len| events::pause(run, len)),
        Exit::Wbinvd { len } => with_length(cx, run, len, skip),
        Exit::Xsetbv { len } => with_length(cx, run, len, control::xsetbv),
        Exit::Rdpmc { .. } => inject(run, Event::GP),
        Exit::Undefined => inject(run, Event::UD),
        Exit::NestedFault(fault) => emulate::nested_fault(cx, run, fault),
        Exit::ApicWrite { offset } => {
            apic::written(cx, run, offset);
            Next::Enter
        }
        Exit::Exception { vector, error } => exception(run, vector, error),
        Exit::TaskSwitch => end(cx, run, Death::TaskSwitch),
        Exit::TripleFault => end(cx, run, Death::TripleFault),
        Exit::EntryFailed { code, info } => end(cx, run, Death::EntryFailed { code, info }),
        // Exits of PV alone.
        Exit::UserSyscall { .. } | Exit::Sysenter | Exit::SoftInterrupt(_) | Exit::IretFault { .. } => {
            inject(run, Event::UD)
        }
        Exit::Unknown { code, info } => end(cx, run, Death::UnknownExit { code, info }),
    }
}

/// Ends the guest's domain.
pub(super) fn end(cx: &mut Cx<'_, Root>, run: &mut Running, why: Death) -> Next {
    life::end(cx, run, why);
    Next::Schedule
}

/// What is done about an instruction of a known length.
type Execute = fn(&mut Cx<'_, Root>, &mut Running, u8) -> Next;

/// Calls `f` with the length of the instruction that exited.
#[inline(always)]
fn with_length(cx: &mut Cx<'_, Root>, run: &mut Running, len: Length, f: Execute) -> Next {
    match len {
        Some(len) => f(cx, run, len),
        None => with_decoded_length(cx, run, f),
    }
}

/// The same where the processor did not tell the length: it is decoded.
#[inline(never)]
fn with_decoded_length(cx: &mut Cx<'_, Root>, run: &mut Running, f: Execute) -> Next {
    match emulate::length(cx, run) {
        Ok(len) => f(cx, run, len),
        Err(fault) => emulate::deliver(run, fault),
    }
}

fn skip(_: &mut Cx<'_, Root>, run: &mut Running, len: u8) -> Next {
    run.context.hw.skip(&mut run.context.regs, len);
    Next::Enter
}

/// Delivers an exception at the next entry.
pub(super) fn inject(run: &mut Running, event: Event) -> Next {
    run.context.hw.inject(event);
    Next::Enter
}

/// Exceptions that are intercepted only so that no loop of them holds the processor: the guest gets them.
fn exception(run: &mut Running, number: u8, error: Option<u32>) -> Next {
    let error = if number == vector::AC { Some(0) } else { error };
    inject(run, Event::Exception { vector: number, error })
}
