//! Events on their way into the guest.
//!
//! One event at a time goes in with a VM entry (SDM 3C 24.8.3). What an exit cut short comes back in the
//! IDT-vectoring fields, in nearly the same format, and goes in again at the next entry (SDM 3C 24.9.3).

use super::features::primary;
use super::vmcs::{self, VmcsField};
use model::regs::{Event, Regs, Rflags, vector};

/// Interruptibility: the instruction after STI (SDM 3C table 24-3).
const STI: u32 = 1 << 0;
/// Interruptibility: the instruction after MOV SS or POP SS.
const MOV_SS: u32 = 1 << 1;
/// Interruptibility: in an NMI handler, as virtual NMIs have it.
const IN_NMI: u32 = 1 << 3;

/// Pending debug exceptions: a single step (SDM 3C table 24-4).
const SINGLE_STEP: u64 = 1 << 14;

/// Interruption information, of entry, exit and IDT vectoring alike (SDM 3C table 24-14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Info(u32);

impl Info {
    const ERROR_CODE: u32 = 1 << 11;
    const VALID: u32 = 1 << 31;
    /// Exit information: an IRET had opened the guest to NMIs when it faulted.
    const IRET: u32 = 1 << 12;

    const fn new(kind: u32, vector: u8) -> Self {
        Self(Self::VALID | kind << 8 | vector as u32)
    }
    pub(super) fn from_exit(raw: u32) -> Self {
        Self(raw)
    }
    pub(super) fn vector(self) -> u8 {
        (self.0 & 0xff) as u8
    }
    pub(super) fn kind(self) -> u32 {
        self.0 >> 8 & 7
    }
    pub(super) fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }
    pub(super) fn has_error_code(self) -> bool {
        self.0 & Self::ERROR_CODE != 0
    }
    pub(super) fn unblocked_by_iret(self) -> bool {
        self.0 & Self::IRET != 0
    }
    /// Only what an entry accepts: bit 12 is undefined in IDT-vectoring information.
    fn for_entry(self) -> Self {
        Self(self.0 & (Self::VALID | 0xfff))
    }
    /// Whether the entry needs the length of the instruction that raised the event.
    fn is_soft(self) -> bool {
        matches!(self.kind(), kind::SOFT_INTERRUPT | kind::PRIVILEGED_SOFT_EXCEPTION | kind::SOFT_EXCEPTION)
    }
}

/// Types of events (SDM 3C table 24-14).
pub(super) mod kind {
    pub(in crate::vmx) const INTERRUPT: u32 = 0;
    pub(in crate::vmx) const NMI: u32 = 2;
    pub(in crate::vmx) const EXCEPTION: u32 = 3;
    pub(in crate::vmx) const SOFT_INTERRUPT: u32 = 4;
    pub(in crate::vmx) const PRIVILEGED_SOFT_EXCEPTION: u32 = 5;
    pub(in crate::vmx) const SOFT_EXCEPTION: u32 = 6;
}

/// The event of the next entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queued {
    info: Info,
    error: u32,
    length: u32,
}

impl Queued {
    pub(super) const NONE: Self = Self { info: Info(0), error: 0, length: 0 };

    pub(super) fn is_none(&self) -> bool {
        !self.info.is_valid()
    }

    /// An event of our own. In real mode no exception has an error code; in protected mode those that have one
    /// always do (SDM 3C 26.2.1.3).
    fn new(event: Event, protected: bool) -> Self {
        match event {
            Event::Interrupt(vector) => Self { info: Info::new(kind::INTERRUPT, vector), ..Self::NONE },
            Event::Nmi => Self { info: Info::new(kind::NMI, vector::NMI), ..Self::NONE },
            Event::Exception { vector, error } => {
                let mut info = Info::new(kind::EXCEPTION, vector & 31);
                if protected && pushes_error_code(vector & 31) {
                    info.0 |= Info::ERROR_CODE;
                }
                Self { info, error: error.unwrap_or(0), length: 0 }
            }
        }
    }

    /// The event in the contract's words. An `INT n` that was cut short counts as the interrupt that it imitates.
    pub(super) fn event(&self) -> Option<Event> {
        if self.is_none() {
            return None;
        }
        let vector = self.info.vector();
        Some(match self.info.kind() {
            kind::INTERRUPT | kind::SOFT_INTERRUPT => Event::Interrupt(vector),
            kind::NMI => Event::Nmi,
            _ => Event::Exception { vector, error: self.info.has_error_code().then_some(self.error) },
        })
    }

    /// What the exit just taken cut short. An NMI that was not delivered does not block the next.
    #[inline(always)]
    pub(super) fn cut_short() -> Self {
        let info = Info(vmcs::read32(VmcsField::VECTORING));
        if info.is_valid() { Self::read(info) } else { Self::NONE }
    }

    #[cold]
    fn read(info: Info) -> Self {
        let error = if info.has_error_code() { vmcs::read32(VmcsField::VECTORING_ERROR_CODE) } else { 0 };
        let length = if info.is_soft() { vmcs::read32(VmcsField::INSTRUCTION_LENGTH) } else { 0 };
        if info.kind() == kind::NMI {
            change_interruptibility(IN_NMI, 0);
        }
        Self { info: info.for_entry(), error, length }
    }

    /// Brings the VMCS the event; the next entry delivers it.
    #[inline(always)]
    pub(super) fn write(&self) {
        if !self.is_none() {
            self.write_fields();
        }
    }

    fn write_fields(&self) {
        // SAFETY: an event for the guest, which the processor checks at entry.
        unsafe {
            if self.info.has_error_code() {
                vmcs::write(VmcsField::ENTRY_ERROR_CODE, u64::from(self.error));
            }
            if self.info.is_soft() {
                vmcs::write(VmcsField::ENTRY_INSTRUCTION_LENGTH, u64::from(self.length));
            }
            vmcs::write(VmcsField::ENTRY_INTERRUPTION, u64::from(self.info.0));
        }
    }
}

/// Exceptions with an error code in protected mode (SDM 3A table 6-1), as the entry checks them.
fn pushes_error_code(vector: u8) -> bool {
    matches!(vector, vector::DF | vector::TS | vector::NP | vector::SS | vector::GP | vector::PF | vector::AC)
}

fn interruptibility() -> u32 {
    vmcs::read32(VmcsField::INTERRUPTIBILITY)
}

fn change_interruptibility(clear: u32, set: u32) {
    vmcs::write_guest(VmcsField::INTERRUPTIBILITY, u64::from(interruptibility() & !clear | set));
}

/// The guest is in an NMI handler still: the IRET that opened it to NMIs did not complete (SDM 3C 27.2.3).
pub(super) fn block_nmis_again() {
    change_interruptibility(0, IN_NMI);
}

/// A debug exception in a shadow was taken out of the guest with its single step. An entry with the shadow and
/// TF but no single step pending fails (SDM 3C 26.3.1.5).
pub(super) fn keep_single_step(rflags: u64) {
    let in_shadow = interruptibility() & (STI | MOV_SS) != 0;
    if in_shadow && rflags & Rflags::TF.bits() != 0 {
        let pending = vmcs::read(VmcsField::PENDING_DEBUG);
        vmcs::write_guest(VmcsField::PENDING_DEBUG, pending | SINGLE_STEP);
    }
}

/// The shadow of STI or MOV SS ends with the instruction that it covers.
pub(super) fn end_shadow() {
    let state = interruptibility();
    if state & (STI | MOV_SS) != 0 {
        vmcs::write_guest(VmcsField::INTERRUPTIBILITY, u64::from(state & !(STI | MOV_SS)));
    }
}

/// Whether RIP moves within 64-bit code, where it does not wrap at 4 GiB.
fn in_64_bit_code() -> bool {
    const L: u32 = 1 << 13;
    let long = super::state::is_long_mode();
    long && vmcs::read32(VmcsField::GUEST_CS_ACCESS_RIGHTS) & L != 0
}

impl super::Vcpu {
    /// [`crate::virt::Virt::inject`].
    #[inline]
    pub(super) fn queue(&mut self, event: Event) {
        debug_assert!(self.queued.is_none(), "one event at a time");
        self.queued = Queued::new(event, super::state::is_protected());
    }

    /// [`crate::virt::Virt::interrupts_open`].
    pub(super) fn takes_interrupts(&self, regs: &Regs) -> bool {
        regs.rflags & Rflags::IF.bits() != 0 && self.queued.is_none() && interruptibility() & (STI | MOV_SS) == 0
    }

    /// [`crate::virt::Virt::nmis_open`]. The shadow of STI holds NMIs off too: some processors refuse the entry.
    pub(super) fn takes_nmis(&self) -> bool {
        self.queued.is_none() && interruptibility() & (STI | MOV_SS | IN_NMI) == 0
    }

    /// [`crate::virt::Virt::want_window`].
    pub(super) fn set_window(&mut self, window: crate::virt::Window) {
        use crate::virt::Window;
        let bit = match window {
            Window::None => 0,
            Window::Interrupt => primary::INTERRUPT_WINDOW,
            Window::Nmi => primary::NMI_WINDOW,
        };
        self.set_primary(self.primary & !(primary::INTERRUPT_WINDOW | primary::NMI_WINDOW) | bit);
    }

    /// Writes the primary controls if they change: windows, and whether accesses to debug registers exit.
    #[inline]
    pub(super) fn set_primary(&mut self, controls: u32) {
        if controls != self.primary {
            self.primary = controls;
            // SAFETY: nothing else differs from the controls that the VMCS began with.
            unsafe { vmcs::write(VmcsField::PRIMARY_CONTROLS, u64::from(controls)) }
        }
    }

    /// [`crate::virt::Virt::skip`].
    pub(super) fn skip_instruction(&mut self, regs: &mut Regs, len: u8) {
        let next = regs.rip.wrapping_add(u64::from(len));
        let crossed = (next ^ regs.rip) >> 32 != 0;
        regs.rip = if crossed && !in_64_bit_code() { next & 0xffff_ffff } else { next };
        regs.rflags &= !Rflags::RF.bits();
        end_shadow();
        if regs.rflags & Rflags::TF.bits() != 0 {
            let pending = vmcs::read(VmcsField::PENDING_DEBUG);
            vmcs::write_guest(VmcsField::PENDING_DEBUG, pending | SINGLE_STEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_back_as_it_was_queued() {
        for event in [Event::Interrupt(0xf3), Event::Nmi, Event::UD, Event::GP] {
            assert_eq!(Queued::new(event, true).event(), Some(event));
        }
        assert_eq!(Queued::NONE.event(), None);
    }

    #[test]
    fn an_exception_has_an_error_code_in_protected_mode_only() {
        let real = Queued::new(Event::GP, false);
        assert_eq!(real.info, Info(0x8000_030d));
        let protected = Queued::new(Event::Exception { vector: vector::GP, error: None }, true);
        assert_eq!((protected.info, protected.error), (Info(0x8000_0b0d), 0));
        let none = Queued::new(Event::Exception { vector: vector::UD, error: Some(7) }, true);
        assert!(!none.info.has_error_code());
    }

    #[test]
    fn the_undefined_bit_of_idt_vectoring_information_does_not_reach_an_entry() {
        assert_eq!(Info(0x8000_1b0e).for_entry(), Info(0x8000_0b0e));
    }

    #[test]
    fn only_soft_events_need_a_length() {
        assert!((0..8).all(|k| Info::new(k, 3).is_soft() == (4..=6).contains(&k)));
    }
}
