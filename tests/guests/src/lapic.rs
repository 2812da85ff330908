//! The local APIC, by its page or by its MSRs (SDM 3A chapter 11).

use crate::{cpu, mem};

/// Where the registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the page at 0xfee00000.
    XApic,
    /// In MSRs from 0x800 on.
    X2Apic,
}

/// MSR of the local APIC's base, mode and BSP flag.
pub const APIC_BASE: u32 = 0x1b;
/// MSR of the TSC deadline.
pub const TSC_DEADLINE: u32 = 0x6e0;
const PAGE: u64 = 0xfee0_0000;

/// Register offsets in the page; the MSR is 0x800 + offset / 16.
#[expect(missing_docs, reason = "the names are the architecture's")]
pub mod reg {
    pub const ID: u32 = 0x20;
    pub const VERSION: u32 = 0x30;
    pub const TPR: u32 = 0x80;
    pub const PPR: u32 = 0xa0;
    pub const EOI: u32 = 0xb0;
    pub const SVR: u32 = 0xf0;
    pub const ISR: u32 = 0x100;
    pub const IRR: u32 = 0x200;
    pub const ESR: u32 = 0x280;
    pub const ICR: u32 = 0x300;
    pub const ICR_HIGH: u32 = 0x310;
    pub const LVT_TIMER: u32 = 0x320;
    pub const INITIAL: u32 = 0x380;
    pub const CURRENT: u32 = 0x390;
    pub const DIVIDE: u32 = 0x3e0;
    pub const SELF_IPI: u32 = 0x3f0;
}

/// The mode this virtual CPU is in.
pub fn mode() -> Mode {
    if cpu::rdmsr(APIC_BASE) & 1 << 10 != 0 { Mode::X2Apic } else { Mode::XApic }
}

/// Reads a register.
pub fn read(register: u32) -> u32 {
    match mode() {
        Mode::XApic => mem::peek32(PAGE + u64::from(register)),
        Mode::X2Apic => cpu::rdmsr(0x800 + register / 16) as u32,
    }
}

/// Writes a register.
pub fn write(register: u32, value: u32) {
    match mode() {
        Mode::XApic => mem::poke32(PAGE + u64::from(register), value),
        Mode::X2Apic => cpu::wrmsr(0x800 + register / 16, u64::from(value)),
    }
}

/// This virtual CPU's APIC id.
pub fn id() -> u32 {
    match mode() {
        Mode::XApic => read(reg::ID) >> 24,
        Mode::X2Apic => read(reg::ID),
    }
}

/// Enables it by software, with this spurious vector.
pub fn enable(spurious: u8) {
    write(reg::SVR, 0x100 | u32::from(spurious));
}

/// Ends the interrupt in service.
pub fn eoi() {
    write(reg::EOI, 0);
}

/// Sends an interrupt command: delivery mode and vector in the low word.
pub fn send(destination: u32, command: u32) {
    match mode() {
        Mode::XApic => {
            write(reg::ICR_HIGH, destination << 24);
            write(reg::ICR, command);
        }
        Mode::X2Apic => cpu::wrmsr(0x830, u64::from(destination) << 32 | u64::from(command)),
    }
}

/// The vector's bit in the ISR or IRR.
pub fn bit(register: u32, vector: u8) -> bool {
    read(register + u32::from(vector / 32) * 16) >> (vector % 32) & 1 == 1
}
