//! `spec-ctrl=`: what is done against speculation attacks, in Xen's words.

use alloc::format;

use super::value::boolean;
use super::{Options, Warning};

/// What is done around a stay in a guest, for each kind of guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guards<T> {
    /// `md-clear`: VERW before the guest is entered.
    pub verw: T,
    /// `rsb`: the return stack is filled after it has left.
    pub rsb: T,
    /// `ibpb-entry`: IBPB after it has left.
    pub ibpb: T,
}

impl<T: Copy> Guards<T> {
    /// All of them alike.
    pub const fn all(value: T) -> Self {
        Self { verw: value, rsb: value, ibpb: value }
    }
}

/// What `spec-ctrl=` asks for; `None` where the processor decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecCtrl {
    /// Around stays in PV guests.
    pub pv: Guards<Option<bool>>,
    /// Around stays in PVH and HVM guests.
    pub hvm: Guards<Option<bool>>,
    /// IBRS for the hypervisor.
    pub ibrs: Option<bool>,
    /// STIBP, always.
    pub stibp: Option<bool>,
    /// SSBD, always.
    pub ssbd: Option<bool>,
    /// PSFD, always.
    pub psfd: Option<bool>,
    /// IBPB from one domain to the next.
    pub ibpb: Option<bool>,
    /// The L1 data cache is flushed before a guest is entered by VT-x.
    pub l1d_flush: Option<bool>,
}

impl SpecCtrl {
    /// Nothing is done.
    pub const OFF: Self = Self {
        pv: Guards::all(Some(false)),
        hvm: Guards::all(Some(false)),
        ibrs: Some(false),
        stibp: Some(false),
        ssbd: Some(false),
        psfd: Some(false),
        ibpb: Some(false),
        l1d_flush: Some(false),
    };
}

/// Parts of Xen's that are as they are, with what they are.
const FIXED: [(&str, bool); 7] = [
    ("branch-harden", false),
    ("div-scrub", false),
    ("eager-fpu", true),
    ("gds-mit", false),
    ("msr-sc", false),
    ("srb-lock", false),
    ("unpriv-mmio", false),
];

/// Reads the list behind `spec-ctrl=`. `None` if a part is none of Xen's.
pub(super) fn parse(options: &mut Options, text: &str) -> Option<()> {
    text.split(',').try_for_each(|word| apply(options, word))
}

fn apply(options: &mut Options, word: &str) -> Option<()> {
    let asked = &mut options.spec_ctrl;
    if boolean(word) == Some(false) {
        *asked = SpecCtrl::OFF;
        // As in Xen: but for what the line has said before.
        options.xpti.dom0.get_or_insert(false);
        options.xpti.domu.get_or_insert(false);
        return Some(());
    }
    let part = Part::of(word);
    match part.name {
        // Xen takes no "on" here.
        "xen" if !part.on()? => *asked = SpecCtrl::OFF,
        "pv" => asked.pv = Guards::all(Some(part.on()?)),
        "hvm" => asked.hvm = Guards::all(Some(part.on()?)),
        "md-clear" => part.by_kind(&mut asked.pv.verw, &mut asked.hvm.verw)?,
        "rsb" => part.by_kind(&mut asked.pv.rsb, &mut asked.hvm.rsb)?,
        "ibpb-entry" => part.by_kind(&mut asked.pv.ibpb, &mut asked.hvm.ibpb)?,
        "ibrs" => asked.ibrs = Some(part.on()?),
        "stibp" => asked.stibp = Some(part.on()?),
        "ssbd" => asked.ssbd = Some(part.on()?),
        "psfd" => asked.psfd = Some(part.on()?),
        "ibpb" => asked.ibpb = Some(part.on()?),
        "l1d-flush" => asked.l1d_flush = Some(part.on()?),
        name => {
            let is_so = match (name, part.value) {
                ("bti-thunk", Some("jmp")) => true,
                ("bti-thunk", Some("retpoline" | "lfence")) => false,
                _ => part.is_fixed()?,
            };
            if !is_so {
                options.warnings.push(Warning::NotBuilt(format!("spec-ctrl={word}")));
            }
        }
    }
    Some(())
}

/// `name`, `no-name`, or `name=value`.
struct Part<'a> {
    name: &'a str,
    is_negated: bool,
    value: Option<&'a str>,
}

impl<'a> Part<'a> {
    fn of(word: &'a str) -> Self {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let (name, is_negated) = name.strip_prefix("no-").map_or((name, false), |name| (name, true));
        Self { name, is_negated, value }
    }

    /// Its boolean.
    fn on(&self) -> Option<bool> {
        Some(self.value.map_or(Some(true), boolean)? != self.is_negated)
    }

    /// Its boolean for both kinds of guests, or that of one: `rsb`, `rsb=off`, `rsb=no-hvm`, `rsb=pv=on`.
    fn by_kind(&self, pv: &mut Option<bool>, hvm: &mut Option<bool>) -> Option<()> {
        match self.value.map(Part::of) {
            Some(part) if ["pv", "hvm"].contains(&part.name) && !self.is_negated => {
                *(if part.name == "pv" { pv } else { hvm }) = Some(part.on()?);
            }
            _ => (*pv, *hvm) = (Some(self.on()?), Some(self.on()?)),
        }
        Some(())
    }

    /// Whether it asks for what is so anyway; `None` if it is none of [`FIXED`].
    fn is_fixed(&self) -> Option<bool> {
        let (_, is) = FIXED.into_iter().find(|(name, _)| *name == self.name)?;
        let (mut pv, mut hvm) = (Some(is), Some(is));
        self.by_kind(&mut pv, &mut hvm)?;
        Some([pv, hvm] == [Some(is); 2])
    }
}
