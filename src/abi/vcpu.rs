//! Virtual CPUs (`xen/include/public/vcpu.h`): the argument of each `VCPUOP_*`.
//!
//! `VCPUOP_initialise` of an HVM or PVH domain takes a [`crate::hvm_vcpu::HvmContext`].
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// What a vcpu_op does (its first argument; the second is the virtual CPU).
pub const VCPUOP_INITIALISE: u32 = 0;
pub const VCPUOP_UP: u32 = 1;
pub const VCPUOP_DOWN: u32 = 2;
/// 1 if it is up, 0 if not.
pub const VCPUOP_IS_UP: u32 = 3;
pub const VCPUOP_GET_RUNSTATE_INFO: u32 = 4;
pub const VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA: u32 = 5;
pub const VCPUOP_SET_PERIODIC_TIMER: u32 = 6;
pub const VCPUOP_STOP_PERIODIC_TIMER: u32 = 7;
pub const VCPUOP_SET_SINGLESHOT_TIMER: u32 = 8;
pub const VCPUOP_STOP_SINGLESHOT_TIMER: u32 = 9;
pub const VCPUOP_REGISTER_VCPU_INFO: u32 = 10;
pub const VCPUOP_SEND_NMI: u32 = 11;
pub const VCPUOP_GET_PHYSID: u32 = 12;
pub const VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA: u32 = 13;

/// `VCPUOP_get_runstate_info`, and the area that is kept up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RunstateInfo {
    /// `RUNSTATE_*`.
    pub state: u32,
    pub pad: u32,
    /// System time in nanoseconds; bit 63 is [`XEN_RUNSTATE_UPDATE`].
    pub state_entry_time: u64,
    /// Nanoseconds spent in each state; they add up to the time since the virtual CPU was made.
    pub time: [u64; 4],
}
layout!(RunstateInfo: 48 { state @ 0, state_entry_time @ 8, time @ 16 });

// `RunstateInfo::state`.
pub const RUNSTATE_RUNNING: u32 = 0;
pub const RUNSTATE_RUNNABLE: u32 = 1;
pub const RUNSTATE_BLOCKED: u32 = 2;
pub const RUNSTATE_OFFLINE: u32 = 3;
/// In [`RunstateInfo::state_entry_time`]: the area is being written (`VMASST_TYPE_runstate_update_flag`).
pub const XEN_RUNSTATE_UPDATE: u64 = 1 << 63;

/// `VCPUOP_register_runstate_memory_area`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterRunstateMemoryArea {
    /// Guest virtual address of a [`RunstateInfo`].
    pub addr: u64,
}
layout!(RegisterRunstateMemoryArea: 8 { addr @ 0 });

/// `VCPUOP_set_periodic_timer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetPeriodicTimer {
    /// Nanoseconds; less than a millisecond is `EINVAL`.
    pub period_ns: u64,
}
layout!(SetPeriodicTimer: 8 { period_ns @ 0 });

/// `VCPUOP_set_singleshot_timer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetSingleshotTimer {
    /// System time in nanoseconds.
    pub timeout_abs_ns: u64,
    /// [`VCPU_SSHOTTMR_FUTURE`].
    pub flags: u32,
    pub pad: u32,
}
layout!(SetSingleshotTimer: 16 { timeout_abs_ns @ 0, flags @ 8 });

/// In [`SetSingleshotTimer::flags`]: a time that has passed is `ETIME`.
pub const VCPU_SSHOTTMR_FUTURE: u32 = 1;

/// `VCPUOP_register_vcpu_info`: moves the `vcpu_info` out of the shared page, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterVcpuInfo {
    /// The guest's frame number for a translated guest.
    pub mfn: u64,
    /// Bytes from the start of the frame.
    pub offset: u32,
    pub rsvd: u32,
}
layout!(RegisterVcpuInfo: 16 { mfn @ 0, offset @ 8, rsvd @ 12 });

/// `VCPUOP_get_physid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetPhysid {
    /// Filled: the APIC id in bits 31:0, the ACPI id in bits 63:32.
    pub phys_id: u64,
}
layout!(GetPhysid: 8 { phys_id @ 0 });

/// `VCPUOP_register_vcpu_time_memory_area`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterTimeMemoryArea {
    /// Guest virtual address of a [`crate::xen::VcpuTimeInfo`].
    pub addr: u64,
}
layout!(RegisterTimeMemoryArea: 8 { addr @ 0 });
