//! Exceptions and interrupts that the hypervisor itself takes.
//!
//! Each of the 256 stubs pushes an error code where the processor does not, and its vector; the common part
//! saves the general registers in the order of [`model::regs::Regs`] and calls [`trap`]. NMI, #MC, #DF and
//! #DB have stacks of their own (IST), as they can come when the stack pointer is a guest's (SDM 3A 6.14.5).
//! No part of it relies on a segment base.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

use model::regs::vector;

use super::descriptors::HV_CS;
use crate::{irq, panic};

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

global_asm!(
    ".section .text.trap, \"ax\"",
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
    "jmp trap_common",
    ".set vector, vector + 1",
    ".endr",
    "trap_common:",
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
    trap = sym trap,
);

unsafe extern "C" {
    static trap_stubs: [u8; 16 * 256];
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

struct Idt(UnsafeCell<[Gate; 256]>);

// SAFETY: written once, before any other CPU runs; only processors read it afterwards.
unsafe impl Sync for Idt {}

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

/// Fills the interrupt descriptor table. Called once, by the first CPU, before any has loaded it.
pub fn prepare_idt() {
    let stubs = &raw const trap_stubs as u64;
    for number in 0..=255u8 {
        let handler = stubs + 16 * u64::from(number);
        let low = (handler & 0xffff)
            | u64::from(HV_CS) << 16
            | ist(number) << 32
            | 0x8e << 40
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
        _ => {
            if let Some(fixup) = fixup(frame.rip) {
                frame.rip = fixup;
            } else {
                panic::on_exception(frame);
            }
        }
    }
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
