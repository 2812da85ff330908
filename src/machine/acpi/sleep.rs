//! Sleep states, by the PM1 control registers (ACPI 6.5 4.8.3.2).

use x86_64::instructions::port::Port;

use super::Topology;
use crate::console;

/// `SLP_EN`.
const ENABLE: u16 = 1 << 13;

/// Whether the board has the registers.
pub fn is_possible(topology: &Topology) -> bool {
    topology.pm1_control[0].is_some()
}

/// Turns the machine off, by the sleep types for S5 that its AML names, in the registers' own place. Comes back if
/// the machine does not obey.
pub fn power_off(topology: &Topology, values: [u16; 2]) {
    let registers = topology.pm1_control.into_iter().zip(values);
    console::flush();
    // First the types, then the types with the order to go.
    for enable in [0, ENABLE] {
        for (port, value) in registers.clone().filter_map(|(port, value)| Some((port?, value))) {
            // SAFETY: firmware says that these ports are the registers; whatever they do, the machine is to end here.
            unsafe { Port::<u16>::new(port).write(value & !ENABLE | enable) };
        }
    }
}
