//! What is done for a guest within one stay in it.
//!
//! A stay ends with an interrupt: what happens elsewhere meanwhile, a flush that this CPU must join or an event for the
//! guest, comes with one, which the processor takes as soon as the guest goes on. So what touches only what this CPU has, and
//! the guest's memory by the guest's own translations, can be done without leaving: the guest's exceptions and system
//! calls, its IRET, the commonest privileged instructions ([`super::quick`]), and hypercalls that do little: what touches a
//! single entry of a page table, its own timer, an event for itself, a piece of a line on the console; or several of these.
//! Nothing here waits, nor for a lock. `exit`, `emulate` and the table of hypercalls do all else, and these where something
//! is special: then nothing has been done here.

use core::mem::offset_of;

use abi::errno::Errno;
use abi::event_channel::EVTCHNOP_SEND;
use abi::nr;
use abi::vcpu::VCPUOP_IS_UP;
use abi::version::XENVER_VERSION;
use abi::xen::{CONSOLEIO_WRITE, MulticallEntry, VMASST_TYPE_WRITABLE_PAGETABLES};
use machine::exit::Kind;
use machine::pv::{Vcpu, cause};
use machine::virt::Virt;
use model::addr::GuestVirt;
use model::evtchn::EvtchnPort;
use model::ids::VcpuId;
use model::pv::frame::Handler;
use model::pv::is_in_hole;
use model::pv::privileged::SoftInterrupt;
use model::regs::{Regs, Rflags, vector};
use sync::Cx;
use sync::place::Root;

use super::bounce::{Back, Bounce, Scene};
use super::exit::error;
use super::quick::{self, Quick};
use super::{calls, events, exit, mmu};
use crate::domain::{Context, Domain, Remembered};
use crate::hypercall::{self, console as console_io, table, vcpu as vcpu_op, version};
use crate::run::{Next, Running, begin_stay};
use crate::stretch;

/// What follows when the guest has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// What it left for is done: it goes on.
    Again,
    /// What it left for is done: it goes on after a look at what there may be for it.
    Look,
    /// A hypercall is to be done.
    Call,
    /// What it left for is to be done.
    Leave,
}

/// Stays in the guest, for as long as nothing is noted for this CPU and the scheduler need not be asked.
#[inline(never)]
pub fn step(cx: &mut Cx<'_, Root>, run: &mut Running) -> Next {
    loop {
        if events::prepare(cx, run) == Next::Schedule {
            return Next::Schedule;
        }
        begin_stay(run);
        let next = stay(cx, run);
        stretch::end();
        stretch::begin();
        if next == Next::Schedule || run.here.pending.is_some() {
            return next;
        }
    }
}

/// One stay. The CPU has entered the guest in the sense of the flush protocol, and has left it afterwards.
#[inline(always)]
fn stay(cx: &mut Cx<'_, Root>, run: &mut Running) -> Next {
    let Context { hw, regs, pv, extended, hypercalls, .. } = &mut *run.context;
    let (Some(info), Some(pv)) = (&run.info, pv) else {
        run.here.visits.left();
        return exit::die_without_info(cx, run);
    };
    let scene = Scene { domain: &run.domain, info: info.words(), pv };
    let mut stay = Stay { scene, id: run.id, xcr0: extended.xcr0(), calls: hypercalls };
    stretch::end();
    let then = hw.pv_mut().run_with(regs, |vcpu, regs| stay.left(vcpu, regs));
    stretch::begin();
    let then = match then {
        Ok(then) => then,
        Err(exit) => {
            run.here.visits.left();
            return exit::handle(cx, run, exit);
        }
    };
    match then {
        Then::Again | Then::Look => {
            run.here.visits.left();
            Next::Enter
        }
        Then::Call => {
            run.here.visits.left();
            run.vcpu().exits.count(Kind::Hypercall);
            hypercall::enter_pv(cx, run)
        }
        Then::Leave => {
            let Context { hw, regs, .. } = &mut *run.context;
            let exit = hw.pv_mut().exit(regs);
            run.here.visits.left();
            exit::handle(cx, run, exit)
        }
    }
}

/// What of a virtual CPU is at hand during a stay.
struct Stay<'a> {
    scene: Scene<'a>,
    id: VcpuId,
    xcr0: u64,
    calls: &'a mut Remembered,
}

impl Stay<'_> {
    /// The guest has left.
    #[inline(always)]
    fn left(&mut self, vcpu: &mut Vcpu, regs: &mut Regs) -> Option<Then> {
        const PF: u64 = vector::PF as u64;
        const UD: u64 = vector::UD as u64;
        const GP: u64 = vector::GP as u64;
        let then = match regs.vector {
            PF => self.enter(vcpu, regs),
            cause::SYSCALL if vcpu.is_kernel() => self.hypercall(vcpu, regs),
            cause @ (UD | GP) if cause == UD || regs.error == 0 => match self.instruction(vcpu, regs) {
                Quick::Done => Then::Again,
                Quick::Own => self.enter(vcpu, regs),
                Quick::Special => Then::Leave,
            },
            _ => self.enter(vcpu, regs),
        };
        // The guest may have let events in since it entered.
        match then {
            Then::Again if self.scene.info.is_upcall_due() => Some(Then::Look),
            Then::Again => None,
            then => Some(then),
        }
    }

    /// A privileged instruction, or CPUID with its prefix.
    #[inline(always)]
    fn instruction(&mut self, vcpu: &mut Vcpu, regs: &mut Regs) -> Quick {
        if regs.vector == u64::from(vector::UD) {
            quick::undefined(self.scene.domain, self.id, self.xcr0, vcpu, regs)
        } else {
            quick::protected(self.scene.domain, vcpu, regs)
        }
    }

    /// A hypercall.
    #[inline(always)]
    fn hypercall(&mut self, vcpu: &mut Vcpu, regs: &mut Regs) -> Then {
        let (number, first) = (regs.rax, regs.rdi);
        if number == nr::IRET {
            return self.go_back(vcpu, regs);
        }
        match self.call(vcpu, number, [first, regs.rsi, regs.rdx, regs.r10]) {
            Some(result) => {
                self.calls.add(number, first);
                regs.rax = result;
                Then::Again
            }
            None => match number {
                nr::MULTICALL => multicall(self.reborrow(), vcpu, regs),
                nr::EVENT_CHANNEL_OP if first as u32 == EVTCHNOP_SEND => self.send(vcpu, regs),
                _ => Then::Call,
            },
        }
    }

    /// `EVTCHNOP_send` to itself, and the upcall if one is due.
    #[inline(always)]
    fn send(&mut self, vcpu: &mut Vcpu, regs: &mut Regs) -> Then {
        if send_to_self(self.scene.domain, self.id, regs.rsi).is_none() {
            return Then::Call;
        }
        self.calls.add(regs.rax, regs.rdi);
        regs.rax = 0;
        if self.scene.info.is_upcall_due() {
            upcall(self.reborrow().scene, vcpu, regs);
        }
        Then::Again
    }

    #[inline(always)]
    fn reborrow(&mut self) -> Stay<'_> {
        let Scene { domain, info, ref mut pv } = self.scene;
        Stay { scene: Scene { domain, info, pv }, id: self.id, xcr0: self.xcr0, calls: self.calls }
    }

    /// Hypercalls that do little, none of which has more arguments. `None`, and nothing has been done, for others.
    #[inline(always)]
    fn call(&mut self, vcpu: &mut Vcpu, number: u64, args: [u64; 4]) -> Option<u64> {
        let [first, second, third, _] = args;
        Some(match number {
            nr::XEN_VERSION if first as u32 == XENVER_VERSION => version::VERSION,
            nr::VCPU_OP if first as u32 == VCPUOP_IS_UP => {
                vcpu_op::is_up(self.scene.domain, second).map_or_else(Errno::to_rax, u64::from)
            }
            nr::STACK_SWITCH => {
                calls::set_stack(self.scene.pv, first, second);
                0
            }
            nr::SET_SEGMENT_BASE => calls::set_base(vcpu, first as u32, second).err().map_or(0, Errno::to_rax),
            nr::FPU_TASKSWITCH => {
                calls::set_task_switched(vcpu, first as u32 != 0);
                0
            }
            nr::UPDATE_VA_MAPPING | nr::MMU_UPDATE | nr::MMUEXT_OP | nr::MEMORY_OP => {
                mmu::stay::call(self.scene.domain, vcpu, number, args)?
            }
            nr::SET_TIMER_OP => vcpu_op::try_set_timer(self.scene.domain, self.id, first)?,
            nr::CONSOLE_IO if first as u32 == CONSOLEIO_WRITE => {
                console_io::try_write(self.scene.domain, second, third)?
            }
            _ if table::find_pv(number).is_none() => Errno::ENOSYS.to_rax(),
            _ => return None,
        })
    }
}

/// Calls of a multicall that are done in one stay.
const AT_ONCE: u64 = 8;

/// `multicall`, as far as its calls can be done here. The rest is done elsewhere, as if it alone had been asked for.
#[inline(never)]
fn multicall(mut stay: Stay<'_>, vcpu: &mut Vcpu, regs: &mut Regs) -> Then {
    const ENTRY: u64 = size_of::<MulticallEntry>() as u64;
    let (list, count) = (regs.rdi, regs.rsi & 0xffff_ffff);
    let mut done = 0;
    while done < count.min(AT_ONCE) {
        let entry = list.wrapping_add(done * ENTRY);
        let Some([number, _, a, b, c, d, ..]) = machine::pv::read8(GuestVirt::new(entry)) else { break };
        let Some(result) = stay.call(vcpu, number, [a, b, c, d]) else { break };
        let to = entry.wrapping_add(offset_of!(MulticallEntry, result) as u64);
        if !machine::pv::write1(GuestVirt::new(to), [result]) {
            regs.rax = Errno::EFAULT.to_rax();
            return Then::Again;
        }
        done += 1;
    }
    if done < count {
        (regs.rdi, regs.rsi) = (list.wrapping_add(done * ENTRY), count - done);
        return Then::Call;
    }
    stay.calls.add(nr::MULTICALL, list);
    regs.rax = 0;
    Then::Again
}

/// `EVTCHNOP_send` to itself. `None`, and nothing has been done, where others have to know.
#[inline(never)]
fn send_to_self(domain: &Domain, id: VcpuId, at: u64) -> Option<()> {
    let port = EvtchnPort::new(machine::pv::read_half(GuestVirt::new(at))?);
    domain.channels.try_lock()?.send_to_self(port, id, &domain.shared)
}

/// The upcall of event channels, which is due. If it fails it stays due, and is looked at outside.
#[inline(never)]
fn upcall(scene: Scene<'_>, vcpu: &mut Vcpu, regs: &mut Regs) {
    let handler = Handler { address: scene.pv.callbacks.event, masks_events: true };
    if handler.address != 0 {
        let _ = scene.enter(vcpu, regs, Bounce::to(handler));
    }
}

/// Vectors below 32 that are the guest's own and come with no error code: all but `#DB`, NMI, `#UD`, `#NM`, `#DF` and `#MC`.
const PLAIN: u64 = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 19;
/// Those that come with one: `#TS`, `#NP`, `#SS`, `#AC`.
const WITH_ERROR: u64 = 1 << 10 | 1 << 11 | 1 << 12 | 1 << 17;

impl Stay<'_> {
    /// IRET.
    #[inline(always)]
    fn go_back(&mut self, vcpu: &mut Vcpu, regs: &mut Regs) -> Then {
        // An NMI that waits is noted by the one who can.
        if self.scene.pv.is_nmi_pending {
            return Then::Call;
        }
        match self.scene.go_back(vcpu, regs) {
            Ok(Back::Plain) => Then::Again,
            Ok(Back::ToNmi) => Then::Look,
            Err(_) => Then::Call,
        }
    }

    /// Where the guest's kernel is to be entered, with what error code; `None` where more is to be done.
    #[inline(always)]
    fn way(&mut self, vcpu: &mut Vcpu, regs: &mut Regs) -> Option<(Handler, Option<u32>)> {
        const PF: u64 = vector::PF as u64;
        const UD: u64 = vector::UD as u64;
        const GP: u64 = vector::GP as u64;
        let error = regs.error as u32;
        let (number, error) = match regs.vector {
            PF => (PF, Some(self.page_fault(vcpu, error)?)),
            cause::SYSCALL => return Some((self.scene.pv.callbacks.syscall, None)),
            UD => (UD, None),
            GP => (u64::from(self.soft_interrupt(vcpu, error)?), None),
            n if n < 64 && PLAIN >> n & 1 != 0 => (n, None),
            n if n < 64 && WITH_ERROR >> n & 1 != 0 => (n, Some(error)),
            0x80 => (0x80, None),
            _ => return None,
        };
        Some((self.scene.pv.trap(number as u8), error))
    }

    /// The guest's kernel gets an exception, an interrupt that the guest raised itself, or a system call.
    #[inline(always)]
    fn enter(&mut self, vcpu: &mut Vcpu, regs: &mut Regs) -> Then {
        let cause = regs.vector;
        let Some((handler, error)) = self.way(vcpu, regs) else { return Then::Leave };
        if handler.address == 0 {
            return Then::Leave;
        }
        let rip = regs.rip;
        if cause == u64::from(vector::GP) {
            regs.rip = rip.wrapping_add(u64::from(SoftInterrupt::LEN));
        }
        let bounce = Bounce::to(handler).with_error(error);
        if self.scene.enter(vcpu, regs, bounce).is_err() {
            regs.rip = rip;
            vcpu.put_fault_address_back();
            return Then::Leave;
        }
        if cause == u64::from(vector::PF) {
            self.scene.info.set_cr2(vcpu.cr(2));
        } else if cause == cause::SYSCALL {
            regs.rflags &= !Rflags::DF.bits();
        }
        Then::Again
    }

    /// The error code of a page fault that is the guest's own: not in the hole, and no store of its kernel to a page table.
    #[inline(always)]
    fn page_fault(&mut self, vcpu: &mut Vcpu, error: u32) -> Option<u32> {
        let is_kernel = vcpu.is_kernel();
        let at = vcpu.fault_address();
        let is_store = error & (error::PRESENT | error::WRITE) == error::PRESENT | error::WRITE;
        if is_in_hole(at) || is_store && is_kernel && self.scene.domain.assists(VMASST_TYPE_WRITABLE_PAGETABLES) {
            return None;
        }
        let user = if is_kernel { 0 } else { error::USER };
        Some(error & !error::USER | user)
    }

    /// The vector of INT, if `#GP` was for one that the processor keeps from ring 3 and the guest's table does not.
    #[inline(always)]
    fn soft_interrupt(&mut self, vcpu: &Vcpu, error: u32) -> Option<u8> {
        let interrupt = SoftInterrupt::from_error(error)?;
        let dpl = self.scene.pv.traps[usize::from(interrupt.vector)].dpl();
        interrupt.is_permitted(dpl, vcpu.is_kernel()).then_some(interrupt.vector)
    }
}
