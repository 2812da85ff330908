//! Which frames of devices' memory an initial domain may map.
//!
//! All of them, as with Xen (`xen/arch/x86/dom0_build.c`), but for what the hypervisor keeps: RAM, whoever has it or could
//! get it, and the interrupt controllers. The first MiB counts as a device's, RAM or not: firmware leaves data there. What it has of the ports says [`super::ports`].

use crate::addr::PAGE_SHIFT;
use crate::rangeset::RangeSet;
use crate::regions::Span;

/// What the machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// Bits of a machine address.
    pub phys_bits: u32,
    /// The processors are AMD's, or made like them.
    pub is_amd: bool,
    /// The address of the local APICs' registers.
    pub local_apic: u64,
    /// The addresses of the I/O APICs' registers.
    pub io_apics: alloc::vec::Vec<u64>,
}

/// The memory that a PC's firmware uses. The hypervisor gives none of it to anybody, and uses none itself once all CPUs run.
const FIRST_MIB: u64 = 1 << 20;
/// Where messages of interrupts are written to (SDM 3A 11.11.1).
const MSI: Span = Span { start: 0xfee0_0000, end: 0xfef0_0000 };
/// The addresses of HyperTransport, which are no memory (APM 2 2.2 of older revisions).
const HYPERTRANSPORT: Span = Span { start: 0xfd_0000_0000, end: 0x100_0000_0000 };

/// The frames that an initial domain may map. `ram` is all RAM, whoever has it.
pub fn io_memory(board: &Board, ram: impl Iterator<Item = Span>) -> RangeSet {
    let frames = 1u64 << board.phys_bits.clamp(32, 52).saturating_sub(PAGE_SHIFT);
    let mut set = RangeSet::new();
    set.add(0..=frames - 1);
    let page = |address: u64| Span { start: address, end: address + 1 };
    let hypertransport = Some(HYPERTRANSPORT).filter(|_| board.is_amd);
    let kept = [page(board.local_apic), MSI].into_iter().chain(board.io_apics.iter().map(|&at| page(at)));
    let ram = ram.map(|span| Span { start: span.start.max(FIRST_MIB), ..span });
    for span in ram.chain(kept).chain(hypertransport) {
        let pages = span.pages_around();
        if !pages.is_empty() {
            set.remove(pages.start >> PAGE_SHIFT..=(pages.end >> PAGE_SHIFT) - 1);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board { phys_bits: 40, is_amd: false, local_apic: 0xfee0_0000, io_apics: alloc::vec![0xfec0_0000] }
    }

    fn frames(board: &Board) -> RangeSet {
        let ram = [Span { start: 0x1000, end: 0x9f000 }, Span { start: 0x10_0000, end: 0x7ffd_f000 }];
        io_memory(board, ram.into_iter())
    }

    #[test]
    fn no_frame_of_ram_is_ever_a_devices_but_for_the_first_mib() {
        let set = frames(&board());
        for frame in [0x100, 0x7ffde] {
            assert!(!set.contains(frame..=frame), "{frame:#x}");
        }
        for frame in [0, 1, 0x8f, 0x9f, 0xa0, 0xff, 0x7ffdf, 0xe_0000, 0xf_ed00, (1 << 28) - 1] {
            assert!(set.contains(frame..=frame), "{frame:#x}");
        }
        assert!(!set.contains(1 << 28..=1 << 28));
    }

    #[test]
    fn interrupt_controllers_and_messages_are_the_hypervisors() {
        let set = frames(&board());
        assert!(!set.overlaps(0xf_ec00..=0xf_ec00) && !set.overlaps(0xf_ee00..=0xf_eeff));
        assert!(set.contains(0xf_ec01..=0xf_edff) && set.contains(0xf_ef00..=0xf_ef00));
        let high = Board { phys_bits: 48, ..board() };
        assert!(frames(&high).contains(0xfd0_0000..=0xfff_ffff));
        let amd = Board { is_amd: true, ..high };
        assert!(!frames(&amd).overlaps(0xfd0_0000..=0xfff_ffff));
    }
}
