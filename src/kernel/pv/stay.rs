//! What is done for a guest within one stay in it.
//!
//! A stay ends with an interrupt: what happens elsewhere meanwhile, a flush that this CPU must join or an event for the
//! guest, comes with one, which the processor takes as soon as the guest goes on. So what touches only what this CPU has, and
//! the guest's memory by the guest's own translations, can be done without leaving: the guest's exceptions and system
//! calls, its IRET, the commonest privileged instructions ([`super::quick`]), and hypercalls that do as good as nothing.
//! Nothing here waits, nor for a lock. `exit`, `emulate` and the table of hypercalls do all else, and these where something
//! is special: then nothing has been done here.

use abi::errno::Errno;
use abi::nr;
use abi::vcpu::VCPUOP_IS_UP;
use abi::version::XENVER_VERSION;
use abi::xen::VMASST_TYPE_WRITABLE_PAGETABLES;
use machine::exit::Exit;
use machine::pv::{Then, Vcpu, cause};
use machine::virt::Virt;
use model::ids::VcpuId;
use model::pv::frame::Handler;
use model::pv::is_in_hole;
use model::pv::privileged::SoftInterrupt;
use model::regs::{Regs, Rflags, vector};

use super::bounce::{Back, Bounce, Scene};
use super::exit::error;
use super::quick::{self, Quick};
use super::{calls, mmu};
use crate::domain::{Context, Remembered};
use crate::hypercall::{table, vcpu as vcpu_op, version};
use crate::run::Running;

/// What is at hand during a stay.
struct Stay<'a> {
    scene: Scene<'a>,
    id: VcpuId,
    xcr0: u64,
    calls: &'a mut Remembered,
}

/// Runs the guest until it leaves for something that is not done here.
#[inline]
pub fn run(run: &mut Running) -> Exit {
    let Context { hw, regs, pv, extended, hypercalls, .. } = &mut *run.context;
    let vcpu = hw.pv_mut();
    let (Some(info), Some(pv)) = (&run.info, pv) else { return vcpu.run(regs) };
    let scene = Scene { domain: &run.domain, info, pv };
    let mut stay = Stay { scene, id: run.id, xcr0: extended.xcr0(), calls: hypercalls };
    vcpu.run_with(regs, |vcpu, regs| stay.left(vcpu, regs))
}

/// Vectors below 32 that are the guest's own and come with no error code: all but `#DB`, NMI, `#UD`, `#NM`, `#DF` and `#MC`.
const PLAIN: u64 = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 19;
/// Those that come with one: `#TS`, `#NP`, `#SS`, `#AC`.
const WITH_ERROR: u64 = 1 << 10 | 1 << 11 | 1 << 12 | 1 << 17;

impl Stay<'_> {
    /// The guest has left.
    #[inline(always)]
    fn left(&mut self, vcpu: &mut Vcpu, regs: &mut Regs) -> Then {
        const PF: u64 = vector::PF as u64;
        const UD: u64 = vector::UD as u64;
        const GP: u64 = vector::GP as u64;
        let then = match regs.vector {
            PF => self.enter(vcpu, regs),
            cause::SYSCALL if vcpu.is_kernel() => {
                if regs.rax == nr::IRET {
                    self.go_back(vcpu, regs)
                } else {
                    self.hypercall(vcpu, regs)
                }
            }
            cause @ (UD | GP) if cause == UD || regs.error == 0 => {
                match quick::quick(self.scene.domain, self.id, self.xcr0, vcpu, regs) {
                    Quick::Done => Then::Again,
                    Quick::Own => self.enter(vcpu, regs),
                    Quick::Special => Then::Leave,
                }
            }
            _ => self.enter(vcpu, regs),
        };
        // The guest may have let events in since it entered.
        if then == Then::Again && self.scene.info.is_upcall_due() { Then::Look } else { then }
    }

    /// Hypercalls that do as good as nothing, and IRET.
    #[inline(always)]
    fn hypercall(&mut self, vcpu: &mut Vcpu, regs: &mut Regs) -> Then {
        let (number, first) = (regs.rax, regs.rdi);
        let result = match number {
            nr::XEN_VERSION if first as u32 == XENVER_VERSION => version::VERSION,
            nr::VCPU_OP if first as u32 == VCPUOP_IS_UP => match vcpu_op::is_up(self.scene.domain, regs.rsi) {
                Ok(is_up) => u64::from(is_up),
                Err(errno) => errno.to_rax(),
            },
            nr::STACK_SWITCH => {
                calls::set_stack(self.scene.pv, first, regs.rsi);
                0
            }
            nr::SET_SEGMENT_BASE => calls::set_base(vcpu, first as u32, regs.rsi).err().map_or(0, Errno::to_rax),
            nr::FPU_TASKSWITCH => {
                calls::set_task_switched(vcpu, first as u32 != 0);
                0
            }
            nr::UPDATE_VA_MAPPING | nr::MMU_UPDATE | nr::MMUEXT_OP | nr::MEMORY_OP => {
                match mmu::stay::call(self.scene.domain, vcpu, regs) {
                    Some(result) => result,
                    None => return Then::Leave,
                }
            }
            _ if table::find_pv(number).is_none() => Errno::ENOSYS.to_rax(),
            _ => return Then::Leave,
        };
        self.calls.add(number, first);
        regs.rax = result;
        Then::Again
    }

    #[inline(always)]
    fn go_back(&mut self, vcpu: &mut Vcpu, regs: &mut Regs) -> Then {
        // An NMI that waits is noted by the one who can.
        if self.scene.pv.is_nmi_pending {
            return Then::Leave;
        }
        match self.scene.go_back(vcpu, regs) {
            Ok(Back::Plain) => Then::Again,
            Ok(Back::ToNmi) => Then::Look,
            Err(_) => Then::Leave,
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
        if self.scene.enter(vcpu, regs, Bounce::to(handler).with_error(error)).is_err() {
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
    fn soft_interrupt(&mut self, vcpu: &mut Vcpu, error: u32) -> Option<u8> {
        let interrupt = SoftInterrupt::from_error(error)?;
        let dpl = self.scene.pv.traps[usize::from(interrupt.vector)].dpl();
        interrupt.is_permitted(dpl, vcpu.is_kernel()).then_some(interrupt.vector)
    }
}
