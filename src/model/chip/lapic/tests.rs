//! A rule a test, and the priority logic against a naive twin.

use super::*;
use crate::addr::GuestPhys;
use crate::ids::VcpuId;
use proptest::prelude::*;

const T0: Now = Now { ns: 1_000_000, tsc: 5_000_000 };
const X2APIC: u64 = 0xfee0_0c00;

pub(super) fn config(id: u32) -> Config {
    Config { id, bsp: false, x2apic: true, tsc_deadline: true, phys_bits: 39 }
}

pub(super) fn lapic(id: u32) -> Lapic {
    Lapic::new(config(id))
}

/// Software-enabled, in xAPIC mode.
fn enabled(id: u32) -> Lapic {
    let mut apic = lapic(id);
    put(&mut apic, 0xf0, 0x1ff);
    apic
}

fn enabled_x2(id: u32) -> Lapic {
    let mut apic = enabled(id);
    apic.set_apic_base(X2APIC).expect("xAPIC to x2APIC is legal");
    apic
}

fn put(apic: &mut Lapic, offset: u16, value: u64) {
    assert_eq!(apic.write(offset, 4, value, T0), Effect::None);
}

fn at(ns: u64) -> Now {
    Now { ns: T0.ns + ns, tsc: T0.tsc }
}

fn get(apic: &mut Lapic, offset: u16) -> u64 {
    apic.read(offset, 4, T0)
}

#[test]
fn registers_have_their_reset_values() {
    let mut apic = lapic(3);
    for (offset, value) in [
        (0x20, 3 << 24),
        (0x30, 0x50014),
        (0x80, 0),
        (0xa0, 0),
        (0xd0, 0),
        (0xe0, 0xffff_ffff),
        (0xf0, 0xff),
        (0x100, 0),
        (0x280, 0),
        (0x300, 0),
        (0x320, 0x10000),
        (0x350, 0x10000),
        (0x370, 0x10000),
        (0x380, 0),
        (0x390, 0),
        (0x3e0, 0),
    ] {
        assert_eq!(get(&mut apic, offset), value, "offset {offset:#x}");
    }
}

#[test]
fn a_vector_goes_from_irr_to_isr_to_nowhere() {
    let mut apic = enabled(0);
    assert_eq!(apic.accept(0x41, Trigger::Edge), Wakeup::Interrupt);
    assert_eq!(get(&mut apic, 0x220), 2);
    assert_eq!(apic.highest_pending(), Some(0x41));
    assert!(apic.acknowledge(0x41));
    assert!(!apic.acknowledge(0x41));
    assert_eq!((get(&mut apic, 0x220), get(&mut apic, 0x120)), (0, 2));
    assert_eq!(apic.ppr(), 0x40);
    apic.accept(0x4f, Trigger::Edge);
    assert_eq!(apic.highest_pending(), None, "the same class waits");
    apic.accept(0x50, Trigger::Edge);
    assert_eq!(apic.highest_pending(), Some(0x50));
    put(&mut apic, 0xb0, 0);
    assert_eq!(get(&mut apic, 0x120), 0);
}

#[test]
fn the_end_of_a_level_interrupt_is_broadcast() {
    let mut apic = enabled(0);
    apic.accept(0x61, Trigger::Level);
    assert_eq!(get(&mut apic, 0x1b0), 2);
    apic.acknowledge(0x61);
    assert_eq!(apic.write(0xb0, 4, 0, T0), Effect::EoiBroadcast(0x61));
    apic.accept(0x61, Trigger::Edge);
    assert_eq!(get(&mut apic, 0x1b0), 0);
    apic.acknowledge(0x61);
    assert_eq!(apic.write(0xb0, 4, 0, T0), Effect::None);
    assert_eq!(apic.write(0xb0, 4, 0, T0), Effect::None, "an EOI with nothing in service");
}

#[test]
fn cr8_is_the_class_of_tpr() {
    let mut apic = enabled(0);
    put(&mut apic, 0x80, 0x5a);
    assert_eq!((apic.cr8(), apic.ppr()), (5, 0x5a));
    assert_eq!(apic.set_cr8(9), Ok(()));
    assert_eq!(get(&mut apic, 0x80), 0x90);
    assert_eq!(apic.set_cr8(16), Err(Gp));
    assert_eq!(apic.set_cr8(1 << 32), Err(Gp));
    apic.accept(0x71, Trigger::Edge);
    assert_eq!((apic.highest_pending(), apic.cr8_threshold()), (None, 7));
    assert_eq!(apic.set_cr8(6), Ok(()));
    assert_eq!((apic.highest_pending(), apic.cr8_threshold()), (Some(0x71), 0));
}

#[test]
fn an_interrupt_held_by_one_in_service_needs_no_cr8_exit() {
    let mut apic = enabled(0);
    apic.accept(0x81, Trigger::Edge);
    apic.acknowledge(0x81);
    apic.accept(0x71, Trigger::Edge);
    assert_eq!(apic.set_cr8(15), Ok(()));
    assert_eq!(apic.cr8_threshold(), 0);
}

#[test]
fn a_software_disabled_apic_drops_interrupts_and_keeps_its_lvt_masked() {
    let mut apic = lapic(0);
    assert_eq!(apic.accept(0x41, Trigger::Edge), Wakeup::None);
    assert_eq!(apic.highest_pending(), None);
    put(&mut apic, 0x320, 0x41);
    assert_eq!(get(&mut apic, 0x320), 0x10041);
    put(&mut apic, 0xf0, 0x1ff);
    put(&mut apic, 0x320, 0x41);
    assert_eq!(get(&mut apic, 0x320), 0x41);
    apic.accept(0x41, Trigger::Edge);
    put(&mut apic, 0xf0, 0xff);
    assert_eq!(get(&mut apic, 0x320), 0x10041);
    assert_eq!(apic.highest_pending(), Some(0x41), "what was pending stays");
}

#[test]
fn a_software_disabled_apic_still_takes_init_startup_and_nmi() {
    let mut apic = lapic(0);
    let message = |mode, vector| Message { mode, vector, trigger: Trigger::Edge };
    assert_eq!(apic.deliver(message(DeliveryMode::NMI, 0)), Wakeup::Nmi);
    assert_eq!(apic.deliver(message(DeliveryMode::INIT, 0)), Wakeup::Init);
    assert_eq!(apic.deliver(message(DeliveryMode::STARTUP, 0x9a)), Wakeup::Startup(0x9a));
    assert_eq!(apic.deliver(message(DeliveryMode::FIXED, 0x41)), Wakeup::None);
    assert_eq!(apic.deliver(message(DeliveryMode::EXT_INT, 0)), Wakeup::None);
}

#[test]
fn a_switched_off_apic_hears_only_its_pins() {
    let mut apic = enabled(0);
    apic.accept(0x41, Trigger::Edge);
    apic.set_apic_base(0xfee0_0000).expect("switching off is legal");
    assert_eq!(apic.highest_pending(), None);
    assert!(!apic.matches(Destination::Broadcast));
    let nmi = Message { mode: DeliveryMode::NMI, vector: 0, trigger: Trigger::Edge };
    assert_eq!(apic.deliver(nmi), Wakeup::None);
    assert_eq!(apic.raise(Lvt::Lint0), Wakeup::ExtInt);
    assert_eq!(apic.raise(Lvt::Lint1), Wakeup::Nmi);
    assert_eq!(apic.raise(Lvt::Error), Wakeup::None);
    assert_eq!(apic.read(0x20, 4, T0), u64::MAX);
    apic.set_apic_base(0xfee0_0800).expect("switching on is legal");
    assert_eq!((get(&mut apic, 0x220), get(&mut apic, 0xf0)), (0, 0xff), "all state is gone");
}

#[test]
fn init_keeps_the_mode_and_the_id() {
    let mut apic = enabled_x2(0x23);
    apic.accept(0x41, Trigger::Edge);
    apic.init();
    assert_eq!(apic.mode(), Mode::X2Apic);
    assert_eq!(apic.read_msr(0x802, T0), Ok(0x23));
    assert_eq!(apic.read_msr(0x80d, T0), Ok(0x2_0008));
    assert_eq!(apic.read_msr(0x822, T0), Ok(0));
    assert_eq!(apic.read_msr(0x80f, T0), Ok(0xff));
}

#[test]
fn lint_pins_deliver_what_their_entry_says() {
    let mut apic = enabled(0);
    assert_eq!(apic.raise(Lvt::Lint0), Wakeup::None, "masked");
    put(&mut apic, 0x350, 0x700);
    put(&mut apic, 0x360, 0x400);
    assert_eq!(apic.raise(Lvt::Lint0), Wakeup::ExtInt);
    assert_eq!(apic.raise(Lvt::Lint1), Wakeup::Nmi);
    put(&mut apic, 0x360, 0x500);
    assert_eq!(apic.raise(Lvt::Lint1), Wakeup::Init);
    put(&mut apic, 0x360, 0x33);
    assert_eq!(apic.raise(Lvt::Lint1), Wakeup::Interrupt);
    assert_eq!(apic.highest_pending(), Some(0x33));
}

#[test]
fn a_level_on_lint0_waits_for_its_eoi() {
    let mut apic = enabled(0);
    put(&mut apic, 0x350, 0x8033);
    assert_eq!(apic.raise(Lvt::Lint0), Wakeup::Interrupt);
    assert_eq!(get(&mut apic, 0x350), 0xc033);
    assert_eq!(apic.raise(Lvt::Lint0), Wakeup::None);
    apic.acknowledge(0x33);
    assert_eq!(apic.write(0xb0, 4, 0, T0), Effect::EoiBroadcast(0x33));
    assert_eq!(get(&mut apic, 0x350), 0x8033);
}

#[test]
fn esr_shows_errors_only_after_it_is_written() {
    let mut apic = enabled(0);
    put(&mut apic, 0x370, 0x3f);
    apic.accept(5, Trigger::Edge);
    put(&mut apic, 0x40, 1);
    assert_eq!(get(&mut apic, 0x280), 0);
    assert_eq!(apic.highest_pending(), Some(0x3f), "the error entry was raised");
    put(&mut apic, 0x280, 0);
    assert_eq!(get(&mut apic, 0x280), 0xc0);
    put(&mut apic, 0x280, 0);
    assert_eq!(get(&mut apic, 0x280), 0);
    put(&mut apic, 0x300, 0x0f);
    put(&mut apic, 0x280, 0);
    assert_eq!(get(&mut apic, 0x280), 0x20, "an illegal vector was sent");
}

#[test]
fn short_and_misplaced_accesses_reach_their_bytes() {
    let mut apic = enabled(3);
    assert_eq!(apic.read(0x23, 1, T0), 3);
    assert_eq!(apic.read(0x20, 8, T0), 3 << 24);
    assert_eq!(apic.read(0x24, 4, T0), 0);
    assert_eq!(apic.read(0x22, 2, T0), 0x300);
    assert_eq!(apic.read(0x22, 4, T0), 0x300);
    assert_eq!(apic.read(0x1020, 4, T0), 0);
    assert_eq!(apic.write(0x351, 1, 0x07, T0), Effect::None);
    assert_eq!(get(&mut apic, 0x350), 0x10700);
    assert_eq!(apic.write(0x354, 4, 0, T0), Effect::None);
    assert_eq!(get(&mut apic, 0x350), 0x10700);
    assert_eq!(apic.mmio_offset(GuestPhys::new(0xfee0_0320)), Some(0x320));
    assert_eq!(apic.mmio_offset(GuestPhys::new(0xfee0_1000)), None);
}

#[test]
fn registers_that_are_only_read_drop_writes() {
    let mut apic = enabled(3);
    for offset in [0x20, 0x30, 0xa0, 0x100, 0x180, 0x200, 0x390] {
        let before = get(&mut apic, offset);
        put(&mut apic, offset, u64::MAX);
        assert_eq!(get(&mut apic, offset), before, "offset {offset:#x}");
    }
    put(&mut apic, 0x280, 0);
    assert_eq!(get(&mut apic, 0x280), 0);
}

fn sent(apic: &mut Lapic, high: u64, low: u64) -> Effect {
    put(apic, 0x310, high);
    apic.write(0x300, 4, low, T0)
}

#[test]
fn a_write_to_icr_low_sends() {
    let mut apic = enabled(0);
    let ipi = |dest, shorthand, mode, vector| {
        Effect::Ipi(Ipi { dest, shorthand, message: Message { mode, vector, trigger: Trigger::Edge } })
    };
    use {DeliveryMode as M, Destination as D, Shorthand as S};
    assert_eq!(sent(&mut apic, 2 << 24, 0x40fd), ipi(D::Physical(2), S::None, M::FIXED, 0xfd));
    assert_eq!(sent(&mut apic, 3 << 24, 0x4941), ipi(D::Logical(3), S::None, M::LOWEST_PRIORITY, 0x41));
    assert_eq!(sent(&mut apic, 0xff << 24, 0x4400), ipi(D::Broadcast, S::None, M::NMI, 0));
    assert_eq!(sent(&mut apic, 1 << 24, 0xc500), ipi(D::Physical(1), S::None, M::INIT, 0));
    assert_eq!(sent(&mut apic, 1 << 24, 0x8500), Effect::None, "the de-assert of INIT");
    assert_eq!(sent(&mut apic, 1 << 24, 0x4609), ipi(D::Physical(1), S::None, M::STARTUP, 9));
    assert_eq!(sent(&mut apic, 0, 0xc_4041), ipi(D::Physical(0), S::Others, M::FIXED, 0x41));
    assert_eq!(sent(&mut apic, 0, 0x8_4041), ipi(D::Physical(0), S::All, M::FIXED, 0x41));
    assert_eq!(sent(&mut apic, 0, 0x4_4041), Effect::None);
    assert_eq!(apic.highest_pending(), Some(0x41), "the shorthand for oneself");
    assert_eq!(get(&mut apic, 0x300), 0x4_4041);
    assert_eq!(sent(&mut apic, 0, 0x4300), Effect::None, "a reserved mode");
}

#[test]
fn shorthands_reach_whom_they_name() {
    let message = Message { mode: DeliveryMode::FIXED, vector: 0x41, trigger: Trigger::Edge };
    let ipi = |shorthand| Ipi { dest: Destination::Physical(7), shorthand, message };
    let (own, other) = (enabled(0), enabled(1));
    let reach = |s| (ipi(s).reaches(0, &own), ipi(s).reaches(0, &other));
    assert_eq!(reach(Shorthand::None), (false, false));
    assert_eq!(reach(Shorthand::Own), (true, false));
    assert_eq!(reach(Shorthand::All), (true, true));
    assert_eq!(reach(Shorthand::Others), (false, true));
}

#[test]
fn xapic_destinations_match_flat_cluster_and_physical() {
    let mut apic = enabled(5);
    put(&mut apic, 0xd0, 0x24 << 24);
    let logical = |apic: &Lapic, mda| apic.matches(Destination::from_xapic(mda, true));
    assert!(apic.matches(Destination::from_xapic(5, false)));
    assert!(!apic.matches(Destination::from_xapic(4, false)));
    assert!(apic.matches(Destination::from_xapic(0xff, false)));
    assert!(logical(&apic, 0x04) && logical(&apic, 0x20) && logical(&apic, 0xff));
    assert!(!logical(&apic, 0x12) && !logical(&apic, 0));
    put(&mut apic, 0xe0, 0);
    assert_eq!(get(&mut apic, 0xe0), 0x0fff_ffff);
    assert!(logical(&apic, 0x24) && logical(&apic, 0x2c) && logical(&apic, 0xf4) && logical(&apic, 0xff));
    assert!(!logical(&apic, 0x34) && !logical(&apic, 0x22) && !logical(&apic, 0xf2));
    put(&mut apic, 0xe0, 0x5000_0000);
    assert!(!logical(&apic, 0x24));
}

#[test]
fn x2apic_destinations_match_the_derived_logical_id() {
    let apic = enabled_x2(0x123);
    assert_eq!(apic.read_msr(0x80d, T0), Ok(0x12_0008));
    assert!(apic.matches(Destination::from_x2apic(0x123, false)));
    assert!(!apic.matches(Destination::from_x2apic(0x23, false)));
    assert!(apic.matches(Destination::from_x2apic(0x12_0009, true)));
    assert!(!apic.matches(Destination::from_x2apic(0x12_0004, true)));
    assert!(!apic.matches(Destination::from_x2apic(0x13_0008, true)));
    assert!(apic.matches(Destination::from_x2apic(u32::MAX, true)));
    assert!(apic.matches(Destination::from_x2apic(u32::MAX, false)));
    assert!(!apic.matches(Destination::from_x2apic(0xff, false)));
}

#[test]
fn the_lowest_priority_goes_to_the_least_busy_that_is_enabled() {
    let (mut busy, idle, off) = (enabled(0), enabled(1), lapic(2));
    busy.accept(0x41, Trigger::Edge);
    busy.acknowledge(0x41);
    let all = [(VcpuId(2), &off), (VcpuId(0), &busy), (VcpuId(1), &idle)];
    assert_eq!(lowest_priority(all.into_iter()), Some(VcpuId(1)));
    assert_eq!(lowest_priority([(VcpuId(2), &off)].into_iter()), None);
}

#[test]
fn x2apic_msrs_fault_outside_x2apic_mode() {
    let mut apic = enabled(0);
    assert_eq!(apic.read_msr(0x802, T0), Err(Gp));
    assert_eq!(apic.write_msr(0x808, 0, T0), Err(Gp));
    assert!(Lapic::owns_msr(0x800) && Lapic::owns_msr(0x8ff) && !Lapic::owns_msr(0x900));
}

#[test]
fn x2apic_registers_have_their_directions() {
    let mut apic = enabled_x2(0);
    for msr in 0x7ff..=0x901 {
        let n = msr & 0xff;
        let write_only = matches!(n, 0x0b | 0x3f);
        let read_only = matches!(n, 0x02 | 0x03 | 0x0a | 0x0d | 0x10..=0x27 | 0x39);
        let both = matches!(n, 0x08 | 0x0f | 0x28 | 0x30 | 0x32..=0x38 | 0x3e);
        let inside = (0x800..0x900).contains(&msr);
        assert_eq!(apic.read_msr(msr, T0).is_ok(), inside && (read_only || both), "read {msr:#x}");
        let value = if n == 0x3f || n == 0x30 { 0x40 } else { 0 };
        assert_eq!(apic.clone().write_msr(msr, value, T0).is_ok(), inside && (write_only || both), "write {msr:#x}");
    }
    assert_eq!(apic.write_msr(0x83f, 0x55, T0), Ok(Effect::None));
    assert_eq!(apic.highest_pending(), Some(0x55));
}

#[test]
fn reserved_bits_of_x2apic_registers_fault() {
    let bits = [
        (0x808, 0xff),
        (0x80b, 0),
        (0x80f, 0x1ff),
        (0x828, 0),
        (0x830, 0xffff_ffff_000c_cfff),
        (0x832, 0x7_10ff),
        (0x833, 0x1_17ff),
        (0x834, 0x1_17ff),
        (0x835, 0x1_f7ff),
        (0x836, 0x1_f7ff),
        (0x837, 0x1_10ff),
        (0x838, 0xffff_ffff),
        (0x83e, 0xb),
        (0x83f, 0xff),
    ];
    for (msr, allowed) in bits {
        for bit in 0..64 {
            let written = enabled_x2(0).write_msr(msr, 1 << bit, T0);
            assert_eq!(written.is_ok(), allowed & 1u64 << bit != 0, "{msr:#x} bit {bit}");
        }
    }
}

#[test]
fn the_x2apic_icr_holds_a_32_bit_destination() {
    let mut apic = enabled_x2(0);
    let effect = apic.write_msr(0x830, 0x0000_0123_0000_40fd, T0);
    let message = Message { mode: DeliveryMode::FIXED, vector: 0xfd, trigger: Trigger::Edge };
    let ipi = Ipi { dest: Destination::Physical(0x123), shorthand: Shorthand::None, message };
    assert_eq!(effect, Ok(Effect::Ipi(ipi)));
    assert_eq!(apic.read_msr(0x830, T0), Ok(0x0000_0123_0000_40fd));
}

/// An APIC whose timer's entry holds `lvt`, divided by one.
fn timer(lvt: u64) -> Lapic {
    let mut apic = enabled(0);
    put(&mut apic, 0x3e0, 0xb);
    put(&mut apic, 0x320, lvt);
    apic
}

#[test]
fn a_one_shot_counts_down_and_expires_once() {
    let mut apic = timer(0x41);
    put(&mut apic, 0x380, 1000);
    assert_eq!(apic.next_deadline(), Some(Deadline::Ns(T0.ns + 10_000)));
    assert_eq!(apic.read(0x390, 4, at(4_000)), 600);
    assert!(!apic.expire(at(9_999)));
    assert!(apic.expire(at(10_000)));
    assert_eq!(apic.highest_pending(), Some(0x41));
    assert_eq!((apic.next_deadline(), apic.expire(at(20_000))), (None, false));
    assert_eq!(apic.read(0x390, 4, at(20_000)), 0);
    assert_eq!(get(&mut apic, 0x380), 1000);
}

#[test]
fn a_zero_count_stops_the_timer() {
    let mut apic = timer(0x2_0041);
    put(&mut apic, 0x380, 1000);
    put(&mut apic, 0x380, 0);
    assert_eq!((apic.next_deadline(), apic.expire(at(1 << 40))), (None, false));
}

#[test]
fn a_late_periodic_timer_expires_once_and_keeps_its_phase() {
    let mut apic = timer(0x2_0041);
    put(&mut apic, 0x380, 10_000);
    assert!(apic.expire(at(350_000)));
    assert_eq!(apic.next_deadline(), Some(Deadline::Ns(T0.ns + 400_000)));
    assert!(!apic.expire(at(350_000)));
    assert_eq!(apic.read(0x390, 4, at(420_000)), 8_000);
    assert!(apic.expire(at(400_000)));
}

#[test]
fn a_tiny_period_does_not_ask_sooner_than_the_floor() {
    let mut apic = timer(0x2_0041);
    put(&mut apic, 0x380, 1);
    assert!(apic.expire(at(10)));
    assert_eq!(apic.next_deadline(), Some(Deadline::Ns(T0.ns + 10 + MIN_PERIOD_NS)));
    assert!(!apic.expire(at(10 + MIN_PERIOD_NS - 1)));
    assert!(apic.expire(at(10 + MIN_PERIOD_NS)));
}

#[test]
fn the_divisor_scales_the_count() {
    for (code, divisor) in [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)] {
        let mut apic = timer(0x41);
        put(&mut apic, 0x3e0, code);
        put(&mut apic, 0x380, 100);
        assert_eq!(apic.next_deadline(), Some(Deadline::Ns(T0.ns + 1000 * divisor)), "code {code}");
    }
}

#[test]
fn another_divisor_counts_on_from_where_the_timer_is() {
    let mut apic = timer(0x41);
    put(&mut apic, 0x380, 100);
    assert_eq!(apic.write(0x3e0, 4, 0, at(500)), Effect::None);
    assert_eq!(apic.next_deadline(), Some(Deadline::Ns(T0.ns + 500 + 50 * 20)));
}

#[test]
fn a_masked_timer_expires_silently() {
    let mut apic = timer(0x1_0041);
    put(&mut apic, 0x380, 100);
    assert!(!apic.expire(at(1_000)));
    assert_eq!((apic.highest_pending(), apic.next_deadline()), (None, None));
}

#[test]
fn the_tsc_deadline_arms_and_disarms() {
    let mut apic = timer(0x4_0041);
    put(&mut apic, 0x380, 100);
    assert_eq!((apic.next_deadline(), get(&mut apic, 0x380)), (None, 0), "the count is not used");
    apic.set_tsc_deadline(7_000_000);
    assert_eq!(apic.next_deadline(), Some(Deadline::Tsc(7_000_000)));
    assert_eq!(apic.tsc_deadline(), 7_000_000);
    assert!(!apic.expire(Now { ns: u64::MAX, tsc: 6_999_999 }));
    assert!(apic.expire(Now { ns: 0, tsc: 7_000_000 }));
    assert_eq!((apic.tsc_deadline(), apic.next_deadline()), (0, None));
    apic.set_tsc_deadline(8_000_000);
    put(&mut apic, 0x320, 0x41);
    assert_eq!((apic.tsc_deadline(), apic.next_deadline()), (0, None), "a change of mode disarms");
    apic.set_tsc_deadline(9_000_000);
    assert_eq!(apic.tsc_deadline(), 0, "not in this mode");
}

#[test]
fn a_guest_without_tsc_deadline_cannot_select_it() {
    let mut apic = Lapic::new(Config { tsc_deadline: false, ..config(0) });
    put(&mut apic, 0xf0, 0x1ff);
    put(&mut apic, 0x320, 0x4_0041);
    assert_eq!(get(&mut apic, 0x320), 0x41);
    apic.set_apic_base(X2APIC).expect("xAPIC to x2APIC is legal");
    assert_eq!(apic.write_msr(0x832, 0x4_0041, T0), Err(Gp));
}

/// The priority rules of SDM 3A 10.8 said as plainly as they can be.
#[derive(Default)]
struct Twin {
    pending: Vec<u8>,
    service: Vec<u8>,
    tpr: u8,
}

impl Twin {
    fn ppr(&self) -> u8 {
        let in_service = self.service.iter().copied().max().unwrap_or(0);
        if self.tpr / 16 >= in_service / 16 { self.tpr } else { in_service / 16 * 16 }
    }

    fn highest(&self) -> Option<u8> {
        self.pending.iter().copied().max().filter(|v| v / 16 > self.ppr() / 16)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Accept(u8),
    Take,
    Eoi,
    Tpr(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (16u8..).prop_map(Step::Accept),
        3 => Just(Step::Take),
        2 => Just(Step::Eoi),
        1 => any::<u8>().prop_map(Step::Tpr),
    ]
}

fn apply(apic: &mut Lapic, twin: &mut Twin, step: Step) {
    match step {
        Step::Accept(vector) => {
            apic.accept(vector, Trigger::Edge);
            twin.pending.push(vector);
        }
        Step::Take => {
            if let Some(vector) = twin.highest() {
                assert!(apic.acknowledge(vector));
                twin.pending.retain(|&v| v != vector);
                twin.service.push(vector);
            }
        }
        Step::Eoi => {
            put(apic, 0xb0, 0);
            let highest = twin.service.iter().copied().max();
            twin.service.retain(|&v| Some(v) != highest);
        }
        Step::Tpr(value) => {
            put(apic, 0x80, u64::from(value));
            twin.tpr = value;
        }
    }
}

proptest! {
    #[test]
    fn priorities_are_those_of_the_naive_twin(steps in prop::collection::vec(step(), 0..80)) {
        let (mut apic, mut twin) = (enabled(0), Twin::default());
        for step in steps {
            apply(&mut apic, &mut twin, step);
            prop_assert_eq!(apic.ppr(), twin.ppr());
            prop_assert_eq!(apic.highest_pending(), twin.highest());
            prop_assert!(apic.cr8_threshold() <= apic.cr8());
        }
    }

    #[test]
    fn no_access_panics(
        accesses in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u64>(), any::<u64>(), 0u8..6), 0..60),
    ) {
        let mut apic = lapic(0);
        for (offset, len, value, time, kind) in accesses {
            let now = Now { ns: time, tsc: time };
            match kind {
                0 => { apic.read(offset & 0xfff, len, now); }
                1 => { let _ = apic.write(offset & 0xff0, len, value, now); }
                2 => { let _ = apic.read_msr(0x800 + u32::from(offset & 0xff), now); }
                3 => { let _ = apic.write_msr(0x800 + u32::from(offset & 0xff), value, now); }
                4 => { let _ = apic.set_apic_base(0xfee0_0000 | value & 0xc00); }
                _ => { apic.set_tsc_deadline(value); }
            }
            apic.expire(now);
            if let Some(Deadline::Ns(ns)) = apic.next_deadline() && !apic.timer_is_periodic() {
                prop_assert!(ns > now.ns || ns == u64::MAX);
            }
        }
    }

    #[test]
    fn a_current_count_falls_by_one_a_tick(initial in 1u32.., ticks in any::<u32>()) {
        let mut apic = timer(0x41);
        put(&mut apic, 0x380, u64::from(initial));
        let now = at(u64::from(ticks) * BUS_CYCLE_NS);
        prop_assert_eq!(apic.read(0x390, 4, now), u64::from(initial.saturating_sub(ticks)));
    }
}
