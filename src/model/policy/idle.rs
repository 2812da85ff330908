//! How idle CPUs sleep: by HLT, which an interrupt ends, or by MWAIT, which another CPU's write to a word ends as well
//! (SDM 2A MONITOR, MWAIT; APM 3): decided once, from what the processor says of itself and from a trial of two CPUs.
//!
//! The trial finds emulators and hypervisors that miss writes, or for which MWAIT is no sleep.

use core::fmt;

/// Rounds of a trial.
pub const ROUNDS: u32 = 32;

/// How one round of a trial ended, in which one CPU slept by MWAIT and another wrote to the word after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// By the write.
    Woken,
    /// By itself, before the write.
    Early,
    /// Not by the write.
    Missed,
}

/// What the rounds of a trial have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    woken: u32,
    early: u32,
    missed: u32,
}

impl Trial {
    /// As many `rounds` as there are, or up to the first write that is missed.
    pub fn run(mut round: impl FnMut() -> Round) -> Self {
        let mut trial = Self::default();
        while trial.missed == 0 && trial.rounds() < ROUNDS {
            let count = match round() {
                Round::Woken => &mut trial.woken,
                Round::Early => &mut trial.early,
                Round::Missed => &mut trial.missed,
            };
            *count += 1;
        }
        trial
    }

    fn rounds(&self) -> u32 {
        self.woken + self.early + self.missed
    }

    /// Whether no write was missed, and most sleeps lasted until there was one: any may end early, but not each.
    fn is_good(&self) -> bool {
        self.missed == 0 && self.woken > self.early
    }
}

/// Why idle CPUs sleep as they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The processor has no MWAIT.
    Absent,
    /// `mwait-idle=` says so.
    Asked,
    /// The processor is one that misses writes at times, more rarely than a trial could find.
    Erratum,
    /// There is no other CPU, for which alone it would matter.
    Alone,
    /// The trial.
    Tried(Trial),
}

/// How idle CPUs sleep, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// By MWAIT rather than by HLT.
    pub by_mwait: bool,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.by_mwait { "MWAIT" } else { "HLT" })?;
        match self.reason {
            Reason::Absent => f.write_str(": the processor has no MWAIT"),
            Reason::Asked => f.write_str(", as `mwait-idle` says"),
            Reason::Erratum => f.write_str(": this processor's MWAIT misses writes at times"),
            Reason::Alone => f.write_str(": there is one CPU"),
            Reason::Tried(trial) if trial.missed > 0 => {
                write!(f, ": MWAIT missed another CPU's write, at try {}", trial.rounds())
            }
            Reason::Tried(trial) if self.by_mwait => {
                write!(f, ": another CPU's write ended it at {} of {} tries", trial.woken, trial.rounds())
            }
            Reason::Tried(trial) => {
                write!(f, ": MWAIT ended by itself at {} of {} tries", trial.early, trial.rounds())
            }
        }
    }
}

/// Intel processors, by leaf 1's EAX without the stepping, of which a write does not always end MWAIT; Xen and Linux
/// interrupt these all the same: Goldmont (erratum APL30), Ice Lake servers (ICX143), Lunar Lake (LNL030).
const MISSES_WRITES: [u32; 3] = [0x506c0, 0x606a0, 0xb06d0];

/// Chooses for so many CPUs with this CPUID. `wanted` is what the operator says.
pub fn choose(
    wanted: Option<bool>,
    cpuid: impl Fn(u32, u32) -> [u32; 4],
    cpus: u32,
    trial: impl FnOnce() -> Trial,
) -> Choice {
    const MONITOR: u32 = 1 << 3;
    const STEPPING: u32 = 0xf;
    let [signature, _, ecx, _] = cpuid(1, 0);
    let (by_mwait, reason) = match wanted {
        _ if ecx & MONITOR == 0 => (false, Reason::Absent),
        Some(by_mwait) => (by_mwait, Reason::Asked),
        None if MISSES_WRITES.contains(&(signature & !STEPPING)) => (false, Reason::Erratum),
        None if cpus == 1 => (false, Reason::Alone),
        None => {
            let trial = trial();
            (trial.is_good(), Reason::Tried(trial))
        }
    };
    Choice { by_mwait, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reason::{Absent, Alone, Asked, Erratum};
    use Round::{Early, Missed, Woken};

    const HAS_IT: u32 = 1 << 3;

    fn chosen(wanted: Option<bool>, signature: u32, ecx: u32, cpus: u32, trial: impl FnOnce() -> Trial) -> Choice {
        let cpuid = |leaf, _| if leaf == 1 { [signature, 0, ecx, 0] } else { [u32::MAX; 4] };
        choose(wanted, cpuid, cpus, trial)
    }

    #[test]
    fn what_needs_no_trial_has_none() {
        let table = [
            (None, 0x50654, !HAS_IT, 4, false, Absent),
            (Some(true), 0x50654, !HAS_IT, 4, false, Absent),
            (Some(true), 0x50654, HAS_IT, 1, true, Asked),
            (Some(true), 0x506c9, HAS_IT, 4, true, Asked),
            (Some(false), 0x50654, HAS_IT, 4, false, Asked),
            (None, 0x506c9, HAS_IT, 4, false, Erratum),
            (None, 0x606a6, HAS_IT, 4, false, Erratum),
            (None, 0xb06d1, HAS_IT, 4, false, Erratum),
            (None, 0x50654, HAS_IT, 1, false, Alone),
        ];
        for (wanted, signature, ecx, cpus, by_mwait, reason) in table {
            let choice = chosen(wanted, signature, ecx, cpus, || panic!("{wanted:?} {signature:#x} is tried"));
            assert_eq!(choice, Choice { by_mwait, reason }, "{wanted:?} {signature:#x} {ecx:#x} {cpus}");
        }
    }

    #[test]
    fn mwait_is_chosen_where_each_write_ends_it_and_little_else() {
        // What the rounds give, over and over; by MWAIT or not, and what is said of that.
        let table: [(&[Round], bool, &str); 7] = [
            (&[Woken], true, "MWAIT: another CPU's write ended it at 32 of 32 tries"),
            (&[Woken, Woken, Early, Woken], true, "MWAIT: another CPU's write ended it at 24 of 32 tries"),
            (&[Woken, Early], false, "HLT: MWAIT ended by itself at 16 of 32 tries"),
            (&[Early], false, "HLT: MWAIT ended by itself at 32 of 32 tries"),
            (&[Missed], false, "HLT: MWAIT missed another CPU's write, at try 1"),
            (&[Woken, Woken, Missed], false, "HLT: MWAIT missed another CPU's write, at try 3"),
            (&[Early, Missed], false, "HLT: MWAIT missed another CPU's write, at try 2"),
        ];
        for (rounds, by_mwait, text) in table {
            let mut next = rounds.iter().cycle();
            let choice = chosen(None, 0x50654, HAS_IT, 2, || Trial::run(|| *next.next().unwrap()));
            assert_eq!((choice.by_mwait, choice.to_string().as_str()), (by_mwait, text), "{rounds:?}");
        }
    }
}
