//! The IDT: exceptions are caught, expected or reported; interrupts are counted and handed to their handler.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{println, pv};

/// What a stub of `boot.S` leaves on the stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub struct Frame {
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

/// An exception that [`crate::attempt!`] caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Below 32.
    pub vector: u8,
    /// Zero where the vector has none.
    pub error: u32,
}

impl Fault {
    /// `#GP(0)`.
    pub const GP: Fault = Fault { vector: 13, error: 0 };
    /// `#UD`.
    pub const UD: Fault = Fault { vector: 6, error: 0 };
}

/// Where the next exception of the first virtual CPU goes on; zero reports it.
pub static RECOVER: AtomicU64 = AtomicU64::new(0);
static CAUGHT: AtomicU64 = AtomicU64::new(0);

/// How often each vector came.
pub static COUNT: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
static HANDLERS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];

/// Runs one instruction and gives the exception it caused, if any. Registers are then as before it.
#[macro_export]
macro_rules! attempt {
    ($body:expr $(, $($operands:tt)*)?) => {{
        core::arch::asm!(
            "lea {recover_at}, [rip + 66f]",
            "mov qword ptr [rip + {recover}], {recover_at}",
            $body,
            "66:",
            $($($operands)*,)?
            recover_at = out(reg) _, recover = sym $crate::interrupts::RECOVER,
        );
        $crate::interrupts::take_fault()
    }};
}

/// What [`attempt!`] caught; for that macro alone.
pub fn take_fault() -> Option<Fault> {
    RECOVER.store(0, SeqCst);
    let caught = CAUGHT.swap(0, SeqCst);
    (caught != 0).then_some(Fault { vector: (caught >> 32) as u8, error: caught as u32 })
}

#[repr(C, align(16))]
struct Idt(UnsafeCell<[[u64; 2]; 256]>);
// SAFETY: written by the first virtual CPU alone, while no interrupt of that vector can come.
unsafe impl Sync for Idt {}
static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 256]));

unsafe extern "C" {
    static isr_stubs: [[u8; 16]; 256];
}

/// Fills the IDT with the stubs of `boot.S`.
pub fn init() {
    for vector in 0..=255 {
        restore_gate(vector);
    }
}

/// Loads the IDT on this virtual CPU.
pub fn load() {
    lidt(IDT.0.get() as u64, 4095);
}

/// Loads IDTR.
pub fn lidt(base: u64, limit: u16) {
    let pointer: [u16; 5] = [limit, base as u16, (base >> 16) as u16, (base >> 32) as u16, (base >> 48) as u16];
    // SAFETY: the table is the IDT, or the test means the next exception to be the last.
    unsafe { core::arch::asm!("lidt [{}]", in(reg) &pointer, options(readonly, nostack)) };
}

/// Makes a vector's gate lead to code of a test's own.
pub fn set_gate(vector: u8, entry: u64) {
    let low = entry & 0xffff | 0x08 << 16 | 0x8e00 << 32 | (entry >> 16 & 0xffff) << 48;
    // SAFETY: one writer, and the gate is not in use.
    unsafe { (*IDT.0.get())[usize::from(vector)] = [low, entry >> 32] };
}

/// Makes a vector's gate lead to its stub.
pub fn restore_gate(vector: u8) {
    // SAFETY: only the address of the stub is taken.
    let stub = unsafe { core::ptr::from_ref(&isr_stubs[usize::from(vector)]) };
    set_gate(vector, stub as u64);
}

/// Calls `handler` for each interrupt of this vector, on the virtual CPU that takes it.
pub fn on(vector: u8, handler: fn(&mut Frame)) {
    HANDLERS[usize::from(vector)].store(handler as usize, SeqCst);
}

/// How often the vector came.
pub fn count(vector: u8) -> u32 {
    COUNT[usize::from(vector)].load(SeqCst)
}

#[unsafe(no_mangle)]
extern "C" fn interrupt_entry(frame: &mut Frame) {
    let vector = frame.vector as usize & 255;
    COUNT[vector].fetch_add(1, SeqCst);
    if pv::is_pv() {
        pv::user::returned(frame);
    }
    let handler = HANDLERS[vector].load(SeqCst);
    if handler != 0 {
        // SAFETY: `on` stored a function of this type.
        unsafe { core::mem::transmute::<usize, fn(&mut Frame)>(handler)(frame) };
        return;
    }
    // So is an upcall; a PV guest's would come again and again until it is acknowledged.
    if pv::is_pv() && frame.vector == u64::from(crate::events::VECTOR) {
        crate::events::acknowledge(pv::smp::me());
    }
    // An NMI without handler is only counted.
    if vector < 32 && vector != 2 {
        exception(frame);
    }
}

/// The address of the last page fault, of the first virtual CPU.
pub fn fault_address() -> u64 {
    if pv::is_pv() { crate::mem::peek64(crate::events::vcpu_info(0) + 16) } else { crate::cpu::cr2() }
}

fn exception(frame: &mut Frame) {
    let recover = RECOVER.swap(0, SeqCst);
    if recover != 0 {
        CAUGHT.store(1 << 63 | frame.vector << 32 | frame.error & 0xffff_ffff, SeqCst);
        frame.rip = recover;
        return;
    }
    println!("FAIL no exception comes unasked: vector {} cr2 {:#x}", frame.vector, fault_address());
    println!("{frame:x?}");
    crate::hypercall::shutdown(abi::sched::SHUTDOWN_CRASH)
}
