//! What the operations cost that only a PV guest has; rows as in `cost.rs`.

use abi::nr;
use abi::xen::{
    DOMID_SELF, MMUEXT_INVLPG_LOCAL, MMUEXT_TLB_FLUSH_LOCAL, MmuUpdate, MmuextOp, VMASST_TYPE_WRITABLE_PAGETABLES,
};
use guest::hypercall::{self, Ret};
use guest::mem::{self, Page};
use guest::pv::mmu::{self, AVAILABLE, KERNEL, WRITABLE};
use guest::pv::traps::{self, FLAT_SS, TrapInfo};
use guest::pv::user;
use guest::start::Boot;
use guest::{check, cpu};

use super::super::cost::{MANY, hypercall_loop, row};
use crate::{hypercall_ticks, ticks};

static PAGE: Page = Page::new();
/// An address that nothing maps.
const UNMAPPED: u64 = 0xf000_0000;

core::arch::global_asm!(
    // Handlers that go on behind an instruction of three or of two bytes, or where the frame says; the first has
    // an error code.
    "cost_pv_fault:",
    "pop rcx",
    "pop r11",
    "add rsp, 8",
    "add qword ptr [rsp], 3",
    "jmp 3f",
    "cost_pv_skip_two:",
    "pop rcx",
    "pop r11",
    "add qword ptr [rsp], 2",
    "jmp 3f",
    "cost_pv_return:",
    "pop rcx",
    "pop r11",
    "3:",
    "push 0",
    "push rcx",
    "push r11",
    "push rax",
    "mov eax, 23",
    "syscall",
    // A trap from user mode: back there R12 times, then to the caller of `cost_pv_user` with its stack R13.
    "cost_pv_user_trap:",
    "dec r12",
    "jz 4f",
    "pop rcx",
    "pop r11",
    "push 0",
    "push rcx",
    "push r11",
    "push rax",
    "mov eax, 23",
    "syscall",
    "4:",
    "mov rsp, r13",
    "pop rbp",
    "pop rbx",
    "ret",
    // To user mode: RDI the count, RSI the address, RDX the stack, RCX and R8 the selectors.
    "cost_pv_user:",
    "push rbx",
    "push rbp",
    "mov r13, rsp",
    "mov r12, rdi",
    "push r8",
    "push rdx",
    "push 0x2",
    "push rcx",
    "push rsi",
    "push 0",
    "push 0",
    "push 0",
    "push 0",
    "mov eax, 23",
    "syscall",
);

unsafe extern "C" {
    fn cost_pv_fault();
    fn cost_pv_skip_two();
    fn cost_pv_return();
    fn cost_pv_user_trap();
    fn cost_pv_user();
}

/// Measures.
pub fn run(_boot: &Boot) {
    mapping();
    updates();
    extended();
    faults();
    privileged();
    user_mode();
}

/// Ticks of `update_va_mapping` that changes an entry and has its translation forgotten.
pub fn mapping_of_an_entry(many: u64) -> u64 {
    toggled(many, mmu::UVMF_INVLPG, AVAILABLE)
}

/// Ticks of `mmu_update` that changes an entry.
pub fn update_of_an_entry(many: u64) -> u64 {
    updated(many, AVAILABLE)
}

fn toggled(many: u64, flags: u64, bit: u64) -> u64 {
    let entry = mmu::own(&PAGE, KERNEL);
    // SAFETY: the page stays mapped, and nobody uses it.
    let ticks = unsafe {
        hypercall_ticks!(many, ["mov eax, 14", "xor rsi, r13"], [], out("rax") _, in("rdi") PAGE.addr(),
            inout("rsi") entry => _, in("rdx") flags, in("r13") bit)
    };
    mmu::update_va(PAGE.addr(), entry, mmu::UVMF_INVLPG);
    ticks
}

fn mapping() {
    row("update_va_mapping, available bit, no flush", toggled(MANY, 0, AVAILABLE));
    row("update_va_mapping, available bit, UVMF_INVLPG", toggled(MANY, mmu::UVMF_INVLPG, AVAILABLE));
    row("update_va_mapping, writable bit to and fro, UVMF_INVLPG", toggled(MANY, mmu::UVMF_INVLPG, WRITABLE));
}

fn updated(many: u64, bit: u64) -> u64 {
    let mut request = MmuUpdate { ptr: mmu::l1_entry(PAGE.addr()), val: mmu::own(&PAGE, KERNEL) };
    let list = mem::addr_of_mut(&mut request);
    // SAFETY: the page stays mapped, and nobody uses it.
    unsafe {
        hypercall_ticks!(many, ["mov eax, 1", "xor qword ptr [rdi + 8], r13"], [], out("rax") _, in("rdi") list,
            in("rsi") 1u64, in("rdx") 0u64, in("r10") u64::from(DOMID_SELF), in("r13") bit)
    }
}

fn updates() {
    row("mmu_update, one L1 entry, no change", updated(MANY, 0));
    row("mmu_update, one L1 entry, available bit", updated(MANY, AVAILABLE));
    row("mmu_update, one L1 entry, writable bit to and fro", updated(MANY, WRITABLE));
}

fn extended() {
    let ext = |cmd: u32| {
        let op = MmuextOp { cmd, pad: 0, arg1: PAGE.addr(), arg2: 0 };
        hypercall_loop(MANY, nr::MMUEXT_OP, [mem::addr_of(&op), 1, 0, DOMID_SELF.into()])
    };
    row("mmuext_op(INVLPG_LOCAL)", ext(MMUEXT_INVLPG_LOCAL));
    row("mmuext_op(TLB_FLUSH_LOCAL)", ext(MMUEXT_TLB_FLUSH_LOCAL));
    let stack = [FLAT_SS.into(), traps::kernel_stack(), 0, 0];
    row("stack_switch", hypercall_loop(MANY, nr::STACK_SWITCH, stack));
    row("set_segment_base(FS, 0)", hypercall_loop(MANY, nr::SET_SEGMENT_BASE, [0; 4]));
}

fn handled_by(vector: u8, handler: unsafe extern "C" fn()) {
    traps::set(TrapInfo { address: handler as *const () as u64, flags: 3, ..traps::standard(vector) });
}

fn faults() {
    let asked = hypercall::call(nr::VM_ASSIST, [0, VMASST_TYPE_WRITABLE_PAGETABLES.into(), 0, 0, 0]);
    check!(asked == Ret(0), "writable page tables can be asked for"; "{}", asked);
    let slot = mmu::table_va(mmu::l1_entry(PAGE.addr()) >> 12) + mmu::index(PAGE.addr(), 1) * 8;
    // SAFETY: the entry stays one of the page.
    let store = unsafe {
        ticks!(MANY, ["xor r14, 0x200", "mov [r13], r14"], in("r13") slot, inout("r14") mmu::own(&PAGE, KERNEL) => _)
    };
    row("plain store to an L1 entry, emulated", store);
    mmu::update_va(PAGE.addr(), mmu::own(&PAGE, KERNEL), mmu::UVMF_INVLPG);
    handled_by(14, cost_pv_fault);
    handled_by(6, cost_pv_skip_two);
    handled_by(0x90, cost_pv_return);
    // SAFETY: the handlers go on behind the instruction, which has no effect, and lose RCX and R11 to the trap alone.
    unsafe {
        row("page fault bounced to the guest and iret", ticks!(MANY, ["mov [r14], rax"], in("r14") UNMAPPED));
        row("ud2 bounced and iret", ticks!(MANY, ["ud2"],));
        row("int N bounced and iret", ticks!(MANY, ["int 0x90"],));
    }
    traps::set(traps::standard(14));
    traps::set(traps::standard(6));
    traps::set(traps::standard(0x90));
}

fn privileged() {
    // SAFETY: RBX is kept in R13 around the loop.
    let ticks = unsafe {
        let start = cpu::tsc();
        core::arch::asm!("mov r13, rbx", "2:", "mov eax, 1", ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid", "dec r12",
            "jnz 2b", "mov rbx, r13", inout("r12") MANY => _, out("r13") _, out("rax") _, out("rcx") _, out("rdx") _);
        (cpu::tsc() - start) / MANY
    };
    row("CPUID with the forced-emulation prefix", ticks);
    // SAFETY: reads.
    unsafe {
        row("RDMSR EFER, emulated", ticks!(MANY, ["rdmsr"], in("ecx") 0xc000_0080u32, out("eax") _, out("edx") _));
        row("MOV from CR0, emulated", ticks!(MANY, ["mov rax, cr0"], out("rax") _));
    }
}

fn user_mode() {
    let ready = user::init();
    check!(ready == Ret(0), "there is a user mode"; "{}", ready);
    if ready != Ret(0) {
        return;
    }
    user::set_code(&[0xcd, 0x80, 0xeb, 0xfc]); // int 0x80; jmp back to it
    handled_by(traps::USER_VECTOR, cost_pv_user_trap);
    let start = cpu::tsc();
    // SAFETY: user code runs on tables of its own, and the last trap comes back here.
    unsafe {
        core::arch::asm!("call {}", sym cost_pv_user, inout("rdi") MANY => _, in("rsi") user::CODE, in("rdx") user::STACK,
            inout("rcx") u64::from(traps::KERNEL_CS) => _, in("r8") u64::from(FLAT_SS), out("rax") _, out("r11") _,
            out("r12") _, out("r13") _);
    }
    let ticks = (cpu::tsc() - start) / MANY;
    traps::set(traps::standard(traps::USER_VECTOR));
    row("guest kernel to user by iret and back by int", ticks);
}
