//! PV guests: domains whose kernels run in ring 3 on page tables that the hypervisor has checked.
//!
//! | file | what |
//! |---|---|
//! | `exit` | from an exit to what is done about it |
//! | `bounce` | the frames that a guest finds on its stack, IRET, upcalls |
//! | `calls` | hypercalls about the virtual CPU: traps, callbacks, segments, debug registers |
//! | `events` | what a virtual CPU is given before it enters the guest |
//! | `stay` | what is done for a guest within one stay in it |
//! | `start` | how a virtual CPU starts |
//! | `mmu` | hypercalls about page tables |
//! | `memory` | the domain's frames |
//! | `emulate`, `quick` | privileged instructions; with `msr`, `ports`, and `operands` for strings of them |
//! | `store` | stores of a guest's kernel to page tables |
//! | `builder` | making a PV domain |
//! | `platform` | what an initial domain may do to the machine |

pub mod bounce;
pub mod builder;
pub mod calls;
pub mod emulate;
pub mod events;
pub mod exit;
pub mod memory;
pub mod mmu;
mod msr;
mod operands;
pub mod physdev;
pub mod platform;
pub mod ports;
pub mod quick;
pub mod rights;
pub mod start;
pub mod stay;
pub mod store;

use alloc::boxed::Box;
use core::sync::atomic::AtomicU64;

use machine::pv::Space;
use model::page::Owned;
use model::pv::debug::Debug;
use model::pv::frame::Handler;
use model::pv::state::{Callbacks, NO_TRAPS, TrapTable};
use model::rangeset::RangeSet;
use sync::{Lock, place};

use crate::run::Running;

/// What only PV domains have.
pub struct PvDomain {
    /// Its part of the hole.
    pub space: Space,
    /// Whether it is the initial domain, with rights to the machine.
    pub is_initial: bool,
    /// Frames of device memory that it may map.
    pub io_memory: RangeSet,
    /// The machine's ports that it may use.
    pub ports: ports::Ports,
    /// Its page tables, and which of them its virtual CPUs run on.
    pub mmu: Lock<place::PageType, mmu::State>,
    /// Frames of RAM that it owns.
    pub pages: Owned,
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
            ports: ports::Ports::new(is_initial),
            mmu: Lock::new(state),
            pages: Owned::new(),
            flushed_epoch: AtomicU64::new(0),
        }
    }
}

/// Where a guest keeps which I/O ports its user mode may use (`PHYSDEVOP_set_iobitmap`).
#[derive(Clone, Copy, Debug, Default)]
pub struct IoBitmap {
    /// Linear address.
    pub at: u64,
    /// How many ports it is for.
    pub ports: u32,
}

/// What only the physical CPU that runs a PV virtual CPU touches, beside [`machine::pv::Vcpu`].
pub struct PvContext {
    /// The virtual IDT.
    pub traps: Box<TrapTable>,
    /// Where else the kernel is entered.
    pub callbacks: Callbacks,
    /// The kernel's stack (`stack_switch`): selector and pointer.
    pub kernel_ss: u16,
    /// See `kernel_ss`.
    pub kernel_sp: u64,
    /// Bits 12 and 13 of RFLAGS as the guest believes them to be.
    pub iopl: u64,
    /// See [`IoBitmap`].
    pub io_bitmap: IoBitmap,
    /// The debug registers.
    pub debug: Debug,
    /// The handler of an NMI runs, until its IRET.
    pub is_nmi_masked: bool,
    /// Another NMI came meanwhile.
    pub is_nmi_pending: bool,
}

impl PvContext {
    /// That of a virtual CPU before its start.
    pub fn new() -> Self {
        Self {
            traps: Box::new(NO_TRAPS),
            callbacks: Callbacks::default(),
            kernel_ss: 0,
            kernel_sp: 0,
            iopl: 0,
            io_bitmap: IoBitmap::default(),
            debug: Debug::default(),
            is_nmi_masked: false,
            is_nmi_pending: false,
        }
    }

    /// The guest's handler of a vector.
    #[inline]
    pub fn trap(&self, vector: u8) -> Handler {
        Self::handler(&self.traps[usize::from(vector)])
    }

    /// The upcall of event channels, with further ones masked.
    #[inline]
    pub fn upcall(&self) -> Handler {
        Handler { address: self.callbacks.event, masks_events: true }
    }

    /// The guest's handler by its entry in the virtual IDT.
    #[inline]
    pub fn handler(trap: &abi::pv_vcpu::TrapInfo) -> Handler {
        Handler { address: trap.address, masks_events: trap.masks_events() }
    }
}

/// Whether the running virtual CPU is one of an initial domain.
pub fn is_initial(run: &Running) -> bool {
    run.domain.pv.as_ref().is_some_and(|pv| pv.is_initial)
}
