//! Version and features (`xen/include/public/version.h`): what each `XENVER_*` returns.
//!
//! Texts are NUL-terminated within their array.
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// What a xen_version does (its first argument).
/// Returns major << 16 | minor; takes no argument.
pub const XENVER_VERSION: u32 = 0;
pub const XENVER_EXTRAVERSION: u32 = 1;
pub const XENVER_COMPILE_INFO: u32 = 2;
pub const XENVER_CAPABILITIES: u32 = 3;
pub const XENVER_CHANGESET: u32 = 4;
pub const XENVER_PLATFORM_PARAMETERS: u32 = 5;
pub const XENVER_GET_FEATURES: u32 = 6;
/// Returns 4096; takes no argument.
pub const XENVER_PAGESIZE: u32 = 7;
pub const XENVER_GUEST_HANDLE: u32 = 8;
pub const XENVER_COMMANDLINE: u32 = 9;
/// With a null argument returns the length in bytes.
pub const XENVER_BUILD_ID: u32 = 10;

/// `XENVER_extraversion`: what follows major and minor.
pub type ExtraVersion = [u8; 16];
/// `XENVER_capabilities`: words that say which guests run.
pub type CapabilitiesInfo = [u8; 1024];
/// `XENVER_changeset`.
pub type ChangesetInfo = [u8; 64];
/// `XENVER_commandline`: of the hypervisor, for privileged callers.
pub type CommandLine = [u8; 1024];
/// `XENVER_guest_handle`: the caller's UUID.
pub type DomainHandle = [u8; 16];

/// `XENVER_compile_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CompileInfo {
    pub compiler: [u8; 64],
    pub compile_by: [u8; 16],
    pub compile_domain: [u8; 32],
    pub compile_date: [u8; 32],
}
layout!(CompileInfo: 144 { compiler @ 0, compile_by @ 64, compile_domain @ 80, compile_date @ 112 });

/// `XENVER_platform_parameters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PlatformParameters {
    /// Where the hypervisor's part of the address space starts.
    pub virt_start: u64,
}
layout!(PlatformParameters: 8 { virt_start @ 0 });

/// `XENVER_get_features`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FeatureInfo {
    /// Which 32 features are asked for.
    pub submap_idx: u32,
    /// Filled: bits by `features::XENFEAT_*`.
    pub submap: u32,
}
layout!(FeatureInfo: 8 { submap_idx @ 0, submap @ 4 });

/// The head of `XENVER_build_id`; `len` bytes follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BuildId {
    /// Bytes that the caller has room for, then bytes written.
    pub len: u32,
}
layout!(BuildId: 4 { len @ 0 });
