//! Instructions.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc};

/// Registers after CPUID.
pub use core::arch::x86_64::CpuidResult;

use crate::{events, hypercall, mem, pv};

/// CPUID of a leaf and subleaf; in a PV guest with the prefix that asks the hypervisor.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    if pv::is_pv() { forced_cpuid(leaf, subleaf) } else { __cpuid_count(leaf, subleaf) }
}

/// CPUID behind `XEN_EMULATE_PREFIX`.
pub fn forced_cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let (eax, ebx, ecx, edx): (u32, u64, u32, u32);
    // SAFETY: the hypervisor does what CPUID does, and nothing else.
    unsafe {
        asm!("mov {saved}, rbx", ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid", "xchg {saved}, rbx", saved = out(reg) ebx,
            inout("eax") leaf => eax, inout("ecx") subleaf => ecx, out("edx") edx, options(nostack));
    }
    CpuidResult { eax, ebx: ebx as u32, ecx, edx }
}

/// CPUID without the prefix, whatever the guest.
pub fn plain_cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// The time stamp counter.
pub fn tsc() -> u64 {
    // SAFETY: CR4.TSD is clear.
    unsafe { _rdtsc() }
}

/// The processor's vendor is AMD or Hygon: its hypercall instruction is VMMCALL.
pub fn is_amd() -> bool {
    let id = cpuid(0, 0);
    [id.ebx, id.edx, id.ecx] == [0x6874_7541, 0x6974_6e65, 0x444d_4163]
        || [id.ebx, id.edx, id.ecx] == [0x6f67_7948, 0x6e65_476e, 0x656e_6975]
}

/// Reads an MSR; a fault ends the guest.
pub fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: an MSR read has no effect on memory.
    unsafe { asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR; a fault ends the guest.
pub fn wrmsr(msr: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the tests write MSRs that leave this code running.
    unsafe { asm!("wrmsr", in("ecx") msr, in("eax") low, in("edx") high, options(nostack)) };
}

/// Reads an MSR, or gives the fault.
pub fn try_rdmsr(msr: u32) -> Result<u64, crate::interrupts::Fault> {
    let (low, high): (u32, u32);
    // SAFETY: an MSR read has no effect on memory, and its fault is caught.
    let fault = unsafe { crate::attempt!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high) };
    fault.map_or(Ok(u64::from(high) << 32 | u64::from(low)), Err)
}

/// Writes an MSR, or gives the fault.
pub fn try_wrmsr(msr: u32, value: u64) -> Result<(), crate::interrupts::Fault> {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: as for `wrmsr`, and its fault is caught.
    let fault = unsafe { crate::attempt!("wrmsr", in("ecx") msr, in("eax") low, in("edx") high) };
    fault.map_or(Ok(()), Err)
}

macro_rules! ports {
    ($read:ident, $write:ident, $int:ty, $register:tt) => {
        /// Reads a port.
        pub fn $read(port: u16) -> $int {
            let value: $int;
            // SAFETY: a port access has no effect on memory.
            unsafe { asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value, options(nomem, nostack)) };
            value
        }
        /// Writes a port.
        pub fn $write(port: u16, value: $int) {
            // SAFETY: a port access has no effect on memory.
            unsafe { asm!(concat!("out dx, ", $register), in("dx") port, in($register) value, options(nomem, nostack)) };
        }
    };
}
ports!(inb, outb, u8, "al");
ports!(inw, outw, u16, "ax");
ports!(inl, outl, u32, "eax");

macro_rules! control_register {
    ($read:ident, $write:ident, $name:tt) => {
        /// Reads the control register.
        pub fn $read() -> u64 {
            let value: u64;
            // SAFETY: a read of a control register has no effect on memory.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack)) };
            value
        }
        /// Writes the control register, or gives the fault.
        pub fn $write(value: u64) -> Result<(), crate::interrupts::Fault> {
            // SAFETY: the tests write values that leave this code running, or that fault, which is caught.
            let fault = unsafe { crate::attempt!(concat!("mov ", $name, ", {}"), in(reg) value) };
            fault.map_or(Ok(()), Err)
        }
    };
}
control_register!(cr0, set_cr0, "cr0");
control_register!(cr2, set_cr2, "cr2");
control_register!(cr3, set_cr3, "cr3");
control_register!(cr4, set_cr4, "cr4");
control_register!(cr8, set_cr8, "cr8");

/// Lets interrupts, or a PV guest's events, in.
pub fn sti() {
    if pv::is_pv() {
        let info = events::vcpu_info(pv::smp::me());
        mem::poke8(info + 1, 0);
        if mem::peek8(info) != 0 {
            // Any hypercall lets it come.
            hypercall::call(abi::nr::XEN_VERSION, [0; 5]);
        }
        return;
    }
    // SAFETY: handlers for all vectors are in place.
    unsafe { asm!("sti", options(nostack)) };
}

/// Keeps interrupts, or a PV guest's events, out.
pub fn cli() {
    if pv::is_pv() {
        return mem::poke8(events::vcpu_info(pv::smp::me()) + 1, 1);
    }
    // SAFETY: always allowed in ring 0.
    unsafe { asm!("cli", options(nostack)) };
}

/// Sleeps until an interrupt has been taken; none is lost between.
pub fn sti_hlt_cli() {
    if pv::is_pv() {
        hypercall::call(abi::nr::SCHED_OP, [abi::sched::SCHEDOP_BLOCK.into(), 0, 0, 0, 0]);
        return cli();
    }
    // SAFETY: handlers for all vectors are in place.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// Halts with interrupts off, for ever but for an NMI.
pub fn cli_hlt() -> ! {
    loop {
        if pv::is_pv() {
            pv::smp::down(pv::smp::me());
            continue;
        }
        // SAFETY: this is the end of this virtual CPU.
        unsafe { asm!("cli", "hlt", options(nostack)) };
    }
}

/// Tells the processor that this is a spinning loop.
pub fn pause() {
    core::hint::spin_loop();
}
