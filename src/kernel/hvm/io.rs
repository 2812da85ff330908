//! Port accesses of a guest without devices: reads are all ones, writes are lost, but for the few ports below.

use abi::xen::XEN_HVM_DEBUGCONS_IOPORT;
use machine::exit::Io;
use machine::virt::Virt;
use sync::Cx;
use sync::place::Root;

use super::emulate;
use crate::console;
use crate::domain::life::{self, Death};
use crate::run::{Next, Running};

/// The reset register that the FADT names (`model::pvh::acpi`), and PCs have: bit 2 resets.
const RESET: u16 = 0xcf9;
const RESET_CPU: u32 = 1 << 2;

/// IN, OUT, INS or OUTS.
pub fn handle(cx: &mut Cx<'_, Root>, run: &mut Running, access: Io) -> Next {
    let (Some(len), false) = (access.len, access.is_string) else { return emulate::instruction(cx, run) };
    let mask = if access.size == 4 { u64::from(u32::MAX) } else { (1 << (8 * access.size)) - 1 };
    if access.is_in {
        let value = u64::from(read(access.port)) & mask;
        let rax = &mut run.context.regs.rax;
        // A 32-bit result clears the upper half of the register, smaller ones leave the rest (SDM 1 3.4.1.1).
        *rax = if access.size == 4 { value } else { *rax & !mask | value };
    } else {
        let value = (run.context.regs.rax & mask) as u32;
        if write(cx, run, access.port, value) == Next::Schedule {
            return Next::Schedule;
        }
    }
    run.context.hw.skip(&mut run.context.regs, len);
    Next::Enter
}

/// What a port reads as.
pub(super) fn read(port: u16) -> u32 {
    match port {
        // By this value guests know that the debug console is there (as on Bochs and QEMU).
        XEN_HVM_DEBUGCONS_IOPORT => 0xe9,
        RESET => 0,
        _ => u32::MAX,
    }
}

/// Writes to a port.
pub(super) fn write(cx: &mut Cx<'_, Root>, run: &mut Running, port: u16, value: u32) -> Next {
    match port {
        XEN_HVM_DEBUGCONS_IOPORT => console::guest_write(cx, &run.domain, &[value as u8]),
        RESET if value & RESET_CPU != 0 => {
            life::end(cx, run, Death::Asked(abi::sched::SHUTDOWN_REBOOT));
            return Next::Schedule;
        }
        _ => {}
    }
    Next::Enter
}
