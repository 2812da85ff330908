//! The way into the guest and back.
//!
//! [`enter`] is an ordinary call that returns when the guest leaves. The processor resumes the hypervisor at
//! [`leave`] with the stack pointer that `enter` put into the VMCS, so the two are one function in two pieces.
//! The stack at that point, from low addresses: the `Regs`, then the registers that a callee preserves.
//! At an exit RFLAGS holds nothing but its reserved bit (SDM 3C 27.5.3): interrupts are off, DF and AC clear.

use super::vmcs::{self, VmcsField};
use crate::cpu::speculation;
use core::arch::{asm, naked_asm};
use core::mem::offset_of;
use model::regs::Regs;

/// Where the processor resumes at an exit.
pub(super) fn host_rip() -> u64 {
    let guards = speculation::hvm_guards();
    let place = match (guards.ibpb, guards.rsb) {
        (true, _) => leave_by_barrier as *const (),
        (false, true) => leave_filling as *const (),
        (false, false) => leave as *const (),
    };
    place as u64
}

/// How a guest is entered.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct How(u8);

impl How {
    /// The VMCS is launched.
    const RESUME: u8 = 1 << 0;
    /// VERW comes right before.
    const VERW: u8 = 1 << 7;

    /// As it was decided, for a VMCS that is clear.
    pub(super) fn new() -> Self {
        Self(if speculation::hvm_guards().verw { Self::VERW } else { 0 })
    }

    /// The VMCS is launched now.
    #[inline(always)]
    pub(super) fn set_launched(&mut self) {
        self.0 |= Self::RESUME;
    }

    /// The VMCS is clear now.
    pub(super) fn set_clear(&mut self) {
        self.0 &= !Self::RESUME;
    }
}

/// Whether [`enter`] came to the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Outcome(u64);

impl Outcome {
    /// An exit, whose reason the VMCS tells.
    pub(super) const EXIT: Self = Self(0);
}

/// Enters the guest of the current VMCS with the general registers of `regs`, and returns with those it had when
/// it left, or at once when VMLAUNCH or VMRESUME failed. `host_rsp` is what the VMCS has as the host's stack pointer,
/// and is kept up to date.
///
/// # Safety
/// The current VMCS is complete, its host state is this CPU's, and `how` has its launch state.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn enter(regs: &mut Regs, how: How, host_rsp: &mut u64) -> Outcome {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdi",
        "cmp rsp, [rdx]",
        "je 2f",
        "mov eax, {host_rsp}",
        "vmwrite rax, rsp",
        "mov [rdx], rsp",
        "2:",
        // No instruction up to VMRESUME changes what this says; VERW changes ZF alone.
        "test sil, sil",
        "mov r15, [rdi + {r15}]",
        "mov r14, [rdi + {r14}]",
        "mov r13, [rdi + {r13}]",
        "mov r12, [rdi + {r12}]",
        "mov rbp, [rdi + {rbp}]",
        "mov rbx, [rdi + {rbx}]",
        "mov r11, [rdi + {r11}]",
        "mov r10, [rdi + {r10}]",
        "mov r9, [rdi + {r9}]",
        "mov r8, [rdi + {r8}]",
        "mov rax, [rdi + {rax}]",
        "mov rcx, [rdi + {rcx}]",
        "mov rdx, [rdi + {rdx}]",
        "mov rsi, [rdi + {rsi}]",
        "mov rdi, [rdi + {rdi}]",
        "jle 3f",
        "vmresume",
        "jmp 4f",
        "3: jz 5f",
        "verw word ptr [rip + {selector}]",
        "jnp 5f", // one bit is set: VERW alone
        "vmresume",
        "jmp 4f",
        "5: vmlaunch",
        "4: mov eax, 1",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        host_rsp = const VmcsField::HOST_RSP.encoding(),
        selector = sym speculation::SELECTOR,
        r15 = const offset_of!(Regs, r15),
        r14 = const offset_of!(Regs, r14),
        r13 = const offset_of!(Regs, r13),
        r12 = const offset_of!(Regs, r12),
        rbp = const offset_of!(Regs, rbp),
        rbx = const offset_of!(Regs, rbx),
        r11 = const offset_of!(Regs, r11),
        r10 = const offset_of!(Regs, r10),
        r9 = const offset_of!(Regs, r9),
        r8 = const offset_of!(Regs, r8),
        rax = const offset_of!(Regs, rax),
        rcx = const offset_of!(Regs, rcx),
        rdx = const offset_of!(Regs, rdx),
        rsi = const offset_of!(Regs, rsi),
        rdi = const offset_of!(Regs, rdi),
    )
}

macro_rules! leave {
    ($(#[$doc:meta])* $name:ident, [$($guard:expr),*] $($operands:tt)*) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $name() -> Outcome {
            naked_asm!(
                "push rdi",
                "mov rdi, [rsp + 8]",
                "mov [rdi + {r15}], r15",
                "mov [rdi + {r14}], r14",
                "mov [rdi + {r13}], r13",
                "mov [rdi + {r12}], r12",
                "mov [rdi + {rbp}], rbp",
                "mov [rdi + {rbx}], rbx",
                "mov [rdi + {r11}], r11",
                "mov [rdi + {r10}], r10",
                "mov [rdi + {r9}], r9",
                "mov [rdi + {r8}], r8",
                "mov [rdi + {rax}], rax",
                "mov [rdi + {rcx}], rcx",
                "mov [rdi + {rdx}], rdx",
                "mov [rdi + {rsi}], rsi",
                "pop [rdi + {rdi}]",
                $($guard,)*
                "xor eax, eax",
                "add rsp, 8",
                "pop r15",
                "pop r14",
                "pop r13",
                "pop r12",
                "pop rbx",
                "pop rbp",
                "ret",
                r15 = const offset_of!(Regs, r15),
                r14 = const offset_of!(Regs, r14),
                r13 = const offset_of!(Regs, r13),
                r12 = const offset_of!(Regs, r12),
                rbp = const offset_of!(Regs, rbp),
                rbx = const offset_of!(Regs, rbx),
                r11 = const offset_of!(Regs, r11),
                r10 = const offset_of!(Regs, r10),
                r9 = const offset_of!(Regs, r9),
                r8 = const offset_of!(Regs, r8),
                rax = const offset_of!(Regs, rax),
                rcx = const offset_of!(Regs, rcx),
                rdx = const offset_of!(Regs, rdx),
                rsi = const offset_of!(Regs, rsi),
                rdi = const offset_of!(Regs, rdi),
                $($operands)*
            )
        }
    };
}

leave!(
    /// The return of [`enter`] after an exit.
    ///
    /// # Safety
    /// Only the processor comes here, at an exit from the guest that `enter` entered.
    leave, []
);
leave!(
    /// The same, and the return stack is filled before it is used.
    ///
    /// # Safety
    /// As [`leave`].
    leave_filling,
    [speculation::fill_return_stack!()]
);
leave!(
    /// The same, with IBPB.
    ///
    /// # Safety
    /// As [`leave`].
    leave_by_barrier,
    [speculation::ibpb!(), speculation::fill_return_stack!()]
    pred_cmd = const speculation::PRED_CMD,
);

/// RIP, RSP and RFLAGS as the VMCS has them, so that only what changed is written back.
#[derive(Default)]
pub(super) struct Seen {
    rip: u64,
    rsp: u64,
    rflags: u64,
}

/// The bits of RFLAGS that can be one; bit 1 always is, or the entry fails (SDM 3C 26.3.1.4).
const RFLAGS_MAY: u64 = 0x3f_7fd7;
const RFLAGS_MUST: u64 = 2;

impl Seen {
    /// Brings the VMCS what changed in `regs` since the last exit.
    #[inline(always)]
    pub(super) fn write_changed(&self, regs: &Regs) {
        if regs.rip != self.rip {
            vmcs::write_guest(VmcsField::GUEST_RIP, regs.rip);
        }
        if regs.rsp != self.rsp {
            vmcs::write_guest(VmcsField::GUEST_RSP, regs.rsp);
        }
        if regs.rflags != self.rflags {
            vmcs::write_guest(VmcsField::GUEST_RFLAGS, regs.rflags & RFLAGS_MAY | RFLAGS_MUST);
        }
    }

    /// Fills in `regs` after an exit.
    #[inline(always)]
    pub(super) fn read(&mut self, regs: &mut Regs) {
        self.rip = vmcs::read(VmcsField::GUEST_RIP);
        self.rsp = vmcs::read(VmcsField::GUEST_RSP);
        self.rflags = vmcs::read(VmcsField::GUEST_RFLAGS);
        (regs.rip, regs.rsp, regs.rflags) = (self.rip, self.rsp, self.rflags);
    }

    /// What a fresh VMCS has: zeros, written so that they are known.
    pub(super) fn reset(&mut self) {
        *self = Self { rflags: RFLAGS_MUST, ..Self::default() };
        vmcs::write_guest(VmcsField::GUEST_RIP, self.rip);
        vmcs::write_guest(VmcsField::GUEST_RSP, self.rsp);
        vmcs::write_guest(VmcsField::GUEST_RFLAGS, self.rflags);
    }
}

/// Takes the interrupts that wait: they exit unacknowledged, and come by the IDT once they are let in.
pub(super) fn take_interrupts() {
    // SAFETY: the handlers return with every register as it was; interrupts are off again afterwards.
    unsafe { asm!("sti", "nop", "cli") }
}

/// Calls the host's handler of an NMI, which took the processor out of the guest and is not delivered any
/// more. The handler's IRET lets the next NMI in (SDM 3C 27.5.5).
pub(super) fn take_nmi() {
    // SAFETY: the gate is the hypervisor's, and its handler returns with every register as it was.
    unsafe { asm!("int 2") }
}

/// Calls the host's handler of a machine check, which took the processor out of the guest.
pub(super) fn take_machine_check() {
    // SAFETY: as for an NMI.
    unsafe { asm!("int 18") }
}
