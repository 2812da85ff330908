//! The XenStore ring and its messages (`xen/include/public/io/xs_wire.h`).
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct xsd_sockmsg`: the head of a request and of its answer; `len` bytes follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SockMsg {
    /// `XS_*`.
    pub kind: u32,
    /// Comes back in the answer.
    pub req_id: u32,
    /// Transaction, or zero.
    pub tx_id: u32,
    /// Bytes.
    pub len: u32,
}
layout!(SockMsg: 16 { kind @ 0, req_id @ 4, tx_id @ 8, len @ 12 });

// `SockMsg::kind`.
pub const XS_CONTROL: u32 = 0;
pub const XS_DIRECTORY: u32 = 1;
pub const XS_READ: u32 = 2;
pub const XS_GET_PERMS: u32 = 3;
pub const XS_WATCH: u32 = 4;
pub const XS_UNWATCH: u32 = 5;
pub const XS_TRANSACTION_START: u32 = 6;
pub const XS_TRANSACTION_END: u32 = 7;
pub const XS_INTRODUCE: u32 = 8;
pub const XS_RELEASE: u32 = 9;
pub const XS_GET_DOMAIN_PATH: u32 = 10;
pub const XS_WRITE: u32 = 11;
pub const XS_MKDIR: u32 = 12;
pub const XS_RM: u32 = 13;
pub const XS_SET_PERMS: u32 = 14;
pub const XS_WATCH_EVENT: u32 = 15;
pub const XS_ERROR: u32 = 16;
pub const XS_IS_DOMAIN_INTRODUCED: u32 = 17;
pub const XS_RESUME: u32 = 18;
pub const XS_SET_TARGET: u32 = 19;
pub const XS_RESET_WATCHES: u32 = 21;
pub const XS_DIRECTORY_PART: u32 = 22;
pub const XS_TYPE_COUNT: u32 = 23;
pub const XS_INVALID: u32 = 0xffff;

/// Bytes of each direction of the ring.
pub const XENSTORE_RING_SIZE: u32 = 1024;

/// `struct xenstore_domain_interface`: the ring page. `req` comes from the guest, `rsp` goes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DomainInterface {
    pub req: [u8; 1024],
    pub rsp: [u8; 1024],
    pub req_cons: u32,
    pub req_prod: u32,
    pub rsp_cons: u32,
    pub rsp_prod: u32,
    /// `XENSTORE_SERVER_FEATURE_*`.
    pub server_features: u32,
    /// [`XENSTORE_CONNECTED`] or [`XENSTORE_RECONNECT`].
    pub connection: u32,
    /// `XENSTORE_ERROR_*`.
    pub error: u32,
}
layout!(DomainInterface: 2076 {
    req @ 0, rsp @ 1024, req_cons @ 2048, req_prod @ 2052, rsp_cons @ 2056, rsp_prod @ 2060, server_features @ 2064,
    connection @ 2068, error @ 2072,
});

// Bytes.
pub const XENSTORE_PAYLOAD_MAX: u32 = 4096;
pub const XENSTORE_ABS_PATH_MAX: u32 = 3072;
pub const XENSTORE_REL_PATH_MAX: u32 = 2048;

// `DomainInterface::server_features`, `connection` and `error`.
pub const XENSTORE_SERVER_FEATURE_RECONNECTION: u32 = 1;
pub const XENSTORE_SERVER_FEATURE_ERROR: u32 = 2;
pub const XENSTORE_CONNECTED: u32 = 0;
pub const XENSTORE_RECONNECT: u32 = 1;
pub const XENSTORE_ERROR_NONE: u32 = 0;
pub const XENSTORE_ERROR_COMM: u32 = 1;
pub const XENSTORE_ERROR_RINGIDX: u32 = 2;
pub const XENSTORE_ERROR_PROTO: u32 = 3;
