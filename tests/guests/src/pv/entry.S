# The paravirtual half of the image: Xen's ELF notes, the entry, the callbacks, and the way to user mode.

.macro note kind
    .balign 4
    .long 4, 99f - 98f, \kind
    .asciz "Xen"
98:
.endm
.macro note_end
99: .balign 4
.endm

    .section .note.Xen, "a", @note
    note 1                              # XEN_ELFNOTE_ENTRY
    .quad pv_start
    note_end
    note 2                              # XEN_ELFNOTE_HYPERCALL_PAGE
    .quad guest_hypercall_page
    note_end
    note 3                              # XEN_ELFNOTE_VIRT_BASE
    .quad 0
    note_end
    note 4                              # XEN_ELFNOTE_PADDR_OFFSET
    .quad 0
    note_end
    note 5                              # XEN_ELFNOTE_XEN_VERSION
    .asciz "xen-3.0"
    note_end
    note 6                              # XEN_ELFNOTE_GUEST_OS
    .asciz "euxen-guest"
    note_end
    note 8                              # XEN_ELFNOTE_LOADER
    .asciz "generic"
    note_end
    note 9                              # XEN_ELFNOTE_PAE_MODE
    .asciz "yes"
    note_end
    note 10                             # XEN_ELFNOTE_FEATURES
    .asciz "!writable_page_tables|pae_pgdir_above_4gb"
    note_end
    note 13                             # XEN_ELFNOTE_L1_MFN_VALID
    .quad 1, 1
    note_end
    note 16                             # XEN_ELFNOTE_MOD_START_PFN
    .long 1
    note_end
    note 17                             # XEN_ELFNOTE_SUPPORTED_FEATURES: writable_page_tables, dom0
    .long 1 << 0 | 1 << 11
    note_end

    .section .text.boot, "ax"
    .code64
# RSI = start info; the page tables map the image at its addresses.
    .global pv_start
pv_start:
    cld
    movabsq $boot_stack_top, %rsp
    xorl %ebp, %ebp
    movq %rsi, %rdi
    call pv_guest_entry
1:  jmp 1b

# Another virtual CPU, started by VCPUOP_initialise with a stack of its own; RDI = its number.
    .global pv_ap_start
pv_ap_start:
    cld
    xorl %ebp, %ebp
    call pv_ap_entry
1:  jmp 1b

    .text
# Each trap's frame begins with RCX and R11, then an error code where the vector has one.
    .balign 16
    .global pv_stubs
pv_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    popq %rcx
    popq %r11
    .if (vector != 8) && (vector < 10 || vector > 14) && (vector != 17) && (vector != 21) && (vector != 29) && (vector != 30)
    pushq $0
    .endif
    pushq $vector
    jmp pv_common
    .set vector, vector + 1
    .endr

.macro callback name, vector
    .balign 16
    .global \name
\name:
    popq %rcx
    popq %r11
    pushq $0
    pushq $\vector
    jmp pv_common
.endm
    callback pv_event, 0xf3
    callback pv_nmi, 2
    callback pv_syscall, 0xf5
    callback pv_syscall32, 0xf6
    callback pv_sysenter, 0xf7

# Above RCX and R11 lie DS, ES, FS and GS.
    .balign 16
    .global pv_failsafe
pv_failsafe:
    popq %rcx
    popq %r11
    popq pv_failsafe_selectors
    popq pv_failsafe_selectors + 8
    popq pv_failsafe_selectors + 16
    popq pv_failsafe_selectors + 24
    pushq $0
    pushq $0xf4
    jmp pv_common

pv_common:
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %rax
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    movq %rsp, %rbp
    andq $~15, %rsp
    call interrupt_entry
    movq %rbp, %rsp
# RSP = a frame; goes on where it says.
pv_resume:
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rax
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    # Vector and error become RCX and flags of the frame that the iret hypercall takes.
    movq $0, 8(%rsp)
    movq %rcx, (%rsp)
    pushq %r11
    pushq %rax
    movl $23, %eax
    syscall
    ud2

# fn pv_to_user(frame: *const Frame): goes on in user mode as the frame says, and returns at pv_from_user.
    .global pv_to_user
pv_to_user:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, pv_user_caller
    subq $176, %rsp
    movq %rdi, %rsi
    movq %rsp, %rdi
    movl $22, %ecx
    rep movsq
    jmp pv_resume

# Called on the trap's stack, which is left behind: returns to the caller of pv_to_user.
    .global pv_from_user
pv_from_user:
    movq pv_user_caller, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

    .section .bss.boot, "aw", @nobits
    .balign 8
    .global pv_failsafe_selectors
pv_failsafe_selectors: .skip 32
pv_user_caller: .skip 8
