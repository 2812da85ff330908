//! Event channels, two-level: one bit of news from one end to another.
//!
//! Each domain has a table of ports, [`Channels`]. A port is one end of a connection; what the guest sees of it
//! are a pending and a mask bit in a page that both sides write, which the table reaches through [`SharedBits`].
//! Nothing here wakes anybody: an operation answers a [`Wake`], and the caller acts on it.
//!
//! ```text
//!              alloc_unbound            bind_interdomain (of the peer)
//!     closed ----------------> unbound ------------------------------> interdomain
//!       |  ^                    |   ^                                    |    |
//!       |  |<------- close -----+   +------ the peer closes its end -----+    |
//!       |  |<------------------------------ close ----------------------------+
//!       |  |                                 (bind_interdomain leads the binder's own end here from closed)
//!       |  +--- close ---+
//!       +---------------> virq, ipi, service
//! ```
//!
//! Two ends lie in two tables under two locks. The operations that change both ends at once ([`bind_interdomain`])
//! take both tables; sending and closing work on one table after the other, and each connection has a number
//! ([`Peer::link`]) so that a message to an end that meanwhile belongs to another connection is dropped.
//!
//! Source: `xen/include/public/event_channel.h`, `xen/include/public/xen.h` (VIRQ list, `shared_info`).
//! The errors are those of Xen 4.17. FIFO event channels and physical IRQs are not built.

mod pair;
mod poll;
mod send;
mod table;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;

pub use pair::{bind_interdomain, bind_loopback};
pub use poll::VcpuSet;
pub use send::Sent;
pub use table::{Channels, Closed, Status};

use crate::ids::{DomId, VcpuId};
use abi::Errno;
use abi::xen::{VIRQ_DEBUG, VIRQ_TIMER, VIRQ_XENOPROF, VIRQ_XENPMU};
use core::fmt;

/// Ports that the two-level layout has room for with 64-bit words: 64 * 64.
pub const NR_PORTS: u32 = 4096;
/// Ports that it has room for with 32-bit words: 32 * 32.
pub const COMPAT_PORTS: u32 = 1024;
/// Bits in a word of the shared page, and words that one selector covers.
pub const BITS_PER_WORD: u32 = 64;
pub use abi::xen::NR_VIRQS;
/// Virtual CPUs that a table can serve, Xen's `HVM_MAX_VCPUS`.
pub const MAX_VCPUS: u32 = 128;
/// The peer that [`Channels::status`] names for a port whose other end is the hypervisor (`DOMID_XEN`).
pub const SERVICE_DOMAIN: DomId = DomId(0x7ff2);

/// A port number in one domain's table, as the guest gave it or as the table gave it out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct EvtchnPort(u32);

impl EvtchnPort {
    /// Any number; each operation refuses one that its table does not know.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }
    /// The plain number.
    pub const fn raw(self) -> u32 {
        self.0
    }
    /// The word of the pending and mask arrays that holds the port's bit.
    pub const fn word(self) -> u32 {
        self.0 / BITS_PER_WORD
    }
    /// The port's bit within [`EvtchnPort::word`].
    pub const fn bit(self) -> u32 {
        self.0 % BITS_PER_WORD
    }
}

impl fmt::Debug for EvtchnPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// The other end of an interdomain port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whose table the other end is in.
    pub domain: DomId,
    /// The other end.
    pub port: EvtchnPort,
    /// The connection's number, which no later connection of either table has again.
    pub link: u64,
}

/// Why an operation on event channels is refused.
///
/// | reason | Xen's errno |
/// |---|---|
/// | `BadPort`, `BadState`, `BadVirq`, `BadPeer`, `Dying`, `TooMany` | `EINVAL` |
/// | `NoVcpu` | `ENOENT` |
/// | `VirqBound` | `EEXIST` |
/// | `Full` | `ENOSPC` |
/// | `NoMemory` | `ENOMEM` |
/// | `Unsupported` | `ENOSYS` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The table has never had a port of this number.
    BadPort,
    /// The port is not in a state that allows the operation.
    BadState,
    /// No such VIRQ, or a global one on a virtual CPU other than 0.
    BadVirq,
    /// The peer's port does not wait for a connection from this domain.
    BadPeer,
    /// The domain is being destroyed and gets no new ports.
    Dying,
    /// More ports to poll than `SCHEDOP_poll` takes.
    TooMany,
    /// The domain has no such virtual CPU.
    NoVcpu,
    /// The VIRQ is bound already (on this virtual CPU).
    VirqBound,
    /// All ports that the domain may have are in use.
    Full,
    /// The hypervisor has no memory for more ports.
    NoMemory,
    /// Not built: FIFO event channels.
    Unsupported,
}

impl From<Error> for Errno {
    fn from(error: Error) -> Errno {
        match error {
            Error::BadPort | Error::BadState | Error::BadVirq | Error::BadPeer | Error::Dying | Error::TooMany => {
                Errno::EINVAL
            }
            Error::NoVcpu => Errno::ENOENT,
            Error::VirqBound => Errno::EEXIST,
            Error::Full => Errno::ENOSPC,
            Error::NoMemory => Errno::ENOMEM,
            Error::Unsupported => Errno::ENOSYS,
        }
    }
}

/// Whom an operation asks the caller to wake.
///
/// `upcall` names the virtual CPU whose `evtchn_upcall_pending` went from clear to set: it gets its callback
/// injected, and is kicked if it runs or unblocked if it sleeps. `pollers` sleep in `SCHEDOP_poll` and are unblocked
/// without a callback. `service` is the hypervisor's own end that was notified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Wake {
    /// The virtual CPU that has an upcall to take.
    pub upcall: Option<VcpuId>,
    /// The virtual CPUs that stop polling.
    pub pollers: VcpuSet,
    /// The hypervisor's service that has news from the guest.
    pub service: Option<u8>,
}

impl Wake {
    /// Nobody.
    pub const NONE: Wake = Wake { upcall: None, pollers: VcpuSet::EMPTY, service: None };
}

/// The words of `shared_info` and `vcpu_info` that the guest writes too.
///
/// Every operation is one atomic access to one word in guest-shared memory, sequentially consistent: a guest that
/// clears its upcall flag and then reads the selector must not miss a bit set in the other order. Ports are below
/// [`NR_PORTS`], virtual CPUs below the number the table was made for.
pub trait SharedBits {
    /// Sets the port's bit in `evtchn_pending`; answers what it was.
    fn set_pending(&self, port: EvtchnPort) -> bool;
    /// Clears the port's bit in `evtchn_pending`.
    fn clear_pending(&self, port: EvtchnPort);
    /// Whether the port's bit in `evtchn_pending` is set.
    fn is_pending(&self, port: EvtchnPort) -> bool;
    /// Whether the port's bit in `evtchn_mask` is set.
    fn is_masked(&self, port: EvtchnPort) -> bool;
    /// Clears the port's bit in `evtchn_mask`; answers what it was.
    fn clear_mask(&self, port: EvtchnPort) -> bool;
    /// The `vcpu_info` of a virtual CPU; `None` if it has none yet.
    fn info_of(&self, vcpu: VcpuId) -> Option<impl InfoBits>;
}

/// The words of one `vcpu_info`, as [`SharedBits`].
pub trait InfoBits {
    /// Sets bit `word` (below 64) in `evtchn_pending_sel`; answers what it was.
    fn set_selector(&self, word: u32) -> bool;
    /// Sets `evtchn_upcall_pending`; answers what it was.
    fn set_upcall_pending(&self) -> bool;
}

/// Whether one VIRQ serves the whole domain (bound on virtual CPU 0, movable) or each virtual CPU has its own.
pub const fn virq_is_global(virq: u32) -> bool {
    !matches!(virq, VIRQ_TIMER | VIRQ_DEBUG | VIRQ_XENOPROF | VIRQ_XENPMU)
}
