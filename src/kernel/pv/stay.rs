//! What is done for a guest within one stay in it.
//!
//! A stay ends with an interrupt: what happens elsewhere meanwhile, a flush that this CPU must join or an event for the
//! guest, comes with one, which the processor takes as soon as the guest goes on. So what touches only what this CPU has, and
//! the guest's memory by the guest's own translations, can be done without leaving: the upcall of event channels, the guest's
//! exceptions and system calls, its IRET, the commonest privileged instructions ([`super::quick`]), and hypercalls that do little:
//! what touches a single entry of a page table, its own timer, an event, a piece of a line on the console; or several of these.
//! Nothing here waits, nor for a lock: one that sleeps is woken when the stay has ended. `exit`, `emulate` and the table of
//! hypercalls do all else, and these where something is special: then nothing has been done here.

use alloc::sync::Arc;
use core::cell::Cell;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use abi::errno::Errno;
use abi::event_channel::EVTCHNOP_SEND;
use abi::nr;
use abi::sched::{SCHEDOP_BLOCK, SCHEDOP_YIELD};
use abi::vcpu::VCPUOP_IS_UP;
use abi::version::XENVER_VERSION;
use abi::xen::{CONSOLEIO_WRITE, MulticallEntry, VMASST_TYPE_WRITABLE_PAGETABLES};
use machine::exit::Kind;
use machine::irq;
use machine::pv::{Attendant, Vcpu, cause};
use machine::virt::Virt;
use model::addr::GuestVirt;
use model::evtchn::EvtchnPort;
use model::ids::VcpuId;
use model::pv::frame::{Handler, PvRegs};
use model::pv::is_in_hole;
use model::pv::privileged::SoftInterrupt;
use model::regs::vector;
use sync::Cx;
use sync::place::Root;

use super::PvContext;
use super::bounce::{Back, Bounce, Scene};
use super::exit::error;
use super::quick::{self, Quick};
use super::{calls, events, exit, mmu};
use crate::domain::{self, Context, Domain, Remembered};
use crate::events::{Owed, finish, try_send};
use crate::hypercall::{self, console as console_io, table, vcpu as vcpu_op, version};
use crate::run::{Here, Next, Running, begin_stay};
use crate::{sched, stretch};

/// What follows when the guest has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// What it left for is done: it goes on.
    Again,
    /// The rest of an event that it has sent is to be done; then it goes on.
    Finish,
    /// An interrupt has ended the stay.
    Interrupted,
    /// What it left for is done, but an upcall that is due cannot be delivered here.
    Look,
    /// A hypercall is to be done.
    Call,
    /// `SCHEDOP_block`.
    Block,
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
        if !begin_stay(run) {
            if run.here.is_wanted() {
                return Next::Enter;
            }
            continue;
        }
        let next = stay(cx, run);
        stretch::end();
        stretch::begin();
        if next == Next::Schedule || run.here.is_wanted() {
            return next;
        }
    }
}

/// One stay. The CPU has entered the guest in the sense of the flush protocol, and has left it afterwards.
#[inline(always)]
fn stay(cx: &mut Cx<'_, Root>, run: &mut Running) -> Next {
    let Context { hw, regs, pv, extended, hypercalls, tlb_epoch, .. } = &mut *run.context;
    let (Some(info), Some(pv)) = (&run.info, pv) else {
        run.here.visits.left();
        return exit::die_without_info(cx, run);
    };
    let scene = Scene::new(&run.domain, info.words(), pv);
    let owed = Cell::new(None);
    let outside = Outside { here: &run.here, vcpu: &run.vcpu, tlb_epoch, owed: &owed };
    let stay = Stay { scene, outside, id: run.id, xcr0: extended.xcr0(), calls: hypercalls };
    stretch::end();
    let then = hw.pv_mut().run_with(regs, stay);
    stretch::begin();
    let then = match then {
        Ok(then) => then,
        Err(exit) => {
            run.here.visits.left();
            return exit::handle(cx, run, exit);
        }
    };
    match then {
        Then::Again => {
            run.here.visits.left();
            Next::Enter
        }
        // It has left already.
        Then::Interrupted => Next::Enter,
        Then::Finish => {
            run.here.visits.left();
            run.vcpu().exits.count(Kind::Hypercall);
            if let Some(owed) = owed.take() {
                finish(cx, owed);
            }
            Next::Enter
        }
        Then::Look => {
            run.here.visits.left();
            events::deliver(cx, run)
        }
        Then::Block => {
            run.here.visits.left();
            run.vcpu().exits.count(Kind::Hypercall);
            hypercall::block_pv(cx, run)
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
    outside: Outside<'a>,
    id: VcpuId,
    xcr0: u64,
    calls: &'a mut Remembered,
}

/// What of a virtual CPU is looked at when a stay ends.
#[derive(Clone, Copy)]
struct Outside<'a> {
    here: &'a Here,
    vcpu: &'a Arc<domain::Vcpu>,
    tlb_epoch: &'a Cell<u64>,
    /// What is left of an event that it has sent.
    owed: &'a Cell<Option<Owed>>,
}

impl Outside<'_> {
    /// An interrupt: the stay ends, and if nothing but an event has come the next begins. Apart, so that others keep their
    /// registers.
    #[inline(never)]
    fn interrupted(self, domain: &Domain, vcpu: &mut Vcpu, vector: u8) -> Then {
        irq::dispatch(vector);
        self.here.visits.left();
        self.vcpu.exits.count(Kind::Host);
        stretch::end();
        stretch::begin();
        if self.here.is_wanted()
            || self.vcpu.attention.load(Ordering::Relaxed) != 0
            || !self.here.begin_stay(domain, self.tlb_epoch, || vcpu.flush())
        {
            return Then::Interrupted;
        }
        Then::Again
    }
}

impl Attendant for Stay<'_> {
    type Then = Then;

    /// Upcalls: the guest may have let them in since it entered, or sent itself one.
    #[inline(always)]
    fn before(&mut self, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>) -> Option<Then> {
        if !self.scene.info.is_upcall_due() {
            return None;
        }
        let handler = self.scene.pv.upcall();
        (!self.enter(vcpu, regs, handler, None)).then_some(Then::Look)
    }

    #[inline(always)]
    fn left(&mut self, vcpu: &mut Vcpu, mut regs: PvRegs<'_>) -> Option<Then> {
        let regs = &mut regs;
        let then = if regs.vector == cause::SYSCALL { self.called(vcpu, regs) } else { self.trapped(vcpu, regs) };
        (then != Then::Again).then_some(then)
    }
}

impl Stay<'_> {
    /// SYSCALL, by the guest's kernel or its user mode.
    #[inline(always)]
    fn called(&mut self, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>) -> Then {
        if vcpu.is_kernel() {
            return self.hypercall(vcpu, regs);
        }
        if !self.enter(vcpu, regs, self.scene.pv.callbacks.syscall, None) {
            return Then::Leave;
        }
        regs.clear_direction();
        Then::Again
    }

    /// A hypercall.
    #[inline(always)]
    fn hypercall(&mut self, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>) -> Then {
        let (number, first) = (regs.rax, regs.rdi);
        if number == nr::IRET {
            return self.go_back(vcpu, regs);
        }
        match self.call(vcpu, number, [first, regs.rsi, regs.rdx, regs.r10]) {
            Some(result) => self.done(regs, number, first, result),
            None if number == nr::MULTICALL => multicall(self.reborrow(), vcpu, regs.reborrow()),
            None if number == nr::EVENT_CHANNEL_OP && first as u32 == EVTCHNOP_SEND => self.send(regs),
            None if number == nr::SCHED_OP && first as u32 == SCHEDOP_BLOCK => Then::Block,
            None => Then::Call,
        }
    }

    /// A hypercall has been done.
    #[inline(always)]
    fn done(&mut self, regs: &mut PvRegs<'_>, number: u64, first: u64, result: u64) -> Then {
        self.calls.note_quick(number, first);
        regs.set_rax(result);
        Then::Again
    }

    #[inline(always)]
    fn reborrow(&mut self) -> Stay<'_> {
        Stay { scene: self.scene.reborrow(), calls: self.calls, ..*self }
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
            nr::SCHED_OP if first as u32 == SCHEDOP_YIELD && sched::is_alone() => 0,
            nr::EVENT_CHANNEL_OP | nr::MULTICALL => return None,
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
fn multicall(mut stay: Stay<'_>, vcpu: &mut Vcpu, mut regs: PvRegs<'_>) -> Then {
    const ENTRY: u64 = size_of::<MulticallEntry>() as u64;
    let (list, count) = (regs.rdi, regs.rsi & 0xffff_ffff);
    let mut done = 0;
    while done < count.min(AT_ONCE) {
        let entry = list.wrapping_add(done * ENTRY);
        let Some([number, _, a, b, c, d, ..]) = machine::pv::read8(GuestVirt::new(entry)) else { break };
        let Some(result) = stay.call(vcpu, number, [a, b, c, d]) else { break };
        let to = entry.wrapping_add(offset_of!(MulticallEntry, result) as u64);
        if !machine::pv::write1(GuestVirt::new(to), [result]) {
            regs.set_rax(Errno::EFAULT.to_rax());
            return Then::Again;
        }
        done += 1;
    }
    if done < count {
        regs.set_arguments(list.wrapping_add(done * ENTRY), count - done);
        return Then::Call;
    }
    stay.calls.note_quick(nr::MULTICALL, list);
    regs.set_rax(0);
    Then::Again
}

/// Vectors below 32 that are the guest's own and come with no error code: all but `#DB`, NMI, `#UD`, `#NM`, `#DF` and `#MC`.
const PLAIN: u64 = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 19;
/// Those that come with one: `#TS`, `#NP`, `#SS`, `#AC`.
const WITH_ERROR: u64 = 1 << 10 | 1 << 11 | 1 << 12 | 1 << 17;

impl Stay<'_> {
    /// `EVTCHNOP_send`.
    #[inline(always)]
    fn send(&mut self, regs: &mut PvRegs<'_>) -> Then {
        let Scene { domain, info, .. } = self.scene;
        let Some(port) = machine::pv::read_half(GuestVirt::new(regs.rsi)) else { return Then::Call };
        let owed = self.outside.owed;
        let Some(sent) = try_send(domain, self.id, info, EvtchnPort::new(port), owed) else { return Then::Call };
        let is_done = owed.get().is_none();
        let result = sent.err().map_or(0, |error| Errno::from(error).to_rax());
        self.done(regs, nr::EVENT_CHANNEL_OP, EVTCHNOP_SEND.into(), result);
        if is_done { Then::Again } else { Then::Finish }
    }

    /// IRET.
    #[inline(always)]
    fn go_back(&mut self, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>) -> Then {
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

    /// An exception, or an interrupt that the guest raised itself.
    #[inline(always)]
    fn trapped(&mut self, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>) -> Then {
        const PF: u64 = vector::PF as u64;
        const UD: u64 = vector::UD as u64;
        const GP: u64 = vector::GP as u64;
        let error = regs.error as u32;
        match regs.vector {
            PF => self.page_fault(vcpu, regs, error),
            GP if error != 0 => self.soft_interrupt(vcpu, regs, error),
            GP => match quick::protected(self.scene.domain, vcpu, regs.reborrow()) {
                Quick::Done => Then::Again,
                Quick::Own | Quick::Special => Then::Leave,
            },
            UD => match quick::undefined(self.scene.domain, self.id, self.xcr0, vcpu, regs) {
                Quick::Done => Then::Again,
                Quick::Own => self.bounce(vcpu, regs, vector::UD, None),
                Quick::Special => Then::Leave,
            },
            0x80 => self.bounce(vcpu, regs, 0x80, None),
            n @ 32..=255 => self.outside.interrupted(self.scene.domain, vcpu, n as u8),
            n if n < 64 && PLAIN >> n & 1 != 0 => self.bounce(vcpu, regs, n as u8, None),
            n if n < 64 && WITH_ERROR >> n & 1 != 0 => self.bounce(vcpu, regs, n as u8, Some(error)),
            _ => Then::Leave,
        }
    }

    /// The guest's kernel gets an exception.
    #[inline(always)]
    fn bounce(&mut self, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>, vector: u8, error: Option<u32>) -> Then {
        let handler = self.scene.pv.trap(vector);
        if self.enter(vcpu, regs, handler, error) { Then::Again } else { Then::Leave }
    }

    /// The guest's kernel is entered. If not, nothing has changed.
    #[inline(always)]
    fn enter(&mut self, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>, handler: Handler, error: Option<u32>) -> bool {
        handler.address != 0 && self.scene.enter(vcpu, regs, Bounce::to(handler).with_error(error)).is_ok()
    }

    /// A page fault. It is the guest's own if it is not in the hole, and no store of its kernel to a page table.
    #[inline(always)]
    fn page_fault(&mut self, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>, error: u32) -> Then {
        let is_kernel = vcpu.is_kernel();
        let at = vcpu.fault_address();
        let is_store = error & (error::PRESENT | error::WRITE) == error::PRESENT | error::WRITE;
        if is_in_hole(at) || is_store && is_kernel && self.scene.domain.assists(VMASST_TYPE_WRITABLE_PAGETABLES) {
            return Then::Leave;
        }
        let user = if is_kernel { 0 } else { error::USER };
        let then = self.bounce(vcpu, regs, vector::PF, Some(error & !error::USER | user));
        if then == Then::Again {
            self.scene.info.set_cr2(at);
        } else {
            // A frame that cannot be written is a fault too.
            vcpu.put_fault_address_back();
        }
        then
    }

    /// INT, if `#GP` was for one that the processor keeps from ring 3 and the guest's table does not. The frame has the RIP
    /// behind it.
    #[inline(always)]
    fn soft_interrupt(&mut self, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>, error: u32) -> Then {
        let Some(interrupt) = SoftInterrupt::from_error(error) else { return Then::Leave };
        let trap = &self.scene.pv.traps[usize::from(interrupt.vector)];
        if !interrupt.is_permitted(trap.dpl(), vcpu.is_kernel()) {
            return Then::Leave;
        }
        let handler = PvContext::handler(trap);
        let rip = regs.rip;
        regs.set_rip(rip.wrapping_add(u64::from(SoftInterrupt::LEN)));
        if self.enter(vcpu, regs, handler, None) {
            return Then::Again;
        }
        regs.set_rip(rip);
        Then::Leave
    }
}
