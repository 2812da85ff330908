//! Which hypercalls there are. `docs/abi.md` is checked against this list.

use abi::nr;

use super::{Handler, console, evtchn, grant, hvm, memory, multicall, sched, vcpu, version};

/// A hypercall.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Its number.
    pub number: u64,
    /// Its name in `xen.h`, less `__HYPERVISOR_`.
    pub name: &'static str,
    /// What does it.
    pub handler: Handler,
}

const fn entry(number: u64, name: &'static str, handler: Handler) -> Entry {
    Entry { number, name, handler }
}

/// The calls that PVH guests have, in the order of their numbers. Every other number answers `-ENOSYS`.
pub const TABLE: &[Entry] = &[
    entry(nr::MEMORY_OP, "memory_op", memory::op),
    entry(nr::MULTICALL, "multicall", multicall::op),
    entry(nr::SET_TIMER_OP, "set_timer_op", vcpu::set_timer),
    entry(nr::XEN_VERSION, "xen_version", version::op),
    entry(nr::CONSOLE_IO, "console_io", console::op),
    entry(nr::GRANT_TABLE_OP, "grant_table_op", grant::op),
    entry(nr::VM_ASSIST, "vm_assist", hvm::vm_assist),
    entry(nr::VCPU_OP, "vcpu_op", vcpu::op),
    entry(nr::SCHED_OP, "sched_op", sched::op),
    entry(nr::EVENT_CHANNEL_OP, "event_channel_op", evtchn::op),
    entry(nr::HVM_OP, "hvm_op", hvm::op),
];

/// One more than the highest number that can be in the table.
const NUMBERS: usize = 64;

/// The table by number; a number used twice does not compile.
const INDEX: [Option<Entry>; NUMBERS] = {
    let mut index = [None; NUMBERS];
    let mut at = 0;
    while at < TABLE.len() {
        let number = TABLE[at].number as usize;
        assert!(index[number].is_none(), "a hypercall number is used twice");
        index[number] = Some(TABLE[at]);
        at += 1;
    }
    index
};

static BY_NUMBER: [Option<Entry>; NUMBERS] = INDEX;

/// The call of this number.
#[inline]
pub fn find(number: u64) -> Option<&'static Entry> {
    BY_NUMBER.get(usize::try_from(number).ok()?)?.as_ref()
}
