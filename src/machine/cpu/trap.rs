//! Exceptions and interrupts that the hypervisor itself takes.
//!
//! The stubs (`stubs.rs`) save the general registers in the order of [`model::regs::Regs`] and call [`trap`]. NMI, #MC, #DF and
//! #DB have stacks of their own (IST), as they can come when the stack pointer is a guest's (SDM 3A 6.14.5).
//! What comes from a PV guest, in ring 3, does not come to [`trap`] but ends the guest's run ([`crate::pv`]).
//! No part of it relies on a segment base.

use core::arch::asm;
use core::cell::UnsafeCell;

use model::addr::PAGE_SIZE;
use model::debug::DR6_RESET;
use model::regs::{Rflags, vector};

use super::descriptors::HV_CS;
pub use super::stubs::IRET_FAULT;
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
pub(super) extern "C" fn trap(frame: &mut TrapFrame) {
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
    super::debug::set_status(DR6_RESET);
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
