//! RDMSR and WRMSR of a PV guest: what Xen 4.17 answers (its `emul-priv-op.c` and `msr.c`).
//!
//! SYSCALL, SYSENTER, local APIC and MTRRs have no MSRs here: hypercalls set the first two, and the others are not there.

use super::cpuid::Vendor;
use super::msr::{MISC_ENABLE_VALUE, Managed, MsrPolicy, Read, Write, check_switched, checked, nr};

/// The PAT of a PV guest: the hypervisor's, as Xen's ABI has it. Write-back, write-through, uncached-, uncached, write
/// combining, write protect, and the last two again uncached.
pub const PAT: u64 = 0x0000_0501_0007_0406;

/// XTPR messages are off (SDM 4, IA32_MISC_ENABLE).
const MISC_ENABLE_XTPR_DISABLE: u64 = 1 << 23;

impl MsrPolicy {
    pub(super) fn read_pv(&self, msr: u32, efer: u64) -> Read {
        match msr {
            nr::EFER => Read::Value(efer),
            nr::FS_BASE | nr::GS_BASE | nr::KERNEL_GS_BASE => Read::Switched,
            nr::TSC_AUX if self.has_tsc_aux => Read::Switched,
            nr::TSC => Read::Managed(Managed::Tsc),
            nr::APIC_BASE => Read::Managed(Managed::ApicBase),
            nr::PAT => Read::Value(PAT),
            nr::SPEC_CTRL if self.spec_ctrl != 0 => Read::Managed(Managed::SpecCtrl),
            nr::ARCH_CAPABILITIES => self.arch_capabilities.map_or(Read::Fault, Read::Value),
            nr::UCODE_REV => Read::Value(self.microcode),
            nr::PLATFORM_INFO | nr::MISC_FEATURES_ENABLES | nr::PERF_CAPABILITIES => Read::Value(0),
            nr::MCG_CAP | nr::MCG_STATUS | nr::XEN_HYPERCALL => Read::Value(0),
            _ if self.is_counter(msr) => Read::Value(0),
            _ => match self.vendor {
                Vendor::Intel => Self::read_pv_intel(msr),
                Vendor::Amd => self.read_pv_amd(msr),
            },
        }
    }

    fn read_pv_intel(msr: u32) -> Read {
        match msr {
            nr::MISC_ENABLE => Read::Value(MISC_ENABLE_VALUE | MISC_ENABLE_XTPR_DISABLE),
            nr::PLATFORM_ID | nr::PERF_STATUS | nr::PERF_CTL => Read::Value(0),
            _ => Read::Fault,
        }
    }

    fn read_pv_amd(&self, msr: u32) -> Read {
        match msr {
            nr::HWCR => Read::Value(self.hwcr),
            nr::DE_CFG => Read::Value(self.de_cfg),
            nr::NB_CFG | nr::MMIO_CONF_BASE => Read::Value(0),
            nr::FID_VID_CTL | nr::FID_VID_STATUS | nr::PSTATE_LIMIT..=nr::PSTATE_7 => Read::Value(0),
            _ => Read::Fault,
        }
    }

    pub(super) fn write_pv(&self, msr: u32, value: u64, efer: u64) -> Write {
        let ignore_if = |condition| if condition { Write::Ignore } else { Write::Fault };
        match msr {
            // Linux writes back what it read.
            nr::EFER => ignore_if(value == efer),
            nr::FS_BASE | nr::GS_BASE | nr::KERNEL_GS_BASE => checked(check_switched(msr, value)),
            nr::TSC_AUX if self.has_tsc_aux => checked(check_switched(msr, value)),
            nr::SPEC_CTRL if self.spec_ctrl != 0 && value & !self.spec_ctrl == 0 => Write::Managed(Managed::SpecCtrl),
            nr::PRED_CMD if self.has_pred_cmd && value & !1 == 0 => Write::Managed(Managed::PredCmd),
            nr::MISC_FEATURES_ENABLES | nr::MCG_STATUS => ignore_if(value == 0),
            nr::XEN_HYPERCALL => Write::Managed(Managed::HypercallPage),
            nr::MPERF | nr::APERF => Write::Ignore,
            _ if self.is_counter(msr) => Write::Ignore,
            _ => match self.vendor {
                Vendor::Intel => match msr {
                    nr::UCODE_REV => ignore_if(value == 0),
                    nr::MISC_ENABLE | nr::PERF_CTL | nr::THERM_CONTROL | nr::ENERGY_PERF_BIAS => Write::Ignore,
                    _ => Write::Fault,
                },
                Vendor::Amd => match msr {
                    nr::HWCR | nr::DE_CFG | nr::NB_CFG | nr::MMIO_CONF_BASE => Write::Ignore,
                    nr::FID_VID_CTL | nr::FID_VID_STATUS | nr::PSTATE_LIMIT..=nr::PSTATE_7 => Write::Ignore,
                    _ => Write::Fault,
                },
            },
        }
    }

    /// The performance counters and their selectors: on Xen, too, they are empty while its own profiling is off.
    fn is_counter(&self, msr: u32) -> bool {
        match self.vendor {
            Vendor::Intel => matches!(msr, 0xc1..=0xc8 | 0x186..=0x189 | 0x309..=0x30b | 0x38d..=0x390),
            Vendor::Amd => matches!(msr, 0xc001_0000..=0xc001_0007 | 0xc001_0200..=0xc001_020b),
        }
    }
}

#[cfg(test)]
#[path = "msr_pv_tests.rs"]
mod tests;
