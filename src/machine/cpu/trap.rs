//! Exceptions and interrupts that the hypervisor itself takes.
//!
//! Each of the 256 stubs pushes an error code where the processor does not, and its vector; the common part
//! saves the general registers in the order of [`model::regs::Regs`] and calls [`trap`]. NMI, #MC, #DF and
//! #DB have stacks of their own (IST), as they can come when the stack pointer is a guest's (SDM 3A 6.14.5).
//! What comes from a PV guest, in ring 3, does not come to [`trap`] but ends the guest's run ([`crate::pv`]).
//! No part of it relies on a segment base.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::mem::offset_of;

use model::addr::PAGE_SIZE;
use model::regs::{Regs, Rflags, vector};

use super::descriptors::{self, HV_CS};
use crate::frame::Frame;
use crate::{irq, panic, percpu};

/// What an exception or interrupt finds on its stack.
#[derive(Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

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
    "mov cr3, rax",
    "1: mov rsp, [rsp + {host_rsp}]",
    "ret",
    // From the hypervisor: IRET to a guest, or a fault of its own.
    "2: push rax",
    "lea rax, [rip + pv_enter_iret]",
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

unsafe extern "C" {
    static trap_stubs: [u8; 16 * 256];
    static entry_start: [u8; 0];
    static entry_end: [u8; 0];
    static exception_table_start: [ExceptionEntry; 0];
    static exception_table_end: [ExceptionEntry; 0];
}

/// An instruction that may fault, and where to go on then; both relative to their own field.
#[repr(C)]
struct ExceptionEntry {
    from: i32,
    to: i32,
}

/// A 16-byte gate (SDM 3A figure 6-8).
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    low: u64,
    high: u64,
}

/// In a page of its own, which an isolated guest's address space has too. Among the constants: it is filled while the boot page
/// tables are loaded, by which everything can be written.
#[repr(C, align(4096))]
struct Idt(UnsafeCell<[Gate; 256]>);

// SAFETY: written once, before any other CPU runs; only processors read it afterwards.
unsafe impl Sync for Idt {}

#[unsafe(link_section = ".rodata.idt")]
static IDT: Idt = Idt(UnsafeCell::new([Gate { low: 0, high: 0 }; 256]));

/// The IST number of a vector, 0 for none; in the order of [`crate::percpu::IST_ENDS`].
fn ist(vector: u8) -> u64 {
    match vector {
        vector::DF => 1,
        vector::NMI => 2,
        vector::MC => 3,
        vector::DB => 4,
        _ => 0,
    }
}

/// INT with this vector by user programs: 32-bit Linux's way into its kernel.
pub const SOFT_INTERRUPT: u8 = 0x80;

/// Who may raise a vector by an instruction: a guest INT3, INTO and INT 0x80; everything else is `#GP`.
fn ring(number: u8) -> u64 {
    if matches!(number, vector::BP | vector::OF | SOFT_INTERRUPT) { 3 } else { 0 }
}

/// Where the table lies.
pub fn idt_address() -> u64 {
    IDT.0.get() as u64
}

/// Fills the interrupt descriptor table. Called once, by the first CPU, before any has loaded it.
pub fn prepare_idt() {
    let stubs = &raw const trap_stubs as u64;
    for number in 0..=255u8 {
        let handler = stubs + 16 * u64::from(number);
        let low = (handler & 0xffff)
            | u64::from(HV_CS) << 16
            | ist(number) << 32
            | 0x8e << 40
            | ring(number) << 45
            | (handler >> 16 & 0xffff) << 48;
        // SAFETY: nobody else reads or writes the table yet.
        unsafe { (*IDT.0.get())[usize::from(number)] = Gate { low, high: handler >> 32 } };
    }
}

/// Makes this CPU use the table.
pub fn load_idt() {
    let pointer: (u16, [u16; 4]) = {
        let base = IDT.0.get() as u64;
        (4095, [base as u16, (base >> 16) as u16, (base >> 32) as u16, (base >> 48) as u16])
    };
    let bytes: [u16; 5] = [pointer.0, pointer.1[0], pointer.1[1], pointer.1[2], pointer.1[3]];
    // SAFETY: the table was filled by `prepare_idt` and stays in place.
    unsafe { asm!("lidt [{0}]", in(reg) bytes.as_ptr(), options(readonly, nostack, preserves_flags)) };
}

/// Where an exception or interrupt comes to from its stub.
extern "C" fn trap(frame: &mut TrapFrame) {
    match frame.vector as u8 {
        vector::NMI => panic::on_nmi(),
        number @ 32..=255 => irq::dispatch(number),
        vector::DB if is_entry(frame.rip) => step_over(frame),
        _ => {
            if let Some(fixup) = fixup(frame.rip) {
                frame.rip = fixup;
            } else {
                panic::on_exception(frame);
            }
        }
    }
}

/// Whether `rip` is in the code by which a guest enters the hypervisor, in its place or in a CPU's block.
fn is_entry(rip: u64) -> bool {
    let (start, end) = (&raw const entry_start as u64, &raw const entry_end as u64);
    let own = percpu::block(percpu::this_cpu()) + percpu::STUBS * PAGE_SIZE;
    (start..end).contains(&rip) || (own..own + PAGE_SIZE).contains(&rip)
}

/// A debug exception that a guest left behind on its way in: a breakpoint under MOV SS before SYSCALL or INT, TF at
/// SYSENTER (SDM 3A 6.8.3; CVE-2018-8897). The guest does not get it.
fn step_over(frame: &mut TrapFrame) {
    frame.rflags = (frame.rflags & !Rflags::TF.bits()) | Rflags::RF.bits();
    // SAFETY: a status that steers nothing.
    unsafe { asm!("mov dr6, {0}", in(reg) 0xffff_0ff0_u64, options(nomem, nostack, preserves_flags)) };
}

/// Where to go on after a fault at `rip`, if it may fault.
fn fixup(rip: u64) -> Option<u64> {
    let start = &raw const exception_table_start as *const ExceptionEntry;
    let end = &raw const exception_table_end as *const ExceptionEntry;
    let count = (end as usize - start as usize) / size_of::<ExceptionEntry>();
    for index in 0..count {
        // SAFETY: the linker script puts `count` entries there.
        let entry = unsafe { &*start.add(index) };
        let from = (&raw const entry.from as u64).wrapping_add_signed(i64::from(entry.from));
        if from == rip {
            return Some((&raw const entry.to as u64).wrapping_add_signed(i64::from(entry.to)));
        }
    }
    None
}
