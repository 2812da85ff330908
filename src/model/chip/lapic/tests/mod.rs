//! Each rule a test; what they share.

mod handover;
mod ipi;
mod modes;
mod priority;
mod registers;
mod timer;

use super::*;
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

proptest! {
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
}
