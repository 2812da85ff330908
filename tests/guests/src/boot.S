# Entry of the first virtual CPU (PVH, 32-bit, EBX = start info), of the others, and of interrupts.

# Turns paging and long mode on, without a stack; the code segment is still 32-bit.
.macro enable_long_mode
    movl %cr4, %eax
    orl $0x20, %eax                     # PAE
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx              # EFER.LME
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl $0x80000033, %eax              # PG, NE, ET, MP, PE
    movl %eax, %cr0
.endm

    .section .data
    .balign 8
    .global first_tsc
first_tsc:
    .quad 0

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18                      # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_start

    .section .text.boot, "ax"
    .code32
    .global pvh_start
pvh_start:
    rdtsc                               # the first instruction tells when it was
    movl %eax, first_tsc
    movl %edx, first_tsc + 4
    cli
    cld
    movl %ebx, %esi

    # 4 GiB mapped one to one in pages of 2 MiB; the first 2 MiB in pages of 4 KiB.
    movl $boot_pdpt + 3, boot_pml4
    movl $boot_pd + 3, %eax
    xorl %ecx, %ecx
1:  movl %eax, boot_pdpt(,%ecx,8)
    addl $4096, %eax
    incl %ecx
    cmpl $4, %ecx
    jne 1b

    movl $0x83, %eax
    xorl %ecx, %ecx
1:  movl %eax, boot_pd(,%ecx,8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jne 1b
    movl $boot_pt + 3, boot_pd

    movl $3, %eax
    xorl %ecx, %ecx
1:  movl %eax, boot_pt(,%ecx,8)
    addl $4096, %eax
    incl %ecx
    cmpl $512, %ecx
    jne 1b

    lgdt gdt_pointer
    enable_long_mode
    ljmp $8, $start64

# Another virtual CPU, from the trampoline: protected mode, flat code segment 0x18.
    .global ap_start32
ap_start32:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %ss
    enable_long_mode
    ljmp $8, $ap_start64

    .code64
start64:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    movabsq $boot_stack_top, %rsp
    xorl %ebp, %ebp
    movl %esi, %edi
    call guest_entry
1:  cli
    hlt
    jmp 1b

# Also where VCPUOP_initialise starts a virtual CPU: any selectors, no stack.
    .global ap_start64
ap_start64:
    lgdt gdt_pointer
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    movl $1, %eax
    lock xaddl %eax, ap_ticket
    movl %eax, %edi
    cmpl $128, %eax
    jae 1f
    incl %eax
    shll $13, %eax
    leaq ap_stacks(%rax), %rsp
    xorl %ebp, %ebp
    pushq $8
    leaq 2f(%rip), %rax
    pushq %rax
    lretq
2:  call ap_entry
1:  cli
    hlt
    jmp 1b

# A hypercall by 32-bit code without paging. RDI: EAX, EBX, ECX, EDX, ESI, EDI, and whether the instruction is VMMCALL;
# EAX comes back there. All of it lies below 4 GiB.
    .global hypercall_32
hypercall_32:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushfq
    cli
    movq %rdi, %rbp
    pushq $0x18
    leaq 1f(%rip), %rax
    pushq %rax
    lretq
    .code32
1:  movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    movl 4(%ebp), %ebx
    movl 8(%ebp), %ecx
    movl 12(%ebp), %edx
    movl 16(%ebp), %esi
    movl 20(%ebp), %edi
    cmpl $0, 24(%ebp)
    movl (%ebp), %eax
    jne 2f
    vmcall
    jmp 3f
2:  vmmcall
3:  movl %eax, (%ebp)
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    ljmp $8, $4f
    .code64
4:  movl %esp, %esp                     # the upper half is not defined
    popfq
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

# Copied to 0x8000, where SIPI vector 8 starts a virtual CPU in real mode.
    .code16
    .global trampoline_start, trampoline_end
trampoline_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl 0x8000 + (trampoline_gdt - trampoline_start)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    .byte 0x66, 0xea                    # ljmpl $0x18, $ap_start32
    .long ap_start32
    .word 0x18
    .balign 8
trampoline_gdt:
    .word 31
    .long gdt
trampoline_end:

    .code64
    .text
    .balign 16
    .global isr_stubs
isr_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector != 8) && (vector < 10 || vector > 14) && (vector != 17) && (vector != 21) && (vector != 29) && (vector != 30)
    pushq $0
    .endif
    pushq $vector
    jmp isr_common
    .set vector, vector + 1
    .endr

isr_common:
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
    call interrupt_entry
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
    addq $16, %rsp
    iretq

    .section .data.boot, "aw"
    .balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 0x08: 64-bit code
    .quad 0x00cf93000000ffff            # 0x10: data
    .quad 0x00cf9b000000ffff            # 0x18: 32-bit code
gdt_pointer:
    .word 31
    .quad gdt

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .global boot_pml4, boot_pt
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4 * 4096
boot_pt:   .skip 4096
    .skip 32768
boot_stack_top:
ap_stacks: .skip 128 * 8192
    .global ap_ticket
ap_ticket: .skip 4
