//! Scheduling and shutdown (`xen/include/public/sched.h`): the argument of each `SCHEDOP_*`.
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// What a sched_op does (its first argument).
pub const SCHEDOP_YIELD: u32 = 0;
/// Sleeps until an event is pending, with event delivery unmasked.
pub const SCHEDOP_BLOCK: u32 = 1;
pub const SCHEDOP_SHUTDOWN: u32 = 2;
pub const SCHEDOP_POLL: u32 = 3;
pub const SCHEDOP_REMOTE_SHUTDOWN: u32 = 4;
pub const SCHEDOP_SHUTDOWN_CODE: u32 = 5;
pub const SCHEDOP_WATCHDOG: u32 = 6;
pub const SCHEDOP_PIN_OVERRIDE: u32 = 7;

/// `SCHEDOP_shutdown` and `SCHEDOP_shutdown_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Shutdown {
    /// `SHUTDOWN_*`.
    pub reason: u32,
}
layout!(Shutdown: 4 { reason @ 0 });

// `Shutdown::reason`.
pub const SHUTDOWN_POWEROFF: u32 = 0;
pub const SHUTDOWN_REBOOT: u32 = 1;
pub const SHUTDOWN_SUSPEND: u32 = 2;
pub const SHUTDOWN_CRASH: u32 = 3;
pub const SHUTDOWN_WATCHDOG: u32 = 4;
pub const SHUTDOWN_SOFT_RESET: u32 = 5;
pub const SHUTDOWN_MAX: u32 = 5;

/// `SCHEDOP_poll`: sleeps until one of the ports is pending, or the time is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Poll {
    /// Guest virtual address of `nr_ports` port numbers of 32 bits.
    pub ports: u64,
    pub nr_ports: u32,
    pub pad: u32,
    /// System time in nanoseconds; zero for none.
    pub timeout: u64,
}
layout!(Poll: 24 { ports @ 0, nr_ports @ 8, timeout @ 16 });

/// `SCHEDOP_remote_shutdown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RemoteShutdown {
    pub domain_id: u16,
    pub pad: u16,
    /// `SHUTDOWN_*`.
    pub reason: u32,
}
layout!(RemoteShutdown: 8 { domain_id @ 0, reason @ 4 });

/// `SCHEDOP_watchdog`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Watchdog {
    /// Zero asks for a new one.
    pub id: u32,
    /// Seconds from now; zero destroys it.
    pub timeout: u32,
}
layout!(Watchdog: 8 { id @ 0, timeout @ 4 });

/// `SCHEDOP_pin_override`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PinOverride {
    /// Negative: back to the configured affinity.
    pub pcpu: i32,
}
layout!(PinOverride: 4 { pcpu @ 0 });
