//! The TSC's rate against a counter whose rate is known.
//!
//! The caller reads both again and again, more often than the counter wraps, and gives each pair to a [`Meter`]. Sources:
//! ACPI 4.8.3.3 (power-management timer), IA-PC HPET specification 2.3.4, Intel 8254.

use super::NS_PER_SEC;

/// A counter of known rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its rate in Hz is this ...
    hz_numerator: u64,
    /// ... divided by this.
    hz_denominator: u64,
    /// The bits that count.
    mask: u64,
    counts_down: bool,
}

impl Reference {
    /// Channel 0 or 2 of an 8254 with a count of 65,536: 1.193182 MHz, the colour-burst crystal's 315/22 MHz by 12.
    pub const PIT: Self = Self { hz_numerator: 315_000_000, hz_denominator: 22 * 12, mask: 0xffff, counts_down: true };

    /// The ACPI timer: 3.579545 MHz, 315/22 MHz by 4. `is_32_bit` is the FADT's `TMR_VAL_EXT`.
    pub const fn acpi_pm(is_32_bit: bool) -> Self {
        let mask = if is_32_bit { 0xffff_ffff } else { 0xff_ffff };
        Self { hz_numerator: 315_000_000, hz_denominator: 22 * 4, mask, counts_down: false }
    }

    /// An HPET's main counter, whose period in fs is in the upper half of its capabilities; `None` where that is zero or
    /// more than the 100 ns that the specification allows.
    pub const fn hpet(period_fs: u32, is_64_bit: bool) -> Option<Self> {
        if period_fs == 0 || period_fs > 100_000_000 {
            return None;
        }
        let mask = if is_64_bit { u64::MAX } else { 0xffff_ffff };
        Some(Self { hz_numerator: 1_000_000_000_000_000, hz_denominator: period_fs as u64, mask, counts_down: false })
    }

    /// ns that pass while the counter makes this many steps.
    pub fn ns(&self, steps: u64) -> u64 {
        let ns = u128::from(steps) * u128::from(NS_PER_SEC) * u128::from(self.hz_denominator);
        u64::try_from(ns / u128::from(self.hz_numerator)).unwrap_or(u64::MAX)
    }

    /// Steps from one reading to the next, at most one wrap later.
    fn steps(&self, from: u64, to: u64) -> u64 {
        let steps = if self.counts_down { from.wrapping_sub(to) } else { to.wrapping_sub(from) };
        steps & self.mask
    }
}

/// A measurement under way.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    reference: Reference,
    first_tsc: u64,
    last_tsc: u64,
    last_count: u64,
    steps: u64,
}

impl Meter {
    /// Begins with a TSC value and the counter's reading that was taken with it.
    pub const fn new(reference: Reference, tsc: u64, count: u64) -> Self {
        Self { reference, first_tsc: tsc, last_tsc: tsc, last_count: count, steps: 0 }
    }

    /// The next pair, at most one wrap of the counter later.
    pub fn push(&mut self, tsc: u64, count: u64) {
        self.steps = self.steps.saturating_add(self.reference.steps(self.last_count, count));
        (self.last_tsc, self.last_count) = (tsc, count);
    }

    /// How long the measurement has gone on, in ns by the counter.
    pub fn elapsed_ns(&self) -> u64 {
        self.reference.ns(self.steps)
    }

    /// The TSC's rate in Hz; `None` while neither or only one of the two has moved.
    pub fn tsc_hz(&self) -> Option<u64> {
        let ticks = u128::from(self.last_tsc.wrapping_sub(self.first_tsc));
        let scaled = ticks.checked_mul(u128::from(self.reference.hz_numerator))?;
        let period = u128::from(self.steps) * u128::from(self.reference.hz_denominator);
        let hz = (scaled + period / 2).checked_div(period)?;
        u64::try_from(hz).ok().filter(|&hz| hz != 0)
    }
}

/// The middle one of three measurements: an interruption spoils one of them and not the answer.
pub fn median(mut hz: [u64; 3]) -> u64 {
    hz.sort_unstable();
    hz[1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_three_counters_have_their_known_rates() {
        let second = |r: Reference, hz: u64| r.ns(hz).abs_diff(NS_PER_SEC);
        assert!(second(Reference::PIT, 1_193_182) < 1000);
        assert!(second(Reference::acpi_pm(false), 3_579_545) < 1000);
        assert!(second(Reference::hpet(10_000_000, true).unwrap(), 100_000_000) < 1000);
    }

    #[test]
    fn an_hpet_without_a_valid_period_is_none() {
        assert_eq!(Reference::hpet(0, true), None);
        assert_eq!(Reference::hpet(100_000_001, true), None);
    }

    #[test]
    fn the_pit_counts_down_through_its_wrap() {
        let mut meter = Meter::new(Reference::PIT, 1000, 0x0010);
        meter.push(1000 + 3_000_000_000 / 100, (0x10u64.wrapping_sub(11932)) & 0xffff);
        let hz = meter.tsc_hz().unwrap();
        assert!(hz.abs_diff(3_000_000_000) < 300_000, "{hz}");
    }

    #[test]
    fn nothing_is_known_before_both_have_moved() {
        let mut meter = Meter::new(Reference::acpi_pm(true), 5, 5);
        assert_eq!(meter.tsc_hz(), None);
        meter.push(100, 5);
        assert_eq!(meter.tsc_hz(), None);
        let mut meter = Meter::new(Reference::acpi_pm(true), 5, 5);
        meter.push(5, 100);
        assert_eq!(meter.tsc_hz(), None);
    }

    #[test]
    fn one_spoilt_measurement_of_three_does_not_count() {
        assert_eq!(median([5, 900, 4]), 5);
    }

    fn reference() -> impl Strategy<Value = Reference> {
        prop_oneof![
            Just(Reference::PIT),
            any::<bool>().prop_map(Reference::acpi_pm),
            (1_000_000u32..100_000_000, any::<bool>())
                .prop_map(|(period, wide)| Reference::hpet(period, wide).expect("the period is allowed")),
        ]
    }

    proptest! {
        #[test]
        fn any_tsc_is_measured_right_by_any_counter_from_any_start(
            reference in reference(), hz in 10_000_000u64..10_000_000_000, tsc in any::<u64>(), count in any::<u64>(),
        ) {
            let at = |ms: u64| {
                let steps = (u128::from(reference.hz_numerator) * u128::from(ms)
                    / (1000 * u128::from(reference.hz_denominator))) as u64;
                let read = if reference.counts_down { count.wrapping_sub(steps) } else { count.wrapping_add(steps) };
                (tsc.wrapping_add(hz / 1000 * ms), read & reference.mask)
            };
            let mut meter = Meter::new(reference, at(0).0, at(0).1);
            (1..=1000).step_by(20).for_each(|ms| meter.push(at(ms).0, at(ms).1));
            let (found, expected) = (meter.tsc_hz().unwrap(), hz / 1000 * 1000);
            prop_assert!(found.abs_diff(expected) <= expected / 500_000 + 1, "{} for {}", found, expected);
        }
    }
}
