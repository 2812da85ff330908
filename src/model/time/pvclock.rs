//! System time from the TSC, as a guest computes it.
//!
//! `ns = system_time + ((((tsc - tsc_timestamp) << tsc_shift) * tsc_to_system_mul) >> 32)`, where a negative shift is one
//! to the right. Source: `xen/include/public/xen.h`, `struct vcpu_time_info`.

use super::NS_PER_SEC;

/// How TSC ticks become ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// `tsc_to_system_mul`: ns per shifted tick, in units of 2^-32. At least 2^31.
    mul: u32,
    /// `tsc_shift`.
    shift: i8,
}

impl Scale {
    /// For a TSC of this rate; `None` for a rate of zero. The error is below 2^-32 of the time, beside the rounding down
    /// to a whole ns.
    pub fn from_hz(hz: u64) -> Option<Self> {
        if hz == 0 {
            return None;
        }
        let (mut ticks, mut shift) = (u128::from(hz), 0i8);
        while ticks > u128::from(2 * NS_PER_SEC) {
            ticks = u128::from(hz) >> (1 - shift);
            shift -= 1;
        }
        while ticks <= u128::from(NS_PER_SEC) {
            ticks <<= 1;
            shift += 1;
        }
        // The division is by the rate itself, not by the shifted one, which has lost bits.
        let numerator = u128::from(NS_PER_SEC) << 32 << (-shift).max(0);
        let denominator = u128::from(hz) << shift.max(0);
        let mul = u32::try_from((numerator + denominator / 2) / denominator).unwrap_or(u32::MAX);
        Some(Self { mul, shift })
    }

    /// `tsc_to_system_mul`.
    pub const fn mul(self) -> u32 {
        self.mul
    }

    /// `tsc_shift`.
    pub const fn shift(self) -> i8 {
        self.shift
    }

    /// ns that pass in this many ticks, rounded down; `u64::MAX` if they are more than fit.
    pub fn ns(self, ticks: u64) -> u64 {
        let ticks = u128::from(ticks);
        let shifted = if self.shift >= 0 { ticks << self.shift } else { ticks >> -self.shift };
        u64::try_from((shifted * u128::from(self.mul)) >> 32).unwrap_or(u64::MAX)
    }

    /// The fewest ticks in which this many ns pass; `u64::MAX` if they are more than fit.
    pub fn ticks(self, ns: u64) -> u64 {
        let shifted = (u128::from(ns) << 32).div_ceil(u128::from(self.mul));
        let ticks = if self.shift >= 0 { shifted.div_ceil(1u128 << self.shift) } else { shifted << -self.shift };
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

/// What a guest finds in its `vcpu_time_info`, but for the version.
///
/// Whoever writes it makes the version odd, writes these, and makes it even again, each step visible before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the header's")]
pub struct TimeInfo {
    pub tsc_timestamp: u64,
    pub system_time: u64,
    pub tsc_to_system_mul: u32,
    pub tsc_shift: i8,
    pub flags: u8,
}

/// System time on one CPU: what it was at some TSC value, and how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    scale: Scale,
    base_tsc: u64,
    base_ns: u64,
}

impl Clock {
    /// The system time is `ns` when the TSC is `tsc`.
    pub const fn new(scale: Scale, tsc: u64, ns: u64) -> Self {
        Self { scale, base_tsc: tsc, base_ns: ns }
    }

    /// How it goes on.
    pub const fn scale(&self) -> Scale {
        self.scale
    }

    /// System time in ns at a TSC value; the base's for one before it.
    pub fn ns_at(&self, tsc: u64) -> u64 {
        self.base_ns.saturating_add(self.scale.ns(tsc.saturating_sub(self.base_tsc)))
    }

    /// The first TSC value at which the system time is `ns` or more.
    pub fn tsc_at(&self, ns: u64) -> u64 {
        self.base_tsc.saturating_add(self.scale.ticks(ns.saturating_sub(self.base_ns)))
    }

    /// What a guest that reads the TSC plus `tsc_offset` (modulo 2^64) is told. `is_stable` says that all its virtual CPUs
    /// may compare their readings (`XEN_PVCLOCK_TSC_STABLE_BIT`): all CPUs have this same clock and an invariant TSC.
    pub fn time_info(&self, tsc_offset: u64, is_stable: bool) -> TimeInfo {
        TimeInfo {
            tsc_timestamp: self.base_tsc.wrapping_add(tsc_offset),
            system_time: self.base_ns,
            tsc_to_system_mul: self.scale.mul,
            tsc_shift: self.scale.shift,
            flags: u8::from(is_stable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a guest does with the structure, in 64 bits as the header says it.
    fn guest_reads(info: &TimeInfo, tsc: u64) -> u64 {
        let delta = tsc.wrapping_sub(info.tsc_timestamp);
        let delta = if info.tsc_shift >= 0 { delta << info.tsc_shift } else { delta >> -info.tsc_shift };
        info.system_time + ((u128::from(delta) * u128::from(info.tsc_to_system_mul)) >> 32) as u64
    }

    #[test]
    fn a_tsc_of_one_gigahertz_counts_ns() {
        let scale = Scale::from_hz(1_000_000_000).unwrap();
        assert_eq!((scale.mul(), scale.shift()), (0x8000_0000, 1));
        assert_eq!(scale.ns(12345), 12345);
    }

    #[test]
    fn a_rate_of_zero_has_no_scale() {
        assert_eq!(Scale::from_hz(0), None);
    }

    #[test]
    fn extreme_rates_still_have_a_scale() {
        assert_eq!(Scale::from_hz(1).unwrap().ns(3), 3 * NS_PER_SEC);
        assert!(Scale::from_hz(u64::MAX).unwrap().ns(u64::MAX).abs_diff(NS_PER_SEC) <= 1);
    }

    #[test]
    fn a_year_at_a_real_rate_is_right_to_a_hundredth_of_a_second() {
        let (hz, seconds) = (2_893_299_761, 365 * 24 * 3600);
        let ns = Scale::from_hz(hz).unwrap().ns(hz * seconds);
        assert!(ns.abs_diff(seconds * NS_PER_SEC) < 10_000_000, "{ns}");
    }

    proptest! {
        #[test]
        fn the_rate_is_right_to_one_in_two_billion(hz in 1_000_000u64..20_000_000_000, seconds in 1u64..100_000) {
            let ns = Scale::from_hz(hz).unwrap().ns(hz * seconds);
            let exact = seconds * NS_PER_SEC;
            prop_assert!(ns.abs_diff(exact) <= (exact >> 31) + 16, "{} for {}", ns, exact);
        }

        #[test]
        fn linux_computes_the_frequency_back(khz in 1_000u64..10_000_000) {
            let scale = Scale::from_hz(khz * 1000).unwrap();
            let base = (1_000_000u64 << 32) / u64::from(scale.mul());
            let back = if scale.shift() < 0 { base << -scale.shift() } else { base >> scale.shift() };
            prop_assert!(back.abs_diff(khz) <= 1 << (-scale.shift()).max(0), "{} for {}", back, khz);
        }

        #[test]
        fn a_guest_reads_what_the_hypervisor_reads(
            hz in 10_000_000u64..10_000_000_000, base in any::<u32>(), offset in any::<u64>(), delta in 0u64..1 << 50,
        ) {
            let clock = Clock::new(Scale::from_hz(hz).unwrap(), base.into(), 77);
            let tsc = u64::from(base) + delta;
            let info = clock.time_info(offset, true);
            prop_assert_eq!(guest_reads(&info, tsc.wrapping_add(offset)), clock.ns_at(tsc));
        }

        #[test]
        fn a_deadline_in_ticks_is_the_first_tick_that_reaches_it(hz in 1_000_000u64..10_000_000_000, ns in 0u64..1 << 50) {
            let scale = Scale::from_hz(hz).unwrap();
            let ticks = scale.ticks(ns);
            prop_assert!(scale.ns(ticks) >= ns);
            let one_less = 1u64 << (-scale.shift()).max(0);
            prop_assert!(ticks < one_less || scale.ns(ticks - one_less) < ns);
        }
    }
}
