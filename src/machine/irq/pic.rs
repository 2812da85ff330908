//! The two 8259 interrupt controllers, silenced: every interrupt comes through the APICs.

use x86_64::instructions::port::Port;

/// Moves the controllers' vectors out of the exceptions' way and masks all of them.
pub fn silence() {
    // ICW1 to ICW4, then the mask (8259A data sheet): vectors 0x20 and 0x28, cascade on line 2, 8086 mode.
    let master = [(0x20, 0x11), (0x21, 0x20), (0x21, 0x04), (0x21, 0x01), (0x21, 0xff)];
    let slave = [(0xa0, 0x11), (0xa1, 0x28), (0xa1, 0x02), (0xa1, 0x01), (0xa1, 0xff)];
    for (port, value) in master.into_iter().chain(slave) {
        // SAFETY: the ports are the controllers' by the PC's convention; where there are none, nothing answers.
        unsafe { Port::<u8>::new(port).write(value) };
    }
}
