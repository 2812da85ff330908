//! The console ring (`xen/include/public/io/console.h`).
//!
//! One page shared by a guest and whoever keeps its console. Indices run freely modulo 2^32; an index modulo the
//! size of its array is a place in it. The producer writes the bytes, then its index, then sends the event.
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct xencons_interface`. `in` goes to the guest, `out` comes from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenconsInterface {
    pub input: [u8; 1024],
    pub output: [u8; 2048],
    pub in_cons: u32,
    pub in_prod: u32,
    pub out_cons: u32,
    pub out_prod: u32,
}
layout!(XenconsInterface: 3088 { input @ 0, output @ 1024, in_cons @ 3072, in_prod @ 3076, out_cons @ 3080, out_prod @ 3084 });
