# From the boot loader to 64-bit code at the image's own address.
#
# Multiboot2 (specification 2.0, 3.1 and 3.3): EAX holds the magic, EBX the physical address of the boot
# information, the processor is in 32-bit protected mode with flat segments, paging off, and ESP undefined.
# The image may have been loaded anywhere below 4 GiB in steps of 2 MiB: everything is addressed by
# EBP + offset from the image's start.

    .section .boot.header, "a"
    .balign 8
header:
    .long 0xe85250d6                # magic
    .long 0                         # architecture: i386 protected mode
    .long header_end - header
    .long -(0xe85250d6 + (header_end - header))
    # Information request, optional: all that we read.
    .balign 8
    .short 1, 1
    .long 8 + 9 * 4
    .long 1, 3, 6, 8, 9, 14, 15, 17, 21
    # Module alignment.
    .balign 8
    .short 6, 0
    .long 8
    # Framebuffer, optional, of any size.
    .balign 8
    .short 5, 1
    .long 20
    .long 0, 0, 32
    # Relocatable, optional: from 2 MiB to 4 GiB, aligned to 2 MiB, as low as possible.
    .balign 8
    .short 10, 1
    .long 24
    .long 0x200000, 0xffffffff, 0x200000, 1
    # End.
    .balign 8
    .short 0, 0
    .long 8
header_end:

    .section .boot.text, "ax"
    .code32
    .globl start
start:
    cli
    cld
    cmp eax, 0x36d76289
    jne boot_dead
    # The second word of the boot information is reserved: the one place where a return address may go.
    lea esp, [ebx + 8]
    call boot_here
    .globl boot_here
boot_here:
    pop ebp
    sub ebp, offset OFF_here
    mov dword ptr [ebx + 4], 0
    mov esi, ebx
    rdtsc
    mov [ebp + OFF_boot_tsc], eax
    mov [ebp + OFF_boot_tsc + 4], edx
    # A loader is not bound to clear what lies between file size and memory size.
    lea edi, [ebp + OFF_bss_start]
    mov ecx, offset BSS_WORDS
    xor eax, eax
    rep stosd
    lea esp, [ebp + OFF_stack_top]

    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb boot_no_long
    mov eax, 0x80000001
    cpuid
    test edx, 1 << 29
    jz boot_no_long
    test edx, 1 << 20               # NX: without it nothing is protected from execution
    jz boot_no_long

    # Identity map of the first 4 GiB in pages of 2 MiB.
    lea edi, [ebp + OFF_l2_low]
    mov eax, 0x83
    xor ecx, ecx
1:  mov [edi + ecx * 8], eax
    mov dword ptr [edi + ecx * 8 + 4], 0
    add eax, 0x200000
    inc ecx
    cmp ecx, 2048
    jne 1b
    lea edi, [ebp + OFF_l3_low]
    lea eax, [ebp + OFF_l2_low + 3]
    xor ecx, ecx
2:  mov [edi + ecx * 8], eax
    add eax, 0x1000
    inc ecx
    cmp ecx, 4
    jne 2b
    # The image, 64 MiB from its base, at its linked address.
    lea edi, [ebp + OFF_l2_image]
    mov eax, ebp
    or eax, 0x83
    xor ecx, ecx
3:  mov [edi + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 32
    jne 3b
    lea eax, [ebp + OFF_l2_image + 3]
    mov [ebp + OFF_l3_image + 0x141 * 8], eax
    lea eax, [ebp + OFF_l3_low + 3]
    mov [ebp + OFF_l4], eax
    lea eax, [ebp + OFF_l3_image + 3]
    mov [ebp + OFF_l4 + 261 * 8], eax

    mov eax, cr4
    or eax, 1 << 5                  # PAE
    mov cr4, eax
    lea eax, [ebp + OFF_l4]
    mov cr3, eax
    mov ecx, 0xc0000080             # EFER: LME, NXE
    rdmsr
    or eax, (1 << 8) | (1 << 11)
    wrmsr
    mov eax, cr0
    or eax, 0x80010001              # PG, WP, PE
    mov cr0, eax

    lea eax, [ebp + OFF_gdt]
    mov [ebp + OFF_gdt_ptr + 2], eax
    lgdt [ebp + OFF_gdt_ptr]
    push 8
    lea eax, [ebp + OFF_start64]
    push eax
    retf

boot_no_long:
    # Neither console nor memory is known yet: the first serial port and the screen's first line.
    lea esi, [ebp + OFF_no_long]
    mov edi, 0xb8000
4:  lodsb
    test al, al
    jz boot_dead
    mov ah, 0x07
    mov [edi], ax
    add edi, 2
    mov dx, 0x3f8
    out dx, al
    jmp 4b
boot_dead:
    cli
    hlt
    jmp boot_dead

    .code64
    .globl start64
start64:
    lea rax, [rip + 5f]
    mov rcx, rbp                    # upper half of RBP is undefined after the switch
    mov ecx, ecx
    sub rax, rcx
    movabs rdx, 0xffff82d040000000
    add rax, rdx
    jmp rax
5:  mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lea rsp, [rip + boot_stack + 0x20000 - 64]
    mov edi, esi                    # boot information
    mov rsi, rcx                    # where the image was loaded
    xor ebp, ebp
    call euxen_start
    ud2

    .section .data.boot, "aw"
    .balign 8
    .globl boot_tsc
boot_tsc:
    .quad 0                         # the TSC at the first instruction
    .globl boot_gdt_ptr
boot_gdt_ptr:
    .short 23
    .quad 0
    .balign 8
    .globl boot_gdt
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # 64-bit code
    .quad 0x00cf93000000ffff        # data
    .globl boot_no_long_mode
boot_no_long_mode:
    .asciz "Euxen needs a 64-bit processor with NX (CPUID 0x80000001 EDX bits 20 and 29).\r\n"

    # A stack of the form that each CPU has (src/machine/percpu.rs), and the boot page tables. The tables
    # stay: a CPU that starts goes through them to the hypervisor's own.
    .section .bss.boot, "aw", @nobits
    .balign 0x20000
    .globl boot_stack
boot_stack:
    .skip 0x20000
    .balign 4096
    .globl boot_l4
boot_l4:
    .skip 4096
    .globl boot_l3_low
boot_l3_low:
    .skip 4096
    .globl boot_l3_image
boot_l3_image:
    .skip 4096
    .globl boot_l2_low
boot_l2_low:
    .skip 4 * 4096
    .globl boot_l2_image
boot_l2_image:
    .skip 4096
