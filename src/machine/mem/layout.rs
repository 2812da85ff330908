//! Where everything of the hypervisor's lies: L4 slots 256 to 271, `0xffff_8000_0000_0000` up to `0xffff_8800_0000_0000`.
//!
//! | slot | from | size | what |
//! |---|---|---|---|
//! | 256 | `0xffff_8000_0000_0000` | 512 GiB | machine-to-phys table (M2P), as PV guests read it (ABI) |
//! | 257 | `0xffff_8080_0000_0000` | 256 GiB | frame table, one record per frame of RAM |
//! | 257 | `0xffff_80c0_0000_0000` | 256 GiB | the M2P again, to write |
//! | 258 | `0xffff_8100_0000_0000` | 512 GiB | the heap |
//! | 259 | `0xffff_8180_0000_0000` | 512 GiB | device registers, uncached |
//! | 260 | `0xffff_8200_0000_0000` | 512 GiB | per-vCPU area of PV guests: GDT and LDT |
//! | 261 | `0xffff_8280_0000_0000` | 320 GiB | stacks and per-CPU areas |
//! | 261 | `0xffff_82d0_4000_0000` | 1 GiB | the image |
//! | 262 to 271 | `0xffff_8300_0000_0000` | 5 TiB | the direct map of all RAM |

use model::addr::MachineAddr;

/// Read-only machine-to-phys table, fixed by Xen's ABI (`xen/include/public/arch-x86/xen-x86_64.h`).
pub const M2P: u64 = 0xffff_8000_0000_0000;
/// The frame table.
pub const FRAME_TABLE: u64 = 0xffff_8080_0000_0000;
/// The machine-to-phys table as the hypervisor writes it.
pub const M2P_WRITABLE: u64 = 0xffff_80c0_0000_0000;
/// The heap.
pub const HEAP: u64 = 0xffff_8100_0000_0000;
/// Device registers.
pub const DEVICES: u64 = 0xffff_8180_0000_0000;
/// What each PV domain has mapped for itself: descriptor tables and entry frames of its virtual CPUs.
pub const PER_DOMAIN: u64 = 0xffff_8200_0000_0000;
/// Stacks and per-CPU areas.
pub const STACKS: u64 = 0xffff_8280_0000_0000;
/// The image, as `boot/link.ld` says.
pub const IMAGE: u64 = 0xffff_82d0_4000_0000;
/// The direct map.
pub const DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
/// Bytes of machine memory that the direct map can hold.
pub const DIRECT_MAP_SIZE: u64 = 5 << 40;

/// The L4 slots of the hole.
pub const SLOTS: core::ops::Range<usize> = 256..272;
/// The first address behind the hole.
pub const HOLE_END: u64 = 0xffff_8800_0000_0000;

/// The L4 slot of an address.
pub const fn slot(address: u64) -> usize {
    (address >> 39 & 511) as usize
}

/// Where the direct map has this byte. Valid to use only for RAM.
pub const fn direct(addr: MachineAddr) -> *mut u8 {
    (DIRECT_MAP + addr.raw()) as *mut u8
}
