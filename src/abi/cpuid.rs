//! The CPUID leaves by which a guest finds the hypervisor (`xen/include/public/arch-x86/cpuid.h`).
//!
//! | leaf | EAX | EBX | ECX | EDX |
//! |---|---|---|---|---|
//! | base + 0 | highest leaf | signature | signature | signature |
//! | base + 1 | major << 16, minor | 0 | 0 | 0 |
//! | base + 2 | hypercall pages | MSR that places them | features 1 | features 2 |
//! | base + 3.0 | TSC flags | `tsc_mode` | TSC in kHz | incarnation |
//! | base + 3.1 | TSC offset low | TSC offset high | multiplier | shift |
//! | base + 3.2 | host TSC in kHz | 0 | 0 | 0 |
//! | base + 4.0 | HVM features | vCPU id | domain id | 0 |
//! | base + 5.0 | highest subleaf | address width 7:0 | 0 | 0 |
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

pub const XEN_CPUID_FIRST_LEAF: u32 = 0x4000_0000;
pub const XEN_CPUID_MAX_NUM_LEAVES: u32 = 5;

// "XenVMMXenVMM".
pub const XEN_CPUID_SIGNATURE_EBX: u32 = 0x566e_6558;
pub const XEN_CPUID_SIGNATURE_ECX: u32 = 0x6558_4d4d;
pub const XEN_CPUID_SIGNATURE_EDX: u32 = 0x4d4d_566e;

/// Base + 2, ECX.
pub const XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD: u32 = 1 << 0;

/// The MSR that base + 2, EBX names on Xen: a write of a frame's address and page index fills in a hypercall page.
pub const MSR_HYPERCALL: u32 = 0x4000_0000;

// Base + 3.0, EAX; the header has no names.
pub const TSC_EMULATED: u32 = 1 << 0;
pub const TSC_HOST_RELIABLE: u32 = 1 << 1;
pub const TSC_RDTSCP: u32 = 1 << 2;

// Base + 4.0, EAX.
pub const XEN_HVM_CPUID_APIC_ACCESS_VIRT: u32 = 1 << 0;
pub const XEN_HVM_CPUID_X2APIC_VIRT: u32 = 1 << 1;
pub const XEN_HVM_CPUID_IOMMU_MAPPINGS: u32 = 1 << 2;
pub const XEN_HVM_CPUID_VCPU_ID_PRESENT: u32 = 1 << 3;
pub const XEN_HVM_CPUID_DOMID_PRESENT: u32 = 1 << 4;
pub const XEN_HVM_CPUID_EXT_DEST_ID: u32 = 1 << 5;
pub const XEN_HVM_CPUID_UPCALL_VECTOR: u32 = 1 << 6;

/// Base + 5.0, EBX.
pub const XEN_CPUID_MACHINE_ADDRESS_WIDTH_MASK: u32 = 0xff;
