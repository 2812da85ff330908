//! Which MSRs and ports a guest reaches without an exit.
//!
//! A bit that is set makes the access exit (SDM 3C 24.6.4, 24.6.9). Both maps begin with every bit set.

use crate::mem::OwnedPages;
use model::addr::MachineAddr;

/// Port 0x80, which Linux writes to lose a microsecond, and which Xen lets pass as well.
const DELAY_PORT: usize = 0x80;

/// One bit for each MSR and direction.
pub(super) struct MsrBitmap(OwnedPages);

impl MsrBitmap {
    /// All exit. `None` when memory is short.
    pub(super) fn new() -> Option<Self> {
        let pages = OwnedPages::zeroed(0)?;
        fill(&pages);
        Some(Self(pages))
    }

    /// What the VMCS takes.
    pub(super) fn addr(&self) -> MachineAddr {
        self.0.addr()
    }

    /// Has those accesses to the x2APIC's registers pass that the processor carries out on the virtual-APIC page. Only
    /// while it virtualizes x2APIC mode: else they would reach the host's.
    pub(super) fn serve_x2apic(&mut self, is_on: bool) {
        let reads =
            [TPR, PPR].into_iter().chain(ISR..=IRR_LAST).filter(|&msr| msr != IRR_FIRST).map(|msr| (msr, false));
        let writes = [TPR, EOI, SELF_IPI].into_iter().map(|msr| (msr, true));
        for (msr, is_write) in reads.chain(writes) {
            if let Some(bit) = position(msr, is_write) {
                set_bit(&self.0, bit, !is_on);
            }
        }
    }

    /// Lets reads or writes of `msr` by the guest pass; the other kind exits. One that has no bit always exits.
    pub(super) fn allow(&mut self, msr: u32, read: bool, write: bool) {
        assert!(!write || is_harmless(msr), "a guest must not write MSR {msr:#x} without an exit");
        for (passes, is_write) in [(read, false), (write, true)] {
            if let Some(bit) = position(msr, is_write) {
                set_bit(&self.0, bit, !passes);
            }
        }
    }
}

/// MSRs of the x2APIC: the task priority, and what the processor keeps of priorities, requests and vectors in service.
const TPR: u32 = 0x808;
const PPR: u32 = 0x80a;
const EOI: u32 = 0x80b;
const ISR: u32 = 0x810;
/// Exits, as it may have the mark of a posted-interrupt descriptor.
const IRR_FIRST: u32 = 0x820;
const IRR_LAST: u32 = 0x827;
const SELF_IPI: u32 = 0x83f;

/// Where the bit of an MSR lies: four kilobytes for reads of the low range, of the high range, then writes.
fn position(msr: u32, is_write: bool) -> Option<usize> {
    let half = if is_write { 2048 * 8 } else { 0 };
    match msr {
        0..=0x1fff => Some(half + msr as usize),
        0xc000_0000..=0xc000_1fff => Some(half + 1024 * 8 + (msr & 0x1fff) as usize),
        _ => None,
    }
}

/// Whether a guest's write of the MSR leaves the hypervisor alone: the register is switched with the guest, or
/// it concerns speculation only.
fn is_harmless(msr: u32) -> bool {
    const SPEC_CTRL: u32 = 0x48;
    const PRED_CMD: u32 = 0x49;
    const FLUSH_CMD: u32 = 0x10b;
    super::state::is_switched(msr) || matches!(msr, SPEC_CTRL | PRED_CMD | FLUSH_CMD)
}

/// One bit for each port, in two pages.
pub(super) struct IoBitmaps(OwnedPages);

impl IoBitmaps {
    /// All exit but the delay port. `None` when memory is short.
    pub(super) fn new() -> Option<Self> {
        let pages = OwnedPages::zeroed(1)?;
        fill(&pages);
        set_bit(&pages, DELAY_PORT, false);
        Some(Self(pages))
    }

    /// What the VMCS takes for ports below 0x8000; those above are in the next page.
    pub(super) fn addr(&self) -> MachineAddr {
        self.0.addr()
    }
}

fn fill(pages: &OwnedPages) {
    // SAFETY: the pages are owned, no guest uses them yet, and they have this many bytes.
    unsafe { core::ptr::write_bytes(pages.ptr(), 0xff, 4096 << pages.order()) }
}

fn set_bit(pages: &OwnedPages, bit: usize, exits: bool) {
    let (byte, mask) = (bit / 8, 1 << (bit % 8));
    assert!(byte < 4096 << pages.order());
    // SAFETY: the byte lies in the owned pages, of which there is no Rust reference; the processor only reads them.
    unsafe {
        let at = pages.ptr().add(byte);
        let old = at.read_volatile();
        at.write_volatile(if exits { old | mask } else { old & !mask });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_msr_of_both_ranges_has_a_bit_of_its_own_in_the_page() {
        let mut seen = [false; 4096 * 8];
        for msr in (0..0x2000).chain(0xc000_0000..0xc000_2000) {
            for is_write in [false, true] {
                let bit = position(msr, is_write).unwrap();
                assert!(!core::mem::replace(&mut seen[bit], true));
            }
        }
        assert!(seen.iter().all(|&b| b));
    }

    #[test]
    fn an_msr_outside_both_ranges_always_exits() {
        for msr in [0x2000, 0x4000_0000, 0xbfff_ffff, 0xc000_2000, u32::MAX] {
            assert_eq!(position(msr, false), None);
        }
    }

    #[test]
    fn the_apic_base_and_feature_control_are_never_the_guests_to_write() {
        assert!(!is_harmless(0x1b) && !is_harmless(0x3a) && !is_harmless(0x808) && is_harmless(0x48));
    }
}
