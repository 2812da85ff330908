//! What of the machine an initial domain may use by itself: frames of devices' memory, and I/O ports.
//!
//! All of them, as with Xen (`xen/arch/x86/dom0_build.c`), but for what the hypervisor keeps: RAM, whoever has it or could
//! get it; the interrupt controllers; the clocks by which it measures; the serial port that is its console.

use core::ops::RangeInclusive;

use crate::addr::PAGE_SHIFT;
use crate::rangeset::RangeSet;
use crate::regions::Span;

/// What a PV domain may use of the machine. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Frames of devices' memory.
    pub io_memory: RangeSet,
    /// I/O ports.
    pub io_ports: RangeSet,
}

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
    /// The first port of the console's UART.
    pub serial: Option<u16>,
    /// The port of the ACPI PM timer.
    pub pm_timer: Option<u16>,
}

/// Where messages of interrupts are written to (SDM 3A 11.11.1).
const MSI: Span = Span { start: 0xfee0_0000, end: 0xfef0_0000 };
/// The addresses of HyperTransport, which are no memory (APM 2 2.2 of older revisions).
const HYPERTRANSPORT: Span = Span { start: 0xfd_0000_0000, end: 0x100_0000_0000 };

/// Ports that the hypervisor keeps on every PC.
const KEPT: [RangeInclusive<u64>; 9] = [
    // The two 8259 interrupt controllers, and whether their lines are edge- or level-triggered.
    0x20..=0x21,
    0xa0..=0xa1,
    0x4d0..=0x4d1,
    // The 8254, and the gate and output of its channel 2.
    0x40..=0x43,
    0x61..=0x61,
    // INIT and A20; the error line of the coprocessor.
    0x92..=0x92,
    0xf0..=0xf0,
    // The debug console of virtual machines.
    0xe9..=0xe9,
    // Reset.
    0xcf9..=0xcf9,
];

/// The rights of an initial domain. `ram` is all RAM, whoever has it.
pub fn of_initial_domain(board: &Board, ram: impl Iterator<Item = Span>) -> Rights {
    Rights { io_memory: io_memory(board, ram), io_ports: io_ports(board) }
}

fn io_memory(board: &Board, ram: impl Iterator<Item = Span>) -> RangeSet {
    let frames = 1u64 << board.phys_bits.clamp(32, 52).saturating_sub(PAGE_SHIFT);
    let mut set = RangeSet::new();
    set.add(0..=frames - 1);
    let page = |address: u64| Span { start: address, end: address + 1 };
    let hypertransport = Some(HYPERTRANSPORT).filter(|_| board.is_amd);
    let kept = [page(board.local_apic), MSI].into_iter().chain(board.io_apics.iter().map(|&at| page(at)));
    for span in ram.chain(kept).chain(hypertransport) {
        let pages = span.pages_around();
        if !pages.is_empty() {
            set.remove(pages.start >> PAGE_SHIFT..=(pages.end >> PAGE_SHIFT) - 1);
        }
    }
    set
}

fn io_ports(board: &Board) -> RangeSet {
    let mut set = RangeSet::new();
    set.add(0..=0xffff);
    KEPT.into_iter().for_each(|range| set.remove(range));
    let ports = |first: Option<u16>, count: u64| first.map(|first| u64::from(first)..=u64::from(first) + count - 1);
    [ports(board.serial, 8), ports(board.pm_timer, 4)].into_iter().flatten().for_each(|range| set.remove(range));
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board {
            phys_bits: 40,
            is_amd: false,
            local_apic: 0xfee0_0000,
            io_apics: alloc::vec![0xfec0_0000],
            serial: Some(0x3f8),
            pm_timer: Some(0x608),
        }
    }

    fn rights(board: &Board) -> Rights {
        let ram = [Span { start: 0x1000, end: 0x9f000 }, Span { start: 0x10_0000, end: 0x7ffd_f000 }];
        of_initial_domain(board, ram.into_iter())
    }

    #[test]
    fn no_frame_of_ram_is_ever_a_devices() {
        let set = rights(&board()).io_memory;
        for frame in [1, 0x9e, 0x100, 0x7ffde] {
            assert!(!set.contains(frame..=frame), "{frame:#x}");
        }
        for frame in [0, 0x9f, 0xa0, 0xff, 0x7ffdf, 0xe_0000, 0xf_ed00, (1 << 28) - 1] {
            assert!(set.contains(frame..=frame), "{frame:#x}");
        }
        assert!(!set.contains(1 << 28..=1 << 28));
    }

    #[test]
    fn interrupt_controllers_and_messages_are_the_hypervisors() {
        let set = rights(&board()).io_memory;
        assert!(!set.overlaps(0xf_ec00..=0xf_ec00) && !set.overlaps(0xf_ee00..=0xf_eeff));
        assert!(set.contains(0xf_ec01..=0xf_edff) && set.contains(0xf_ef00..=0xf_ef00));
        let high = Board { phys_bits: 48, ..board() };
        assert!(rights(&high).io_memory.contains(0xfd0_0000..=0xfff_ffff));
        let amd = Board { is_amd: true, ..high };
        assert!(!rights(&amd).io_memory.overlaps(0xfd0_0000..=0xfff_ffff));
    }

    #[test]
    fn ports_of_what_the_hypervisor_uses_are_kept_and_pci_is_not() {
        let set = rights(&board()).io_ports;
        for port in [0x20, 0xa1, 0x40, 0x43, 0x61, 0xcf9, 0x3f8, 0x3ff, 0x608, 0x60b, 0xe9] {
            assert!(!set.contains(port..=port), "{port:#x}");
        }
        for ports in [0xcf8..=0xcf8, 0xcfc..=0xcff, 0x70..=0x71, 0x60..=0x60, 0x64..=0x64, 0x2f8..=0x2ff, 0x3d4..=0x3d5]
        {
            assert!(set.contains(ports.clone()), "{ports:#x?}");
        }
        assert!(!set.contains(0x3f0..=0x3f8) && !set.contains(0xffff..=0x1_0000));
    }

    #[test]
    fn a_domain_that_is_not_the_initial_one_has_none() {
        assert!(Rights::default().io_memory.is_empty() && Rights::default().io_ports.is_empty());
    }
}
