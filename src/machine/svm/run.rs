//! One run of the guest: entry, exit, and the exits that this back-end ends by itself.

use super::Vcpu;
use super::entry::{world_switch, world_switch_guarded};
use super::event::pending;
use super::exit::{code, decode, instruction_length, is_wrmsr};
use super::features::Features;
use crate::exit::Exit;
use crate::irq;
use crate::percpu::this_cpu;
use core::arch::asm;
use model::regs::{Event, Regs};
use model::svm::tlb_control;

impl Vcpu {
    #[inline]
    pub(super) fn enter(&mut self, regs: &mut Regs) -> Exit {
        let place = self.place.expect("a virtual CPU runs where it is loaded");
        assert!(place.cpu == this_cpu(), "a virtual CPU runs where it is loaded");
        let addr = self.vmcb.addr();
        debug_assert!(self.residence.is_at(place.cpu, addr), "`load` has told where the block is");
        if self.features.contains(Features::INJECTS_TWICE) && matches!(pending(self.vmcb()), Some(Event::Interrupt(_)))
        {
            irq::nudge(); // an exit right after the delivery leaves nothing to deliver again
        }
        let (vmcb, events) = self.parts();
        events.before_entry(vmcb, regs);
        (vmcb.rip, vmcb.rflags, vmcb.rsp, vmcb.rax) = (regs.rip, regs.rflags, regs.rsp, regs.rax);
        // SAFETY: the block is this virtual CPU's, initialised by `new`; `place.host` was filled on this CPU by `load`,
        // which runs after `enable_this_cpu`; the nested page tables map what the kernel gave to the guest.
        unsafe {
            if self.features.contains(Features::GUARDED) {
                world_switch_guarded(regs, addr, place.host);
            } else {
                world_switch(regs, addr, place.host);
            }
        }
        let clean = self.clean;
        self.vmcb_mut().note_run(clean);
        if self.vmcb().tlb_control != tlb_control::NOTHING {
            self.note_flush();
        }
        self.after_exit(regs)
    }

    #[inline(always)]
    fn after_exit(&mut self, regs: &mut Regs) -> Exit {
        let next_rip_saved = self.features.contains(Features::NEXT_RIP_SAVE);
        let (vmcb, events) = self.parts();
        (regs.rip, regs.rflags, regs.rsp, regs.rax) = (vmcb.rip, vmcb.rflags, vmcb.rsp, vmcb.rax);
        if let Some(exit) = events.after_exit(vmcb, regs) {
            return exit;
        }
        match vmcb.exit_code {
            // The commonest first.
            code::VMMCALL => Exit::Hypercall { len: instruction_length(vmcb, next_rip_saved) },
            code::CPUID => Exit::Cpuid { len: instruction_length(vmcb, next_rip_saved) },
            code::MSR if !is_wrmsr(vmcb) => Exit::Rdmsr { len: instruction_length(vmcb, next_rip_saved) },
            // The host's handler has run, between STGI and CLI.
            code::INTR | code::NMI | code::INIT => Exit::Host,
            code::VINTR => events.on_virtual_interrupt(vmcb),
            code::IRET => events.on_iret(vmcb),
            code::EXCEPTION_MC => machine_check(),
            code::DR..=code::DR_LAST => {
                self.demand_debug();
                Exit::Host
            }
            code::EXCEPTION_DB => {
                vmcb.note_debug_exception();
                decode(vmcb, next_rip_saved)
            }
            _ => decode(vmcb, next_rip_saved),
        }
    }
}

/// Gives a machine check that came in the guest to the host's handler, which the exit has bypassed (APM 2 15.12.15).
#[cold]
fn machine_check() -> Exit {
    // SAFETY: the gate of vector 18 is the host's handler, on a stack of its own; it returns if the error can be borne.
    unsafe { asm!("int 18") };
    Exit::Host
}
