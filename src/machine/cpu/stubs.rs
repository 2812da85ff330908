//! The first and last instructions of an exception or interrupt: the 256 stubs of the IDT.
//!
//! A stub pushes an error code where the processor does not, and its vector, so that what lies on the stack is what
//! [`Regs`] has from `vector` on. What comes from the hypervisor itself goes on in [`trap`]; what comes from a PV guest
//! in ring 3 ends the guest's run (`pv/entry.rs`).

use core::arch::global_asm;
use core::mem::offset_of;

use model::addr::PAGE_SIZE;
use model::regs::Regs;

use super::descriptors;
use super::trap::trap;
use crate::frame::Frame;
use crate::percpu;

/// The stack pointer at an exception of IRET to a guest, above which lie vector and error code of [`Regs`], as the
/// processor aligns it before it pushes: it is this much below `vector` when the stub has pushed the vector.
const IRET_FAULT_BELOW: usize = 6 * 8;

/// Added to the vector when it was the processor's refusal to go back to the guest.
pub const IRET_FAULT: u64 = 0x200;

// The frame of `Regs` is the stack on which a guest leaves: task state and SYSCALL stubs point to its end, so that the
// processor and the stubs push the registers where they are kept. IRET to the guest pops them from there.
const _: () = {
    assert!(offset_of!(Regs, host_rsp).is_multiple_of(16));
    assert!(offset_of!(Regs, rip) == offset_of!(Regs, vector) + 16);
    // IRET begins at `rip`; its fault pushes five words and an error code below the next multiple of 16, the stub the vector.
    assert!((offset_of!(Regs, rip) & !15) - 7 * 8 == offset_of!(Regs, vector) - IRET_FAULT_BELOW);
};

global_asm!(
    ".section .entry.text, \"ax\"",
    ".balign 16",
    ".globl trap_stubs",
    "trap_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    // Vectors that push an error code: 8, 10 to 14, 17, 21, 29, 30 (SDM 3A table 6-1; APM 2 table 8-1).
    ".if ((vector >= 32) || (((1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 3 << 29) >> vector) & 1) == 0)",
    "push 0",
    ".endif",
    "push vector",
    ".if (vector == 1 || vector == 2 || vector == 18)",
    "jmp trap_ist",
    ".elseif vector == 8",
    "jmp trap_ist_own",
    ".else",
    "jmp trap_common",
    ".endif",
    ".set vector, vector + 1",
    ".endr",
    // All but those with stacks of their own.
    "trap_common:",
    "test byte ptr [rsp + 24], 3",
    "jz 2f",
    // From a guest: the stack is its `Regs`, DF and AC are its own.
    "trap_leave:",
    "push 2",
    "popfq",
    "push rdi",
    "push rsi",
    "push rdx",
    "push rcx",
    "push rax",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rax, [rsp + {hv_cr3}]",
    "test rax, rax",
    "jz 1f",
    "js pv_return_guarded",
    "mov cr3, rax",
    "1: mov rsp, [rsp + {host_rsp}]",
    "ret",
    // From the hypervisor: IRET to a guest, or a fault of its own.
    "2: push rax",
    "lea rax, [rip + pv_enter_iret]",
    "cmp rax, [rsp + 24]",
    "je 3f",
    "lea rax, [rip + pv_enter_by_frame_iret]",
    "cmp rax, [rsp + 24]",
    "je 3f",
    "pop rax",
    "trap_own:",
    "push rdi",
    "push rsi",
    "push rdx",
    "push rcx",
    "push rax",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "cld",
    "mov rdi, rsp",
    "mov rbp, [rsp + 4 * 8]",
    "mov rbx, rsp",
    "and rsp, -16",
    "call {trap}",
    "mov rsp, rbx",
    "trap_return:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "add rsp, 16",
    "iretq",
    // The guest's general registers are loaded, and its frame is whole: as if it had left with what IRET raised.
    "3: mov rax, [rsp + 16]",
    "mov [rsp + 8 + {iret_below} + 8], rax",
    "mov rax, [rsp + 8]",
    "or rax, {iret_fault}",
    "mov [rsp + 8 + {iret_below}], rax",
    "pop rax",
    "add rsp, {iret_below}",
    "jmp trap_leave",
    // #DB, NMI and #MC, each on a stack of its own.
    "trap_ist:",
    "test byte ptr [rsp + 24], 3",
    "jz trap_ist_own",
    // From a guest: as if it had come on the guest's `Regs`.
    "push rax",
    "push rcx",
    "mov rax, rsp",
    "and rax, -{block}",
    "mov rax, [rax + {tables} + {regs_end}]",
    "mov rcx, [rsp + 16]",
    "mov [rax - 56], rcx",
    "mov rcx, [rsp + 24]",
    "mov [rax - 48], rcx",
    "mov rcx, [rsp + 32]",
    "mov [rax - 40], rcx",
    "mov rcx, [rsp + 40]",
    "mov [rax - 32], rcx",
    "mov rcx, [rsp + 48]",
    "mov [rax - 24], rcx",
    "mov rcx, [rsp + 56]",
    "mov [rax - 16], rcx",
    "mov rcx, [rsp + 64]",
    "mov [rax - 8], rcx",
    "sub rax, 56",
    "pop rcx",
    "xchg rax, [rsp]",
    "pop rsp",
    "jmp trap_leave",
    // Anywhere in the hypervisor, an isolated guest's page tables included: the handler has the hypervisor's.
    "trap_ist_own:",
    "push rdi",
    "push rsi",
    "push rdx",
    "push rcx",
    "push rax",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "cld",
    "mov rax, rsp",
    "and rax, -{block}",
    "mov rax, [rax + {tables} + {root}]",
    "mov r12, cr3",
    "mov cr3, rax",
    "mov rdi, rsp",
    "mov rbp, [rsp + 4 * 8]",
    "mov rbx, rsp",
    "and rsp, -16",
    "call {trap}",
    "mov rsp, rbx",
    "mov cr3, r12",
    "jmp trap_return",
    ".globl trap_end",
    "trap_end:",
    trap = sym trap,
    hv_cr3 = const offset_of!(Frame, hypervisor_cr3),
    host_rsp = const offset_of!(Frame, regs) + offset_of!(Regs, host_rsp),
    iret_fault = const IRET_FAULT,
    iret_below = const IRET_FAULT_BELOW,
    block = const percpu::BLOCK,
    tables = const percpu::TABLES * PAGE_SIZE,
    regs_end = const descriptors::REGS_END,
    root = const descriptors::ROOT,
);
