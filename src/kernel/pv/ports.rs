//! Ports of a PV guest: what it reads and writes, once its own rules have let it (`model::pv::privileged`).
//!
//! A domain with a right to a port reaches the machine's. What it must share with others, CMOS and PCI configuration, and
//! ports without a right are answered by the hypervisor, as in Xen: all ones are read, and writes are lost.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use machine::ports;
use model::emul::Port;
use model::pv::ports::{Part, parts};
use model::rangeset::RangeSet;

use crate::run::Running;

/// The ports of a domain.
#[derive(Default)]
pub struct Ports {
    /// Those that it may use.
    pub rights: RangeSet,
    /// What it wrote to the index register of the CMOS.
    cmos_index: AtomicU8,
    /// What it wrote to the address register of PCI configuration.
    config_address: AtomicU32,
}

/// The bit of the address register that says that there is an address.
const CONFIG_ENABLED: u32 = 1 << 31;
/// The data port of the CMOS, whose right is the right to the CMOS.
const CMOS: u64 = 0x71;

impl Ports {
    /// All, but for those that the hypervisor keeps, or none.
    pub fn new(has_all: bool) -> Self {
        let mut rights = RangeSet::new();
        if has_all {
            rights.add(0..=0xffff);
            ports::kept().for_each(|range| rights.remove(u64::from(*range.start())..=u64::from(*range.end())));
            rights.add(CMOS - 1..=CMOS);
        }
        Self { rights, ..Self::default() }
    }

    fn has(&self, port: Port) -> bool {
        let first = u64::from(port.number);
        port.size != 0 && self.rights.contains(first..=first + u64::from(port.size) - 1)
    }

    fn has_cmos(&self) -> bool {
        self.rights.contains(CMOS - 1..=CMOS)
    }
}

/// What the guest reads.
pub fn read(run: &Running, port: Port) -> u32 {
    let Some(pv) = &run.domain.pv else { return u32::MAX };
    if pv.ports.has(port)
        && let Some(value) = ports::read(port)
    {
        return value;
    }
    let (mut value, mut shift) = (0u64, 0);
    for (part, size) in parts(port) {
        value |= u64::from(read_part(&pv.ports, pv.is_initial, part, size) & mask(size)) << shift;
        shift += 8 * size;
    }
    value as u32
}

fn read_part(ports: &Ports, is_initial: bool, part: Part, size: u8) -> u32 {
    let address = ports.config_address.load(Ordering::Relaxed);
    match part {
        Part::CmosIndex => u32::from(ports.cmos_index.load(Ordering::Relaxed)),
        Part::CmosData if ports.has_cmos() => u32::from(ports::read_cmos(ports.cmos_index.load(Ordering::Relaxed))),
        Part::ConfigAddress => address,
        Part::ConfigData(offset) if is_initial && address & CONFIG_ENABLED != 0 => {
            ports::read_config(address, offset, size)
        }
        _ => u32::MAX,
    }
}

/// What the guest writes.
pub fn write(run: &Running, port: Port, value: u32) {
    let Some(pv) = &run.domain.pv else { return };
    if pv.ports.has(port) && ports::write(port, value) {
        return;
    }
    let mut left = u64::from(value);
    for (part, size) in parts(port) {
        write_part(&pv.ports, pv.is_initial, part, size, left as u32 & mask(size));
        left >>= 8 * size;
    }
}

fn write_part(ports: &Ports, is_initial: bool, part: Part, size: u8, value: u32) {
    match part {
        Part::CmosIndex => ports.cmos_index.store(value as u8, Ordering::Relaxed),
        Part::CmosData if ports.has_cmos() => {
            ports::write_cmos(ports.cmos_index.load(Ordering::Relaxed), value as u8);
        }
        Part::ConfigAddress => ports.config_address.store(value, Ordering::Relaxed),
        Part::ConfigData(offset) if is_initial => {
            let address = ports.config_address.load(Ordering::Relaxed);
            if address & CONFIG_ENABLED != 0 {
                ports::write_config(address, offset, size, value);
            }
        }
        _ => {}
    }
}

fn mask(size: u8) -> u32 {
    u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)))
}
