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

use machine::pv::Space;

/// What only PV domains have.
pub struct PvDomain {
    /// Its part of the hole.
    pub space: Space,
    /// Whether it is the initial domain, with rights to the machine.
    pub is_initial: bool,
}

/// What only the physical CPU that runs a PV virtual CPU touches, beside [`machine::pv::Vcpu`].
#[derive(Default)]
pub struct PvContext {
    /// The kernel's stack (`stack_switch`): selector and pointer.
    pub kernel_ss: u16,
    /// See `kernel_ss`.
    pub kernel_sp: u64,
}
