# An application processor's way from real mode to the hypervisor.
#
# Copied to a page below 1 MiB, where the STARTUP IPI sends the processor with CS:IP = page:0. The last words
# of the page are its arguments, written before the IPI. It goes through the boot page tables, which map both
# this page and the image, to the hypervisor's own tables and its stack.

    .section .boot.trampoline, "ax"
    .code16
trampoline:
    cli
    cld
    mov ax, cs
    mov ds, ax
    xor ebx, ebx
    mov bx, cs
    shl ebx, 4                      # linear address of this page
    lea eax, [ebx + at_gdt]
    mov [at_gdt_ptr + 2], eax
    lgdt [at_gdt_ptr]
    lea eax, [ebx + at_64]
    mov [at_far], eax
    mov eax, [0xfd8]                # argument: physical address of the boot L4
    mov cr3, eax
    mov eax, cr4
    or eax, 1 << 5
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, (1 << 8) | (1 << 11)
    wrmsr
    mov eax, 0x80010011             # PG, WP, ET, PE: long mode at once
    mov cr0, eax
    jmp fword ptr [at_far]

    .code64
trampoline64:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rax, [rbx + 0xff8]          # argument: where to go on, at the image's address
    mov rsp, [rbx + 0xfe8]          # argument: top of its stack
    mov rcx, [rbx + 0xff0]          # argument: the hypervisor's L4
    mov rdi, [rbx + 0xfe0]          # argument: its number
    jmp rax

    .balign 8
trampoline_far:
    .long 0
    .short 8
    .balign 8
trampoline_gdt_ptr:
    .short 23
    .long 0
    .balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    # Places within the page.
    .set at_gdt, trampoline_gdt - trampoline
    .set at_gdt_ptr, trampoline_gdt_ptr - trampoline
    .set at_64, trampoline64 - trampoline
    .set at_far, trampoline_far - trampoline

    .section .text.ap, "ax"
    .globl ap_entry
ap_entry:                           # RCX: the hypervisor's L4; RDI: number; RSP: its own stack, mapped there alone
    mov cr3, rcx
    xor ebp, ebp
    call euxen_start_ap
    ud2
