//! What a PV guest finds at its start (`xen/include/public/xen.h`, "Start-of-day memory layout").
//!
//! RSI holds the virtual address of a [`StartInfo`].
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of [`StartInfo::cmd_line`], with its NUL.
pub const MAX_GUEST_CMDLINE: usize = 1024;

/// `struct start_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StartInfo {
    /// A text: "xen-3.0-x86_64".
    pub magic: [u8; 32],
    pub nr_pages: u64,
    /// Machine address.
    pub shared_info: u64,
    /// `xen::SIF_*`.
    pub flags: u32,
    pub pad0: u32,
    /// Machine frame.
    pub store_mfn: u64,
    pub store_evtchn: u32,
    pub pad1: u32,
    /// Machine frame; with `SIF_INITDOMAIN` the offset (low word) and size of the video mode's description.
    pub console_mfn: u64,
    pub console_evtchn: u32,
    pub pad2: u32,
    /// Virtual address.
    pub pt_base: u64,
    pub nr_pt_frames: u64,
    /// Virtual address.
    pub mfn_list: u64,
    /// Virtual address; with `SIF_MOD_START_PFN` a frame number.
    pub mod_start: u64,
    /// Bytes.
    pub mod_len: u64,
    pub cmd_line: [u8; MAX_GUEST_CMDLINE],
    pub first_p2m_pfn: u64,
    pub nr_p2m_frames: u64,
}
layout!(StartInfo: 1168 {
    magic @ 0, nr_pages @ 32, shared_info @ 40, flags @ 48, store_mfn @ 56, store_evtchn @ 64, console_mfn @ 72,
    console_evtchn @ 80, pt_base @ 88, nr_pt_frames @ 96, mfn_list @ 104, mod_start @ 112, mod_len @ 120,
    cmd_line @ 128, first_p2m_pfn @ 1152, nr_p2m_frames @ 1160,
});
