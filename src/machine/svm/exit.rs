//! Exit codes to [`Exit`]: the pure part (APM 2 appendix C).
//!
//! The codes that need the virtual CPU's state (interrupts, windows, IRET, MOV DR, #DB, #MC) are for
//! [`super::run`], which looks at them first.

use crate::exit::{Exit, Io, Length, NestedFault};
use model::addr::GuestPhys;
use model::regs::vector;
use model::svm::Vmcb;

/// Exit codes.
pub(super) mod code {
    /// Reads of DR0 to DR15, then writes.
    pub(crate) const DR: u64 = 0x20;
    pub(crate) const DR_LAST: u64 = 0x3f;
    pub(crate) const EXCEPTION: u64 = 0x40;
    pub(crate) const EXCEPTION_DB: u64 = 0x41;
    pub(crate) const EXCEPTION_MC: u64 = 0x52;
    pub(crate) const EXCEPTION_LAST: u64 = 0x5f;
    pub(crate) const INTR: u64 = 0x60;
    pub(crate) const NMI: u64 = 0x61;
    pub(crate) const INIT: u64 = 0x63;
    pub(crate) const VINTR: u64 = 0x64;
    pub(crate) const RDPMC: u64 = 0x6f;
    pub(crate) const CPUID: u64 = 0x72;
    pub(crate) const IRET: u64 = 0x74;
    pub(crate) const INVD: u64 = 0x76;
    pub(crate) const PAUSE: u64 = 0x77;
    pub(crate) const HLT: u64 = 0x78;
    pub(crate) const INVLPGA: u64 = 0x7a;
    pub(crate) const IOIO: u64 = 0x7b;
    pub(crate) const MSR: u64 = 0x7c;
    pub(crate) const TASK_SWITCH: u64 = 0x7d;
    pub(crate) const SHUTDOWN: u64 = 0x7f;
    pub(crate) const VMRUN: u64 = 0x80;
    pub(crate) const VMMCALL: u64 = 0x81;
    pub(crate) const VMLOAD: u64 = 0x82;
    pub(crate) const SKINIT: u64 = 0x86;
    pub(crate) const WBINVD: u64 = 0x89;
    pub(crate) const MONITOR: u64 = 0x8a;
    pub(crate) const MWAIT_CONDITIONAL: u64 = 0x8c;
    pub(crate) const XSETBV: u64 = 0x8d;
    pub(crate) const NPF: u64 = 0x400;
    pub(crate) const INVALID: u64 = u64::MAX;
    /// The same from QEMU, which stores the lower half.
    pub(crate) const INVALID_32: u64 = 0xffff_ffff;
}

/// Why the guest of this block left.
pub(super) fn decode(vmcb: &Vmcb, next_rip_saved: bool) -> Exit {
    let (code, info) = (vmcb.exit_code, vmcb.exit_info1);
    let len = instruction_length(vmcb, next_rip_saved);
    match code {
        code::VMMCALL => Exit::Hypercall { len },
        code::CPUID => Exit::Cpuid { len },
        code::MSR => {
            if is_wrmsr(vmcb) {
                Exit::Wrmsr { len }
            } else {
                Exit::Rdmsr { len }
            }
        }
        code::IOIO => Exit::Io(io(vmcb)),
        code::NPF => Exit::NestedFault(nested_fault(vmcb)),
        code::HLT => Exit::Hlt { len },
        code::PAUSE => Exit::Pause { len },
        code::INVD | code::WBINVD => Exit::Wbinvd { len },
        code::XSETBV => Exit::Xsetbv { len },
        code::RDPMC => Exit::Rdpmc { len },
        code::INVLPGA | code::VMRUN | code::VMLOAD..=code::SKINIT | code::MONITOR..=code::MWAIT_CONDITIONAL => {
            Exit::Undefined
        }
        code::EXCEPTION..=code::EXCEPTION_LAST => exception((code - code::EXCEPTION) as u8, info),
        code::TASK_SWITCH => Exit::TaskSwitch,
        code::SHUTDOWN => Exit::TripleFault,
        code::INVALID | code::INVALID_32 => Exit::EntryFailed { code, info },
        _ => Exit::Unknown { code, info },
    }
}

/// Whether an exit by MSR is of WRMSR.
#[inline]
pub(super) fn is_wrmsr(vmcb: &Vmcb) -> bool {
    vmcb.exit_info1 & 1 != 0
}

/// The length of the instruction that exited, where the processor saves the next RIP.
#[inline]
pub(super) fn instruction_length(vmcb: &Vmcb, next_rip_saved: bool) -> Length {
    if next_rip_saved { length(vmcb.rip, vmcb.next_rip) } else { None }
}

/// The length of the instruction from `rip` up to `next`, if that is one.
#[inline]
fn length(rip: u64, next: u64) -> Length {
    u8::try_from(next.wrapping_sub(rip)).ok().filter(|len| (1..=15).contains(len))
}

/// EXITINFO1 of IOIO tells the access, EXITINFO2 where the next instruction is, with or without next-RIP save
/// (APM 2 15.10.2).
fn io(vmcb: &Vmcb) -> Io {
    let info = vmcb.exit_info1;
    let size = if info & (1 << 4) != 0 {
        1
    } else if info & (1 << 5) != 0 {
        2
    } else {
        4
    };
    Io {
        port: (info >> 16 & 0xffff) as u16,
        size,
        is_in: info & 1 != 0,
        is_string: info & (1 << 2) != 0,
        is_rep: info & (1 << 3) != 0,
        len: length(vmcb.rip, vmcb.exit_info2),
    }
}

/// EXITINFO1 of NPF is a page-fault error code with two bits more, EXITINFO2 the address (APM 2 15.25.6).
fn nested_fault(vmcb: &Vmcb) -> NestedFault {
    let info = vmcb.exit_info1;
    NestedFault {
        gpa: GuestPhys::new(vmcb.exit_info2),
        gva: None,
        is_write: info & (1 << 1) != 0,
        is_fetch: info & (1 << 4) != 0,
        in_walk: info & (1 << 33) != 0,
    }
}

/// EXITINFO1 of an exception is its error code (APM 2 15.12).
fn exception(vector: u8, info: u64) -> Exit {
    let has_error = matches!(vector, vector::DF | vector::TS..=vector::PF | vector::AC);
    Exit::Exception { vector, error: has_error.then_some((info & 0xffff_ffff) as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(code: u64, info1: u64, info2: u64) -> alloc::boxed::Box<Vmcb> {
        let mut vmcb = Vmcb::zeroed();
        (vmcb.exit_code, vmcb.exit_info1, vmcb.exit_info2) = (code, info1, info2);
        (vmcb.rip, vmcb.next_rip) = (0x1000, 0x1003);
        vmcb
    }

    #[test]
    fn the_length_is_told_only_where_the_processor_saves_the_next_rip() {
        let vmcb = left(code::VMMCALL, 0, 0);
        assert_eq!(decode(&vmcb, true), Exit::Hypercall { len: Some(3) });
        assert_eq!(decode(&vmcb, false), Exit::Hypercall { len: None });
    }

    #[test]
    fn what_is_no_instruction_length_is_not_told() {
        for next in [0, 0xfff, 0x1000, 0x1010, 0x1100] {
            assert_eq!(length(0x1000, next), None);
        }
        assert_eq!(length(0x1000, 0x100f), Some(15));
        assert_eq!(length(u64::MAX, 1), Some(2));
    }

    #[test]
    fn a_port_access_is_decoded_without_next_rip_save() {
        let vmcb = left(code::IOIO, 0x03f8_0000 | 1 << 4 | 1, 0x1001);
        let access = Io { port: 0x3f8, size: 1, is_in: true, is_string: false, is_rep: false, len: Some(1) };
        assert_eq!(decode(&vmcb, false), Exit::Io(access));
        let vmcb = left(code::IOIO, 0xffff_0000 | 1 << 6 | 1 << 3 | 1 << 2, 0x1002);
        let access = Io { port: 0xffff, size: 4, is_in: false, is_string: true, is_rep: true, len: Some(2) };
        assert_eq!(decode(&vmcb, false), Exit::Io(access));
    }

    #[test]
    fn a_nested_fault_tells_write_fetch_and_walk() {
        let fault = |info| match decode(&left(code::NPF, info, 0xfee0_0300), false) {
            Exit::NestedFault(fault) => (fault.gpa.raw(), fault.is_write, fault.is_fetch, fault.in_walk),
            other => panic!("{other:?}"),
        };
        assert_eq!(fault(1 << 32 | 0b00110), (0xfee0_0300, true, false, false));
        assert_eq!(fault(1 << 32 | 0b10100), (0xfee0_0300, false, true, false));
        assert_eq!(fault(1 << 33 | 0b00110), (0xfee0_0300, true, false, true));
    }

    #[test]
    fn only_some_exceptions_have_an_error_code() {
        let error = |vector: u64| match decode(&left(code::EXCEPTION + vector, 7, 0), false) {
            Exit::Exception { error, .. } => error,
            other => panic!("{other:?}"),
        };
        for vector in 0..32 {
            assert_eq!(error(vector), [8, 10, 11, 12, 13, 14, 17].contains(&vector).then_some(7));
        }
    }

    #[test]
    fn no_code_is_taken_for_another() {
        for (code, exit) in [
            (0x7c, Exit::Rdmsr { len: None }),
            (0x84, Exit::Undefined),
            (0x89, Exit::Wbinvd { len: None }),
            (0x8b, Exit::Undefined),
            (0x8d, Exit::Xsetbv { len: None }),
            (0x77, Exit::Pause { len: None }),
            (0x7f, Exit::TripleFault),
            (0x65, Exit::Unknown { code: 0x65, info: 0 }),
            (0x87, Exit::Unknown { code: 0x87, info: 0 }),
            (0xffff_ffff, Exit::EntryFailed { code: 0xffff_ffff, info: 0 }),
            (u64::MAX, Exit::EntryFailed { code: u64::MAX, info: 0 }),
        ] {
            assert_eq!(decode(&left(code, 0, 0), false), exit);
        }
    }
}
