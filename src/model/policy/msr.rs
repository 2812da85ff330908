//! What RDMSR and WRMSR do in a guest, for every MSR there is.
//!
//! Most answers are constants. What has state says who keeps it: [`Read::Switched`] is a register that the back-end
//! switches with the guest, [`Managed`] one that the hypervisor emulates. An MSR that is not named faults, as it does on
//! Xen. The list holds what Linux reads or writes without expecting a fault. Sources: SDM 4 2; APM 2 appendix A.

use super::control::{Fault, check_pat};
use super::cpuid::{CpuidPolicy, Kind, Vendor};
use super::features::{e1_edx, e8_ebx, l1_ecx, l7_ebx, l7_ecx, l7_edx};
use crate::addr::GuestVirt;
use crate::regs::Efer;

/// MSR numbers (SDM 4; APM 2 appendix A).
#[expect(missing_docs, reason = "the names are the manuals'")]
pub mod nr {
    pub const TSC: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const EBL_CR_POWERON: u32 = 0x2a;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const SPEC_CTRL: u32 = 0x48;
    pub const PRED_CMD: u32 = 0x49;
    pub const UCODE_WRITE: u32 = 0x79;
    pub const UCODE_REV: u32 = 0x8b;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const MPERF: u32 = 0xe7;
    pub const APERF: u32 = 0xe8;
    pub const MTRR_CAP: u32 = 0xfe;
    pub const ARCH_CAPABILITIES: u32 = 0x10a;
    pub const MISC_FEATURES_ENABLES: u32 = 0x140;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const PERF_STATUS: u32 = 0x198;
    pub const PERF_CTL: u32 = 0x199;
    pub const THERM_CONTROL: u32 = 0x19a;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const ENERGY_PERF_BIAS: u32 = 0x1b0;
    pub const DEBUGCTL: u32 = 0x1d9;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const PERF_CAPABILITIES: u32 = 0x345;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const X2APIC_FIRST: u32 = 0x800;
    pub const X2APIC_LAST: u32 = 0x8ff;
    pub const XEN_HYPERCALL: u32 = 0x4000_0000;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const SYSCALL_MASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
    pub const SYSCFG: u32 = 0xc001_0010;
    pub const HWCR: u32 = 0xc001_0015;
    pub const TOP_MEM: u32 = 0xc001_001a;
    pub const TOP_MEM2: u32 = 0xc001_001d;
    pub const NB_CFG: u32 = 0xc001_001f;
    pub const PATCH_LOADER: u32 = 0xc001_0020;
    pub const FID_VID_CTL: u32 = 0xc001_0041;
    pub const FID_VID_STATUS: u32 = 0xc001_0042;
    pub const INT_PENDING: u32 = 0xc001_0055;
    pub const MMIO_CONF_BASE: u32 = 0xc001_0058;
    pub const PSTATE_LIMIT: u32 = 0xc001_0061;
    pub const PSTATE_7: u32 = 0xc001_006b;
    pub const VM_CR: u32 = 0xc001_0114;
    pub const BU_CFG: u32 = 0xc001_1023;
    pub const DE_CFG: u32 = 0xc001_1029;
}

/// MISC_ENABLE: fast strings, and no branch trace or event sampling. Without the first Linux avoids `rep movsb`.
pub(super) const MISC_ENABLE_VALUE: u64 = 1 << 0 | 1 << 11 | 1 << 12;
/// MTRR_DEF_TYPE: enabled, write-back everywhere. MTRR_CAP tells of no ranges, so nothing else is there to change.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;
/// FEATURE_CONTROL: locked, with everything off.
const FEATURE_CONTROL_LOCKED: u64 = 1;
/// VM_CR: SVM is disabled.
const VM_CR_SVMDIS: u64 = 1 << 4;
/// HWCR: the TSC counts at the P0 rate.
const HWCR_TSC_FREQ_SEL: u64 = 1 << 24;
/// DE_CFG: LFENCE waits for what is before it.
const DE_CFG_LFENCE: u64 = 1 << 1;
/// The bits of ARCH_CAPABILITIES that say what the processor does not suffer from, and what VERW clears
/// (`xen/include/public/arch-x86/cpufeatureset.h`, word 16): no control is offered by any of them.
const ARCH_CAPS_OFFERED: u64 =
    1 << 0 | 1 << 2 | 7 << 4 | 1 << 8 | 7 << 13 | 1 << 17 | 1 << 20 | 1 << 24 | 7 << 26 | 1 << 62;
/// EIBRS and RRSBA: Linux answers them with a write to SPEC_CTRL.
const ARCH_CAPS_WITH_SPEC_CTRL: u64 = 1 << 1 | 1 << 19;

/// What the policy has to know of the host's MSRs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsrHost {
    /// The microcode's revision as MSR 0x8b reads.
    pub microcode: u64,
    /// ARCH_CAPABILITIES, 0 where the host has none.
    pub arch_capabilities: u64,
    /// AMD: LFENCE is dispatch serializing, by DE_CFG or by design.
    pub lfence_serializes: bool,
}

/// A register that the hypervisor emulates for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Managed {
    /// The TSC, and with a write the offset.
    Tsc,
    /// TSC_ADJUST, and with a write the offset.
    TscAdjust,
    /// The local APIC's deadline.
    TscDeadline,
    /// The local APIC's base and mode.
    ApicBase,
    /// Register of this number of the local APIC in x2APIC mode: the MSR's number less 0x800.
    X2apic(u32),
    /// Writes a hypercall page to this address; write only.
    HypercallPage,
    /// SPEC_CTRL, switched with the virtual CPU. The value is checked.
    SpecCtrl,
    /// PRED_CMD: the value is to be written to the host's; write only.
    PredCmd,
    /// EFER: for [`super::control::ControlPolicy::check_efer`]; write only, reads are [`Read::Switched`].
    Efer,
}

/// What RDMSR does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// `#GP(0)`.
    Fault,
    /// Answers this.
    Value(u64),
    /// Answers the register of this number that the back-end switches.
    Switched,
    /// Answers what the hypervisor keeps.
    Managed(Managed),
}

/// What WRMSR does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// `#GP(0)`.
    Fault,
    /// Nothing.
    Ignore,
    /// Sets the register of this number that the back-end switches; the value is checked.
    Switched,
    /// Changes what the hypervisor keeps.
    Managed(Managed),
}

/// A domain's MSRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrPolicy {
    /// For PV, whose answers are in [`super::msr_pv`]: EFER as it reads.
    pv_efer: Option<u64>,
    pub(super) vendor: Vendor,
    pub(super) microcode: u64,
    pub(super) arch_capabilities: Option<u64>,
    pub(super) has_tsc_aux: bool,
    has_tsc_adjust: bool,
    has_tsc_deadline: bool,
    pub(super) hwcr: u64,
    pub(super) de_cfg: u64,
    /// The bits of SPEC_CTRL that may be set; 0 where the MSR is not there.
    pub(super) spec_ctrl: u64,
    pub(super) has_pred_cmd: bool,
}

impl MsrPolicy {
    /// What follows from the CPUID that the domain sees and from the host's values.
    pub fn new(cpuid: &CpuidPolicy, host: &MsrHost) -> Self {
        let (edx, ebx) = (|bits| cpuid.has_leaf_7_edx(bits), cpuid.speculation_ebx());
        let ibrs = edx(l7_edx::IBRSB) || ebx & e8_ebx::IBRS != 0;
        let stibp = ibrs || edx(l7_edx::STIBP) || ebx & e8_ebx::AMD_STIBP != 0;
        let ssbd = edx(l7_edx::SSBD) || ebx & e8_ebx::AMD_SSBD != 0;
        let caps = ARCH_CAPS_OFFERED | if ibrs { ARCH_CAPS_WITH_SPEC_CTRL } else { 0 };
        Self {
            pv_efer: (cpuid.kind() != Kind::Hvm).then(|| pv_efer(cpuid)),
            vendor: cpuid.vendor(),
            microcode: host.microcode,
            arch_capabilities: edx(l7_edx::ARCH_CAPS).then_some(host.arch_capabilities & caps),
            has_tsc_aux: cpuid.has_extended_edx(e1_edx::RDTSCP) || cpuid.has_leaf_7_ecx(l7_ecx::RDPID),
            has_tsc_adjust: cpuid.has_leaf_7_ebx(l7_ebx::TSC_ADJUST),
            has_tsc_deadline: cpuid.has_leaf_1_ecx(l1_ecx::TSC_DEADLINE),
            hwcr: if cpuid.has_invariant_tsc() { HWCR_TSC_FREQ_SEL } else { 0 },
            de_cfg: if host.lfence_serializes { DE_CFG_LFENCE } else { 0 },
            spec_ctrl: u64::from(ibrs) | u64::from(stibp) << 1 | u64::from(ssbd) << 2,
            has_pred_cmd: edx(l7_edx::IBRSB) || ebx & e8_ebx::IBPB != 0,
        }
    }

    /// The MSRs that need no exit, for `Virt::allow_msr`: number, reads, writes. The processor checks the values.
    pub fn without_exit(&self) -> impl Iterator<Item = (u32, bool, bool)> {
        let both = [
            nr::STAR,
            nr::LSTAR,
            nr::CSTAR,
            nr::SYSCALL_MASK,
            nr::FS_BASE,
            nr::GS_BASE,
            nr::KERNEL_GS_BASE,
            nr::SYSENTER_CS,
            nr::SYSENTER_ESP,
            nr::SYSENTER_EIP,
        ];
        let tsc_aux = self.has_tsc_aux.then_some(nr::TSC_AUX);
        both.into_iter().chain(tsc_aux).map(|msr| (msr, true, true))
    }

    /// RDMSR.
    pub fn read(&self, msr: u32) -> Read {
        if let Some(efer) = self.pv_efer {
            return self.read_pv(msr, efer);
        }
        match msr {
            nr::EFER | nr::PAT => Read::Switched,
            _ if self.is_switched(msr) => Read::Switched,
            nr::PLATFORM_INFO | nr::MISC_FEATURES_ENABLES | nr::MCG_CAP | nr::MCG_STATUS => Read::Value(0),
            nr::MTRR_CAP | nr::DEBUGCTL => Read::Value(0),
            nr::MTRR_DEF_TYPE => Read::Value(MTRR_WRITE_BACK),
            nr::UCODE_REV => Read::Value(self.microcode),
            nr::ARCH_CAPABILITIES => self.arch_capabilities.map_or(Read::Fault, Read::Value),
            _ => match (self.managed(msr), self.vendor) {
                (Some(Managed::HypercallPage), _) => Read::Value(0),
                (Some(Managed::PredCmd | Managed::Efer), _) => Read::Fault,
                (Some(managed), _) => Read::Managed(managed),
                (None, Vendor::Intel) => Self::read_intel(msr),
                (None, Vendor::Amd) => self.read_amd(msr),
            },
        }
    }

    /// WRMSR of `value`.
    pub fn write(&self, msr: u32, value: u64) -> Write {
        if let Some(efer) = self.pv_efer {
            return self.write_pv(msr, value, efer);
        }
        match msr {
            nr::PAT => checked(check_pat(value)),
            _ if self.is_switched(msr) => checked(check_switched(msr, value)),
            nr::SPEC_CTRL if value & !self.spec_ctrl != 0 => Write::Fault,
            nr::PRED_CMD if value & !1 != 0 => Write::Fault,
            nr::MISC_FEATURES_ENABLES if value != 0 => Write::Fault,
            nr::DEBUGCTL if value & !3 != 0 => Write::Fault,
            nr::MISC_FEATURES_ENABLES | nr::DEBUGCTL | nr::MCG_STATUS | nr::MTRR_DEF_TYPE => Write::Ignore,
            _ => match (self.managed(msr), self.vendor) {
                (Some(managed), _) => Write::Managed(managed),
                (None, Vendor::Intel) => Self::write_intel(msr, value),
                (None, Vendor::Amd) => Self::write_amd(msr),
            },
        }
    }

    fn is_switched(&self, msr: u32) -> bool {
        self.without_exit().any(|(switched, ..)| switched == msr)
    }

    fn managed(&self, msr: u32) -> Option<Managed> {
        let has = |condition: bool, managed| condition.then_some(managed);
        match msr {
            nr::TSC => Some(Managed::Tsc),
            nr::APIC_BASE => Some(Managed::ApicBase),
            nr::EFER => Some(Managed::Efer),
            nr::XEN_HYPERCALL => Some(Managed::HypercallPage),
            nr::X2APIC_FIRST..=nr::X2APIC_LAST => Some(Managed::X2apic(msr - nr::X2APIC_FIRST)),
            nr::TSC_ADJUST => has(self.has_tsc_adjust, Managed::TscAdjust),
            nr::TSC_DEADLINE => has(self.has_tsc_deadline, Managed::TscDeadline),
            nr::SPEC_CTRL => has(self.spec_ctrl != 0, Managed::SpecCtrl),
            nr::PRED_CMD => has(self.has_pred_cmd, Managed::PredCmd),
            _ => None,
        }
    }

    fn read_intel(msr: u32) -> Read {
        match msr {
            nr::MISC_ENABLE => Read::Value(MISC_ENABLE_VALUE),
            nr::FEATURE_CONTROL => Read::Value(FEATURE_CONTROL_LOCKED),
            nr::PLATFORM_ID | nr::EBL_CR_POWERON | nr::PERF_STATUS | nr::PERF_CTL => Read::Value(0),
            _ => Read::Fault,
        }
    }

    fn write_intel(msr: u32, value: u64) -> Write {
        match msr {
            nr::MISC_ENABLE | nr::PERF_CTL | nr::UCODE_WRITE => Write::Ignore,
            nr::UCODE_REV if value == 0 => Write::Ignore,
            _ => Write::Fault,
        }
    }

    fn read_amd(&self, msr: u32) -> Read {
        match msr {
            nr::HWCR => Read::Value(self.hwcr),
            nr::DE_CFG => Read::Value(self.de_cfg),
            nr::VM_CR => Read::Value(VM_CR_SVMDIS),
            nr::SYSCFG | nr::TOP_MEM | nr::TOP_MEM2 | nr::NB_CFG => Read::Value(0),
            nr::INT_PENDING | nr::MMIO_CONF_BASE | nr::BU_CFG => Read::Value(0),
            _ => Read::Fault,
        }
    }

    fn write_amd(msr: u32) -> Write {
        match msr {
            nr::HWCR | nr::DE_CFG | nr::SYSCFG | nr::NB_CFG | nr::PATCH_LOADER => Write::Ignore,
            nr::INT_PENDING | nr::MMIO_CONF_BASE | nr::BU_CFG => Write::Ignore,
            _ => Write::Fault,
        }
    }
}

/// EFER as a PV guest reads it: the hypervisor's.
fn pv_efer(cpuid: &CpuidPolicy) -> u64 {
    let nx = if cpuid.has_extended_edx(e1_edx::NX) { Efer::NXE } else { Efer::empty() };
    (Efer::SCE | Efer::LME | Efer::LMA | nx).bits()
}

pub(super) fn checked(result: Result<u64, Fault>) -> Write {
    match result {
        Ok(_) => Write::Switched,
        Err(Fault) => Write::Fault,
    }
}

/// Registers that hold an address take only a canonical one, TSC_AUX and SYSCALL_MASK only 32 bits.
pub(super) fn check_switched(msr: u32, value: u64) -> Result<u64, Fault> {
    let is_good = match msr {
        nr::STAR | nr::SYSENTER_CS => true,
        nr::TSC_AUX | nr::SYSCALL_MASK => value >> 32 == 0,
        _ => GuestVirt::new(value).is_canonical(),
    };
    if is_good { Ok(value) } else { Err(Fault) }
}

#[cfg(test)]
#[path = "msr_tests.rs"]
mod tests;
