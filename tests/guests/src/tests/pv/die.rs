//! PV guests that leave their hypervisor no way to go on: it ends them alone, and says why.

use core::arch::asm;

use abi::nr;
use abi::xen::MMUEXT_NEW_BASEPTR;
use guest::mem::{self, Page};
use guest::pv::{mmu, traps, user};
use guest::start::Boot;
use guest::{hypercall, println};

static EMPTY: Page = Page::new();
const HYPERVISOR: u64 = 0xffff_8300_0000_1000;

/// A fault without a trap for it.
pub fn trap(_boot: &Boot) {
    hypercall::call(nr::SET_TRAP_TABLE, [0; 5]);
    // SAFETY: the last instruction of this guest.
    unsafe { asm!("ud2", options(noreturn)) };
}

/// A fault with a stack pointer at which nothing is mapped.
pub fn stack(_boot: &Boot) {
    // SAFETY: the last instructions of this guest.
    unsafe { asm!("mov rsp, {}", "ud2", in(reg) 0xf000_0000u64, options(noreturn)) };
}

/// A fault with a stack pointer in the hypervisor.
pub fn hole(_boot: &Boot) {
    // SAFETY: the last instructions of this guest.
    unsafe { asm!("mov rsp, {}", "ud2", in(reg) HYPERVISOR, options(noreturn)) };
}

/// The iret hypercall with a frame in the hypervisor.
pub fn iret(_boot: &Boot) {
    // SAFETY: the last instructions of this guest.
    unsafe { asm!("mov rsp, {}", "mov eax, 23", "syscall", "ud2", in(reg) HYPERVISOR, options(noreturn)) };
}

/// A return to user mode without a page table for it.
pub fn user_table(_boot: &Boot) {
    user::run(&user::frame());
    println!("die: still here");
}

/// A trap from user mode whose stack is in the hypervisor.
pub fn kernel_stack(_boot: &Boot) {
    println!("die: user mode {}", user::init());
    user::set_code(&[0xcd, 0x80]);
    println!("die: stack_switch {}", traps::stack_switch(traps::FLAT_SS, HYPERVISOR));
    user::run(&user::frame());
    println!("die: still here");
}

/// A top table that maps nothing.
pub fn base(_boot: &Boot) {
    mmu::wipe(&EMPTY);
    println!("die: protect {}", mmu::protect(&EMPTY));
    let ret = mmu::ext(MMUEXT_NEW_BASEPTR, guest::pv::p2m(EMPTY.addr() >> 12), 0);
    println!("die: still here, {ret} {:#x}", mem::peek64(EMPTY.addr()));
}
