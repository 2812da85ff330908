//! The CPU features that a guest is offered where the host has them, a PV guest but for those in [`PV_LACKS_L1_EDX`] and
//! the like. What is not in a list is hidden.
//!
//! One module per register of CPUID that holds features (`xen/include/public/arch-x86/cpufeatureset.h`); `ALLOWED` is
//! all of it. Left out on purpose: VMX, SVM, MONITOR, performance counters, DS, MPX, AMX, CET, PT, SGX, TSX (HLE, RTM),
//! XSAVES, LA57, topology extensions, thermal and power management, and whatever needs an MSR that is not switched.

macro_rules! words {
    ($($(#[$doc:meta])* $word:ident { $($name:ident = $bit:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[expect(missing_docs, reason = "the names are the header's")]
        pub mod $word {
            $(pub const $name: u32 = 1 << $bit;)*
            pub const ALLOWED: u32 = 0 $(| $name)*;
        }
    )*};
}

words! {
    /// Leaf 1, EDX.
    l1_edx {
        FPU = 0, VME = 1, DE = 2, PSE = 3, TSC = 4, MSR = 5, PAE = 6, MCE = 7, CX8 = 8, APIC = 9, SEP = 11, MTRR = 12,
        PGE = 13, MCA = 14, CMOV = 15, PAT = 16, PSE36 = 17, CLFLUSH = 19, MMX = 23, FXSR = 24, SSE = 25, SSE2 = 26,
        SS = 27, HTT = 28,
    }
    /// Leaf 1, ECX.
    l1_ecx {
        SSE3 = 0, PCLMULQDQ = 1, SSSE3 = 9, FMA = 12, CX16 = 13, PCID = 17, SSE4_1 = 19, SSE4_2 = 20, X2APIC = 21,
        MOVBE = 22, POPCNT = 23, TSC_DEADLINE = 24, AESNI = 25, XSAVE = 26, OSXSAVE = 27, AVX = 28, F16C = 29,
        RDRAND = 30, HYPERVISOR = 31,
    }
    /// Leaf 7.0, EBX.
    l7_ebx {
        FSGSBASE = 0, TSC_ADJUST = 1, BMI1 = 3, AVX2 = 5, FDP_EXCP_ONLY = 6, SMEP = 7, BMI2 = 8, ERMS = 9, INVPCID = 10,
        NO_FPU_SEL = 13, AVX512F = 16, AVX512DQ = 17, RDSEED = 18, ADX = 19, SMAP = 20, AVX512_IFMA = 21,
        CLFLUSHOPT = 23, CLWB = 24, AVX512PF = 26, AVX512ER = 27, AVX512CD = 28, SHA = 29, AVX512BW = 30, AVX512VL = 31,
    }
    /// Leaf 7.0, ECX.
    l7_ecx {
        PREFETCHWT1 = 0, AVX512_VBMI = 1, UMIP = 2, PKU = 3, OSPKE = 4, AVX512_VBMI2 = 6, GFNI = 8, VAES = 9,
        VPCLMULQDQ = 10, AVX512_VNNI = 11, AVX512_BITALG = 12, AVX512_VPOPCNTDQ = 14, RDPID = 22, CLDEMOTE = 25,
        MOVDIRI = 27, MOVDIR64B = 28,
    }
    /// Leaf 7.0, EDX.
    l7_edx {
        AVX512_4VNNIW = 2, AVX512_4FMAPS = 3, FSRM = 4, AVX512_VP2INTERSECT = 8, MD_CLEAR = 10, SERIALIZE = 14,
        AVX512_FP16 = 23, IBRSB = 26, STIBP = 27, ARCH_CAPS = 29, SSBD = 31,
    }
    /// Leaf 7.1, EAX.
    l7s1_eax { AVX_VNNI = 4, AVX512_BF16 = 5, FZRM = 10, FSRS = 11, FSRCS = 12 }
    /// Leaf 0xd.1, EAX.
    ld_eax { XSAVEOPT = 0, XSAVEC = 1, XGETBV1 = 2 }
    /// Leaf 0x80000001, ECX.
    e1_ecx {
        LAHF_LM = 0, CMP_LEGACY = 1, CR8_LEGACY = 4, ABM = 5, SSE4A = 6, MISALIGNSSE = 7, PREFETCHW = 8, XOP = 11,
        FMA4 = 16, TBM = 21,
    }
    /// Leaf 0x80000001, EDX, but for the bits that AMD repeats from leaf 1 ([`E1_EDX_REPEATED`]).
    e1_edx { SYSCALL = 11, NX = 20, MMXEXT = 22, FFXSR = 25, PAGE1GB = 26, RDTSCP = 27, LM = 29, E3DNOWEXT = 30, E3DNOW = 31 }
    /// Leaf 0x80000007, EDX.
    e7_edx { ITSC = 8 }
    /// Leaf 0x80000008, EBX.
    e8_ebx {
        CLZERO = 0, RSTR_FP_ERR_PTRS = 2, IBPB = 12, IBRS = 14, AMD_STIBP = 15, IBRS_ALWAYS = 16, STIBP_ALWAYS = 17,
        IBRS_FAST = 18, IBRS_SAME_MODE = 19, NO_LMSL = 20, AMD_SSBD = 24, SSB_NO = 26, BTC_NO = 29,
    }
    /// Leaf 0x80000021, EAX.
    e21_eax { LFENCE_DISPATCH = 2, VERW_CLEAR = 5, NSCB = 6, SRSO_NO = 29 }
}

/// The bits of leaf 1, EDX that AMD repeats in leaf 0x80000001, EDX (APM 3 E.4.2).
pub const E1_EDX_REPEATED: u32 = 0x0183_f3ff;

/// Bits of [`l7_edx`] that stand for speculation controls in MSRs.
pub const L7_EDX_SPEC: u32 = l7_edx::IBRSB | l7_edx::STIBP | l7_edx::SSBD;

/// Bits of [`e8_ebx`] that stand for speculation controls in MSRs.
pub const E8_EBX_SPEC: u32 = e8_ebx::IBPB
    | e8_ebx::IBRS
    | e8_ebx::AMD_STIBP
    | e8_ebx::IBRS_ALWAYS
    | e8_ebx::STIBP_ALWAYS
    | e8_ebx::IBRS_FAST
    | e8_ebx::IBRS_SAME_MODE
    | e8_ebx::AMD_SSBD;

/// Bits of [`l7_ebx`] that need the three AVX-512 components of XCR0.
pub const L7_EBX_AVX512: u32 = l7_ebx::AVX512F
    | l7_ebx::AVX512DQ
    | l7_ebx::AVX512_IFMA
    | l7_ebx::AVX512PF
    | l7_ebx::AVX512ER
    | l7_ebx::AVX512CD
    | l7_ebx::AVX512BW
    | l7_ebx::AVX512VL;

/// Bits of [`l7_ecx`] that need AVX-512.
pub const L7_ECX_AVX512: u32 =
    l7_ecx::AVX512_VBMI | l7_ecx::AVX512_VBMI2 | l7_ecx::AVX512_VNNI | l7_ecx::AVX512_BITALG | l7_ecx::AVX512_VPOPCNTDQ;

/// Bits of [`l7_edx`] that need AVX-512.
pub const L7_EDX_AVX512: u32 =
    l7_edx::AVX512_4VNNIW | l7_edx::AVX512_4FMAPS | l7_edx::AVX512_VP2INTERSECT | l7_edx::AVX512_FP16;

/// Bits of [`l1_edx`] that a PV guest lacks, as on Xen: it has page tables of one kind, and no MTRRs.
pub const PV_LACKS_L1_EDX: u32 = l1_edx::VME | l1_edx::PSE | l1_edx::MTRR | l1_edx::PGE | l1_edx::PSE36;

/// Bits of [`l1_ecx`] that a PV guest lacks: it has no local APIC, and PCIDs are the hypervisor's.
pub const PV_LACKS_L1_ECX: u32 = l1_ecx::PCID | l1_ecx::X2APIC | l1_ecx::TSC_DEADLINE;

/// Bits of [`l7_ebx`] that a PV guest lacks. The instructions of FSGSBASE would let it change the GS base unseen; they
/// are off while it runs, which Xen leaves to the guest.
pub const PV_LACKS_L7_EBX: u32 = l7_ebx::FSGSBASE | l7_ebx::TSC_ADJUST | l7_ebx::SMEP | l7_ebx::INVPCID | l7_ebx::SMAP;

/// Bits of [`l7_ecx`] that a PV guest lacks.
pub const PV_LACKS_L7_ECX: u32 = l7_ecx::UMIP | l7_ecx::PKU | l7_ecx::OSPKE;

/// Bits of [`e8_ebx`] that a PV guest lacks.
pub const PV_LACKS_E8_EBX: u32 = (E8_EBX_SPEC & !e8_ebx::IBPB) | e8_ebx::NO_LMSL;
