//! Privileged instructions of PV guests, done for them.
//!
//! [`model::pv::code`] reads the instruction, [`model::emul`] says which it is, [`model::pv::privileged`] whether the guest may
//! have it; here it is done. What is not the guest's comes back as the exception that it raised.

use abi::errno::Errno;
use abi::pv_vcpu::FLAT_KERNEL_CS64;
use abi::xen::VMASST_TYPE_ARCHITECTURAL_IOPL;
use machine::cpu;
use machine::virt::{GuestMsr, Virt};
use model::addr::{GuestVirt, Mfn};
use model::emul::{self, ControlOp, Fault, Outcome, Port, System};
use model::pv::code::{self, Code, Missing};
use model::pv::frame::PvRegs;
use model::pv::is_guests;
use model::pv::privileged::{self, CPUID, FORCED, Verdict, Who};
use model::regs::{Cr0, Event, SegmentName, vector};
use sync::Cx;
use sync::place::Root;

use super::exit::{give_page_fault, trap};
use super::quick::FORCED_CPUID;
use super::{calls, events, is_initial, mmu, msr, operands, ports, quick};
use crate::blocking;
use crate::domain::life::Death;
use crate::guest_memory::{copy_in_part, window};
use crate::run::{Next, Running};

/// What an emulated instruction leads to; `None` when the guest gets the exception as it is.
pub type Emulated = Option<Result<Next, Death>>;

/// How an instruction went.
pub enum Done {
    /// It is done: the guest goes on behind it.
    Behind,
    /// It is done, and the scheduler is to be asked.
    Sleeps,
    /// A part of it is done: the guest executes it again.
    Again,
}

/// Why it is not done.
pub enum Refusal {
    /// The guest gets the exception that the instruction raised.
    Bounce,
    /// The guest gets this one.
    Fault(Fault),
}

impl From<Event> for Refusal {
    fn from(event: Event) -> Self {
        Self::Fault(Fault::Event(event))
    }
}

type Answer = Result<Done, Refusal>;

/// DR6.BS: a single step.
const SINGLE_STEP: u64 = 1 << 14;

/// After `#GP(0)`: a privileged instruction.
pub fn general_protection(cx: &mut Cx<'_, Root>, run: &mut Running) -> Emulated {
    let regs = &run.context.regs;
    let (what, len) = match frequent(run) {
        Some(found) => found,
        None => {
            let code = code_segment(run)?;
            match code::instruction(&mut |at, out| copy_in_part(run, at, out), &code, regs.rip) {
                Ok(insn) => (emul::system(&insn, regs)?, insn.len() as u8),
                Err(Missing::Fault(fault)) => return Some(give(run, fault)),
                Err(Missing::Undefined) => return None,
            }
        }
    };
    let answer = match privileged::judge(what, &who(run)) {
        Verdict::Allowed(what) => perform(cx, run, what),
        Verdict::AskBitmap(port, what) if bitmap_allows(run, port) => perform(cx, run, what),
        Verdict::AskBitmap(..) | Verdict::Bounce => Err(Refusal::Bounce),
        Verdict::Fault(event) => Err(event.into()),
    };
    match answer {
        Ok(done) => Some(finish(run, done, len)),
        Err(Refusal::Bounce) => None,
        Err(Refusal::Fault(fault)) => Some(give(run, fault)),
    }
}

/// After `#UD`: CPUID behind the prefix that forces its emulation.
pub fn undefined(_: &mut Cx<'_, Root>, run: &mut Running) -> Emulated {
    let rip = run.context.regs.rip;
    let is_forced = match window(run, || machine::pv::read1(GuestVirt::new(rip))) {
        Some([word]) => word.to_le_bytes()[..FORCED_CPUID.len()] == FORCED_CPUID,
        None => match forced_at_the_end(run) {
            Ok(is_forced) => is_forced,
            Err(fault) => return Some(give(run, fault)),
        },
    };
    if !is_forced {
        return None;
    }
    cpuid(run, true);
    Some(finish(run, Done::Behind, FORCED_CPUID.len() as u8))
}

/// Likewise where not all of eight bytes can be read.
#[cold]
fn forced_at_the_end(run: &Running) -> Result<bool, Fault> {
    let Some(code) = code_segment(run) else { return Ok(false) };
    let rip = run.context.regs.rip;
    let copy = &mut |at, out: &mut [u8]| copy_in_part(run, at, out);
    if code::read::<5>(copy, &code, rip)? != FORCED {
        return Ok(false);
    }
    Ok(code::read::<2>(copy, &code, rip.wrapping_add(5))? == CPUID)
}

/// What 64-bit code at RIP begins with, if it is one of the common instructions.
#[inline]
fn frequent(run: &Running) -> Option<(System, u8)> {
    let regs = &run.context.regs;
    if regs.cs as u16 != FLAT_KERNEL_CS64 {
        return None;
    }
    let [word] = window(run, || machine::pv::read1(GuestVirt::new(regs.rip)))?;
    emul::frequent(&word.to_le_bytes())
}

/// The guest's code segment; `None` if it is gone meanwhile.
fn code_segment(run: &Running) -> Option<Code> {
    let cs = run.context.regs.cs as u16;
    if cs == FLAT_KERNEL_CS64 {
        return Some(Code::LONG);
    }
    Code::of(&run.context.hw.pv().describe(cs)?)
}

fn who(run: &mut Running) -> Who {
    let iopl = (run.context.pv().iopl >> 12 & 3) as u8;
    let hw = &run.context.hw;
    let architectural_iopl = run.domain.assists(VMASST_TYPE_ARCHITECTURAL_IOPL);
    Who { is_kernel: hw.pv().is_kernel(), iopl, architectural_iopl, cr4: hw.cr(4) }
}

/// Whether the bitmap that the guest has given has the port. It lies in the kernel's address space.
fn bitmap_allows(run: &mut Running, port: Port) -> bool {
    let bitmap = run.context.pv().io_bitmap;
    let was_user = !run.context.hw.pv().is_kernel();
    if bitmap.ports == 0 || was_user && !run.context.hw.pv_mut().toggle_mode() {
        return false;
    }
    let allows = privileged::bitmap_allows(port, bitmap.ports, |offset| {
        let mut bytes = [0xff; 2];
        let left = copy_in_part(run, bitmap.at.wrapping_add(offset), &mut bytes);
        bytes[2 - left..].fill(0xff);
        bytes
    });
    if was_user {
        run.context.hw.pv_mut().toggle_mode();
    }
    allows
}

/// The guest goes on.
fn finish(run: &mut Running, done: Done, len: u8) -> Result<Next, Death> {
    let next = match done {
        Done::Again => return Ok(Next::Enter),
        Done::Behind => Next::Enter,
        Done::Sleeps => Next::Schedule,
    };
    let regs = &mut run.context.regs;
    regs.rip = regs.rip.wrapping_add(u64::from(len));
    retire(run)?;
    Ok(next)
}

/// The flags behind an instruction, and the trap of a single step.
#[inline]
pub fn retire(run: &mut Running) -> Result<(), Death> {
    let (rflags, steps) = privileged::retire(run.context.regs.rflags);
    run.context.regs.rflags = rflags;
    if steps {
        run.context.pv().debug.raised(SINGLE_STEP);
        return trap(run, vector::DB, None).map(drop);
    }
    Ok(())
}

/// Gives the guest a fault that it has not raised itself.
#[cold]
pub fn give(run: &mut Running, fault: Fault) -> Result<Next, Death> {
    match fault {
        Fault::Page { address, error } => give_page_fault(run, address.raw(), error),
        Fault::Event(Event::Exception { vector, error }) => trap(run, vector, error),
        Fault::Event(_) => Ok(Next::Enter),
    }
}

fn perform(cx: &mut Cx<'_, Root>, run: &mut Running, what: System) -> Answer {
    match what {
        System::Cpuid => cpuid(run, false),
        System::Rdmsr => {
            let value = msr::read(run).ok_or(Refusal::Bounce)?;
            PvRegs::new(&mut run.context.regs).set_pair(value);
        }
        System::Wrmsr if !msr::write(run) => return Err(Refusal::Bounce),
        System::Wrmsr => {}
        System::Rdtsc => PvRegs::new(&mut run.context.regs).set_pair(cpu::rdtsc()),
        System::Rdtscp => {
            PvRegs::new(&mut run.context.regs).set_pair(cpu::rdtsc());
            run.context.regs.rcx = run.context.hw.msr(GuestMsr::TscAux);
        }
        System::Xsetbv => xsetbv(run)?,
        System::Control(op) => return control(cx, run, op),
        System::ReadDebug { dr, gpr } => {
            *run.context.regs.gpr_mut(gpr) = calls::read_debug(run, u64::from(dr)).map_err(debug_fault)?;
        }
        System::WriteDebug { dr, gpr } => {
            let value = run.context.regs.gpr(gpr);
            calls::write_debug(run, u64::from(dr), value).map_err(debug_fault)?;
        }
        System::In(port) => read_port(run, port),
        System::Out(port) => ports::write(run, port, run.context.regs.rax as u32),
        System::StringIo(_) => return string_io(run),
        System::Invlpg { offset, segment } => invlpg(run, offset, segment),
        System::Wbinvd => write_back(run),
        System::SetInterrupts => {}
        System::Hlt => {
            events::unmask(run);
            blocking::block(cx, run);
            return Ok(Done::Sleeps);
        }
    }
    Ok(Done::Behind)
}

fn debug_fault(errno: Errno) -> Refusal {
    if errno == Errno::ENODEV { Event::UD.into() } else { Event::GP.into() }
}

#[inline]
fn cpuid(run: &mut Running, is_forced: bool) {
    let context = &mut *run.context;
    let xcr0 = context.extended.xcr0();
    quick::cpuid(&run.domain, run.id, xcr0, context.hw.pv(), PvRegs::new(&mut context.regs), is_forced);
}

fn xsetbv(run: &mut Running) -> Result<(), Refusal> {
    let regs = &run.context.regs;
    let (index, value) = (regs.rcx as u32, regs.rax & 0xffff_ffff | regs.rdx << 32);
    let checked = run.domain.controls.check_xcr0(index, value);
    run.context.extended.set_xcr0(checked.map_err(|_| Refusal::Bounce)?);
    Ok(())
}

fn control(cx: &mut Cx<'_, Root>, run: &mut Running, op: ControlOp) -> Answer {
    let ts = Cr0::TS.bits();
    match op {
        ControlOp::Clts => {
            let cr0 = run.context.hw.cr(0);
            run.context.hw.set_cr(0, cr0 & !ts);
        }
        ControlOp::Read { cr: 0, gpr } => {
            *run.context.regs.gpr_mut(gpr) = privileged::read_cr0(run.context.hw.cr(0) & ts != 0);
        }
        ControlOp::Read { cr, gpr } => *run.context.regs.gpr_mut(gpr) = run.context.hw.cr(cr),
        ControlOp::Write { cr, gpr } => return set_control(cx, run, cr, run.context.regs.gpr(gpr)),
        ControlOp::Lmsw { .. } => return Err(Refusal::Bounce),
    }
    Ok(Done::Behind)
}

fn set_control(cx: &mut Cx<'_, Root>, run: &mut Running, cr: u8, value: u64) -> Answer {
    match cr {
        0 => {
            let ts = privileged::write_cr0(value).ok_or(Refusal::Bounce)?;
            run.context.hw.set_cr(0, privileged::read_cr0(ts));
        }
        2 => {
            run.context.hw.set_cr(2, value);
            if let Some(info) = &run.info {
                info.words().set_cr2(value);
            }
        }
        3 => return set_base(cx, run, Mfn::new(value >> 12)),
        4 => {
            let allowed = run.domain.controls.cr4_allowed();
            run.context.hw.set_cr(4, privileged::write_cr4(value, allowed));
        }
        _ => return Err(Refusal::Bounce),
    }
    Ok(Done::Behind)
}

/// A new CR3: as `MMUEXT_NEW_BASEPTR`.
fn set_base(cx: &mut Cx<'_, Root>, run: &mut Running, l4: Mfn) -> Answer {
    match mmu::new_base(cx, run, l4) {
        Ok(()) => Ok(Done::Behind),
        Err(model::pv::mmu::Stop::Again) => Ok(Done::Again),
        Err(model::pv::mmu::Stop::Refused(_)) => Err(Refusal::Bounce),
    }
}

/// IN: 32 bits clear the upper half of the register, fewer leave the rest (SDM 1 3.4.1.1).
fn read_port(run: &mut Running, port: Port) {
    let mask = if port.size == 4 { u64::from(u32::MAX) } else { (1 << (8 * port.size)) - 1 };
    let value = u64::from(ports::read(run, port)) & mask;
    let rax = &mut run.context.regs.rax;
    *rax = if port.size == 4 { value } else { *rax & !mask | value };
}

/// INS and OUTS, whose first port the guest may use: some elements at a time.
fn string_io(run: &mut Running) -> Answer {
    let code = code_segment(run).ok_or(Refusal::Bounce)?;
    let rip = run.context.regs.rip;
    let read = code::instruction(&mut |at, out| copy_in_part(run, at, out), &code, rip);
    let insn = match read {
        Ok(insn) if matches!(emul::system(&insn, &run.context.regs), Some(System::StringIo(_))) => insn,
        Ok(_) | Err(Missing::Undefined) => return Err(Refusal::Bounce),
        Err(Missing::Fault(fault)) => return Err(Refusal::Fault(fault)),
    };
    match emul::execute(&mut operands::Guest { run }, &insn) {
        Outcome::Done { .. } => Ok(Done::Behind),
        Outcome::Again => Ok(Done::Again),
        Outcome::Fault(fault) => Err(Refusal::Fault(fault)),
        Outcome::Unhandled => Err(Refusal::Bounce),
    }
}

/// INVLPG: as `MMUEXT_INVLPG_LOCAL`.
fn invlpg(run: &Running, offset: u64, segment: SegmentName) {
    let base = match segment {
        SegmentName::Fs => run.context.hw.msr(GuestMsr::FsBase),
        SegmentName::Gs => run.context.hw.msr(GuestMsr::GsBase),
        _ => 0,
    };
    let at = base.wrapping_add(offset);
    if is_guests(at, 1) {
        machine::pv::invlpg(at);
    }
}

/// WBINVD: only a domain with devices has anything to write back.
fn write_back(run: &Running) {
    if is_initial(run) {
        cpu::write_back_caches();
    }
}
