//! The world switch: from the hypervisor into the guest by VMRUN, and back (APM 2 15.5).
//!
//! VMRUN and #VMEXIT move RAX, RSP, RIP, RFLAGS, the control registers, CS, SS, DS, ES and the descriptor
//! tables. VMLOAD and VMSAVE move FS, GS, TR, LDTR and the MSRs of SYSCALL and SYSENTER. The rest of the general
//! registers is moved here; vector registers, debug registers and TSC_AUX stay the guest's, and change with it.
//!
//! The global interrupt flag is clear from CLGI to VMRUN and from #VMEXIT to STGI. At #VMEXIT TR is still
//! the guest's, so an NMI or #MC taken before the host's VMLOAD would find its stack through the guest's
//! TSS. RBP is the host's again before STGI too: a handler's backtrace follows it.

use crate::cpu::speculation;
use core::arch::naked_asm;
use core::mem::offset_of;
use model::addr::MachineAddr;
use model::regs::Regs;

macro_rules! world_switch {
    ($(#[$doc:meta])* $name:ident, [$($before:expr),*], [$($after:expr),*] $($operands:tt)*) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub(super) unsafe extern "sysv64" fn $name(regs: &mut Regs, guest: MachineAddr, host: MachineAddr) {
            naked_asm!(
                "push rbp",
                "push rbx",
                "push r12",
                "push r13",
                "push r14",
                "push r15",
                "push rdx",
                "push rdi",
                "clgi",
                "sti",
                "mov rax, rsi",
                "vmload rax",
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
                "mov rcx, [rdi + {rcx}]",
                "mov rdx, [rdi + {rdx}]",
                "mov rsi, [rdi + {rsi}]",
                "mov rdi, [rdi + {rdi}]",
                $($before,)*
                "vmrun rax",
                // RAX is what it was at VMRUN: the guest's block.
                "vmsave rax",
                "mov rax, [rsp]",
                "mov [rax + {r15}], r15",
                "mov [rax + {r14}], r14",
                "mov [rax + {r13}], r13",
                "mov [rax + {r12}], r12",
                "mov [rax + {rbp}], rbp",
                "mov [rax + {rbx}], rbx",
                "mov [rax + {r11}], r11",
                "mov [rax + {r10}], r10",
                "mov [rax + {r9}], r9",
                "mov [rax + {r8}], r8",
                "mov [rax + {rcx}], rcx",
                "mov [rax + {rdx}], rdx",
                "mov [rax + {rsi}], rsi",
                "mov [rax + {rdi}], rdi",
                "mov rax, [rsp + 8]",
                "vmload rax",
                $($after,)*
                // No value of the guest's is left for a speculated path to start from.
                "xor ecx, ecx",
                "xor edx, edx",
                "xor esi, esi",
                "xor edi, edi",
                "xor r8d, r8d",
                "xor r9d, r9d",
                "xor r10d, r10d",
                "xor r11d, r11d",
                "add rsp, 16",
                "pop r15",
                "pop r14",
                "pop r13",
                "pop r12",
                "pop rbx",
                "pop rbp",
                "stgi",
                "cli",
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
                rcx = const offset_of!(Regs, rcx),
                rdx = const offset_of!(Regs, rdx),
                rsi = const offset_of!(Regs, rsi),
                rdi = const offset_of!(Regs, rdi),
                $($operands)*
            )
        }
    };
}

world_switch!(
    /// Runs a guest until it leaves.
    ///
    /// RFLAGS.IF is set under the closed global flag: with V_INTR_MASKING it is this IF that lets a physical
    /// interrupt end the guest's run (APM 2 15.21.1). After STGI an interrupt that is pending is taken at once, and CLI ends that.
    /// VMLOAD stands between STI and VMRUN, so that no shadow of STI reaches the guest.
    ///
    /// # Safety
    /// `guest` is the control block of a virtual CPU and `host` a block that VMSAVE filled on this CPU, both mapped
    /// and in use by nobody else. EFER.SVME and VM_HSAVE_PA are set. What the block maps belongs to the guest.
    world_switch, [], []
);
world_switch!(
    /// The same, and the return stack is filled before it is used; with VERW and IBPB where they were chosen.
    ///
    /// # Safety
    /// As [`world_switch`].
    world_switch_guarded,
    ["cmp byte ptr [rip + {hvm_verw}], 0", "je 5f", "verw word ptr [rip + {selector}]", "5:"],
    [
        "cmp byte ptr [rip + {hvm_ibpb}], 0",
        "je 6f",
        speculation::ibpb!(),
        "6:",
        speculation::fill_return_stack!()
    ]
    hvm_verw = sym speculation::HVM_VERW,
    selector = sym speculation::SELECTOR,
    hvm_ibpb = sym speculation::HVM_IBPB,
    pred_cmd = const speculation::PRED_CMD,
);

/// Stores this CPU's FS, GS, TR, LDTR and the MSRs of SYSCALL and SYSENTER, for the way back from guests.
///
/// # Safety
/// `host` is a page of ours that this CPU alone uses, and EFER.SVME is set.
pub(super) unsafe fn save_host(host: MachineAddr) {
    // SAFETY: by the caller the instruction exists and writes within a page that is nobody else's.
    unsafe { core::arch::asm!("vmsave rax", in("rax") host.raw(), options(nostack, preserves_flags)) }
}
