//! What is chosen on processors that people have.

use super::*;
use crate::config::cmdline::Options;
use alloc::string::{String, ToString};
use capability::{BHI_NO, IBRS_ALL, MDS_NO, PBRSB_NO, RDCL_NO, RFDS_CLEAR, RFDS_NO, SKIP_L1DFL, TAA_NO};
use e8_ebx::{BTC_NO, IBPB, STIBP_ALWAYS};
use e21_eax::{AUTOMATIC_IBRS, IBPB_BRTYPE, SRSO_NO, VERW_CLEAR};
use l7_ebx::{RTM, SMEP};
use l7_edx::{IBRS_IBPB, L1D_FLUSH, MD_CLEAR};
use l7s2_edx::BHI_CTRL;

const INTEL: &str = "GenuineIntel";
const AMD: &str = "AuthenticAMD";
/// Leaf 7, EDX: there is ARCH_CAPABILITIES.
const ARCH: u32 = 1 << 29;

/// A processor, by its registers of CPUID that count.
#[derive(Clone, Copy)]
struct Cpu {
    vendor: &'static str,
    signature: u32,
    l7_ebx: u32,
    l7_edx: u32,
    l7s2_edx: u32,
    e8_ebx: u32,
    e21_eax: u32,
    e21_ecx: u32,
    capabilities: u64,
}

const NONE: Cpu = Cpu {
    vendor: INTEL,
    signature: 0,
    l7_ebx: SMEP,
    l7_edx: 0,
    l7s2_edx: 0,
    e8_ebx: 0,
    e21_eax: 0,
    e21_ecx: 0,
    capabilities: 0,
};

/// What Intel's microcode of 2018 and 2019 brings.
const PATCHED: u32 = MD_CLEAR | IBRS_IBPB | l7_edx::STIBP | L1D_FLUSH | l7_edx::SSBD;
/// What AMD's has had since Zen 2.
const SINCE_ZEN2: u32 = IBPB | e8_ebx::STIBP | STIBP_ALWAYS | e8_ebx::SSBD;
/// What Intel's have had in hardware since Cascade Lake.
const FIXED: u64 = RDCL_NO | IBRS_ALL | SKIP_L1DFL | MDS_NO;

const HASWELL: Cpu = Cpu { signature: 0x306c3, l7_ebx: SMEP | RTM, ..NONE };
const SKYLAKE_X: Cpu = Cpu { signature: 0x50654, l7_ebx: SMEP | RTM, l7_edx: PATCHED | ARCH, ..NONE };
const CASCADE_LAKE: Cpu = Cpu { signature: 0x50657, capabilities: FIXED, ..SKYLAKE_X };
const ICE_LAKE: Cpu = Cpu { signature: 0x606a6, capabilities: FIXED | TAA_NO, ..SKYLAKE_X };
const SAPPHIRE_RAPIDS: Cpu =
    Cpu { signature: 0x806f8, l7s2_edx: BHI_CTRL, capabilities: FIXED | TAA_NO | PBRSB_NO, ..SKYLAKE_X };
const GRACEMONT: Cpu =
    Cpu { signature: 0xb06e0, l7_ebx: SMEP, capabilities: FIXED | TAA_NO | RFDS_CLEAR, ..SAPPHIRE_RAPIDS };
const ZEN1: Cpu = Cpu { vendor: AMD, signature: 0x80_0f11, e8_ebx: IBPB, ..NONE };
const ZEN2: Cpu = Cpu { signature: 0x83_0f10, e8_ebx: SINCE_ZEN2, ..ZEN1 };
const ZEN3: Cpu = Cpu { signature: 0xa0_0f11, e8_ebx: SINCE_ZEN2 | BTC_NO, e21_eax: VERW_CLEAR | IBPB_BRTYPE, ..ZEN1 };
const ZEN4: Cpu = Cpu { signature: 0xa1_0f11, e21_eax: ZEN3.e21_eax | AUTOMATIC_IBRS, ..ZEN3 };
const ZEN5: Cpu = Cpu { signature: 0xb0_0f21, e21_eax: AUTOMATIC_IBRS | SRSO_NO, ..ZEN3 };
const HYGON: Cpu = Cpu { vendor: "HygonGenuine", signature: 0x90_0f02, ..ZEN1 };
/// The two processors of Bochs' that tests run on, and the one of QEMU's without virtualization.
const BOCHS_INTEL: Cpu = Cpu { l7_edx: 0, ..SKYLAKE_X };
const BOCHS_AMD: Cpu = Cpu { e8_ebx: 0, ..ZEN1 };
const QEMU: Cpu = Cpu { vendor: AMD, signature: 0x60fb1, l7_ebx: 0, ..NONE };

/// What is chosen there with these options.
fn chosen(cpu: Cpu, options: &str) -> Mitigations {
    let word = |at: usize| u32::from_le_bytes(cpu.vendor.as_bytes()[at..at + 4].try_into().unwrap());
    let cpuid = |leaf, subleaf| match (leaf, subleaf) {
        (0, _) => [0x16, word(0), word(8), word(4)],
        (1, _) => [cpu.signature, 0, 0, 0],
        (7, 0) => [2, cpu.l7_ebx, 0, cpu.l7_edx],
        (7, 2) => [0, 0, 0, cpu.l7s2_edx],
        (0x8000_0000, _) => [0x8000_0021, 0, 0, 0],
        (0x8000_0008, _) => [0, cpu.e8_ebx, 0, 0],
        (0x8000_0021, _) => [cpu.e21_eax, 0, cpu.e21_ecx, 0],
        _ => [0; 4],
    };
    choose(cpuid, || Some(cpu.capabilities), &Options::parse(options).spec_ctrl)
}

fn text(cpu: Cpu, options: &str) -> String {
    chosen(cpu, options).to_string()
}

#[test]
fn each_processor_does_what_it_needs_and_has() {
    let table = [
        (HASWELL, "PV: nothing; PVH: return stack; all: nothing"),
        (SKYLAKE_X, "PV: VERW; PVH: L1 flush, return stack; all: IBPB between domains"),
        (CASCADE_LAKE, "PV: VERW; PVH: VERW, return stack; all: IBPB between domains, IBRS"),
        (Cpu { l7_ebx: SMEP, ..CASCADE_LAKE }, "PV: nothing; PVH: return stack; all: IBPB between domains, IBRS"),
        (ICE_LAKE, "PV: nothing; PVH: return stack; all: IBPB between domains, IBRS"),
        (SAPPHIRE_RAPIDS, "PV: nothing; PVH: nothing; all: IBPB between domains, IBRS, BHI_DIS_S"),
        (GRACEMONT, "PV: VERW; PVH: VERW, return stack; all: IBPB between domains, IBRS, BHI_DIS_S"),
        (ZEN1, "PV: return stack, IBPB at exit; PVH: return stack, IBPB at exit; all: IBPB between domains"),
        (ZEN2, "PV: return stack, IBPB at exit; PVH: return stack, IBPB at exit; all: IBPB between domains, STIBP"),
        (
            ZEN3,
            "PV: VERW, return stack, IBPB at exit; PVH: VERW, return stack, IBPB at exit; all: IBPB between domains, STIBP",
        ),
        (
            ZEN4,
            "PV: VERW, return stack, IBPB at exit; PVH: VERW, return stack, IBPB at exit; all: IBPB between domains, \
             Automatic IBRS, STIBP",
        ),
        (ZEN5, "PV: nothing; PVH: nothing; all: IBPB between domains, Automatic IBRS, STIBP"),
        (HYGON, "PV: return stack, IBPB at exit; PVH: return stack, IBPB at exit; all: IBPB between domains"),
        (BOCHS_INTEL, "PV: nothing; PVH: return stack; all: nothing"),
        (BOCHS_AMD, "PV: nothing; PVH: return stack; all: nothing"),
        (QEMU, "PV: return stack; PVH: return stack; all: nothing"),
    ];
    for (cpu, expected) in table {
        assert_eq!(text(cpu, ""), expected, "{} {:#x}", cpu.vendor, cpu.signature);
        assert_eq!(text(cpu, "spec-ctrl=no"), "PV: nothing; PVH: nothing; all: nothing", "{:#x}", cpu.signature);
    }
}

#[test]
fn what_is_known_to_be_no_longer_so_is_not_done() {
    let cases = [
        (Cpu { capabilities: GRACEMONT.capabilities | RFDS_NO | BHI_NO, ..GRACEMONT }, "VERW"),
        (Cpu { capabilities: GRACEMONT.capabilities | BHI_NO, ..GRACEMONT }, "BHI"),
        (Cpu { e21_ecx: e21_ecx::TSA_SQ_NO | e21_ecx::TSA_L1_NO, ..ZEN4 }, "VERW"),
        (Cpu { e21_eax: ZEN4.e21_eax | SRSO_NO, ..ZEN4 }, "IBPB at exit"),
        (Cpu { e8_ebx: ZEN2.e8_ebx | BTC_NO, ..ZEN2 }, "IBPB at exit"),
        (Cpu { e21_eax: VERW_CLEAR, ..ZEN3 }, "IBPB at exit"), // no microcode for it
        (Cpu { capabilities: SKIP_L1DFL, ..SKYLAKE_X }, "L1 flush"), // somebody else does
    ];
    for (cpu, gone) in cases {
        assert!(!text(cpu, "").contains(gone), "{gone}: {}", text(cpu, ""));
    }
    // One queue of two is not enough.
    assert!(text(Cpu { e21_ecx: e21_ecx::TSA_L1_NO, ..ZEN4 }, "").contains("VERW"));
    // Registers that are not there are not believed.
    let old = Cpu { l7_edx: PATCHED, capabilities: FIXED, ..SKYLAKE_X };
    assert_eq!(text(old, ""), text(SKYLAKE_X, ""));
}

#[test]
fn options_choose_among_what_the_processor_has() {
    let table = [
        (SKYLAKE_X, "l1d-flush=no", "PV: VERW; PVH: VERW, return stack; all: IBPB between domains"),
        (SKYLAKE_X, "no-pv,ibpb=off", "PV: nothing; PVH: L1 flush, return stack; all: nothing"),
        (
            SKYLAKE_X,
            "hvm,no-rsb",
            "PV: VERW; PVH: VERW, L1 flush, return stack, IBPB at exit; all: IBPB between domains",
        ),
        (SKYLAKE_X, "ibrs,stibp,ssbd", "PV: VERW; PVH: L1 flush, return stack; all: IBPB between domains, STIBP, SSBD"),
        (SAPPHIRE_RAPIDS, "no-ibrs,psfd", "PV: nothing; PVH: return stack; all: IBPB between domains"),
        (ZEN2, "no-ibpb-entry,no-stibp", "PV: nothing; PVH: return stack; all: IBPB between domains"),
        (ZEN5, "no-ibrs", "PV: nothing; PVH: return stack; all: IBPB between domains, STIBP"),
        (ICE_LAKE, "no,md-clear=pv", "PV: VERW; PVH: nothing; all: nothing"),
        (ICE_LAKE, "no,l1d-flush", "PV: nothing; PVH: L1 flush; all: nothing"),
        (HASWELL, "pv,hvm,ibpb,l1d-flush,ibrs,ssbd", "PV: VERW, return stack; PVH: VERW, return stack; all: nothing"),
    ];
    for (cpu, options, expected) in table {
        let line = "spec-ctrl=".to_string() + options;
        assert_eq!(text(cpu, &line), expected, "{:#x} {options}", cpu.signature);
    }
}

#[test]
fn spec_ctrl_and_efer_are_set_where_that_lasts() {
    let ibrs_always = Cpu { e8_ebx: e8_ebx::IBRS | e8_ebx::IBRS_ALWAYS, ..ZEN2 };
    let table = [
        (SKYLAKE_X, "", (false, 0)),
        (CASCADE_LAKE, "", (false, 0x1)),
        (SAPPHIRE_RAPIDS, "", (false, 0x401)),
        (CASCADE_LAKE, "spec-ctrl=ssbd", (false, 0x5)),
        (ibrs_always, "", (false, 0x1)),
        (ZEN3, "", (false, 0x2)),
        (Cpu { e8_ebx: ZEN3.e8_ebx | e8_ebx::PSFD, ..ZEN3 }, "spec-ctrl=ssbd,psfd", (false, 0x86)),
        (ZEN4, "", (true, 0x2)),
        (ZEN4, "spec-ctrl=no", (false, 0)),
    ];
    for (cpu, options, expected) in table {
        let chosen = chosen(cpu, options);
        assert_eq!((chosen.automatic_ibrs, chosen.spec_ctrl), expected, "{:#x} {options}", cpu.signature);
    }
}

#[test]
fn what_stays_possible_is_said() {
    const ALWAYS: &str = "Spectre v1";
    let (threads, targets, others) = ("hyper-threads", "Spectre v2", "Spectre v2 between domains");
    let (buffers, pv_l1, l1) = ("buffers", "L1TF by PV", "L1TF by PVH");
    let table = [
        (HASWELL, "", &[ALWAYS, threads, targets, others, buffers, pv_l1, l1][..]),
        (SKYLAKE_X, "", &[ALWAYS, threads, targets, pv_l1]),
        (SKYLAKE_X, "spec-ctrl=no-md-clear", &[ALWAYS, threads, targets, buffers, pv_l1]),
        (ICE_LAKE, "", &[ALWAYS]),
        (ICE_LAKE, "spec-ctrl=rsb=no-hvm", &[ALWAYS, "PVH return stack"]),
        (ZEN1, "", &[ALWAYS, targets]),
        (ZEN1, "spec-ctrl=ibpb-entry=no-hvm", &[ALWAYS, targets, "branch type confusion"]),
        (ZEN5, "", &[ALWAYS]),
        (Cpu { e21_eax: AUTOMATIC_IBRS, ..ZEN4 }, "", &[ALWAYS, "branch type confusion"]),
        (QEMU, "spec-ctrl=no-pv", &[ALWAYS, targets, "PV return stack", others]),
    ];
    for (cpu, options, expected) in table {
        assert_eq!(chosen(cpu, options).open, expected, "{:#x} {options}", cpu.signature);
    }
}
