//! IRR, ISR, TPR and EOI, by cases and against a naive twin.

use super::*;

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
}
