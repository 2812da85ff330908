//! Xen's public interface as types and numbers; no logic.
//!
//! One file per header of `xen/include/public` (4.17), with the header's names. A structure is `repr(C)`
//! plain bytes in the 64-bit layout, its padding named, so that it can be copied to and from a guest's
//! memory with every bit pattern valid. Numbers a guest chooses are plain integers with named constants: an
//! open set, never an `enum`. Every size and offset is checked here at compile time, and against the C
//! headers by `tests/layout.rs`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

/// Fails the build unless a structure has this size and its fields these offsets, in bytes.
macro_rules! layout {
    ($name:ident: $size:literal { $($field:ident @ $offset:literal),* $(,)? }) => {
        const _: () = {
            assert!(core::mem::size_of::<$name>() == $size);
            $(assert!(core::mem::offset_of!($name, $field) == $offset);)*
        };
    };
}

pub mod callback;
pub mod console;
pub mod cpuid;
pub mod domctl;
pub mod elfnote;
pub mod errno;
pub mod event_channel;
pub mod features;
pub mod grant_table;
pub mod hvm_op;
pub mod hvm_params;
pub mod hvm_vcpu;
pub mod memory;
pub mod nr;
pub mod physdev;
pub mod platform;
pub mod pv_start;
pub mod pv_vcpu;
pub mod sched;
pub mod start_info;
pub mod sysctl;
pub mod vcpu;
pub mod version;
pub mod xen;
pub mod xs_wire;

pub use errno::Errno;
