//! Tests of event delivery, on a control block that no processor sees.

use super::*;
use alloc::boxed::Box;

const TF: u64 = 1 << 8;
const IF: u64 = 1 << 9;

fn guest() -> (Box<Vmcb>, Events, Regs) {
    (Vmcb::zeroed(), Events::new(), Regs { rip: 0x1000, rflags: 2, ..Regs::default() })
}

/// The guest leaves at `rip` with this code and nothing cut short.
fn leave(vmcb: &mut Vmcb, events: &mut Events, regs: &mut Regs, code: u64, rip: u64) -> Option<Exit> {
    (vmcb.exit_code, vmcb.rip, regs.rip, vmcb.exit_int_info) = (code, rip, rip, 0);
    events.after_exit(vmcb, regs)
}

fn in_nmi_handler_at_iret() -> (Box<Vmcb>, Events, Regs) {
    let (mut vmcb, mut events, mut regs) = guest();
    events.inject(&mut vmcb, Event::Nmi);
    assert_eq!(leave(&mut vmcb, &mut events, &mut regs, code::IRET, 0x2000), None);
    events.on_iret(&mut vmcb);
    (vmcb, events, regs)
}

#[test]
fn an_injected_event_is_the_one_pending() {
    let (mut vmcb, mut events, _) = guest();
    for event in [
        Event::Interrupt(0xf3),
        Event::Nmi,
        Event::UD,
        Event::GP,
        Event::Exception { vector: 14, error: Some(u32::MAX) },
    ] {
        events.inject(&mut vmcb, event);
        assert_eq!(pending(&vmcb), Some(event));
    }
}

#[test]
fn events_have_the_bits_of_the_manual() {
    assert_eq!(encode(Event::Interrupt(0xf3)), 0x8000_00f3);
    assert_eq!(encode(Event::Nmi), 0x8000_0202);
    assert_eq!(encode(Event::UD), 0x8000_0306);
    assert_eq!(encode(Event::Exception { vector: 14, error: Some(6) }), 0x6_8000_0b0e);
}

#[test]
fn an_event_cut_short_is_delivered_again_but_a_software_interrupt_is_executed_again() {
    for kept in [0x8000_0030, 0x8000_0202, 0x6_8000_0b0e, 0x8000_0301] {
        assert_eq!(undelivered(kept), kept);
    }
    for dropped in [0x8000_0480, 0x8000_0303, 0x8000_0304] {
        assert_eq!(undelivered(dropped), 0);
    }
}

#[test]
fn an_interrupt_needs_if_no_shadow_and_nothing_pending() {
    let (mut vmcb, mut events, mut regs) = guest();
    assert!(!interrupts_open(&vmcb, &regs));
    regs.rflags |= IF;
    assert!(interrupts_open(&vmcb, &regs));
    vmcb.int_state = 1;
    assert!(!interrupts_open(&vmcb, &regs));
    events.inject(&mut vmcb, Event::UD);
    assert!(!vmcb.shadow());
    assert!(!interrupts_open(&vmcb, &regs));
}

#[test]
fn a_second_nmi_waits_for_the_iret_to_be_executed() {
    let (mut vmcb, mut events, mut regs) = in_nmi_handler_at_iret();
    assert!(!events.nmis_open(&vmcb));
    // A physical interrupt before the IRET changes nothing.
    assert_eq!(leave(&mut vmcb, &mut events, &mut regs, code::INTR, 0x2000), None);
    assert!(!events.nmis_open(&vmcb));
    assert_eq!(leave(&mut vmcb, &mut events, &mut regs, code::INTR, 0x1000), None);
    assert!(events.nmis_open(&vmcb));
}

#[test]
fn a_wanted_nmi_window_opens_by_a_step_over_the_iret() {
    let (mut vmcb, mut events, mut regs) = in_nmi_handler_at_iret();
    events.want(&mut vmcb, Window::Nmi);
    assert!(!vmcb.intercepts().contains(Intercept3::VINTR));
    events.before_entry(&mut vmcb, &mut regs);
    assert_ne!(regs.rflags & TF, 0);
    vmcb.set_dr6(vmcb.dr6() | DR6_BS);
    regs.rflags = 2;
    assert_eq!(leave(&mut vmcb, &mut events, &mut regs, code::EXCEPTION_DB, 0x1000), Some(Exit::NmiWindow));
    assert_eq!(vmcb.dr6() & DR6_BS, 0);
    assert!(events.nmis_open(&vmcb));
}

#[test]
fn a_step_that_was_interrupted_leaves_no_trap_flag() {
    let (mut vmcb, mut events, mut regs) = in_nmi_handler_at_iret();
    events.want(&mut vmcb, Window::Nmi);
    events.before_entry(&mut vmcb, &mut regs);
    assert_eq!(leave(&mut vmcb, &mut events, &mut regs, code::INTR, 0x2000), None);
    assert_eq!(regs.rflags & TF, 0);
    assert!(!events.nmis_open(&vmcb));
}

#[test]
fn a_breakpoint_of_the_guest_during_a_step_reaches_the_guest() {
    let (mut vmcb, mut events, mut regs) = in_nmi_handler_at_iret();
    events.want(&mut vmcb, Window::Nmi);
    events.before_entry(&mut vmcb, &mut regs);
    vmcb.set_dr7(1);
    vmcb.set_dr6(vmcb.dr6() | DR6_BS | 1);
    assert_eq!(leave(&mut vmcb, &mut events, &mut regs, code::EXCEPTION_DB, 0x1000), None);
    assert_eq!(vmcb.dr6() & (DR6_BS | 1), 1);
}

#[test]
fn what_the_processor_has_in_dr0_while_the_guest_has_no_breakpoint_does_not_reach_the_guest() {
    let (mut vmcb, mut events, mut regs) = in_nmi_handler_at_iret();
    events.want(&mut vmcb, Window::Nmi);
    events.before_entry(&mut vmcb, &mut regs);
    vmcb.set_dr6(vmcb.dr6() | DR6_BS | 1);
    let exit = leave(&mut vmcb, &mut events, &mut regs, code::EXCEPTION_DB, 0x1000);
    assert_eq!((exit, vmcb.dr6()), (Some(Exit::NmiWindow), model::debug::DR6_RESET));
}

#[test]
fn a_threshold_exits_below_it_even_where_equal_priority_is_delivered() {
    let (mut vmcb, mut events, _) = guest();
    vmcb.set_cr8(5);
    events.set_threshold(&mut vmcb, 5);
    assert_eq!(vmcb.int_ctl().bits() >> 16 & 0xf, 5);
    assert_eq!(events.on_virtual_interrupt(&mut vmcb), Exit::Host);
    assert_eq!(vmcb.int_ctl().bits() >> 16 & 0xf, 4);
    vmcb.set_cr8(4);
    assert_eq!(events.on_virtual_interrupt(&mut vmcb), Exit::TprBelowThreshold);
    events.set_threshold(&mut vmcb, 0);
    assert!(!vmcb.int_ctl().contains(IntCtl::V_IRQ));
}

#[test]
fn an_interrupt_window_ignores_cr8_and_holds_until_changed() {
    let (mut vmcb, mut events, _) = guest();
    events.want(&mut vmcb, Window::Interrupt);
    assert!(vmcb.int_ctl().contains(IntCtl::V_IRQ | IntCtl::V_IGN_TPR));
    assert_eq!(events.on_virtual_interrupt(&mut vmcb), Exit::InterruptWindow);
    assert!(vmcb.intercepts().contains(Intercept3::VINTR));
    events.want(&mut vmcb, Window::None);
    assert!(!vmcb.intercepts().contains(Intercept3::VINTR));
}

#[test]
fn a_skip_wraps_at_4_gib_outside_64_bit_code() {
    let (mut vmcb, _, mut regs) = guest();
    (regs.rip, vmcb.int_state) = (0xffff_ffff, 1);
    regs.rflags |= 1 << 16;
    skip(&mut vmcb, &mut regs, 2);
    assert_eq!((regs.rip, regs.rflags, vmcb.shadow()), (1, 2, false));
    assert_eq!(pending(&vmcb), None);
}

#[test]
fn a_skip_under_single_step_delivers_it() {
    let (mut vmcb, _, mut regs) = guest();
    regs.rflags |= TF;
    skip(&mut vmcb, &mut regs, 3);
    assert_eq!(pending(&vmcb), Some(Event::Exception { vector: 1, error: None }));
    assert_ne!(vmcb.dr6() & DR6_BS, 0);
}
