//! From exit reason and qualification (SDM 3D appendix C; SDM 3C 27.2.1) to the contract's [`Exit`].

use super::entry;
use super::event::{self, Info, kind};
use super::vmcs::{self, VmcsField};
use crate::exit::{CrAccess, Exit, Io, Length, NestedFault};
use crate::irq;
use model::addr::{GuestPhys, GuestVirt};
use model::pvh::LOCAL_APIC;
use model::regs::{Regs, vector};

/// The exit reason.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Reason(u32);

#[rustfmt::skip]
impl Reason {
    const EXCEPTION_OR_NMI: u16 = 0;
    const EXTERNAL_INTERRUPT: u16 = 1;
    const TRIPLE_FAULT: u16 = 2;
    const INTERRUPT_WINDOW: u16 = 7;
    const NMI_WINDOW: u16 = 8;
    const TASK_SWITCH: u16 = 9;
    const CPUID: u16 = 10;
    const GETSEC: u16 = 11;
    const HLT: u16 = 12;
    const INVD: u16 = 13;
    const RDPMC: u16 = 15;
    const VMCALL: u16 = 18;
    const VMCLEAR: u16 = 19;
    const VMXON: u16 = 27;
    const CR_ACCESS: u16 = 28;
    const MOV_DR: u16 = 29;
    const IO: u16 = 30;
    const RDMSR: u16 = 31;
    const WRMSR: u16 = 32;
    const MWAIT: u16 = 36;
    const MONITOR: u16 = 39;
    const PAUSE: u16 = 40;
    const TPR_BELOW_THRESHOLD: u16 = 43;
    const APIC_ACCESS: u16 = 44;
    const EPT_VIOLATION: u16 = 48;
    const EPT_MISCONFIGURATION: u16 = 49;
    const INVEPT: u16 = 50;
    const INVVPID: u16 = 53;
    const WBINVD: u16 = 54;
    const XSETBV: u16 = 55;
    const APIC_WRITE: u16 = 56;

    /// Of the exit just taken.
    #[inline(always)]
    pub(super) fn read() -> Self {
        Self(vmcs::read32(VmcsField::EXIT_REASON))
    }
    /// The entry failed, and what looks like an exit is its report.
    pub(super) fn is_failed_entry(self) -> bool {
        self.0 >> 31 != 0
    }
    /// All of it.
    pub(super) fn code(self) -> u64 {
        u64::from(self.0)
    }
    fn basic(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

/// An access to the local APIC's page that the processor does not serve: the offset is in bits 11:0, what kind of access
/// it is in bits 15:12 (SDM 3C table 27-6).
fn apic_access(qualification: u64) -> NestedFault {
    let kind = qualification >> 12 & 15;
    NestedFault {
        gpa: GuestPhys::new(LOCAL_APIC.raw() | qualification & 0xfff),
        gva: None,
        is_write: kind == 1,
        is_fetch: kind == 2,
        in_walk: false,
    }
}

pub(super) fn qualification() -> u64 {
    vmcs::read(VmcsField::QUALIFICATION)
}

pub(super) fn length() -> Length {
    Some((vmcs::read32(VmcsField::INSTRUCTION_LENGTH) & 15) as u8)
}

impl super::Vcpu {
    /// What the guest did. Physical interrupts, NMIs and machine checks have been taken when this returns.
    #[inline(always)]
    pub(super) fn decode(&mut self, reason: Reason, regs: &mut Regs) -> Exit {
        match reason.basic() {
            Reason::EXCEPTION_OR_NMI => self.exception(regs),
            Reason::EXTERNAL_INTERRUPT => {
                self.take_interrupt();
                Exit::Host
            }
            Reason::INTERRUPT_WINDOW => Exit::InterruptWindow,
            Reason::NMI_WINDOW => Exit::NmiWindow,
            Reason::VMCALL => Exit::Hypercall { len: length() },
            Reason::CPUID => Exit::Cpuid { len: length() },
            Reason::RDMSR => Exit::Rdmsr { len: length() },
            Reason::WRMSR => Exit::Wrmsr { len: length() },
            Reason::IO => Exit::Io(io(qualification(), length())),
            Reason::CR_ACCESS => Exit::Cr { access: cr_access(qualification()), len: length() },
            Reason::MOV_DR => {
                self.demand_debug();
                Exit::Host
            }
            Reason::HLT => Exit::Hlt { len: length() },
            Reason::PAUSE => Exit::Pause { len: length() },
            Reason::WBINVD | Reason::INVD => Exit::Wbinvd { len: length() },
            Reason::XSETBV => Exit::Xsetbv { len: length() },
            Reason::RDPMC => Exit::Rdpmc { len: length() },
            Reason::EPT_VIOLATION => self.ept_violation(),
            Reason::EPT_MISCONFIGURATION => Exit::NestedFault(nested_fault(0, gpa(), GuestVirt::new(0))),
            Reason::APIC_WRITE => Exit::ApicWrite { offset: (qualification() & 0xff0) as u16 },
            Reason::APIC_ACCESS => Exit::NestedFault(apic_access(qualification())),
            Reason::TPR_BELOW_THRESHOLD => below_threshold(),
            Reason::TASK_SWITCH => Exit::TaskSwitch,
            Reason::TRIPLE_FAULT => Exit::TripleFault,
            Reason::GETSEC | Reason::MWAIT | Reason::MONITOR | Reason::INVEPT | Reason::INVVPID => Exit::Undefined,
            Reason::VMCLEAR..=Reason::VMXON => Exit::Undefined,
            _ => Exit::Unknown { code: reason.code(), info: qualification() },
        }
    }

    /// Has the host's handler run. Where the exit has acknowledged the interrupt it does not come by the IDT any more.
    fn take_interrupt(&self) {
        if self.features.acknowledges() {
            irq::dispatch(Info::from_exit(vmcs::read32(VmcsField::EXIT_INTERRUPTION)).vector());
        } else {
            entry::take_interrupts();
        }
    }

    /// An NMI or machine check of the host's, or an exception of the guest's that is intercepted. Such an
    /// exception takes the place of the event whose delivery it cut short, as it does without a hypervisor:
    /// both #DB and #AC are benign (SDM 3A table 6-5).
    fn exception(&mut self, regs: &mut Regs) -> Exit {
        let info = Info::from_exit(vmcs::read32(VmcsField::EXIT_INTERRUPTION));
        if info.kind() == kind::NMI {
            entry::take_nmi();
            return Exit::Host;
        }
        if info.vector() == vector::MC {
            entry::take_machine_check();
            return Exit::Host;
        }
        self.block_nmis_after_iret(info.unblocked_by_iret());
        self.queued = event::Queued::NONE;
        if info.vector() == vector::DB {
            self.debug_exception(info, regs);
        }
        let error = info.has_error_code().then(|| vmcs::read32(VmcsField::EXIT_ERROR_CODE));
        Exit::Exception { vector: info.vector(), error }
    }

    fn ept_violation(&mut self) -> Exit {
        const UNBLOCKED_BY_IRET: u64 = 1 << 12;
        let qualification = qualification();
        self.block_nmis_after_iret(qualification & UNBLOCKED_BY_IRET != 0);
        Exit::NestedFault(nested_fault(qualification, gpa(), GuestVirt::new(vmcs::read(VmcsField::GUEST_LINEAR))))
    }

    /// An IRET that ended NMI blocking and then faulted has not ended it. The bit says nothing when the fault
    /// came in the delivery of an event.
    fn block_nmis_after_iret(&self, unblocked: bool) {
        if unblocked && self.queued.is_none() {
            event::block_nmis_again();
        }
    }
}

fn gpa() -> GuestPhys {
    GuestPhys::new(vmcs::read(VmcsField::GUEST_PHYSICAL))
}

/// The threshold is spent: an entry with a TPR below it fails (SDM 3C 26.2.1.1).
fn below_threshold() -> Exit {
    // SAFETY: no threshold, no exit.
    unsafe { vmcs::write(VmcsField::TPR_THRESHOLD, 0) }
    Exit::TprBelowThreshold
}

/// SDM 3C table 27-5.
fn io(qualification: u64, len: Length) -> Io {
    Io {
        port: (qualification >> 16 & 0xffff) as u16,
        size: (qualification & 7) as u8 + 1,
        is_in: qualification & 1 << 3 != 0,
        is_string: qualification & 1 << 4 != 0,
        is_rep: qualification & 1 << 5 != 0,
        len,
    }
}

/// SDM 3C table 27-3.
fn cr_access(qualification: u64) -> CrAccess {
    let cr = (qualification & 15) as u8;
    let gpr = (qualification >> 8 & 15) as u8;
    match qualification >> 4 & 3 {
        0 => CrAccess::Write { cr, gpr },
        1 => CrAccess::Read { cr, gpr },
        2 => CrAccess::Clts,
        _ => CrAccess::Lmsw { value: (qualification >> 16 & 0xffff) as u16 },
    }
}

/// SDM 3C table 27-7; a misconfiguration has no qualification.
fn nested_fault(qualification: u64, gpa: GuestPhys, gva: GuestVirt) -> NestedFault {
    let has_gva = qualification & 1 << 7 != 0;
    NestedFault {
        gpa,
        gva: has_gva.then_some(gva),
        is_write: qualification & 1 << 1 != 0,
        is_fetch: qualification & 1 << 2 != 0,
        in_walk: has_gva && qualification & 1 << 8 == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_access_decodes_as_the_manual_has_it() {
        let rep_insw = io(0x0060_0039, Some(2));
        assert_eq!((rep_insw.port, rep_insw.size), (0x60, 2));
        assert!(rep_insw.is_in && rep_insw.is_string && rep_insw.is_rep);
        let out = io(0x00e9_0040, Some(2));
        assert_eq!((out.port, out.size, out.is_in, out.is_string), (0xe9, 1, false, false));
        assert_eq!(io(0x0cf8_0003, Some(1)).size, 4);
    }

    #[test]
    fn the_four_kinds_of_control_register_access_are_told_apart() {
        assert_eq!(cr_access(0x0000_0c00), CrAccess::Write { cr: 0, gpr: 12 });
        assert_eq!(cr_access(0x0000_0718), CrAccess::Read { cr: 8, gpr: 7 });
        assert_eq!(cr_access(0x0000_0020), CrAccess::Clts);
        assert_eq!(cr_access(0xabcd_0030), CrAccess::Lmsw { value: 0xabcd });
    }

    #[test]
    fn a_nested_fault_in_a_walk_is_told_from_one_at_its_end() {
        let (gpa, gva) = (GuestPhys::new(0x1000), GuestVirt::new(0x2000));
        let end = nested_fault(0x182, gpa, gva);
        assert!(end.is_write && !end.in_walk && end.gva == Some(gva));
        assert!(nested_fault(0x083, gpa, gva).in_walk);
        let unknown = nested_fault(0x004, gpa, gva);
        assert!(unknown.is_fetch && !unknown.in_walk && unknown.gva.is_none());
    }
}
