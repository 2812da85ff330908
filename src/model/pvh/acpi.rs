//! The ACPI tables of a PVH guest: RSDP, XSDT, FADT, MADT and an empty DSDT (ACPI 5.0 5.2).
//!
//! The hardware-reduced flag says that there is no PM timer, no SCI and no FACS, and keeps Linux from
//! probing a PIC and a PIT. The reset register is there so that a reboot is one port write; without it Linux
//! polls a keyboard controller for seconds before it falls back to a triple fault. There is no `_S5`, so
//! that a guest powers off by halting its last CPU with interrupts off.

use super::layout::{ACPI_BASE, LOCAL_APIC};
use alloc::vec::Vec;

/// The I/O port of the reset register, PCI chipsets' reset control (1 byte).
pub const RESET_PORT: u16 = 0xcf9;
/// What a guest writes to [`RESET_PORT`] to reboot: a full reset of all CPUs.
pub const RESET_VALUE: u8 = 0x06;

/// The local APIC's id of a virtual CPU.
pub fn apic_id(vcpu: u32) -> u32 {
    vcpu.saturating_mul(2)
}

/// Bytes that the tables take for `vcpus` virtual CPUs.
pub fn len(vcpus: u32) -> u64 {
    let cpus: u64 = (0..vcpus).map(|vcpu| cpu_entry(vcpu).len() as u64).sum();
    MADT_OFFSET + (HEADER_LEN + MADT_FIXED_LEN) as u64 + cpus
}

const HEADER_LEN: usize = 36;
const RSDP_LEN: usize = 36;
/// The FADT's length in revision 5.
const FADT_LEN: usize = 268;
const MADT_FIXED_LEN: usize = 8;

// Each table begins at a multiple of 64 bytes from ACPI_BASE; the one without fixed length is last.
const XSDT_OFFSET: u64 = 0x40;
const DSDT_OFFSET: u64 = 0x80;
const FADT_OFFSET: u64 = 0xc0;
const MADT_OFFSET: u64 = 0x200;

/// Fields of the FADT, by offset (ACPI 5.0 table 5-34).
mod fadt {
    pub const DSDT: usize = 40;
    pub const BOOT_ARCH: usize = 109;
    pub const FLAGS: usize = 112;
    /// A generic address structure.
    pub const RESET_REG: usize = 116;
    pub const RESET_VALUE: usize = 128;
    pub const X_DSDT: usize = 140;
}

/// `IAPC_BOOT_ARCH`; no legacy devices and no 8042 are the bits that are clear.
mod boot_arch {
    pub const NO_VGA: u16 = 1 << 2;
    pub const NO_CMOS_RTC: u16 = 1 << 5;
}

/// The FADT's flags.
mod flag {
    pub const WBINVD: u32 = 1 << 0;
    pub const PROC_C1: u32 = 1 << 2;
    /// No fixed power button.
    pub const PWR_BUTTON: u32 = 1 << 4;
    /// No fixed sleep button.
    pub const SLP_BUTTON: u32 = 1 << 5;
    pub const RESET_REG_SUP: u32 = 1 << 10;
    pub const HW_REDUCED: u32 = 1 << 20;
}

/// The tables as they lie in memory from [`ACPI_BASE`] on; the RSDP is first.
pub fn tables(vcpus: u32) -> Vec<u8> {
    let mut memory = Vec::new();
    for (offset, table) in [
        (0, rsdp()),
        (XSDT_OFFSET, xsdt()),
        (DSDT_OFFSET, table(*b"DSDT", 2, &[])),
        (FADT_OFFSET, fadt()),
        (MADT_OFFSET, madt(vcpus)),
    ] {
        memory.resize(offset as usize, 0);
        memory.extend_from_slice(&table);
    }
    memory
}

fn at(offset: u64) -> u64 {
    ACPI_BASE.raw() + offset
}

/// ACPI 5.0 5.2.5.3.
fn rsdp() -> Vec<u8> {
    let mut rsdp = b"RSD PTR \0EUXEN \x02\0\0\0\0".to_vec();
    rsdp.extend_from_slice(&(RSDP_LEN as u32).to_le_bytes());
    rsdp.extend_from_slice(&at(XSDT_OFFSET).to_le_bytes());
    rsdp.resize(RSDP_LEN, 0);
    rsdp[8] = checksum(&rsdp[..20]);
    rsdp[32] = checksum(&rsdp);
    rsdp
}

fn xsdt() -> Vec<u8> {
    table(*b"XSDT", 1, &[at(FADT_OFFSET).to_le_bytes(), at(MADT_OFFSET).to_le_bytes()].concat())
}

fn fadt() -> Vec<u8> {
    let mut body = [0; FADT_LEN - HEADER_LEN];
    let mut put = |offset: usize, bytes: &[u8]| body[offset - HEADER_LEN..][..bytes.len()].copy_from_slice(bytes);
    let dsdt = at(DSDT_OFFSET);
    put(fadt::DSDT, &dsdt.to_le_bytes()[..4]);
    put(fadt::X_DSDT, &dsdt.to_le_bytes());
    put(fadt::BOOT_ARCH, &(boot_arch::NO_VGA | boot_arch::NO_CMOS_RTC).to_le_bytes());
    let buttons = flag::PWR_BUTTON | flag::SLP_BUTTON;
    let flags = flag::WBINVD | flag::PROC_C1 | buttons | flag::RESET_REG_SUP | flag::HW_REDUCED;
    put(fadt::FLAGS, &flags.to_le_bytes());
    // System I/O space, 8 bits at bit 0, byte access (ACPI 5.0 5.2.3.1).
    put(fadt::RESET_REG, &[1, 8, 0, 1]);
    put(fadt::RESET_REG + 4, &u64::from(RESET_PORT).to_le_bytes());
    put(fadt::RESET_VALUE, &[RESET_VALUE]);
    table(*b"FACP", 5, &body)
}

/// The local APICs; there is no IO-APIC and no PIC.
fn madt(vcpus: u32) -> Vec<u8> {
    let mut body = LOCAL_APIC.raw().to_le_bytes()[..4].to_vec();
    body.extend_from_slice(&[0; 4]);
    for vcpu in 0..vcpus {
        body.extend_from_slice(&cpu_entry(vcpu));
    }
    table(*b"APIC", 3, &body)
}

/// A local APIC, or a local x2APIC from id 255 on (ACPI 5.0 5.2.12.2 and .12). Linux takes the
/// processor's UID for Xen's number of the virtual CPU.
fn cpu_entry(vcpu: u32) -> Vec<u8> {
    const ENABLED: [u8; 4] = [1, 0, 0, 0];
    match (u8::try_from(vcpu), u8::try_from(apic_id(vcpu))) {
        (Ok(uid), Ok(id)) if id != 0xff => [&[0, 8, uid, id], ENABLED.as_slice()].concat(),
        _ => [&[9, 16, 0, 0], apic_id(vcpu).to_le_bytes().as_slice(), &ENABLED, &vcpu.to_le_bytes()].concat(),
    }
}

/// A table with its header (ACPI 5.0 5.2.6). The tables are of fixed size but for the MADT, which has
/// 16 bytes for a virtual CPU, so the length fits.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let len = (HEADER_LEN + body.len()) as u32;
    let mut table = signature.to_vec();
    table.extend_from_slice(&len.to_le_bytes());
    table.extend_from_slice(&[revision, 0]);
    table.extend_from_slice(b"EUXEN PVHGUEST\x01\0\0\0EUXN\x01\0\0\0");
    table.extend_from_slice(body);
    table[9] = checksum(&table);
    table
}

/// The byte that makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, &byte| sum.wrapping_sub(byte))
}
