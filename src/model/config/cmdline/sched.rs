//! The scheduler's options. Their ranges depend on each other, so they are looked at when the whole line is read.

use super::value::number;
use super::{Options, Warning};
use crate::config::scheduling;
use crate::sched::credit::{BadParams, Params};
use alloc::format;

/// Sets one of the parameters.
pub(super) fn set(field: &mut u32, text: &str) -> Option<()> {
    *field = u32::try_from(number(text)?).ok()?;
    Some(())
}

/// Puts a value in place of each that is out of range, and says so.
pub(super) fn settle(options: &mut Options) {
    let default = Params::default();
    while let Err(bad) = options.sched.check() {
        // The default is too long for the shortest slice.
        let ratelimit_us = default.ratelimit_us.min(options.sched.tslice_ms.saturating_mul(500));
        let (name, field, used) = match bad {
            BadParams::Slice => ("sched_credit_tslice_ms", &mut options.sched.tslice_ms, default.tslice_ms),
            BadParams::RateLimit => ("sched_ratelimit_us", &mut options.sched.ratelimit_us, ratelimit_us),
            BadParams::MigrationDelay => {
                ("vcpu_migration_delay", &mut options.sched.vcpu_migr_delay_us, default.vcpu_migr_delay_us)
            }
        };
        let word = format!("{name}={}", core::mem::replace(field, used));
        options.warnings.push(Warning::OutOfRange { word, range: scheduling::range(bad), used });
    }
}
