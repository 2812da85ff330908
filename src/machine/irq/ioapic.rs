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

/// Masks every line, then routes ISA interrupt `isa_irq` to this CPU as `vector`. Says whether a controller has the line.
pub fn route_only(topology: &Topology, isa_irq: u8, vector: u8) -> bool {
    let wanted = topology.isa(isa_irq);
    let mut is_routed = false;
    for controller in topology.io_apics() {
        let Some(base) = map::device(MachineAddr::new(u64::from(controller.address)), 0x20, Rights::DEVICE) else {
            continue;
        };
        let chip = IoApic { base: base.cast() };
        let lines = chip.lines();
        (0..lines).for_each(|line| chip.write(REDIRECTION + 2 * line, MASKED));
        let line = wanted.gsi.wrapping_sub(controller.first_gsi);
        if line < lines {
            let level = if wanted.is_level { LEVEL } else { 0 };
            let polarity = if wanted.is_low_active { LOW_ACTIVE } else { 0 };
            chip.write(REDIRECTION + 2 * line + 1, lapic::id() << 24);
            chip.write(REDIRECTION + 2 * line, u32::from(vector) | level | polarity);
            is_routed = lapic::id() < 255;
        }
    }
    is_routed
}
