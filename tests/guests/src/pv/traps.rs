//! The trap table and the callbacks (`arch-x86/xen.h`, `callback.h`).

use abi::nr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::hypercall::{self, Ret};
use crate::mem;

/// The kernel's flat code selector.
pub const KERNEL_CS: u16 = 0xe033;
/// A user's flat 32-bit code selector.
pub const USER_CS32: u16 = 0xe023;
/// The flat data selector.
pub const FLAT_SS: u16 = 0xe02b;

/// `struct trap_info`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of xen.h")]
pub struct TrapInfo {
    pub vector: u8,
    pub flags: u8,
    pub cs: u16,
    pub pad: u32,
    pub address: u64,
}

/// `TI_SET_IF`: the trap masks events.
pub const MASKS_EVENTS: u8 = 4;

/// `CALLBACKTYPE_*`.
#[expect(missing_docs, reason = "the names are those of callback.h")]
pub mod kind {
    pub const EVENT: u16 = 0;
    pub const FAILSAFE: u16 = 1;
    pub const SYSCALL: u16 = 2;
    pub const NMI: u16 = 4;
    pub const SYSENTER: u16 = 5;
    pub const SYSCALL32: u16 = 7;
}

/// The vectors under which callbacks without one are handled.
pub const FAILSAFE: u8 = 0xf4;
/// A user's SYSCALL.
pub const SYSCALL: u8 = 0xf5;
/// A 32-bit user's SYSCALL.
pub const SYSCALL32: u8 = 0xf6;
/// A user's SYSENTER.
pub const SYSENTER: u8 = 0xf7;
/// A vector that users may raise.
pub const USER_VECTOR: u8 = 0x80;
/// A vector that only the kernel may raise.
pub const KERNEL_VECTOR: u8 = 0x81;

unsafe extern "C" {
    static pv_stubs: [[u8; 16]; 256];
    fn pv_event();
    fn pv_failsafe();
    fn pv_nmi();
    fn pv_syscall();
    fn pv_syscall32();
    fn pv_sysenter();
    static pv_failsafe_selectors: mem::Page;
}

static KERNEL_STACK: [mem::Page; 4] = [const { mem::Page::new() }; 4];

/// DS, ES, FS and GS of the last failsafe callback.
pub fn failsafe_selectors() -> [u64; 4] {
    let first = &raw const pv_failsafe_selectors as u64;
    [0, 8, 16, 24].map(|offset| mem::peek64(first + offset))
}

/// The address of a vector's stub.
pub fn stub(vector: u8) -> u64 {
    (&raw const pv_stubs as u64) + u64::from(vector) * 16
}

/// A vector's entry in the table that [`init`] sets.
pub fn standard(vector: u8) -> TrapInfo {
    let dpl = match vector {
        3 | 4 | USER_VECTOR => 3,
        0x20.. => 1,
        _ => 0,
    };
    TrapInfo { vector, flags: dpl | MASKS_EVENTS, cs: KERNEL_CS, pad: 0, address: stub(vector) }
}

/// `set_trap_table` of one vector.
pub fn set(trap: TrapInfo) -> Ret {
    let table = [trap, TrapInfo { vector: 0, flags: 0, cs: 0, pad: 0, address: 0 }];
    hypercall::call(nr::SET_TRAP_TABLE, [table.as_ptr() as u64, 0, 0, 0, 0])
}

/// `struct callback_register`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct CallbackRegister {
    kind: u16,
    flags: u16,
    pad: u32,
    address: u64,
}

/// `CALLBACKOP_register`.
pub fn register(kind: u16, flags: u16, address: u64) -> Ret {
    let arg = CallbackRegister { kind, flags, pad: 0, address };
    hypercall::call(nr::CALLBACK_OP, [0, mem::addr_of(&arg), 0, 0, 0])
}

/// `CALLBACKOP_unregister`.
pub fn unregister(kind: u16) -> Ret {
    let arg = u32::from(kind);
    hypercall::call(nr::CALLBACK_OP, [1, mem::addr_of(&arg), 0, 0, 0])
}

/// The address of a callback.
pub fn callback(which: u16) -> u64 {
    let entry: unsafe extern "C" fn() = match which {
        kind::EVENT => pv_event,
        kind::FAILSAFE => pv_failsafe,
        kind::NMI => pv_nmi,
        kind::SYSENTER => pv_sysenter,
        kind::SYSCALL32 => pv_syscall32,
        _ => pv_syscall,
    };
    entry as *const () as u64
}

/// The top of the stack for traps from user mode, of the first virtual CPU.
pub fn kernel_stack() -> u64 {
    KERNEL_STACK[3].addr() + 4096
}

/// `stack_switch`.
pub fn stack_switch(ss: u16, sp: u64) -> Ret {
    hypercall::call(nr::STACK_SWITCH, [ss.into(), sp, 0, 0, 0])
}

/// Sets this virtual CPU's traps and callbacks; the stack for traps from user mode is the caller's to set.
pub fn load() -> Ret {
    let mut table = [TrapInfo { vector: 0, flags: 0, cs: 0, pad: 0, address: 0 }; 257];
    for vector in 0..=255u8 {
        table[usize::from(vector)] = standard(vector);
    }
    let trapped = hypercall::call(nr::SET_TRAP_TABLE, [table.as_ptr() as u64, 0, 0, 0, 0]);
    // The callbacks that some processors have no use for are registered by the tests.
    let all = [kind::EVENT, kind::FAILSAFE, kind::SYSCALL, kind::NMI];
    all.into_iter().map(|kind| register(kind, 1, callback(kind))).fold(trapped, |worst, ret| worst.min(ret))
}

/// The same on the first virtual CPU, with its stack.
pub fn init() -> Ret {
    load().min(stack_switch(FLAT_SS, kernel_stack()))
}
