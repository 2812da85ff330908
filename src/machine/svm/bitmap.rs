//! The permission maps: which MSRs and ports exit (APM 2 15.10, 15.11).
//!
//! A set bit exits. The MSR map is a virtual CPU's own; the port map is one for all.

use crate::mem::OwnedPages;
use core::sync::atomic::{AtomicU64, Ordering};
use model::addr::{MachineAddr, PAGE_SIZE};

/// log2 of the pages of the MSR map: 8 KiB.
const MSRPM_ORDER: u8 = 1;
const MSRPM_BYTES: usize = 2 * PAGE_SIZE as usize;
/// log2 of the pages taken for the port map, which has 12 KiB.
const IOPM_ORDER: u8 = 2;
const IOPM_BYTES: usize = 3 * PAGE_SIZE as usize;

/// The MSRs that VMRUN, VMLOAD or the loading of a virtual CPU switch, and that therefore need no exit.
/// EFER is missing: reads would show SVME, writes need a check.
pub(super) const SWITCHED_MSRS: [u32; 11] = [
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0x277,       // PAT: the guest's is G_PAT
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0100, // FS_BASE
    0xc000_0101, // GS_BASE
    0xc000_0102, // KERNEL_GS_BASE
];

/// TSC_AUX, which the loading of a virtual CPU switches where the processor has it.
pub(super) const TSC_AUX: u32 = 0xc000_0103;

/// Firmware's POST code port, on which kernels write to gain a little time. It leads nowhere, so it passes.
const POST_PORT: usize = 0x80;

/// An MSR permission map.
pub(super) struct Msrpm(OwnedPages);

impl Msrpm {
    /// A map in which every access exits.
    pub(super) fn new() -> Option<Self> {
        let mut map = Self(OwnedPages::zeroed(MSRPM_ORDER)?);
        map.bytes().fill(0xff);
        Some(map)
    }

    pub(super) fn addr(&self) -> MachineAddr {
        self.0.addr()
    }

    /// Lets reads or writes of `msr` pass; the other kind exits. An MSR that the map does not cover always exits.
    pub(super) fn allow(&mut self, msr: u32, read: bool, write: bool) {
        if let Some((byte, shift)) = msr_position(msr) {
            let exits = u8::from(!read) | u8::from(!write) << 1;
            let byte = &mut self.bytes()[byte];
            *byte = *byte & !(3 << shift) | exits << shift;
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the pages are ours, mapped and that long; the processor only reads them, and no other
        // reference to them exists while `self` is borrowed.
        unsafe { core::slice::from_raw_parts_mut(self.0.ptr(), MSRPM_BYTES) }
    }
}

/// Which byte has the two bits of an MSR, read below write, and how far up (APM 2 table 15-7).
fn msr_position(msr: u32) -> Option<(usize, u32)> {
    let (base, index) = match msr {
        0..=0x1fff => (0, msr),
        0xc000_0000..=0xc000_1fff => (0x800, msr - 0xc000_0000),
        0xc001_0000..=0xc001_1fff => (0x1000, msr - 0xc001_0000),
        _ => return None,
    };
    Some((base + index as usize / 4, index % 4 * 2))
}

/// The machine address of the port map, or 0 before it is built.
static IOPM: AtomicU64 = AtomicU64::new(0);

/// Builds the port map, unless it is there. It stays for good.
pub(super) fn build_iopm() {
    if IOPM.load(Ordering::Acquire) != 0 {
        return;
    }
    let pages = OwnedPages::zeroed(IOPM_ORDER).expect("memory at boot for the port map");
    // SAFETY: the pages are ours, mapped and longer than that, and nobody else knows them yet.
    let bytes = unsafe { core::slice::from_raw_parts_mut(pages.ptr(), IOPM_BYTES) };
    bytes.fill(0xff);
    bytes[POST_PORT / 8] &= !(1 << (POST_PORT % 8));
    // Release: pairs with the load in `iopm`, so that whoever sees the address sees the bits.
    let mine = IOPM.compare_exchange(0, pages.addr().raw(), Ordering::Release, Ordering::Relaxed);
    if mine.is_ok() {
        core::mem::forget(pages);
    }
}

/// The port map, once [`build_iopm`] has run on some CPU.
pub(super) fn iopm() -> Option<MachineAddr> {
    let addr = IOPM.load(Ordering::Acquire);
    (addr != 0).then_some(MachineAddr::new(addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_msr_has_the_bits_of_the_manual() {
        assert_eq!(msr_position(0), Some((0, 0)));
        assert_eq!(msr_position(0x277), Some((0x9d, 6)));
        assert_eq!(msr_position(0x1fff), Some((0x7ff, 6)));
        assert_eq!(msr_position(0xc000_0080), Some((0x820, 0)));
        assert_eq!(msr_position(0xc001_0114), Some((0x1045, 0)));
        assert_eq!(msr_position(0xc001_1fff), Some((0x17ff, 6)));
    }

    #[test]
    fn an_msr_between_the_ranges_has_none() {
        for msr in [0x2000, 0x4000_0000, 0xbfff_ffff, 0xc000_2000, 0xc000_ffff, 0xc001_2000, u32::MAX] {
            assert_eq!(msr_position(msr), None);
        }
    }
}
