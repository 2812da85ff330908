//! Which hypercalls there are. `docs/abi.md` is checked against this list.

use abi::nr;

use super::{Handler, assist, console, evtchn, grant, hvm, memory, multicall, sched, vcpu, version};
use crate::pv::{bounce, calls, mmu, physdev, platform};

/// A hypercall.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Its number.
    pub number: u64,
    /// Its name in `xen.h`, less `__HYPERVISOR_`.
    pub name: &'static str,
    /// Which kinds of guest have it.
    pub guests: Guests,
    /// What does it.
    pub handler: Handler,
}

/// Kinds of guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guests {
    /// PV alone.
    Pv,
    /// Both.
    All,
}

use Guests::{All, Pv};

const fn entry(number: u64, name: &'static str, guests: Guests, handler: Handler) -> Entry {
    Entry { number, name, guests, handler }
}

/// The calls that there are, in the order of their numbers. Every other number answers `-ENOSYS`.
pub const TABLE: &[Entry] = &[
    entry(nr::SET_TRAP_TABLE, "set_trap_table", Pv, calls::set_trap_table),
    entry(nr::MMU_UPDATE, "mmu_update", Pv, mmu::update),
    entry(nr::SET_GDT, "set_gdt", Pv, mmu::set_gdt),
    entry(nr::STACK_SWITCH, "stack_switch", Pv, calls::stack_switch),
    entry(nr::SET_CALLBACKS, "set_callbacks", Pv, calls::set_callbacks),
    entry(nr::FPU_TASKSWITCH, "fpu_taskswitch", Pv, calls::fpu_taskswitch),
    entry(nr::PLATFORM_OP, "platform_op", Pv, platform::op),
    entry(nr::SET_DEBUGREG, "set_debugreg", Pv, calls::set_debugreg),
    entry(nr::GET_DEBUGREG, "get_debugreg", Pv, calls::get_debugreg),
    entry(nr::UPDATE_DESCRIPTOR, "update_descriptor", Pv, mmu::update_descriptor),
    entry(nr::MEMORY_OP, "memory_op", All, memory::op),
    entry(nr::MULTICALL, "multicall", All, multicall::op),
    entry(nr::UPDATE_VA_MAPPING, "update_va_mapping", Pv, mmu::update_va_mapping),
    entry(nr::SET_TIMER_OP, "set_timer_op", All, vcpu::set_timer),
    entry(nr::XEN_VERSION, "xen_version", All, version::op),
    entry(nr::CONSOLE_IO, "console_io", All, console::op),
    entry(nr::GRANT_TABLE_OP, "grant_table_op", All, grant::op),
    entry(nr::VM_ASSIST, "vm_assist", All, assist::op),
    entry(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, "update_va_mapping_otherdomain", Pv, mmu::update_va_mapping_other),
    entry(nr::IRET, "iret", Pv, bounce::iret),
    entry(nr::VCPU_OP, "vcpu_op", All, vcpu::op),
    entry(nr::SET_SEGMENT_BASE, "set_segment_base", Pv, calls::set_segment_base),
    entry(nr::MMUEXT_OP, "mmuext_op", Pv, mmu::ext_op),
    entry(nr::NMI_OP, "nmi_op", Pv, calls::nmi_op),
    entry(nr::SCHED_OP, "sched_op", All, sched::op),
    entry(nr::CALLBACK_OP, "callback_op", Pv, calls::callback_op),
    entry(nr::EVENT_CHANNEL_OP, "event_channel_op", All, evtchn::op),
    entry(nr::PHYSDEV_OP, "physdev_op", Pv, physdev::op),
    entry(nr::HVM_OP, "hvm_op", All, hvm::op),
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

/// The handlers of PV guests' calls by number.
static OF_PV: [Option<Handler>; NUMBERS] = {
    let mut handlers = [None; NUMBERS];
    let mut number = 0;
    while number < NUMBERS {
        if let Some(Entry { guests: Guests::Pv | Guests::All, handler, .. }) = INDEX[number] {
            handlers[number] = Some(handler);
        }
        number += 1;
    }
    handlers
};

/// What does the call of this number for a PV guest.
#[inline]
pub fn find_pv(number: u64) -> Option<Handler> {
    if number < NUMBERS as u64 { OF_PV[number as usize] } else { None }
}
