//! How domains end, and what becomes of them.
//!
//! ```text
//!   runs --end--> ended --all virtual CPUs off--> relinquishing --memory gone--> destroyed --restart--> building --> runs
//!                   | preserve
//!                   v
//!                 stays
//! ```
//!
//! Whatever takes long is done in bounded steps by [`work`], which every CPU's loop calls.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::sched::*;
use machine::exit::Exit;
use machine::irq::{self, pending};
use machine::percpu::this_cpu;
use machine::virt::{GuestMsr, Virt};
use model::addr::{Gfn, GuestPhys};
use model::config::xl::Action;
use sync::place::{self, Root};
use sync::{Cx, Lock};

use super::{Domain, attention};
use crate::builder::{Builder, Progress, Source};
use crate::guest_memory::copy_in_pv;
use crate::hvm::emulate;
use crate::pv::memory::Relinquish;
use crate::run::Running;
use crate::{console, domain, events, pv, sched};

/// Every way in which a domain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It asked for it, with a `SHUTDOWN_*` code.
    Asked(u32),
    /// A triple fault, which resets a PC.
    TripleFault,
    /// It executed, or walked page tables, where it has no memory.
    NoMemory {
        /// The guest-physical address.
        at: GuestPhys,
        /// By an instruction fetch.
        is_fetch: bool,
    },
    /// A hardware task switch.
    TaskSwitch,
    /// The processor refused its state.
    EntryFailed {
        /// See [`Exit::EntryFailed`].
        code: u64,
        /// See [`Exit::EntryFailed`].
        info: u64,
    },
    /// An exception of a PV guest for which its virtual IDT has no handler.
    NoTrapHandler {
        /// The vector.
        vector: u8,
        /// The error code, or 0.
        error: u32,
    },
    /// A PV guest that has no callback for what happened.
    NoCallback {
        /// Which.
        which: &'static str,
    },
    /// A PV guest's kernel stack on which a frame cannot be written.
    Stack {
        /// Where the frame was to begin.
        at: u64,
    },
    /// A PV guest's IRET whose frame cannot be read.
    IretFrame {
        /// Where it was to begin.
        at: u64,
    },
    /// A PV guest's IRET to user mode, for which it has no page tables.
    NoUserTables,
    /// An exit that Euxen does not know.
    UnknownExit {
        /// See [`Exit::Unknown`].
        code: u64,
        /// See [`Exit::Unknown`].
        info: u64,
    },
}

impl Death {
    /// The `SHUTDOWN_*` code that decides what becomes of the domain.
    pub fn code(self) -> u32 {
        match self {
            Self::Asked(code) => code,
            // As Xen's default for `HVM_PARAM_TRIPLE_FAULT_REASON`.
            Self::TripleFault => SHUTDOWN_REBOOT,
            _ => SHUTDOWN_CRASH,
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Asked(SHUTDOWN_POWEROFF) => write!(f, "powered off"),
            Self::Asked(SHUTDOWN_REBOOT) => write!(f, "asked for a reboot"),
            Self::Asked(SHUTDOWN_CRASH) => write!(f, "reported its own crash"),
            Self::Asked(SHUTDOWN_WATCHDOG) => write!(f, "was ended by its watchdog"),
            Self::Asked(code) => write!(f, "asked for shutdown code {code}"),
            Self::TripleFault => write!(f, "triple fault: an exception could not be delivered by its IDT"),
            Self::NoMemory { at, is_fetch: true } => {
                write!(f, "executed at guest-physical {at}, where it has no memory")
            }
            Self::NoMemory { at, .. } => {
                write!(f, "its page tables lead to guest-physical {at}, where it has no memory")
            }
            Self::TaskSwitch => write!(f, "hardware task switch, which is not emulated"),
            Self::EntryFailed { code, info } => {
                write!(f, "the processor refused its state (code {code:#x}, {info:#x})")
            }
            Self::NoTrapHandler { vector, error } => {
                write!(f, "exception {vector} (error code {error:#x}), for which its trap table has no handler")
            }
            Self::NoCallback { which } => write!(f, "it has no {which} callback and needs one"),
            Self::Stack { at } => write!(f, "a frame cannot be written to its kernel's stack at {at:#x}"),
            Self::IretFrame { at } => write!(f, "IRET with a frame at {at:#x}, which cannot be read"),
            Self::NoUserTables => write!(f, "IRET to user mode, which has no page tables"),
            Self::UnknownExit { code, info } => write!(f, "unknown exit (code {code:#x}, {info:#x})"),
        }
    }
}

/// Whether a domain runs.
#[derive(Default)]
pub struct Life {
    /// Set once, by the first virtual CPU that ends the domain.
    has_ended: AtomicBool,
    /// One more than the `SHUTDOWN_*` code; 0 for none.
    code: AtomicU32,
    /// What becomes of it has been decided: it stays as it is.
    is_preserved: AtomicBool,
}

impl Life {
    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }
    /// `SCHEDOP_shutdown_code`: the code of a later end, set once.
    pub fn set_code(&self, code: u32) {
        let _ = self.code.compare_exchange(0, code.saturating_add(1), Ordering::AcqRel, Ordering::Relaxed);
    }
    /// The code of the end.
    pub fn code(&self) -> Option<u32> {
        self.code.load(Ordering::Acquire).checked_sub(1)
    }
}

/// There may be something for [`work`].
static HAS_WORK: AtomicBool = AtomicBool::new(false);

/// What [`work`] is at.
enum Job {
    /// A domain's ports are closed, from this one on.
    Close { domain: Arc<Domain>, from: u32 },
    /// A domain gives its memory back, from this guest frame on.
    Relinquish { domain: Arc<Domain>, from: Gfn, has_memory: bool },
    /// Likewise a PV domain.
    RelinquishPv { domain: Arc<Domain>, at: Relinquish },
    /// A domain is made again.
    Build(alloc::boxed::Box<Builder>),
}

static JOB: Lock<place::Domctl, Option<Job>> = Lock::new(None);

/// Ports that one step closes.
const PORTS_PER_STEP: u32 = 256;
/// Frames that one step gives back.
const FRAMES_PER_STEP: u32 = 128;

/// Ends the domain of the running virtual CPU, which does not go on.
pub fn end(cx: &mut Cx<'_, Root>, run: &mut Running, why: Death) {
    let domain = run.domain.clone();
    if domain.life.has_ended.swap(true, Ordering::AcqRel) {
        return;
    }
    domain.life.set_code(why.code());
    report(cx, run, why);
    pause(cx, &domain);
}

/// A watchdog of the domain has run out: the domain ends.
pub fn bite(cx: &mut Cx<'_, Root>, domain: &Domain) {
    end_from_outside(cx, domain, SHUTDOWN_WATCHDOG, "it");
}

/// `SCHEDOP_remote_shutdown`: another domain ends this one, with a `SHUTDOWN_*` code.
pub fn end_remotely(cx: &mut Cx<'_, Root>, domain: &Domain, code: u32) {
    end_from_outside(cx, domain, code, "another domain said for it: it");
}

fn end_from_outside(cx: &mut Cx<'_, Root>, domain: &Domain, code: u32, who: &str) {
    if domain.life.has_ended.swap(true, Ordering::AcqRel) {
        return;
    }
    let why = Death::Asked(code);
    domain.life.set_code(why.code());
    log::info!("({}) {} ended: {who} {why}", domain.name, domain.id);
    pause(cx, domain);
}

/// Takes the virtual CPUs off their CPUs, for good.
fn pause(cx: &mut Cx<'_, Root>, domain: &Domain) {
    for vcpu in &domain.vcpus {
        vcpu.note(attention::SCHEDULE);
        sched::pause(cx, vcpu.key);
    }
    HAS_WORK.store(true, Ordering::SeqCst);
    irq::note(this_cpu(), pending::KICK);
}

/// Says on the console why a domain ended; with registers and what it did last unless it was asked for.
fn report(cx: &mut Cx<'_, Root>, run: &Running, why: Death) {
    let (domain, id) = (&run.domain, run.id);
    log::info!("({}) {} ended: {id} {why}", domain.name, domain.id);
    if matches!(why, Death::Asked(SHUTDOWN_POWEROFF | SHUTDOWN_REBOOT)) {
        return;
    }
    let (r, hw) = (&run.context.regs, &run.context.hw);
    let say = |line: fmt::Arguments<'_>| log::info!("({})   {line}", domain.name);
    if let Some(exit) = run.context.last_exit.filter(|exit| !matches!(exit, Exit::Host)) {
        say(format_args!("last exit {exit:?}"));
    }
    say(format_args!("rip {:016x} rflags {:08x} rsp {:016x} cpl {}", r.rip, r.rflags, r.rsp, hw.cpl()));
    if run.is_pv() {
        let mode = if hw.pv().is_kernel() { "kernel" } else { "user" };
        say(format_args!("cs {:04x} ss {:04x}, in {mode} mode", r.cs, r.ss));
    }
    say(format_args!("rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}", r.rax, r.rbx, r.rcx, r.rdx));
    say(format_args!("rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}", r.rsi, r.rdi, r.rbp, r.r8));
    say(format_args!("r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}", r.r9, r.r10, r.r11, r.r12));
    say(format_args!("r13 {:016x} r14 {:016x} r15 {:016x}", r.r13, r.r14, r.r15));
    let efer = hw.msr(GuestMsr::Efer);
    say(format_args!(
        "cr0 {:08x} cr2 {:016x} cr3 {:016x} cr4 {:08x} efer {efer:x}",
        hw.cr(0),
        hw.cr(2),
        hw.cr(3),
        hw.cr(4)
    ));
    let (bytes, count) = if run.is_pv() { pv_code_bytes(run) } else { emulate::code_bytes(cx, run) };
    say(format_args!("code {:02x?}", &bytes[..count]));
    let name = |number| crate::hypercall::table::find(number).map_or("not built", |entry| entry.name);
    if let Some((number, argument)) = run.context.hypercalls.last_quick() {
        say(format_args!("last quick hypercall {number} ({}), first argument {argument:#x}", name(number)));
    }
    for (number, argument) in run.context.hypercalls.iter() {
        say(format_args!("before that hypercall {number} ({}), first argument {argument:#x}", name(number)));
    }
}

/// What a PV guest was about to execute, as far as it can be read.
fn pv_code_bytes(run: &Running) -> ([u8; 15], usize) {
    let mut bytes = [0; 15];
    let rip = run.context.regs.rip;
    let mut count = 0;
    for (n, byte) in (0..).zip(&mut bytes) {
        if copy_in_pv(run, rip.wrapping_add(n), core::slice::from_mut(byte)).is_err() {
            break;
        }
        count += 1;
    }
    (bytes, count)
}

/// A bounded step of whatever takes long, if there is any. One CPU at a time does it. Says whether this CPU is to
/// come back soon.
#[inline]
pub fn work(cx: &mut Cx<'_, Root>) -> bool {
    HAS_WORK.load(Ordering::Acquire) && step_of_work(cx)
}

fn step_of_work(cx: &mut Cx<'_, Root>) -> bool {
    let has_more = {
        let Some(mut job) = JOB.try_lock() else { return false };
        if job.is_none() {
            *job = next(cx);
        }
        match job.take() {
            Some(current) => {
                *job = step(cx, current);
                true
            }
            None => {
                // Down before the look: who ends a domain during it sets the flag again.
                HAS_WORK.store(false, Ordering::SeqCst);
                if ended(cx).next().is_some() {
                    HAS_WORK.store(true, Ordering::SeqCst);
                }
                false
            }
        }
    };
    // A CPU that left its virtual CPU meanwhile found the lock taken, and relies on us.
    has_more || ended(cx).any(|domain| is_off(&domain))
}

/// The domains that have ended and that nothing was decided about.
fn ended(cx: &mut Cx<'_, Root>) -> impl Iterator<Item = Arc<Domain>> + use<> {
    let is_new = |domain: &Arc<Domain>| domain.life.has_ended() && !domain.life.is_preserved.load(Ordering::Relaxed);
    domain::all(cx).into_iter().filter(is_new)
}

/// Whether no CPU runs it.
fn is_off(domain: &Domain) -> bool {
    domain.vcpus.iter().all(|vcpu| sched::is_off(vcpu.key))
}

/// The next domain that has ended and that no CPU runs any more.
fn next(cx: &mut Cx<'_, Root>) -> Option<Job> {
    for domain in ended(cx) {
        if !is_off(&domain) {
            continue;
        }
        if matches!(action(&domain), Action::Preserve) {
            domain.life.is_preserved.store(true, Ordering::Relaxed);
            log::info!("({}) is preserved, as its configuration says", domain.name);
            continue;
        }
        stop(cx, &domain);
        return Some(Job::Close { domain, from: 0 });
    }
    None
}

/// Closes some of a domain's ports, from this one on. Its other ends are told.
fn close_ports(cx: &mut Cx<'_, Root>, domain: Arc<Domain>, from: u32) -> Job {
    let mut from = from;
    for _ in 0..PORTS_PER_STEP {
        let closed = cx.lock(&domain.channels).0.close_next(from, &domain.shared);
        let Some((next, closed)) = closed else { return relinquish(domain) };
        events::after_close(cx, closed);
        from = next;
    }
    Job::Close { domain, from }
}

/// The work of giving a domain's memory back.
fn relinquish(domain: Arc<Domain>) -> Job {
    if domain.pv.is_some() {
        return Job::RelinquishPv { domain, at: Relinquish::Vcpus };
    }
    Job::Relinquish { domain, from: Gfn::new(0), has_memory: true }
}

/// What the configuration says for this end.
fn action(domain: &Domain) -> Action {
    let config = &domain.config.config;
    match domain.life.code() {
        Some(SHUTDOWN_POWEROFF) => config.on_poweroff,
        Some(SHUTDOWN_REBOOT) => config.on_reboot,
        Some(SHUTDOWN_WATCHDOG) => config.on_watchdog,
        _ => config.on_crash,
    }
}

fn is_restart(action: Action) -> bool {
    matches!(action, Action::Restart | Action::RenameRestart | Action::CoredumpRestart)
}

/// Takes a domain off all lists but its own memory's.
fn stop(cx: &mut Cx<'_, Root>, domain: &Arc<Domain>) {
    domain::withdraw(cx, domain.id);
    console::forget(cx, domain);
    cx.lock(&domain.channels).0.set_dying();
    for vcpu in &domain.vcpus {
        let (mut state, mut cx) = cx.lock(&vcpu.state);
        let state = &mut *state;
        let others = [&mut state.singleshot, &mut state.periodic, &mut state.poll, &mut state.apic_timer];
        for timer in others.into_iter().chain(state.watchdogs.iter_mut().flatten()) {
            timer.stop(&mut cx);
        }
    }
    for vcpu in &domain.vcpus {
        sched::release(cx, vcpu.key);
    }
}

fn step(cx: &mut Cx<'_, Root>, job: Job) -> Option<Job> {
    crate::stretch::part(match &job {
        Job::Close { .. } => 1,
        Job::Relinquish { .. } => 2,
        Job::RelinquishPv { at: Relinquish::Vcpus, .. } => 3,
        Job::RelinquishPv { .. } => 4,
        Job::Build(_) => 5,
    });
    match job {
        Job::Close { domain, from } => Some(close_ports(cx, domain, from)),
        Job::Relinquish { domain, from, has_memory: true } => {
            let next = cx.lock(&domain.memory).0.relinquish(from, FRAMES_PER_STEP);
            Some(match next {
                Some(from) => Job::Relinquish { domain, from, has_memory: true },
                None => Job::Relinquish { domain, from, has_memory: false },
            })
        }
        Job::Relinquish { domain, from, has_memory: false } => {
            if !cx.lock(&domain.memory).0.free_tables(64) {
                return Some(Job::Relinquish { domain, from, has_memory: false });
            }
            destroyed(cx, domain)
        }
        Job::RelinquishPv { domain, at } => match at.step(cx, &domain) {
            Relinquish::Done => destroyed(cx, domain),
            at => Some(Job::RelinquishPv { domain, at }),
        },
        Job::Build(mut builder) => match builder.step(cx) {
            Ok(Progress::More) => Some(Job::Build(builder)),
            Ok(Progress::Done) => {
                console::focus_first(cx);
                None
            }
            Err(error) => {
                log::error!("({}) cannot be started again: {error}", builder.name());
                builder.abandon(cx).map(relinquish)
            }
        },
    }
}

/// The memory is back; what is left goes with the last reference.
fn destroyed(cx: &mut Cx<'_, Root>, domain: Arc<Domain>) -> Option<Job> {
    let restart = is_restart(action(&domain)) && domain.life.code().is_some();
    let (name, source): (_, Source) = (domain.name.clone(), domain.config.clone());
    drop(domain);
    if restart {
        log::info!("({name}) starts again");
        return Some(Job::Build(alloc::boxed::Box::new(Builder::new(source))));
    }
    drop(source);
    #[cfg(feature = "stretch")]
    crate::stretch::report();
    log::info!("({name}) is destroyed; {} KiB free", free_kib());
    if domain::all(cx).is_empty() {
        log::info!("no domain is left; `R` at the console restarts the machine");
    }
    None
}

/// Gives back the memory of a domain that was never published, at once.
pub fn relinquish_all(cx: &mut Cx<'_, Root>, domain: Option<Arc<Domain>>) {
    let Some(domain) = domain else { return };
    if domain.pv.is_some() {
        return pv::memory::relinquish_all(cx, &domain);
    }
    let (mut memory, _) = cx.lock(&domain.memory);
    let mut from = Gfn::new(0);
    while let Some(next) = memory.relinquish(from, u32::MAX) {
        from = next;
    }
    while !memory.free_tables(usize::MAX) {}
}

/// Free memory in KiB.
pub fn free_kib() -> u64 {
    machine::mem::frames::free_frames() * 4
}
