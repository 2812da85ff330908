//! What is done against speculation attacks: decided once, from what the processor says of itself and what `spec-ctrl=`
//! asks for. Page-table isolation is a decision of its own, [`super::isolation`].
//!
//! Only what the processor has is done, and by default only what it needs. The MSRs are SPEC_CTRL (48h), PRED_CMD (49h),
//! FLUSH_CMD (10bh) and ARCH_CAPABILITIES (10ah): SDM 4 table 2-2; AMD64 Technology Indirect Branch Control Extension;
//! APM 3 E.4.6 and E.4.17. Intel's part of the reasons is in its papers of the attacks' names.

use alloc::vec::Vec;
use core::fmt;

use super::isolation::{is_amd_or_hygon, read_capabilities};
use crate::config::cmdline::{Guards, SpecCtrl};

/// Bits of SPEC_CTRL.
pub mod spec_ctrl {
    /// Indirect branches are predicted from no less privileged code.
    pub const IBRS: u64 = 1 << 0;
    /// Nor from the core's other thread.
    pub const STIBP: u64 = 1 << 1;
    /// No load passes a store whose address is not known.
    pub const SSBD: u64 = 1 << 2;
    /// No store is forwarded to a load by prediction.
    pub const PSFD: u64 = 1 << 7;
    /// Branch history of user mode has no part in the supervisor's predictions.
    pub const BHI_DIS_S: u64 = 1 << 10;
}

/// Bits of ARCH_CAPABILITIES.
mod capability {
    pub const RDCL_NO: u64 = 1 << 0;
    pub const IBRS_ALL: u64 = 1 << 1;
    pub const SKIP_L1DFL: u64 = 1 << 3;
    pub const MDS_NO: u64 = 1 << 5;
    pub const TAA_NO: u64 = 1 << 8;
    pub const BHI_NO: u64 = 1 << 20;
    pub const PBRSB_NO: u64 = 1 << 24;
    pub const RFDS_NO: u64 = 1 << 27;
    pub const RFDS_CLEAR: u64 = 1 << 28;
}

/// Leaf 7.0, EBX.
mod l7_ebx {
    pub const SMEP: u32 = 1 << 7;
    pub const RTM: u32 = 1 << 11;
}

/// Leaf 7.0, EDX.
mod l7_edx {
    pub const MD_CLEAR: u32 = 1 << 10;
    pub const IBRS_IBPB: u32 = 1 << 26;
    pub const STIBP: u32 = 1 << 27;
    pub const L1D_FLUSH: u32 = 1 << 28;
    pub const SSBD: u32 = 1 << 31;
}

/// Leaf 7.2, EDX.
mod l7s2_edx {
    pub const PSFD: u32 = 1 << 0;
    pub const BHI_CTRL: u32 = 1 << 4;
}

/// Leaf 0x80000008, EBX.
mod e8_ebx {
    pub const IBPB: u32 = 1 << 12;
    pub const IBRS: u32 = 1 << 14;
    pub const STIBP: u32 = 1 << 15;
    pub const IBRS_ALWAYS: u32 = 1 << 16;
    pub const STIBP_ALWAYS: u32 = 1 << 17;
    pub const SSBD: u32 = 1 << 24;
    pub const PSFD: u32 = 1 << 28;
    pub const BTC_NO: u32 = 1 << 29;
}

/// Leaf 0x80000021, EAX.
mod e21_eax {
    pub const VERW_CLEAR: u32 = 1 << 5;
    pub const AUTOMATIC_IBRS: u32 = 1 << 8;
    pub const IBPB_BRTYPE: u32 = 1 << 28;
    pub const SRSO_NO: u32 = 1 << 29;
}

/// Leaf 0x80000021, ECX.
mod e21_ecx {
    pub const TSA_SQ_NO: u32 = 1 << 1;
    pub const TSA_L1_NO: u32 = 1 << 2;
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mitigations {
    /// Around stays in PV guests.
    pub pv: Guards<bool>,
    /// Around stays in PVH and HVM guests.
    pub hvm: Guards<bool>,
    /// At each entry by VT-x the L1 data cache is flushed by FLUSH_CMD.
    pub l1d_flush: bool,
    /// A CPU that goes from one domain to another forgets by PRED_CMD where branches went.
    pub ibpb: bool,
    /// EFER.AIBRSE is set, for good.
    pub automatic_ibrs: bool,
    /// What SPEC_CTRL is, for good; 0 if it is left alone.
    pub spec_ctrl: u64,
    /// What stays possible.
    pub open: Vec<&'static str>,
}

/// What the processor says of itself.
struct Offer {
    is_amd: bool,
    family: u32,
    l7_ebx: u32,
    l7_edx: u32,
    l7s2_edx: u32,
    e8_ebx: u32,
    e21_eax: u32,
    e21_ecx: u32,
    capabilities: u64,
}

impl Offer {
    fn read(cpuid: impl Fn(u32, u32) -> [u32; 4], arch_capabilities: impl FnOnce() -> Option<u64>) -> Self {
        let leaf = |leaf: u32| if leaf <= cpuid(leaf & 0x8000_0000, 0)[0] { cpuid(leaf, 0) } else { [0; 4] };
        let signature = leaf(1)[0];
        // The extended family counts only beyond 15 (SDM 2A, CPUID; APM 3 E.3.2).
        let family = signature >> 8 & 0xf;
        let family = if family == 0xf { family + (signature >> 20 & 0xff) } else { family };
        let [max_subleaf, l7_ebx, _, l7_edx] = leaf(7);
        let [e21_eax, _, e21_ecx, _] = leaf(0x8000_0021);
        Self {
            is_amd: is_amd_or_hygon(&cpuid),
            family,
            l7_ebx,
            l7_edx,
            l7s2_edx: if max_subleaf >= 2 { cpuid(7, 2)[3] } else { 0 },
            e8_ebx: leaf(0x8000_0008)[1],
            e21_eax,
            e21_ecx,
            capabilities: read_capabilities(&cpuid, arch_capabilities),
        }
    }

    /// Whether ARCH_CAPABILITIES has one of these.
    fn can(&self, bits: u64) -> bool {
        self.capabilities & bits != 0
    }

    /// Buffers within a core keep data of whoever ran before: MDS, on processors with transactions TAA. AMD and Hygon are
    /// not affected.
    fn leaks_buffers(&self) -> bool {
        let has_taa = self.l7_ebx & l7_ebx::RTM != 0 && !self.can(capability::TAA_NO);
        !self.is_amd && (!self.can(capability::MDS_NO) || has_taa)
    }

    /// VERW clears what leaks: the buffers of MDS and TAA where MD_CLEAR says so, Atoms' register files (RFDS), and the
    /// queues of Zen 3 and 4 (TSA), each by microcode. Stale data from device registers (MMIO Stale Data) is not
    /// counted: no domain but the initial one reaches any.
    fn needs_verw(&self) -> bool {
        let rfds = self.can(capability::RFDS_CLEAR) && !self.can(capability::RFDS_NO);
        let tsa_no = e21_ecx::TSA_SQ_NO | e21_ecx::TSA_L1_NO;
        let tsa = self.is_amd
            && self.family == 0x19
            && self.e21_eax & e21_eax::VERW_CLEAR != 0
            && self.e21_ecx & tsa_no != tsa_no;
        self.leaks_buffers() && self.l7_edx & l7_edx::MD_CLEAR != 0 || rfds || tsa
    }

    /// Entries of page tables without the present bit are used for loads from L1 (L1TF), by a guest's through EPT too.
    fn has_l1tf(&self) -> bool {
        !self.is_amd && !self.can(capability::RDCL_NO)
    }

    /// The same, and nobody below us flushes already.
    fn needs_l1d_flush(&self) -> bool {
        self.has_l1tf() && !self.can(capability::SKIP_L1DFL)
    }

    fn has_ibpb(&self) -> bool {
        self.l7_edx & l7_edx::IBRS_IBPB != 0 || self.e8_ebx & e8_ebx::IBPB != 0
    }

    /// What is no branch may be predicted as one: Branch Type Confusion up to Zen 2, Speculative Return Stack Overflow on
    /// Zen 3 and 4, there with the microcode by which IBPB helps. Whoever predicts is made to forget at each exit.
    fn confuses_branches(&self) -> bool {
        self.is_amd
            && match self.family {
                0x15..=0x18 => self.e8_ebx & e8_ebx::BTC_NO == 0,
                0x19 => self.e21_eax & e21_eax::SRSO_NO == 0,
                _ => false,
            }
    }

    fn forgets_branch_types(&self) -> bool {
        self.has_ibpb() && (self.family != 0x19 || self.e21_eax & e21_eax::IBPB_BRTYPE != 0)
    }

    /// IBRS that is set once: Intel's enhanced IBRS, AMD's always-on mode. Plain IBRS, which is to be written at each
    /// exit, is not used.
    fn has_lasting_ibrs(&self) -> bool {
        let enhanced = self.l7_edx & l7_edx::IBRS_IBPB != 0 && self.can(capability::IBRS_ALL);
        let always = e8_ebx::IBRS | e8_ebx::IBRS_ALWAYS;
        enhanced || self.e8_ebx & always == always
    }
}

/// Decides for a processor with this CPUID; `arch_capabilities` is asked where it has that MSR.
pub fn choose(
    cpuid: impl Fn(u32, u32) -> [u32; 4],
    arch_capabilities: impl FnOnce() -> Option<u64>,
    asked: &SpecCtrl,
) -> Mitigations {
    let offer = Offer::read(cpuid, arch_capabilities);
    let wants_ibrs = asked.ibrs.unwrap_or(true);
    let automatic_ibrs = wants_ibrs && offer.e21_eax & e21_eax::AUTOMATIC_IBRS != 0;
    let ibrs = wants_ibrs && !automatic_ibrs && offer.has_lasting_ibrs();
    let l1d_flush = offer.l7_edx & l7_edx::L1D_FLUSH != 0 && asked.l1d_flush.unwrap_or_else(|| offer.needs_l1d_flush());
    let mut chosen = Mitigations {
        pv: guards(&offer, &asked.pv, pv_needs_rsb(&offer), offer.needs_verw()),
        // With MD_CLEAR the flush of the cache clears what VERW does (Intel, Microarchitectural Data Sampling).
        hvm: guards(&offer, &asked.hvm, hvm_needs_rsb(&offer, automatic_ibrs, ibrs), offer.needs_verw() && !l1d_flush),
        l1d_flush,
        ibpb: asked.ibpb.unwrap_or(true) && offer.has_ibpb(),
        automatic_ibrs,
        spec_ctrl: spec_ctrl_value(&offer, asked, automatic_ibrs, ibrs),
        open: Vec::new(),
    };
    chosen.open = open(&offer, &chosen);
    chosen
}

fn guards(offer: &Offer, asked: &Guards<Option<bool>>, needs_rsb: bool, needs_verw: bool) -> Guards<bool> {
    let needs_ibpb = offer.confuses_branches() && offer.forgets_branch_types();
    let ibpb = offer.has_ibpb() && asked.ibpb.unwrap_or(needs_ibpb);
    Guards {
        // Forced, it is executed whatever the processor says: it only tests a selector then.
        verw: asked.verw.unwrap_or(needs_verw),
        // IBPB leaves the return stack as it is on AMD before IBPB_RET, so the two go together.
        rsb: asked.rsb.unwrap_or(needs_rsb) || ibpb,
        ibpb,
    }
}

/// What a PV guest leaves in the return stack are addresses of user pages, to which SMEP lets no speculation go. The one
/// address beyond its own half, after a call at its very end, is the machine-to-phys table's, which is not executable.
fn pv_needs_rsb(offer: &Offer) -> bool {
    offer.l7_ebx & l7_ebx::SMEP == 0
}

/// Returns follow what the guest left in the return stack, unless the processor keeps that apart: with Automatic IBRS it is
/// cleared at an exit, with enhanced IBRS it is not used, but for the entry of PBRSB (Intel, Post-barrier Return Stack
/// Buffer Predictions).
fn hvm_needs_rsb(offer: &Offer, automatic_ibrs: bool, ibrs: bool) -> bool {
    let keeps_apart = ibrs && !offer.is_amd && offer.can(capability::PBRSB_NO);
    !(automatic_ibrs || keeps_apart)
}

/// SSBD and PSFD are for whom asks, as in Xen. STIBP is in enhanced IBRS; Automatic IBRS does not cover guests, and AMD's
/// hint is that it costs nothing.
fn spec_ctrl_value(offer: &Offer, asked: &SpecCtrl, automatic_ibrs: bool, ibrs: bool) -> u64 {
    let has = |intel: u32, amd: u32| offer.l7_edx & intel != 0 || offer.e8_ebx & amd != 0;
    let stibp = automatic_ibrs || offer.e8_ebx & e8_ebx::STIBP_ALWAYS != 0;
    let has_psfd = has(0, e8_ebx::PSFD) || offer.l7s2_edx & l7s2_edx::PSFD != 0;
    let bhi = ibrs && offer.l7s2_edx & l7s2_edx::BHI_CTRL != 0 && !offer.can(capability::BHI_NO);
    [
        (ibrs, spec_ctrl::IBRS),
        (asked.stibp.unwrap_or(stibp) && has(l7_edx::STIBP, e8_ebx::STIBP), spec_ctrl::STIBP),
        (asked.ssbd == Some(true) && has(l7_edx::SSBD, e8_ebx::SSBD), spec_ctrl::SSBD),
        (asked.psfd == Some(true) && has_psfd, spec_ctrl::PSFD),
        (bhi, spec_ctrl::BHI_DIS_S),
    ]
    .into_iter()
    .filter(|(on, _)| *on)
    .fold(0, |value, (_, bit)| value | bit)
}

/// What an operator should know to be possible still, because it is not built, turned off, or the processor lacks what it
/// takes.
fn open(offer: &Offer, chosen: &Mitigations) -> Vec<&'static str> {
    let Mitigations { pv, hvm, .. } = chosen;
    let confuses = offer.confuses_branches();
    let leaks = offer.leaks_buffers();
    let no_verw = leaks && offer.l7_edx & l7_edx::MD_CLEAR == 0;
    let lasting = chosen.automatic_ibrs || chosen.spec_ctrl & spec_ctrl::IBRS != 0;
    [
        (true, "Spectre v1"),
        (leaks || offer.has_l1tf(), "hyper-threads"),
        (!lasting, "Spectre v2"),
        (confuses && !(pv.ibpb && hvm.ibpb && offer.forgets_branch_types()), "branch type confusion"),
        (pv_needs_rsb(offer) && !pv.rsb, "PV return stack"),
        (hvm_needs_rsb(offer, chosen.automatic_ibrs, lasting) && !hvm.rsb, "PVH return stack"),
        (!chosen.ibpb, "Spectre v2 between domains"),
        (no_verw || offer.needs_verw() && !(pv.verw && (hvm.verw || chosen.l1d_flush)), "buffers"),
        (offer.has_l1tf(), "L1TF by PV"),
        (offer.needs_l1d_flush() && !chosen.l1d_flush, "L1TF by PVH"),
    ]
    .into_iter()
    .filter_map(|(is_open, what)| is_open.then_some(what))
    .collect()
}

impl fmt::Display for Mitigations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guards = |guards: &Guards<bool>| {
            [(guards.verw, "VERW"), (guards.rsb, "return stack"), (guards.ibpb, "IBPB at exit")]
        };
        let [verw, rsb, ibpb] = guards(&self.hvm);
        write!(f, "PV:")?;
        list(f, &guards(&self.pv))?;
        write!(f, "; PVH:")?;
        list(f, &[verw, (self.l1d_flush, "L1 flush"), rsb, ibpb])?;
        write!(f, "; all:")?;
        let has = |bit| self.spec_ctrl & bit != 0;
        list(
            f,
            &[
                (self.ibpb, "IBPB between domains"),
                (self.automatic_ibrs, "Automatic IBRS"),
                (has(spec_ctrl::IBRS), "IBRS"),
                (has(spec_ctrl::STIBP), "STIBP"),
                (has(spec_ctrl::SSBD), "SSBD"),
                (has(spec_ctrl::PSFD), "PSFD"),
                (has(spec_ctrl::BHI_DIS_S), "BHI_DIS_S"),
            ],
        )
    }
}

/// Those that are on, or that there are none.
fn list(f: &mut fmt::Formatter<'_>, items: &[(bool, &str)]) -> fmt::Result {
    let mut on = items.iter().filter(|(on, _)| *on).map(|(_, name)| name).peekable();
    if on.peek().is_none() {
        return write!(f, " nothing");
    }
    on.enumerate().try_for_each(|(n, name)| write!(f, "{}{name}", if n == 0 { " " } else { ", " }))
}

#[cfg(test)]
#[path = "mitigation_tests.rs"]
mod tests;
