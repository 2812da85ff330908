//! The interrupt command register and destinations.

use super::*;
use crate::ids::VcpuId;

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
fn the_x2apic_icr_holds_a_32_bit_destination() {
    let mut apic = enabled_x2(0);
    let effect = apic.write_msr(0x830, 0x0000_0123_0000_40fd, T0);
    let message = Message { mode: DeliveryMode::FIXED, vector: 0xfd, trigger: Trigger::Edge };
    let ipi = Ipi { dest: Destination::Physical(0x123), shorthand: Shorthand::None, message };
    assert_eq!(effect, Ok(Effect::Ipi(ipi)));
    assert_eq!(apic.read_msr(0x830, T0), Ok(0x0000_0123_0000_40fd));
}
