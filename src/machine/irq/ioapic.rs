//! The I/O APICs (Intel 82093AA): all lines masked, but the one that the serial port raises.

use model::addr::MachineAddr;
use spin::Mutex;

use super::lapic;
use crate::acpi::Topology;
use crate::mem::map::{self, Rights};

const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const LOW_ACTIVE: u32 = 1 << 13;

struct IoApic {
    base: *mut u32,
}

impl IoApic {
    fn read(&self, register: u32) -> u32 {
        // SAFETY: `base` maps the index register and, 16 bytes on, the data register.
        unsafe {
            self.base.write_volatile(register);
            self.base.add(4).read_volatile()
        }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: as above.
        unsafe {
            self.base.write_volatile(register);
            self.base.add(4).write_volatile(value);
        }
    }

    fn lines(&self) -> u32 {
        (self.read(VERSION) >> 16 & 0xff) + 1
    }
}

/// Keeps index and data of each access together.
static ACCESS: Mutex<()> = Mutex::new(());

/// A register of the I/O APIC whose registers are at this machine address; `None` if there is no such one.
pub fn read(topology: &Topology, address: u64, register: u32) -> Option<u32> {
    topology.io_apics().iter().find(|chip| u64::from(chip.address) == address)?;
    let base = map::device(MachineAddr::new(address), 0x20, Rights::DEVICE)?;
    let _access = ACCESS.lock();
    Some(IoApic { base: base.cast() }.read(register & 0xff))
}

/// The I/O APICs, each with the number of its first line.
fn chips(topology: &Topology) -> impl Iterator<Item = (IoApic, u32)> {
    topology.io_apics().iter().filter_map(|chip| {
        let base = map::device(MachineAddr::new(u64::from(chip.address)), 0x20, Rights::DEVICE)?;
        Some((IoApic { base: base.cast() }, chip.first_gsi))
    })
}

/// Masks every line.
pub fn mask_all(topology: &Topology) {
    let _access = ACCESS.lock();
    for (chip, _) in chips(topology) {
        (0..chip.lines()).for_each(|line| chip.write(REDIRECTION + 2 * line, MASKED));
    }
}

/// Routes ISA interrupt `isa_irq` to this CPU as `vector`. Says whether a controller has the line and can reach this CPU.
pub fn route(topology: &Topology, isa_irq: u8, vector: u8) -> bool {
    let (wanted, destination) = (topology.isa(isa_irq), lapic::id());
    if destination >= 255 {
        return false;
    }
    let _access = ACCESS.lock();
    for (chip, first) in chips(topology) {
        let line = wanted.gsi.wrapping_sub(first);
        if line < chip.lines() {
            let level = if wanted.is_level { LEVEL } else { 0 };
            let polarity = if wanted.is_low_active { LOW_ACTIVE } else { 0 };
            chip.write(REDIRECTION + 2 * line + 1, destination << 24);
            chip.write(REDIRECTION + 2 * line, u32::from(vector) | level | polarity);
            return true;
        }
    }
    false
}
