//! What firmware says about the board: processors and their nodes, I/O APICs, counters, PCI segments.
//!
//! Tables are read once at boot, into [`Topology`]. Firmware can be wrong: what is not believable is left out with
//! a warning, and a machine without tables is one CPU with an 8254.

mod handler;
pub mod sleep;

use alloc::vec::Vec;
use core::pin::Pin;
use core::slice;

use acpi::AcpiTables;
use acpi::address::{AddressSpace, GenericAddress};
use acpi::sdt::Signature;
use acpi::sdt::fadt::Fadt;
use acpi::sdt::hpet::HpetInfo;
use acpi::sdt::madt::{Madt, MadtEntry};
use acpi::sdt::mcfg::Mcfg;
use model::addr::MachineAddr;
use model::numa::Nodes;

use crate::boot::Rsdp;
use crate::mem::map::{self, Rights};
use handler::Firmware;

/// The longest table that is read as bytes.
const LEN_MAX: u32 = 256 << 10;

/// An I/O APIC.
#[derive(Clone, Copy, Debug)]
pub struct IoApic {
    /// Physical address of its registers.
    pub address: u32,
    /// The global system interrupt of its first line.
    pub first_gsi: u32,
}

/// How an ISA interrupt is wired.
#[derive(Clone, Copy, Debug)]
pub struct IsaLine {
    /// Its global system interrupt.
    pub gsi: u32,
    /// Level- instead of edge-triggered.
    pub is_level: bool,
    /// Active low instead of high.
    pub is_low_active: bool,
}

/// A counter of known rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The HPET's main counter, its registers at this physical address.
    Hpet(u64),
    /// The ACPI power-management timer at this port, 3,579,545 Hz.
    PmTimer {
        /// I/O port.
        port: u16,
        /// 32 bits wide instead of 24.
        is_32_bit: bool,
    },
}

/// An MMCONFIG area of PCI.
#[derive(Clone, Copy, Debug)]
pub struct PciSegment {
    /// Physical address of bus 0.
    pub address: u64,
    /// Segment group.
    pub segment: u16,
    /// First and last bus.
    pub buses: (u8, u8),
}

/// The board.
#[derive(Default)]
pub struct Topology {
    apic_ids: Vec<u32>,
    /// The number by which ACPI knows each of them.
    acpi_ids: Vec<u32>,
    /// The ports of the PM1a and PM1b control registers.
    pm1_control: [Option<u16>; 2],
    io_apics: Vec<IoApic>,
    overrides: Vec<(u8, IsaLine)>,
    references: Vec<Reference>,
    pci: Vec<PciSegment>,
    nodes: Nodes,
}

/// A whole table, header and all; of one that is too long to be true, the first bytes.
fn bytes(tables: &AcpiTables<Firmware>, signature: Signature) -> Option<Vec<u8>> {
    let (address, header) = tables.table_headers().find(|(_, header)| header.signature == signature)?;
    let len = header.length.min(LEN_MAX);
    let at = map::device(MachineAddr::new(address as u64), u64::from(len), Rights::RO)?;
    // SAFETY: so many bytes are mapped there, and nobody writes them before there is a guest.
    let table = unsafe { slice::from_raw_parts(at, len as usize) };
    Some(table.to_vec())
}

/// The port of a register, if it has one.
fn port(register: GenericAddress) -> Option<u16> {
    if register.address_space != AddressSpace::SystemIo {
        return None;
    }
    u16::try_from(register.address).ok().filter(|&port| port != 0)
}

impl Topology {
    /// Reads the tables under `rsdp`.
    pub fn read(rsdp: Option<Rsdp>) -> Self {
        let mut topology = Self::default();
        let Some(rsdp) = rsdp else {
            log::warn!("the boot loader gave no ACPI tables: one CPU is used");
            return topology;
        };
        let revision = if rsdp.is_xsdt { 2 } else { 0 };
        // SAFETY: the address is the firmware's, from a tag with a valid checksum; `Firmware` maps it read-only.
        match unsafe { AcpiTables::from_rsdt(Firmware, revision, rsdp.root.raw() as usize) } {
            Ok(tables) => topology.fill(&tables),
            Err(error) => log::warn!("ACPI tables cannot be used ({error:?}): one CPU is used"),
        }
        topology
    }

    fn fill(&mut self, tables: &AcpiTables<Firmware>) {
        match tables.find_table::<Madt>() {
            Some(madt) => self.add_interrupts(madt.get()),
            None => log::warn!("ACPI has no MADT: one CPU is used"),
        }
        if let Ok(hpet) = HpetInfo::new(tables) {
            self.references.push(Reference::Hpet(hpet.base_address as u64));
        }
        if let Some(fadt) = tables.find_table::<Fadt>()
            && let Ok(Some(timer)) = fadt.get().pm_timer_block()
            && timer.address_space == AddressSpace::SystemIo
            && let Ok(port) = u16::try_from(timer.address)
        {
            let flags = fadt.get().flags;
            self.references.push(Reference::PmTimer { port, is_32_bit: flags.pm_timer_is_32_bit() });
        }
        if let Some(fadt) = tables.find_table::<Fadt>() {
            let (a, b) = (fadt.get().pm1a_control_block(), fadt.get().pm1b_control_block());
            self.pm1_control = [a.ok(), b.ok().flatten()].map(|register| register.and_then(port));
        }
        if let Some(mcfg) = tables.find_table::<Mcfg>() {
            self.pci.extend(mcfg.entries().iter().map(|entry| PciSegment {
                address: entry.base_address,
                segment: entry.pci_segment_group,
                buses: (entry.bus_number_start, entry.bus_number_end),
            }));
        }
        // The crate's own type takes a structure's length for 16 bits.
        if let Some(srat) = bytes(tables, Signature::SRAT) {
            self.nodes = Nodes::of_srat(&srat);
            log::info!("{} NUMA nodes by the SRAT", self.nodes.count());
        }
    }

    fn add_interrupts(&mut self, madt: Pin<&Madt>) {
        for entry in madt.entries() {
            match entry {
                MadtEntry::LocalApic(cpu) if cpu.flags & 1 != 0 => {
                    self.add_cpu(u32::from(cpu.apic_id), u32::from(cpu.processor_id));
                }
                MadtEntry::LocalX2Apic(cpu) if cpu.flags & 1 != 0 => self.add_cpu(cpu.x2apic_id, cpu.processor_uid),
                MadtEntry::IoApic(chip) => self
                    .io_apics
                    .push(IoApic { address: chip.io_apic_address, first_gsi: chip.global_system_interrupt_base }),
                MadtEntry::InterruptSourceOverride(line) if line.bus == 0 => {
                    let flags = line.flags;
                    let wiring = IsaLine {
                        gsi: line.global_system_interrupt,
                        is_level: flags >> 2 & 3 == 3,
                        is_low_active: flags & 3 == 3,
                    };
                    self.overrides.push((line.irq, wiring));
                }
                _ => {}
            }
        }
    }

    fn add_cpu(&mut self, apic_id: u32, acpi_id: u32) {
        if !self.apic_ids.contains(&apic_id) {
            self.apic_ids.push(apic_id);
            self.acpi_ids.push(acpi_id);
        }
    }

    /// The number by which ACPI knows the processor with this APIC id.
    pub fn acpi_id(&self, apic_id: u32) -> Option<u32> {
        let at = self.apic_ids.iter().position(|&id| id == apic_id)?;
        self.acpi_ids.get(at).copied()
    }

    /// The APIC ids of the processors that can be used.
    pub fn apic_ids(&self) -> &[u32] {
        &self.apic_ids
    }

    /// The NUMA node of the processor with this APIC id, if the SRAT says it; nodes have numbers from 0 without gaps.
    pub fn node_of(&self, apic_id: u32) -> Option<u16> {
        self.nodes.node_of(apic_id)
    }

    /// The I/O APICs.
    pub fn io_apics(&self) -> &[IoApic] {
        &self.io_apics
    }

    /// How ISA interrupt `irq` is wired.
    pub fn isa(&self, irq: u8) -> IsaLine {
        let found = self.overrides.iter().find(|(isa, _)| *isa == irq);
        found.map_or(IsaLine { gsi: u32::from(irq), is_level: false, is_low_active: false }, |(_, line)| *line)
    }

    /// The counters of known rate, the best first.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// The MMCONFIG areas.
    pub fn pci_segments(&self) -> &[PciSegment] {
        &self.pci
    }
}
