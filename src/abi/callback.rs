//! Where a PV guest is entered (`xen/include/public/callback.h`, `nmi.h`).
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// What a callback_op does (its first argument).
pub const CALLBACKOP_REGISTER: u32 = 0;
pub const CALLBACKOP_UNREGISTER: u32 = 1;

// `CallbackRegister::type`.
pub const CALLBACKTYPE_EVENT: u16 = 0;
/// The guest's selectors cannot be loaded.
pub const CALLBACKTYPE_FAILSAFE: u16 = 1;
/// SYSCALL by 64-bit user code.
pub const CALLBACKTYPE_SYSCALL: u16 = 2;
pub const CALLBACKTYPE_SYSENTER_DEPRECATED: u16 = 3;
pub const CALLBACKTYPE_NMI: u16 = 4;
pub const CALLBACKTYPE_SYSENTER: u16 = 5;
/// SYSCALL by 32-bit user code.
pub const CALLBACKTYPE_SYSCALL32: u16 = 7;

/// In [`CallbackRegister::flags`]: event delivery is masked at entry.
pub const CALLBACKF_MASK_EVENTS: u16 = 1;

/// `CALLBACKOP_register`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CallbackRegister {
    /// `CALLBACKTYPE_*`.
    pub kind: u16,
    /// `CALLBACKF_*`.
    pub flags: u16,
    pub pad: u32,
    /// Linear address.
    pub address: u64,
}
layout!(CallbackRegister: 16 { kind @ 0, flags @ 2, address @ 8 });

/// `CALLBACKOP_unregister`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CallbackUnregister {
    /// `CALLBACKTYPE_*`.
    pub kind: u16,
    pub pad: u16,
}
layout!(CallbackUnregister: 4 { kind @ 0 });

// What an nmi_op does (its first argument).
pub const XENNMI_REGISTER_CALLBACK: u32 = 0;
pub const XENNMI_UNREGISTER_CALLBACK: u32 = 1;

/// `XENNMI_register_callback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NmiCallback {
    /// Linear address.
    pub handler_address: u64,
    pub pad: u64,
}
layout!(NmiCallback: 16 { handler_address @ 0 });
