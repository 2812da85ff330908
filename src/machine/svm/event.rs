//! Events on their way into the guest: injection, windows, and what an exit cut short (APM 2 15.7.2, 15.20, 15.21).
//!
//! The event that waits for the next entry lives in EVENTINJ itself. A window is a virtual interrupt whose
//! delivery exits. The processor does not track NMIs of a guest, so [`Gate`] does:
//!
//! ```text
//!          NMI injected                  IRET exits, not yet executed
//!   Open ---------------> Handling -----------------------------------> Leaving
//!    ^                                                                    |
//!    +------------------------- RIP is past the IRET ---------------------+
//! ```
//!
//! While an NMI is wanted in `Leaving`, or in the shadow of a MOV SS that no virtual interrupt can end because IF
//! is clear, the guest runs one instruction under RFLAGS.TF, and the #DB that ends it is swallowed.

use super::exit::code;

use crate::exit::Exit;
use crate::virt::Window;
use model::regs::{Event, Regs, Rflags, vector};
use model::svm::{IntCtl, Intercept3, Vmcb};

/// DR6: a single step; any hardware breakpoint.
const DR6_BS: u64 = 1 << 14;
const DR6_BREAKPOINTS: u64 = 0xf;

/// EVENTINJ and EXITINTINFO share a layout: vector 7:0, type 10:8, error code valid 11, valid 31, error code 63:32.
const VALID: u64 = 1 << 31;
const ERROR_VALID: u64 = 1 << 11;
const TYPE: u64 = 7 << 8;
const TYPE_INTERRUPT: u64 = 0 << 8;
const TYPE_NMI: u64 = 2 << 8;
const TYPE_EXCEPTION: u64 = 3 << 8;

/// Where the guest is between an NMI and the end of its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Handling,
    /// It is about to execute the IRET at this RIP.
    Leaving {
        iret: u64,
    },
}

/// A virtual CPU's part of event delivery that the control block does not hold.
#[derive(Debug)]
pub(super) struct Events {
    window: Window,
    /// CR8 below this exits; 0 never does.
    threshold: u8,
    gate: Gate,
    /// Stepping over one instruction; DR6 before it.
    step: Option<u64>,
    /// The gate is open and no step is on, so that an exit has nothing to look at.
    is_quiet: bool,
    /// Whether this processor delivers a virtual interrupt whose priority is equal to V_TPR, as QEMU does, and not
    /// only one that is above it (APM 2 15.21.4). Learnt from the first exit that comes too early.
    is_inclusive: bool,
}

impl Events {
    pub(super) const fn new() -> Self {
        let (window, gate) = (Window::None, Gate::Open);
        Self { window, threshold: 0, gate, step: None, is_quiet: true, is_inclusive: false }
    }

    /// Makes `event` the one that the next entry delivers. Its delivery ends an interrupt shadow.
    pub(super) fn inject(&mut self, vmcb: &mut Vmcb, event: Event) {
        vmcb.event_inj = encode(event);
        vmcb.end_shadow();
        if event == Event::Nmi {
            self.gate = Gate::Handling;
            self.is_quiet = false;
            vmcb.set_intercept(Intercept3::IRET, true);
            self.arm(vmcb);
        }
    }

    /// Whether the guest could take an NMI now.
    pub(super) fn nmis_open(&self, vmcb: &Vmcb) -> bool {
        self.gate == Gate::Open && !vmcb.shadow() && pending(vmcb).is_none()
    }

    pub(super) fn want(&mut self, vmcb: &mut Vmcb, window: Window) {
        if self.window != window {
            self.window = window;
            self.arm(vmcb);
        }
    }

    pub(super) fn set_threshold(&mut self, vmcb: &mut Vmcb, threshold: u8) {
        if self.threshold != threshold {
            self.threshold = threshold;
            self.arm(vmcb);
        }
    }

    /// Sets up the virtual interrupt. A window ignores CR8; the threshold is the interrupt's priority.
    fn arm(&mut self, vmcb: &mut Vmcb) {
        let any = match self.window {
            Window::None => false,
            Window::Interrupt => true,
            Window::Nmi => self.gate == Gate::Open,
        };
        let is_armed = any || self.threshold > 0;
        vmcb.set_intercept(Intercept3::VINTR, is_armed);
        let mut int_ctl = vmcb.int_ctl();
        int_ctl.set(IntCtl::V_IRQ, is_armed);
        int_ctl.set(IntCtl::V_IGN_TPR, any);
        vmcb.set_int_ctl(int_ctl);
        vmcb.set_priority(self.threshold.saturating_sub(u8::from(self.is_inclusive)));
    }

    /// Sets RFLAGS.TF where only that can end at the next point at which an NMI is possible.
    pub(super) fn before_entry(&mut self, vmcb: &mut Vmcb, regs: &mut Regs) {
        if self.window != Window::Nmi {
            return;
        }
        let is_blocked = match self.gate {
            Gate::Open => vmcb.shadow() && regs.rflags & Rflags::IF.bits() == 0,
            Gate::Handling => false,
            Gate::Leaving { .. } => true,
        };
        // Over an event to deliver it would step into the handler, with TF in the pushed flags.
        if is_blocked && regs.rflags & Rflags::TF.bits() == 0 && pending(vmcb).is_none() {
            regs.rflags |= Rflags::TF.bits();
            self.step = Some(vmcb.dr6());
            self.is_quiet = false;
        }
    }

    /// Keeps what the exit cut short, and says so if the exit was nothing but the end of a step.
    #[inline(always)]
    pub(super) fn after_exit(&mut self, vmcb: &mut Vmcb, regs: &mut Regs) -> Option<Exit> {
        let info = vmcb.exit_int_info;
        vmcb.event_inj = if info & VALID == 0 { 0 } else { undelivered(info) };
        if self.is_quiet { None } else { self.after_step(vmcb, regs) }
    }

    /// The same between an NMI and the end of its handler, or over one instruction.
    #[cold]
    fn after_step(&mut self, vmcb: &mut Vmcb, regs: &mut Regs) -> Option<Exit> {
        let is_past_iret = matches!(self.gate, Gate::Leaving { iret } if iret != regs.rip);
        if is_past_iret {
            self.gate = Gate::Open;
            self.arm(vmcb);
        }
        let step = self.step.take();
        self.is_quiet = self.gate == Gate::Open;
        let dr6 = step?;
        if !is_past_iret {
            // Past the IRET, TF is what the guest loaded; else it is still ours.
            regs.rflags &= !Rflags::TF.bits();
        }
        if vmcb.exit_code != code::EXCEPTION_DB {
            return None;
        }
        vmcb.note_debug_exception();
        vmcb.set_dr6(vmcb.dr6() & !DR6_BS | dr6 & DR6_BS);
        (vmcb.dr6() & !dr6 & DR6_BREAKPOINTS == 0).then_some(Exit::NmiWindow)
    }

    /// The guest is about to leave its NMI handler.
    pub(super) fn on_iret(&mut self, vmcb: &mut Vmcb) -> Exit {
        vmcb.set_intercept(Intercept3::IRET, false);
        self.gate = Gate::Leaving { iret: vmcb.rip };
        Exit::Host
    }

    /// The virtual interrupt could be delivered.
    pub(super) fn on_virtual_interrupt(&mut self, vmcb: &mut Vmcb) -> Exit {
        match self.window {
            Window::Interrupt => Exit::InterruptWindow,
            Window::Nmi => Exit::NmiWindow,
            Window::None if vmcb.cr8() < self.threshold => Exit::TprBelowThreshold,
            Window::None => {
                self.is_inclusive = true;
                self.arm(vmcb);
                Exit::Host
            }
        }
    }
}

/// The event that waits for the next entry.
pub(super) fn pending(vmcb: &Vmcb) -> Option<Event> {
    let raw = vmcb.event_inj;
    if raw & VALID == 0 {
        return None;
    }
    let vector = (raw & 0xff) as u8;
    Some(match raw & TYPE {
        TYPE_INTERRUPT => Event::Interrupt(vector),
        TYPE_NMI => Event::Nmi,
        _ => Event::Exception { vector, error: (raw & ERROR_VALID != 0).then_some((raw >> 32) as u32) },
    })
}

/// Whether the guest could take an interrupt now.
pub(super) fn interrupts_open(vmcb: &Vmcb, regs: &Regs) -> bool {
    regs.rflags & Rflags::IF.bits() != 0 && !vmcb.shadow() && vmcb.event_inj & VALID == 0
}

/// Moves past an emulated instruction of `len` bytes, and delivers a single step over it.
pub(super) fn skip(vmcb: &mut Vmcb, regs: &mut Regs, len: u8) {
    regs.rip = regs.rip.wrapping_add(u64::from(len));
    if !vmcb.in_64_bit_code() {
        regs.rip &= 0xffff_ffff;
    }
    regs.rflags &= !Rflags::RF.bits();
    vmcb.end_shadow();
    if regs.rflags & Rflags::TF.bits() != 0 && vmcb.event_inj & VALID == 0 {
        vmcb.set_dr6(vmcb.dr6() | DR6_BS);
        vmcb.event_inj = encode(Event::Exception { vector: vector::DB, error: None });
    }
}

fn encode(event: Event) -> u64 {
    match event {
        Event::Interrupt(vector) => VALID | TYPE_INTERRUPT | u64::from(vector),
        Event::Nmi => VALID | TYPE_NMI | u64::from(vector::NMI),
        Event::Exception { vector, error: None } => VALID | TYPE_EXCEPTION | u64::from(vector),
        Event::Exception { vector, error: Some(error) } => {
            VALID | ERROR_VALID | TYPE_EXCEPTION | u64::from(vector) | u64::from(error) << 32
        }
    }
}

/// EVENTINJ for what EXITINTINFO says was not delivered. INT n, INT3 and INTO are not injected again: RIP is
/// still at the instruction, which the guest executes again.
#[cold]
fn undelivered(info: u64) -> u64 {
    let vector = info & 0xff;
    match info & TYPE {
        TYPE_EXCEPTION if vector == 3 || vector == 4 => 0,
        TYPE_INTERRUPT | TYPE_NMI | TYPE_EXCEPTION => info,
        _ => 0,
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
