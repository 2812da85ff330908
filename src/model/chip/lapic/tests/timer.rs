//! The three timer modes.

use super::*;

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

proptest! {
    #[test]
    fn a_current_count_falls_by_one_a_tick(initial in 1u32.., ticks in any::<u32>()) {
        let mut apic = timer(0x41);
        put(&mut apic, 0x380, u64::from(initial));
        let now = at(u64::from(ticks) * BUS_CYCLE_NS);
        prop_assert_eq!(apic.read(0x390, 4, now), u64::from(initial.saturating_sub(ticks)));
    }
}
