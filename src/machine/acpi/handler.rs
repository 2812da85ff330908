//! How the `acpi` crate reaches firmware's memory. AML is not interpreted, so nothing here is for AML.

use core::ptr::NonNull;

use acpi::aml::AmlError;
use acpi::{Handle, Handler, PciAddress, PhysicalMapping};
use model::addr::MachineAddr;

use crate::mem::map::{self, Rights};

/// Firmware's tables, mapped read-only in the device window and left there.
#[derive(Clone, Copy)]
pub struct Firmware;

/// Stands in for a table whose address cannot be mapped: no signature matches its zeroes.
static NOTHING: [u64; 1024] = [0; 1024];

macro_rules! never {
    ($($name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {
        $(fn $name(&self, $($arg: $type),*) $(-> $out)? {
            $(let _ = $arg;)*
            unreachable!("AML is not interpreted")
        })*
    };
}

impl Handler for Firmware {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        let mapped = map::device(MachineAddr::new(address as u64), size as u64, Rights::RO);
        if mapped.is_none() {
            log::warn!("ACPI table at {address:#x} ({size} bytes) cannot be mapped and is left out");
        }
        let start = mapped.map_or(NonNull::from(&NOTHING).cast(), |pointer| {
            NonNull::new(pointer.cast()).unwrap_or(NonNull::from(&NOTHING).cast())
        });
        PhysicalMapping {
            physical_start: address,
            virtual_start: start,
            region_length: size,
            mapped_length: size,
            handler: *self,
        }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}

    never! {
        read_u8(address: usize) -> u8;
        read_u16(address: usize) -> u16;
        read_u32(address: usize) -> u32;
        read_u64(address: usize) -> u64;
        write_u8(address: usize, value: u8);
        write_u16(address: usize, value: u16);
        write_u32(address: usize, value: u32);
        write_u64(address: usize, value: u64);
        read_io_u8(port: u16) -> u8;
        read_io_u16(port: u16) -> u16;
        read_io_u32(port: u16) -> u32;
        write_io_u8(port: u16, value: u8);
        write_io_u16(port: u16, value: u16);
        write_io_u32(port: u16, value: u32);
        read_pci_u8(address: PciAddress, offset: u16) -> u8;
        read_pci_u16(address: PciAddress, offset: u16) -> u16;
        read_pci_u32(address: PciAddress, offset: u16) -> u32;
        write_pci_u8(address: PciAddress, offset: u16, value: u8);
        write_pci_u16(address: PciAddress, offset: u16, value: u16);
        write_pci_u32(address: PciAddress, offset: u16, value: u32);
        nanos_since_boot() -> u64;
        stall(microseconds: u64);
        sleep(milliseconds: u64);
        create_mutex() -> Handle;
        acquire(mutex: Handle, timeout: u16) -> Result<(), AmlError>;
        release(mutex: Handle);
    }
}
