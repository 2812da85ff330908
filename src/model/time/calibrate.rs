//! The rates of the TSC and of the local APIC's timer, against a counter whose rate is known.
//!
//! The three are read together, and nothing holds a processor to that: a system-management interrupt, or the host of an emulator,
//! may come between two readings and take as long as it likes. So a look counts that took little time, and a measurement
//! whose halves agree. Sources of the rates:
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

/// Half of the time that a measurement takes, in ns.
const HALF_NS: u64 = 5_000_000;
/// Looks from which the shortest is taken.
const LOOKS: u32 = 5;
/// Looks after which a counter that stands still is given up.
const PATIENCE: u32 = 10_000_000;
/// Measurements before the best of them must do.
const ATTEMPTS: u32 = 20;
/// By how much the halves of a measurement may differ, in millionths.
const GOOD_PPM: u64 = 1000;

/// The clocks of a board, read one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The TSC before the others were read.
    pub before: u64,
    /// The counter of known rate.
    pub counter: u64,
    /// The local APIC's timer, which counts down from 2^32 - 1.
    pub timer: u32,
    /// The TSC after.
    pub after: u64,
}

/// What a look saw.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// What the TSC moved while it was taken, and where it was in the midst of that.
    took: u64,
    tsc: u64,
    /// What the counter has moved since the first look.
    steps: u64,
    timer: u32,
}

/// Looks that follow each other. The counter may wrap between them, but once.
struct Watch<'a, F> {
    reference: &'a Reference,
    look: F,
    last: Option<u64>,
    steps: u64,
}

impl<F: FnMut() -> Look> Watch<'_, F> {
    fn see(&mut self) -> Seen {
        let Look { before, counter, timer, after } = (self.look)();
        let last = self.last.replace(counter).unwrap_or(counter);
        self.steps = self.steps.wrapping_add(self.reference.steps(last, counter));
        let took = after.wrapping_sub(before);
        Seen { took, tsc: before.wrapping_add(took / 2), steps: self.steps, timer }
    }

    fn shortest(&mut self) -> Seen {
        let first = self.see();
        (1..LOOKS).map(|_| self.see()).fold(first, |best, new| if new.took < best.took { new } else { best })
    }

    /// What there is to see half a measurement after `first`; `None` if the counter stands still.
    fn later(&mut self, first: &Seen) -> Option<Seen> {
        let is_over = (0..PATIENCE).any(|_| {
            let now = self.see();
            self.reference.ns(now.steps.wrapping_sub(first.steps)) >= HALF_NS
        });
        is_over.then(|| self.shortest())
    }
}

/// What the clocks of a board count in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// The TSC.
    pub tsc_hz: u64,
    /// The local APIC's timer, with divisor 1. 0 if it stands still.
    pub timer_hz: u64,
    /// By how much the halves of the measurement differ, in millionths.
    pub differ_ppm: u64,
}

impl Rates {
    /// Whether they can be relied on.
    pub fn agree(&self) -> bool {
        self.differ_ppm <= GOOD_PPM
    }
}

/// Measures, for 10 ms or until it has gone well. `start` has the local APIC's timer count from its maximum; `look` reads the
/// clocks. `None` if the TSC or the counter stands still.
pub fn calibrate(reference: &Reference, mut start: impl FnMut(), look: impl FnMut() -> Look) -> Option<Rates> {
    let mut watch = Watch { reference, look, last: None, steps: 0 };
    let mut best: Option<Rates> = None;
    for _ in 0..ATTEMPTS {
        start();
        let first = watch.shortest();
        let middle = watch.later(&first)?;
        let last = watch.later(&middle)?;
        let whole = reference.rates(&first, &last);
        let halves = [reference.rates(&first, &middle), reference.rates(&middle, &last)];
        let (Some([tsc_hz, timer_hz]), [Some(one), Some(other)]) = (whole, halves) else { continue };
        let differ_ppm = differ_ppm(one[0], other[0]).max(differ_ppm(one[1], other[1]));
        let rates = Rates { tsc_hz, timer_hz, differ_ppm };
        if rates.agree() {
            return Some(rates);
        }
        if best.is_none_or(|best| differ_ppm < best.differ_ppm) {
            best = Some(rates);
        }
    }
    best
}

fn differ_ppm(one: u64, other: u64) -> u64 {
    let most = one.max(other).max(1);
    (u128::from(one.abs_diff(other)) * 1_000_000 / u128::from(most)) as u64
}

impl Reference {
    /// The rates of TSC and timer from one look to another; `None` if the TSC or the counter has not moved.
    fn rates(&self, from: &Seen, to: &Seen) -> Option<[u64; 2]> {
        let period = u128::from(to.steps.wrapping_sub(from.steps)) * u128::from(self.hz_denominator);
        let hz = |ticks: u64| {
            let scaled = u128::from(ticks) * u128::from(self.hz_numerator);
            u64::try_from((scaled + period / 2).checked_div(period)?).ok()
        };
        let tsc = hz(to.tsc.wrapping_sub(from.tsc)).filter(|&hz| hz != 0)?;
        Some([tsc, hz(u64::from(from.timer.wrapping_sub(to.timer)))?])
    }
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

    /// A board whose clocks run at their rates, and that stands still for a processor now and then.
    struct Board {
        reference: Reference,
        rates: [u64; 2],
        first: [u64; 2],
        ns: u64,
        /// When the timer was started.
        started: u64,
        /// What each step takes, in ns, and from where on the list is read again.
        steps: Vec<u64>,
        next: usize,
        again: usize,
    }

    impl Board {
        fn new(reference: Reference, rates: [u64; 2], first: [u64; 2], steps: Vec<u64>, again: usize) -> Self {
            Self { reference, rates, first, ns: 0, started: 0, steps, next: 0, again }
        }

        fn step(&mut self) {
            self.ns += self.steps[self.next];
            self.next = if self.next + 1 == self.steps.len() { self.again } else { self.next + 1 };
        }

        fn counted(hz: u128, ns: u64) -> u64 {
            (hz * u128::from(ns) / u128::from(NS_PER_SEC)) as u64
        }

        fn tsc(&mut self) -> u64 {
            self.step();
            self.first[0].wrapping_add(Self::counted(self.rates[0].into(), self.ns))
        }

        fn counter(&mut self) -> u64 {
            self.step();
            let steps = u128::from(self.reference.hz_numerator) * u128::from(self.ns)
                / (u128::from(self.reference.hz_denominator) * u128::from(NS_PER_SEC));
            let steps = steps as u64;
            let first = self.first[1];
            let count = if self.reference.counts_down { first.wrapping_sub(steps) } else { first.wrapping_add(steps) };
            count & self.reference.mask
        }

        fn timer(&mut self) -> u32 {
            self.step();
            let counted = Self::counted(self.rates[1].into(), self.ns - self.started);
            u64::from(u32::MAX).saturating_sub(counted) as u32
        }

        fn look(&mut self) -> Look {
            Look { before: self.tsc(), counter: self.counter(), timer: self.timer(), after: self.tsc() }
        }

        fn calibrate(self) -> Option<Rates> {
            let reference = self.reference;
            let board = core::cell::RefCell::new(self);
            let start = || {
                let mut board = board.borrow_mut();
                board.started = board.ns;
            };
            calibrate(&reference, start, || board.borrow_mut().look())
        }
    }

    #[test]
    fn a_counter_or_a_tsc_that_stands_still_is_found() {
        let still = Reference { hz_numerator: 1, ..Reference::PIT };
        assert_eq!(Board::new(still, [1_000_000_000, 1_000_000], [5, 5], vec![100], 0).calibrate(), None);
        assert_eq!(Board::new(Reference::PIT, [0, 1_000_000], [5, 5], vec![100], 0).calibrate(), None);
    }

    #[test]
    fn a_timer_that_stands_still_has_no_rate() {
        let rates = Board::new(Reference::acpi_pm(true), [2_000_000_000, 0], [5, 5], vec![100], 0).calibrate().unwrap();
        assert_eq!(rates.timer_hz, 0);
    }

    /// Between the counter and the TSC, for example: no more than one reading seems to pass.
    #[test]
    fn a_rest_between_two_readings_spoils_nothing() {
        for at in 0..40 {
            let mut steps = vec![500; 60];
            steps[at] = 12_000_000;
            let board = Board::new(Reference::acpi_pm(true), [2_400_000_000, 1_000_000_000], [7, 7], steps, 59);
            let rates = board.calibrate().unwrap();
            assert!(rates.agree() && rates.tsc_hz.abs_diff(2_400_000_000) < 1_200_000, "{at}: {rates:?}");
        }
    }

    fn reference() -> impl Strategy<Value = Reference> {
        prop_oneof![
            Just(Reference::PIT),
            any::<bool>().prop_map(Reference::acpi_pm),
            (1_000_000u32..100_000_000, any::<bool>())
                .prop_map(|(period, wide)| Reference::hpet(period, wide).expect("the period is allowed")),
        ]
    }

    /// What the steps take: little, but for one in some thousands, which takes up to 40 ms.
    fn steps() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![5000 => 50u64..300, 1 => 1000u64..40_000_000];
        proptest::collection::vec(step, 1000..30_000)
    }

    proptest! {
        #[test]
        fn what_is_measured_is_right_whatever_comes_between(
            reference in reference(),
            tsc_hz in 400_000_000u64..8_000_000_000,
            timer_hz in 20_000_000u64..1_000_000_000,
            first in any::<[u64; 2]>(),
            steps in steps(),
        ) {
            let rates = Board::new(reference, [tsc_hz, timer_hz], first, steps, 0).calibrate().expect("all of it counts");
            prop_assert!(rates.agree(), "{:?}", rates);
            prop_assert!(rates.tsc_hz.abs_diff(tsc_hz) <= tsc_hz / 1000, "{:?} for {}", rates, tsc_hz);
            prop_assert!(rates.timer_hz.abs_diff(timer_hz) <= timer_hz / 1000, "{:?} for {}", rates, timer_hz);
        }
    }
}
