//! The machine's ports, for a domain that has a right to them. Those that the hypervisor keeps are refused.
//!
//! CMOS and PCI configuration are reached by an index register and a data register: both accesses are one here, so that
//! no two CPUs mix theirs.

use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU16, Ordering};

use model::emul;
use model::pv::ports::{KEPT, SERIAL_PORTS};
use spin::Mutex;
use x86_64::instructions::port::{Port, PortWrite};

/// The first port of the serial console, 0 for none.
static SERIAL: AtomicU16 = AtomicU16::new(0);

static CMOS: Mutex<()> = Mutex::new(());
static CONFIG: Mutex<()> = Mutex::new(());

const CMOS_INDEX: u16 = 0x70;
const CMOS_DATA: u16 = 0x71;
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;

/// Keeps the ports of a serial console.
pub(crate) fn keep_serial(base: u16) {
    SERIAL.store(base, Ordering::Relaxed);
}

/// The ports that no domain has.
pub fn kept() -> impl Iterator<Item = RangeInclusive<u16>> {
    let serial = Some(SERIAL.load(Ordering::Relaxed)).filter(|&base| base != 0);
    KEPT.into_iter().chain(serial.map(|base| base..=base.saturating_add(SERIAL_PORTS - 1)))
}

fn is_free(port: emul::Port) -> bool {
    kept().all(|range| !port.touches(&range))
}

/// Reads 1, 2 or 4 bytes; `None` if one of them is the hypervisor's.
pub fn read(port: emul::Port) -> Option<u32> {
    if !is_free(port) {
        return None;
    }
    // SAFETY: the port is none of the hypervisor's; what a device does to memory of its own accord is the device's owner's
    // affair (docs/soundness.md).
    unsafe { read_any(port.number, port.size) }
}

/// Writes 1, 2 or 4 bytes; `false`, and nothing is written, if one of them is the hypervisor's.
pub fn write(port: emul::Port, value: u32) -> bool {
    // SAFETY: as in `read`.
    is_free(port) && unsafe { write_any(port.number, port.size, value) }
}

/// Reads a register of the CMOS.
pub fn read_cmos(index: u8) -> u8 {
    let _guard = CMOS.lock();
    // SAFETY: index and data port are the CMOS's; bit 7 would mask NMIs.
    unsafe {
        Port::<u8>::new(CMOS_INDEX).write(index & 0x7f);
        Port::<u8>::new(CMOS_DATA).read()
    }
}

/// Writes a register of the CMOS.
pub fn write_cmos(index: u8, value: u8) {
    let _guard = CMOS.lock();
    // SAFETY: as in `read_cmos`; the hypervisor reads the clock at boot only.
    unsafe {
        Port::<u8>::new(CMOS_INDEX).write(index & 0x7f);
        Port::<u8>::new(CMOS_DATA).write(value);
    }
}

/// Reads `size` bytes of PCI configuration, from byte `offset`, 0 to 3, of the register that `address` names, as port 0xcf8
/// takes it. All ones if it names none.
pub fn read_config(address: u32, offset: u8, size: u8) -> u32 {
    let _guard = CONFIG.lock();
    // SAFETY: these are the host bridge's; reading configuration changes nothing.
    unsafe {
        Port::<u32>::new(CONFIG_ADDRESS).write(address);
        read_any(CONFIG_DATA + u16::from(offset & 3), size).unwrap_or(u32::MAX)
    }
}

/// Writes to PCI configuration, as [`read_config`] reads.
pub fn write_config(address: u32, offset: u8, size: u8, value: u32) {
    let _guard = CONFIG.lock();
    // SAFETY: as in `write`: the hypervisor uses no PCI device.
    unsafe {
        Port::<u32>::new(CONFIG_ADDRESS).write(address);
        write_any(CONFIG_DATA + u16::from(offset & 3), size, value);
    }
}

/// # Safety
/// The caller may use these ports.
unsafe fn read_any(port: u16, size: u8) -> Option<u32> {
    // SAFETY: by the caller.
    unsafe {
        match size {
            1 => Some(u32::from(Port::<u8>::new(port).read())),
            2 => Some(u32::from(Port::<u16>::new(port).read())),
            4 => Some(Port::<u32>::new(port).read()),
            _ => None,
        }
    }
}

/// # Safety
/// The caller may use these ports.
unsafe fn write_any(port: u16, size: u8, value: u32) -> bool {
    // SAFETY: by the caller.
    unsafe {
        match size {
            1 => u8::write_to_port(port, value as u8),
            2 => u16::write_to_port(port, value as u16),
            4 => u32::write_to_port(port, value),
            _ => return false,
        }
    }
    true
}
