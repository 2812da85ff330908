//! The time of day: the CMOS clock's registers to Unix seconds, and what `shared_info` tells a guest.
//!
//! Sources: Motorola MC146818 data sheet; ACPI 4.7.2.4 (century register, FADT); `xen/include/public/xen.h`.

use super::NS_PER_SEC;

/// The CMOS clock's registers, read while no update was in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the data sheet's")]
pub struct RtcFields {
    pub second: u8,
    pub minute: u8,
    pub hour: u8,
    pub day: u8,
    pub month: u8,
    pub year: u8,
    /// The register that the FADT names, where it names one.
    pub century: Option<u8>,
    /// Register B: bit 1 24-hour mode, bit 2 binary.
    pub status_b: u8,
}

impl RtcFields {
    const HOURS_24: u8 = 1 << 1;
    const BINARY: u8 = 1 << 2;
    const PM: u8 = 1 << 7;

    /// Seconds since 1970, taking the clock to run in UTC. `None` where the registers are no date.
    ///
    /// Without a plausible century a year from 70 on is in the 20th, one below in the 21st.
    pub fn unix_seconds(&self) -> Option<u64> {
        let (second, minute) = (self.number(self.second)?, self.number(self.minute)?);
        let (day, month, short_year) = (self.number(self.day)?, self.number(self.month)?, self.number(self.year)?);
        let hour = self.hour()?;
        let century = self.century.and_then(|raw| self.number(raw)).filter(|century| (19..=99).contains(century));
        let year = short_year + 100 * century.unwrap_or(if short_year >= 70 { 19 } else { 20 });
        if second > 59 || minute > 59 || !(1..=12).contains(&month) || short_year > 99 || year < 1970 {
            return None;
        }
        if day == 0 || day > days_in(month, year) {
            return None;
        }
        let days = days_since_1970(year, month, day);
        Some(((days * 24 + hour) * 60 + minute) * 60 + second)
    }

    fn number(&self, raw: u8) -> Option<u64> {
        let (high, low) = (raw >> 4, raw & 15);
        if self.status_b & Self::BINARY != 0 {
            Some(u64::from(raw))
        } else if high < 10 && low < 10 {
            Some(u64::from(high) * 10 + u64::from(low))
        } else {
            None
        }
    }

    fn hour(&self) -> Option<u64> {
        if self.status_b & Self::HOURS_24 != 0 {
            return self.number(self.hour).filter(|&hour| hour < 24);
        }
        let hour = self.number(self.hour & !Self::PM).filter(|hour| (1..=12).contains(hour))?;
        let noon = if self.hour & Self::PM != 0 { 12 } else { 0 };
        Some(hour % 12 + noon)
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(month: u64, year: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let past = year - 1;
    let leaps = |y: u64| y / 4 - y / 100 + y / 400;
    let before_year = (year - 1970) * 365 + leaps(past) - leaps(1969);
    before_year + (1..month).map(|m| days_in(m, year)).sum::<u64>() + day - 1
}

/// The time of day when system time was zero: `wc_sec`, `wc_sec_hi` and `wc_nsec` of `shared_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    unix_ns_at_zero: u128,
}

impl WallClock {
    /// It is `unix_seconds` when system time is `system_ns`.
    pub fn new(unix_seconds: u64, system_ns: u64) -> Self {
        Self::with_ns(unix_seconds, 0, system_ns)
    }

    /// It is `unix_seconds` and `unix_ns` more when system time is `system_ns`.
    pub fn with_ns(unix_seconds: u64, unix_ns: u32, system_ns: u64) -> Self {
        let now = u128::from(unix_seconds) * u128::from(NS_PER_SEC) + u128::from(unix_ns);
        Self { unix_ns_at_zero: now.saturating_sub(u128::from(system_ns)) }
    }

    /// `wc_sec` with `wc_sec_hi` above it.
    pub fn sec(&self) -> u64 {
        u64::try_from(self.unix_ns_at_zero / u128::from(NS_PER_SEC)).unwrap_or(u64::MAX)
    }

    /// `wc_nsec`, below 10^9.
    pub fn nsec(&self) -> u32 {
        (self.unix_ns_at_zero % u128::from(NS_PER_SEC)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BCD_24: u8 = 0x02;
    const BINARY_24: u8 = 0x06;

    fn fields(date: [u8; 6], century: Option<u8>, status_b: u8) -> RtcFields {
        let [year, month, day, hour, minute, second] = date;
        RtcFields { second, minute, hour, day, month, year, century, status_b }
    }

    #[test]
    fn known_dates_in_both_codes() {
        let bcd = fields([0x26, 0x11, 0x24, 0x01, 0x02, 0x03], Some(0x20), BCD_24);
        assert_eq!(bcd.unix_seconds(), Some(1_795_482_123));
        let binary = fields([26, 11, 24, 1, 2, 3], Some(20), BINARY_24);
        assert_eq!(binary.unix_seconds(), Some(1_795_482_123));
        assert_eq!(fields([70, 1, 1, 0, 0, 0], None, BINARY_24).unix_seconds(), Some(0));
        assert_eq!(fields([0, 2, 29, 12, 0, 0], None, BINARY_24).unix_seconds(), Some(951_825_600));
    }

    #[test]
    fn twelve_hour_clocks_have_two_twelves() {
        let at = |hour| fields([0x70, 1, 1, hour, 0, 0], Some(0x19), 0).unix_seconds();
        assert_eq!(at(0x12), Some(0));
        assert_eq!(at(0x92), Some(12 * 3600));
        assert_eq!(at(0x01), Some(3600));
        assert_eq!(at(0x91), Some(23 * 3600));
        assert_eq!(at(0x00), None);
        assert_eq!(at(0x13), None);
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for date in [
            [70, 0, 1, 0, 0, 0],
            [70, 13, 1, 0, 0, 0],
            [70, 2, 29, 0, 0, 0],
            [70, 1, 0, 0, 0, 0],
            [70, 1, 1, 24, 0, 0],
            [70, 1, 1, 0, 60, 0],
        ] {
            assert_eq!(fields(date, None, BINARY_24).unix_seconds(), None, "{date:?}");
        }
        assert_eq!(fields([0x7a, 1, 1, 0, 0, 0], None, BCD_24).unix_seconds(), None);
        assert_eq!(fields([0xff; 6], Some(0xff), 0xff).unix_seconds(), None);
    }

    #[test]
    fn a_guest_adds_its_system_time_to_the_wall_clock() {
        let wall = WallClock::new(1000, 2_500_000_000);
        assert_eq!((wall.sec(), wall.nsec()), (997, 500_000_000));
        assert_eq!(WallClock::new(0, 5).sec(), 0);
        let set = WallClock::with_ns(1000, 700_000_000, 200_000_000);
        assert_eq!((set.sec(), set.nsec()), (1000, 500_000_000));
    }

    proptest! {
        #[test]
        fn days_follow_each_other(year in 1970u64..2400, month in 1u64..=12, day in 1u64..=31) {
            prop_assume!(day <= days_in(month, year));
            let next = if day < days_in(month, year) { (year, month, day + 1) }
                else if month < 12 { (year, month + 1, 1) } else { (year + 1, 1, 1) };
            prop_assert_eq!(days_since_1970(next.0, next.1, next.2), days_since_1970(year, month, day) + 1);
        }

        #[test]
        fn no_registers_panic(date in any::<[u8; 6]>(), century in any::<Option<u8>>(), status_b in any::<u8>()) {
            let seconds = fields(date, century, status_b).unix_seconds();
            prop_assert!(seconds.is_none_or(|s| s < 9000 * 366 * 86400));
        }
    }
}
