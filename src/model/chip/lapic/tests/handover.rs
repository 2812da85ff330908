//! Vectors that the processor has, and back.

use super::*;

#[test]
fn what_is_accepted_is_posted_and_told_once() {
    let (mut apic, posted) = (enabled(0), Posted::default());
    assert!(!apic.post(&posted));
    apic.accept(0x41, Trigger::Edge);
    apic.accept(0x92, Trigger::Edge);
    assert!(apic.post(&posted));
    assert_eq!(apic.highest_pending(), None);
    apic.accept(0x41, Trigger::Edge);
    assert!(!apic.post(&posted), "what was told is not yet seen");
    let mut words = [0; 8];
    posted.take(|word, bits| words[usize::from(word)] = bits);
    assert_eq!(words, [0, 0, 1 << 1, 0, 1 << 18, 0, 0, 0]);
}

proptest! {
    #[test]
    fn vectors_survive_the_way_into_the_page_and_back(
        requested in prop::collection::btree_set(16u8..=255, 0..8),
        in_service in prop::collection::btree_set(16u8..=255, 0..8),
        tpr: u8,
    ) {
        let mut apic = enabled(0);
        for &vector in &in_service {
            apic.accept(vector, Trigger::Edge);
            apic.acknowledge(vector);
        }
        for &vector in &requested {
            apic.accept(vector, Trigger::Edge);
        }
        apic.set_tpr(tpr);
        let before = (apic.highest_pending(), apic.ppr());
        let mut page = [0; 4096 / 16];
        apic.each_steady(|offset, value| page[usize::from(offset) / 16] = value);
        page[8] = u32::from(tpr);
        let highest = |set: &std::collections::BTreeSet<u8>| set.last().copied().unwrap_or(0);
        prop_assert_eq!(apic.hand_over(), (highest(&requested), highest(&in_service)));
        prop_assert_eq!(apic.highest_pending(), None);
        apic.set_tpr(0);
        apic.take_back(|offset| page[usize::from(offset) / 16]);
        prop_assert_eq!((apic.highest_pending(), apic.ppr()), before);
        for n in 0..8 {
            prop_assert_eq!(get(&mut apic, 0x100 + n * 16), u64::from(page[0x10 + usize::from(n)]));
            prop_assert_eq!(get(&mut apic, 0x200 + n * 16), u64::from(page[0x20 + usize::from(n)]));
        }
    }
}

#[test]
fn the_interrupt_command_comes_back_in_xapic_mode() {
    let mut apic = enabled(0);
    apic.take_back(|offset| match offset {
        0x300 => 0x0004_0051,
        0x310 => 0x0300_0000,
        _ => 0,
    });
    assert_eq!((get(&mut apic, 0x300), get(&mut apic, 0x310)), (0x0004_0051, 0x0300_0000));
    let mut x2apic = enabled_x2(0);
    x2apic.take_back(|_| 0);
    assert_eq!(x2apic.read_msr(0x830, T0), Ok(0));
}
