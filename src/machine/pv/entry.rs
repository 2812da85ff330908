//! The way into a PV guest and back.
//!
//! [`enter`] is a call that returns when the guest leaves, with no register kept but the stack pointer. It makes the guest's `Regs` the stack and pops
//! all of them, ending in IRET. Whatever brings the guest back pushes them again, there: the processor and the stubs of
//! `cpu/stubs.rs` because the task state says so, SYSCALL and SYSENTER by the stubs here. Then comes the stack pointer
//! that `enter` left in `Regs`, and its return.
//!
//! The `Regs` are addressed in the domain's part of the hole ([`super::Space`]), which an isolated guest's address space
//! has too. CR3 changes after the last register is saved and before the first is loaded. What else is done there against
//! speculation attacks is chosen by the sign bit of the word that CR3 is loaded from.
//!
//! The stubs of SYSCALL and SYSENTER begin with the stack pointer of the guest and no register to spare. They find
//! `Regs` by their own address: each CPU has them mapped in its block, in front of the page that knows where.
//! Nothing of a guest's, GS base included, is relied upon.

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use model::addr::PAGE_SIZE;
use model::ids::CpuId;
use model::regs::Regs;

use crate::cpu::descriptors::{self, HV_CS, HV_DS};
use crate::cpu::{features, msr, speculation};
use crate::frame::{BARRIER, Frame};
use crate::percpu;

/// `Regs::vector` after SYSCALL from 64-bit code.
pub const SYSCALL: u64 = 0x100;
/// Likewise, from 32-bit code.
pub const SYSCALL_COMPAT: u64 = 0x101;
/// Likewise, SYSENTER.
pub const SYSENTER: u64 = 0x102;

/// 32-bit code, data and 64-bit code of ring 3 (`FLAT_RING3_*` of `xen/include/public/arch-x86/xen-x86_64.h`).
const USER_CS32: u16 = 0xe023;
const USER_DS: u16 = 0xe02b;
const USER_CS64: u16 = 0xe033;

global_asm!(
    ".macro leave_by_stub",
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
    ".endm",
    ".macro load_registers",
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
    ".endm",
    ".macro return_from_enter",
    "mov rsp, [rsp + {host_rsp}]",
    "ret",
    ".endm",
    // With what is to become of CR3 in RAX.
    ".macro return_guarded",
    "mov rbx, rax",
    "shl rax, 2",
    "shr rax, 2",
    "jz 2f",
    "mov cr3, rax",
    "2: mov rsp, [rsp + {host_rsp}]",
    "bt rbx, {barrier}",
    "jnc 4f",
    "mov ecx, {pred_cmd}",
    "mov eax, 1",
    "xor edx, edx",
    "wrmsr",
    "4:",
    speculation::fill_return_stack!(),
    "ret",
    ".endm",
    ".macro begin_syscall cs, vector",
    "mov [rip + pv_stubs + {user_rsp}], rsp",
    "mov rsp, [rip + pv_stubs + {regs_end}]",
    "push {ds}",
    "push [rip + pv_stubs + {user_rsp}]",
    "push r11",
    "push \\cs",
    "push rcx",
    "push 0",
    "push \\vector",
    ".endm",
    ".section .entry.stubs, \"ax\"",
    ".balign 4096",
    ".globl pv_stubs",
    "pv_stubs:",
    ".globl pv_syscall",
    "pv_syscall:",
    "begin_syscall {cs64}, {syscall}",
    "leave_by_stub",
    "return_from_enter",
    ".balign 64",
    ".globl pv_syscall_isolated",
    "pv_syscall_isolated:",
    "begin_syscall {cs64}, {syscall}",
    "leave_by_stub",
    "mov rax, [rsp + {hv_cr3}]",
    "mov cr3, rax",
    "return_from_enter",
    ".balign 64",
    ".globl pv_syscall_guarded",
    "pv_syscall_guarded:",
    "begin_syscall {cs64}, {syscall}",
    "leave_by_stub",
    "mov rax, [rsp + {hv_cr3}]",
    "return_guarded",
    ".balign 64",
    ".globl pv_syscall_compat",
    "pv_syscall_compat:",
    "begin_syscall {cs32}, {syscall_compat}",
    "jmp 1f",
    ".balign 64",
    // Where the guest was is not known, and RFLAGS are its own but for IF, RF and VM.
    ".globl pv_sysenter",
    "pv_sysenter:",
    "mov rsp, [rip + pv_stubs + {regs_end}]",
    "push {ds}",
    "push 0",
    "pushfq",
    "push 2",
    "popfq",
    "push 3",
    "push 0",
    "push 0",
    "push {sysenter}",
    "1: leave_by_stub",
    "mov rax, [rsp + {hv_cr3}]",
    "test rax, rax",
    "jz 2f",
    "js 3f",
    "mov cr3, rax",
    "2: return_from_enter",
    "3: return_guarded",
    ".org pv_stubs + 4096", // an error if they are longer
    ".section .entry.text, \"ax\"",
    ".balign 64",
    ".globl pv_enter",
    "pv_enter:",
    "mov [rdi + {host_rsp}], rsp",
    "mov rsp, rsi",
    "load_registers",
    ".globl pv_enter_iret",
    "pv_enter_iret:",
    "iretq",
    ".globl pv_enter_by_frame",
    "pv_enter_by_frame:",
    "mov [rdi + {host_rsp}], rsp",
    "mov rsp, rsi",
    "mov rax, [rsp + {guest_cr3}]",
    "test rax, rax",
    "js 2f",
    "mov cr3, rax",
    "3: load_registers",
    ".globl pv_enter_by_frame_iret",
    "pv_enter_by_frame_iret:",
    "iretq",
    "2: shl rax, 1",
    "shr rax, 1",
    "jz 4f",
    "mov cr3, rax",
    // What is read from here on is the guest's own.
    "4: verw word ptr [rip + 5f]",
    "jmp 3b",
    ".balign 2",
    "5: .word {hv_ds}",
    // How the stubs of the IDT end for a guarded guest.
    ".globl pv_return_guarded",
    "pv_return_guarded:",
    "return_guarded",
    hv_ds = const HV_DS,
    barrier = const BARRIER.trailing_zeros(),
    pred_cmd = const speculation::PRED_CMD,
    ds = const USER_DS,
    cs32 = const USER_CS32,
    cs64 = const USER_CS64,
    syscall = const SYSCALL,
    syscall_compat = const SYSCALL_COMPAT,
    sysenter = const SYSENTER,
    host_rsp = const offset_of!(Frame, regs) + offset_of!(Regs, host_rsp),
    hv_cr3 = const offset_of!(Frame, hypervisor_cr3),
    guest_cr3 = const offset_of!(Frame, guest_cr3),
    user_rsp = const PAGE_SIZE as usize + descriptors::USER_RSP,
    regs_end = const PAGE_SIZE as usize + descriptors::REGS_END,
);

const _: () = assert!(percpu::TABLES == percpu::STUBS + 1, "the stubs find the page behind theirs");

unsafe extern "C" {
    static pv_stubs: [u8; 0];
    static pv_syscall: [u8; 0];
    static pv_syscall_isolated: [u8; 0];
    static pv_syscall_guarded: [u8; 0];
    static pv_syscall_compat: [u8; 0];
    static pv_sysenter: [u8; 0];
}

macro_rules! enter {
    ($(#[$doc:meta])* $name:ident, $call:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(super) unsafe fn $name(regs: *mut Regs, frame: u64) {
            // SAFETY: by the caller; every general register is lost but those that are kept here.
            unsafe {
                asm!(
                    "push rbx",
                    "push rbp",
                    $call,
                    "pop rbp",
                    "pop rbx",
                    inout("rdi") regs => _, inout("rsi") frame => _, out("rax") _, out("rcx") _, out("rdx") _,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                );
            }
        }
    };
}

enter!(
    /// Enters the guest whose registers are `regs`, which is also at address `frame`, and returns when it leaves.
    ///
    /// # Safety
    /// A PV virtual CPU's tables are in use on this CPU (`descriptors::use_guest_tables`) and name `frame`; its page
    /// tables are loaded; CS and SS are of ring 3, RFLAGS has IF set and IOPL clear.
    enter, "call pv_enter"
);
enter!(
    /// Likewise, with CR3 changed on the way in and VERW executed, as the frame says; it says at least one.
    ///
    /// # Safety
    /// As [`enter`]; the hypervisor's CR3 maps what the guest's does, at the same places, and all of the hypervisor.
    enter_by_frame, "call pv_enter_by_frame"
);

/// How a guest leaves by SYSCALL from 64-bit code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stub {
    /// Just so.
    Plain,
    /// With a change of CR3.
    Isolated,
    /// As its frame says.
    Guarded,
}

const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const SYSCALL_MASK: u32 = 0xc000_0084;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;

/// What SYSCALL clears: TF, IF, DF, IOPL, NT, RF, VM, AC.
const MASKED: u64 = 1 << 8 | 1 << 9 | 1 << 10 | 3 << 12 | 1 << 14 | 1 << 16 | 1 << 17 | 1 << 18;

/// Where CPU `id` has a stub.
fn stub(id: CpuId, symbol: *const [u8; 0]) -> u64 {
    let offset = symbol as u64 - &raw const pv_stubs as u64;
    percpu::block(id) + percpu::STUBS * PAGE_SIZE + offset
}

/// Says where SYSCALL and SYSENTER of this CPU, number `id`, lead; once, at boot.
pub(super) fn enable(id: CpuId) {
    enable_syscall(id);
    if features::leaf(1, 0)[3] & 1 << 11 != 0 {
        // SAFETY: as in `enable_syscall`.
        unsafe {
            msr::write(SYSENTER_CS, u64::from(HV_CS));
            msr::write(SYSENTER_ESP, 0);
            msr::write(SYSENTER_EIP, stub(id, &raw const pv_sysenter));
        }
    }
}

/// Says where SYSCALL of this CPU, number `id`, leads.
pub(super) fn enable_syscall(id: CpuId) {
    // SAFETY: every processor of 64 bits has these. The stubs are mapped for this CPU, and nothing but a PV
    // guest gets to them: outside ring 3 nobody executes SYSCALL or SYSENTER, and VT-x and AMD-V guests have
    // values of their own.
    unsafe {
        msr::write(STAR, u64::from(USER_CS32) << 48 | u64::from(HV_CS) << 32);
        msr::write(LSTAR, stub(id, &raw const pv_syscall));
        msr::write(CSTAR, stub(id, &raw const pv_syscall_compat));
        msr::write(SYSCALL_MASK, MASKED);
    }
}

/// Chooses the stub of SYSCALL from 64-bit code.
///
/// # Safety
/// A guest that leaves as said is about to run on this CPU, and no other before the next call.
pub(super) unsafe fn choose(id: CpuId, which: Stub) {
    let symbol = match which {
        Stub::Plain => &raw const pv_syscall,
        Stub::Isolated => &raw const pv_syscall_isolated,
        Stub::Guarded => &raw const pv_syscall_guarded,
    };
    // SAFETY: as in `enable`.
    unsafe { msr::write(LSTAR, stub(id, symbol)) };
}

/// Lets the next NMI in, by the IRET for which the processor waits after one.
pub(super) fn end_nmi() {
    // SAFETY: goes on at the next instruction with the same stack, segments and flags.
    unsafe {
        asm!(
            "mov {old}, rsp",
            "mov {scratch:e}, ss",
            "push {scratch}",
            "push {old}",
            "pushfq",
            "mov {scratch:e}, cs",
            "push {scratch}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "iretq",
            "2:",
            old = out(reg) _,
            scratch = out(reg) _,
        );
    }
}
