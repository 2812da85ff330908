//! Who may execute what.

use super::*;
use crate::regs::SegmentName;

const KERNEL: Who = Who { is_kernel: true, iopl: 0, architectural_iopl: false, cr4: Cr4::DE.bits() };
const USER: Who = Who { is_kernel: false, ..KERNEL };
const PORT: Port = Port { number: 0x3f8, size: 1 };

const FOR_THE_KERNEL: [System; 9] = [
    System::Rdmsr,
    System::Wrmsr,
    System::Hlt,
    System::Wbinvd,
    System::Control(ControlOp::Clts),
    System::Control(ControlOp::Read { cr: 0, gpr: 1 }),
    System::Control(ControlOp::Write { cr: 3, gpr: 1 }),
    System::ReadDebug { dr: 7, gpr: 0 },
    System::Invlpg { offset: 0x1000, segment: SegmentName::Ds },
];

#[test]
fn what_belongs_to_the_kernel_is_nothing_for_its_programs() {
    for what in FOR_THE_KERNEL {
        assert_eq!(judge(what, &KERNEL), Verdict::Allowed(what));
        assert_eq!(judge(what, &USER), Verdict::Bounce);
        assert_eq!(judge(what, &Who { iopl: 3, ..USER }), Verdict::Bounce, "not even with ports");
    }
}

#[test]
fn cpuid_is_for_all() {
    assert_eq!(judge(System::Cpuid, &USER), Verdict::Allowed(System::Cpuid));
}

#[test]
fn control_registers_that_a_pv_guest_has_are_0_2_3_and_4() {
    for cr in 0..16 {
        let known = [0, 2, 3, 4].contains(&cr);
        for op in [ControlOp::Read { cr, gpr: 0 }, ControlOp::Write { cr, gpr: 0 }] {
            let what = System::Control(op);
            assert_eq!(judge(what, &KERNEL), if known { Verdict::Allowed(what) } else { Verdict::Bounce });
        }
    }
}

#[test]
fn the_io_privilege_level_counts_the_kernel_as_1_or_as_0() {
    // Kernel, level, architectural: may.
    let table = [
        (true, 0, false, false),
        (true, 1, false, true),
        (true, 0, true, true),
        (false, 1, false, false),
        (false, 2, true, false),
        (false, 3, false, true),
    ];
    for (is_kernel, iopl, architectural_iopl, may) in table {
        let who = Who { is_kernel, iopl, architectural_iopl, cr4: 0 };
        assert_eq!(who.has_io(), may, "{who:?}");
        for what in [System::In(PORT), System::Out(PORT), System::StringIo(PORT)] {
            let expected = if may { Verdict::Allowed(what) } else { Verdict::AskBitmap(PORT, what) };
            assert_eq!(judge(what, &who), expected);
        }
        let expected = if may { Verdict::Allowed(System::SetInterrupts) } else { Verdict::Bounce };
        assert_eq!(judge(System::SetInterrupts, &who), expected);
    }
}

#[test]
fn the_bitmap_of_ports_forbids_by_set_bits_and_by_its_end() {
    let of = |number, size| Port { number, size };
    assert!(bitmap_allows(of(8, 1), 9, |at| if at == 1 { [0xfe, 0] } else { [0xff; 2] }));
    assert!(!bitmap_allows(of(8, 1), 8, |_| [0; 2]), "beyond the end");
    assert!(!bitmap_allows(of(9, 1), 64, |_| [2, 0]));
    assert!(!bitmap_allows(of(7, 2), 64, |_| [0, 1]), "the second port");
    assert!(bitmap_allows(of(6, 4), 64, |_| [0x3f, 0xfc]));
    assert!(!bitmap_allows(of(0xffff, 4), u32::MAX, |_| [0xff; 2]));
    assert!(bitmap_allows(of(0xfffc, 4), 65536, |at| if at == 0x1fff { [0; 2] } else { [0xff; 2] }));
}

#[test]
fn the_time_stamp_counter_is_the_kernels_to_keep() {
    let kept = Cr4::TSD.bits();
    for what in [System::Rdtsc, System::Rdtscp] {
        assert_eq!(judge(what, &Who { cr4: kept, ..KERNEL }), Verdict::Allowed(what));
        assert_eq!(judge(what, &Who { cr4: kept, ..USER }), Verdict::Bounce);
        assert_eq!(judge(what, &Who { cr4: 0, ..USER }), Verdict::Allowed(what));
    }
}

#[test]
fn xsetbv_is_undefined_until_the_kernel_turns_it_on() {
    assert_eq!(judge(System::Xsetbv, &KERNEL), Verdict::Fault(Event::UD));
    let on = Cr4::OSXSAVE.bits();
    assert_eq!(judge(System::Xsetbv, &Who { cr4: on, ..KERNEL }), Verdict::Allowed(System::Xsetbv));
    assert_eq!(judge(System::Xsetbv, &Who { cr4: on, ..USER }), Verdict::Bounce);
}

#[test]
fn debug_registers_4_and_5_are_6_and_7_or_undefined() {
    let without = Who { cr4: 0, ..KERNEL };
    let read = |dr| System::ReadDebug { dr, gpr: 2 };
    assert_eq!(judge(read(4), &without), Verdict::Allowed(read(6)));
    assert_eq!(judge(read(5), &KERNEL), Verdict::Fault(Event::UD));
    assert_eq!(judge(System::WriteDebug { dr: 8, gpr: 0 }, &KERNEL), Verdict::Fault(Event::UD));
    for dr in [0, 3, 6, 7] {
        assert_eq!(judge(read(dr), &KERNEL), Verdict::Allowed(read(dr)));
    }
}

#[test]
fn int_n_is_known_by_its_error_code_and_permitted_by_the_gate() {
    assert_eq!(SoftInterrupt::from_error(0x80 << 3 | 2), Some(SoftInterrupt { vector: 0x80 }));
    for other in [0, 8, 0x403, 0x404, 0x400, 0x1002] {
        assert_eq!(SoftInterrupt::from_error(other), None, "{other:#x}");
    }
    let int = SoftInterrupt { vector: 0x82 };
    let permitted: Vec<bool> = (0..4).map(|dpl| int.is_permitted(dpl, true)).collect();
    assert_eq!(permitted, [false, true, true, true]);
    assert!(int.is_permitted(3, false) && !int.is_permitted(2, false));
}

#[test]
fn an_instruction_that_is_done_ends_rf_and_takes_a_single_step() {
    assert_eq!(retire(0x1_0202), (0x202, false));
    assert_eq!(retire(0x302), (0x302, true));
}

#[test]
fn cr0_is_fixed_but_for_ts() {
    assert_eq!((read_cr0(false), read_cr0(true)), (0x8005_0033, 0x8005_003b));
    assert_eq!(write_cr0(0x8005_0033), Some(false));
    assert_eq!(write_cr0(0x8005_003b), Some(true));
    for wrong in [0, 0x8004_0033, 0x8005_0037, 0xc005_0033, 0x1_8005_0033] {
        assert_eq!(write_cr0(wrong), None, "{wrong:#x}");
    }
}

#[test]
fn cr4_keeps_what_is_not_the_guests() {
    let visible = 0x660;
    let own = (Cr4::TSD | Cr4::DE | Cr4::OSXSAVE).bits();
    assert_eq!(write_cr4(0, u64::MAX), visible);
    assert_eq!(write_cr4(u64::MAX, own), visible | own);
    assert_eq!(write_cr4((Cr4::PGE | Cr4::SMEP | Cr4::VMXE | Cr4::PCE).bits(), u64::MAX), visible);
    assert_eq!(write_cr4(u64::MAX, 0), visible);
}
