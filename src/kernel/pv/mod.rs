//! PV guests: domains whose kernels run in ring 3 on page tables that the hypervisor has checked.
//!
//! | file | what |
//! |---|---|
//! | `exit` | from an exit to what is done about it |
//! | `bounce` | the frames that a guest finds on its stack, IRET, upcalls |
//! | `calls` | hypercalls about the virtual CPU: traps, callbacks, segments, debug registers |
//! | `mmu` | hypercalls about page tables |
//! | `memory` | the domain's frames |
//! | `emulate` | privileged instructions, and stores to page tables |
//! | `builder` | making a PV domain |
//! | `platform` | what an initial domain may do to the machine |

pub mod bounce;
pub mod builder;
pub mod calls;
pub mod emulate;
pub mod exit;
pub mod memory;
pub mod mmu;
pub mod platform;

use core::sync::atomic::AtomicU64;

use machine::pv::Space;
use model::rangeset::RangeSet;
use sync::{Lock, place};

/// What only PV domains have.
pub struct PvDomain {
    /// Its part of the hole.
    pub space: Space,
    /// Whether it is the initial domain, with rights to the machine.
    pub is_initial: bool,
    /// Frames of device memory that it may map.
    pub io_memory: RangeSet,
    /// Its page tables, and which of them its virtual CPUs run on.
    pub mmu: Lock<place::PageType, mmu::State>,
    /// Frames of RAM that it owns. One counts until its last reference is gone.
    pub pages: AtomicU64,
    /// The highest [`crate::domain::Domain::tlb_epoch`] whose flush every CPU has done or will do before it uses a
    /// translation of the domain.
    pub flushed_epoch: AtomicU64,
}

impl PvDomain {
    /// Without memory so far, for as many virtual CPUs as the space has room for.
    pub fn new(space: Space, is_initial: bool, io_memory: RangeSet) -> Self {
        let state = mmu::State::new(space.nr_vcpus());
        Self {
            space,
            is_initial,
            io_memory,
            mmu: Lock::new(state),
            pages: AtomicU64::new(0),
            flushed_epoch: AtomicU64::new(0),
        }
    }
}

/// What only the physical CPU that runs a PV virtual CPU touches, beside [`machine::pv::Vcpu`].
#[derive(Default)]
pub struct PvContext {
    /// The kernel's stack (`stack_switch`): selector and pointer.
    pub kernel_ss: u16,
    /// See `kernel_ss`.
    pub kernel_sp: u64,
}
