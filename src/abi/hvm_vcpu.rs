//! The state in which a virtual CPU of an HVM or PVH domain starts (`xen/include/public/hvm/hvm_vcpu.h`).
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `VCPUOP_initialise`: the state, by mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HvmContext {
    /// [`VCPU_HVM_MODE_32B`] or [`VCPU_HVM_MODE_64B`].
    pub mode: u32,
    pub pad: u32,
    /// The bytes of an [`X86_32`], or of an [`X86_64`] and eight unused ones.
    pub cpu_regs: [u64; 15],
}
layout!(HvmContext: 128 { mode @ 0, pad @ 4, cpu_regs @ 8 });

// `HvmContext::mode`.
pub const VCPU_HVM_MODE_32B: u32 = 0;
pub const VCPU_HVM_MODE_64B: u32 = 1;

/// A start in 32-bit protected mode, or in real mode with CR0.PE clear.
///
/// An `*_ar` is a segment's attributes: type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct X86_32 {
    pub eax: u32,
    pub ecx: u32,
    pub edx: u32,
    pub ebx: u32,
    pub esp: u32,
    pub ebp: u32,
    pub esi: u32,
    pub edi: u32,
    pub eip: u32,
    pub eflags: u32,
    pub cr0: u32,
    pub cr3: u32,
    pub cr4: u32,
    pub pad1: u32,
    pub efer: u64,
    pub cs_base: u32,
    pub ds_base: u32,
    pub ss_base: u32,
    pub es_base: u32,
    pub tr_base: u32,
    pub cs_limit: u32,
    pub ds_limit: u32,
    pub ss_limit: u32,
    pub es_limit: u32,
    pub tr_limit: u32,
    pub cs_ar: u16,
    pub ds_ar: u16,
    pub ss_ar: u16,
    pub es_ar: u16,
    pub tr_ar: u16,
    pub pad2: [u16; 3],
}
layout!(X86_32: 120 {
    eax @ 0, ecx @ 4, edx @ 8, ebx @ 12, esp @ 16, ebp @ 20, esi @ 24, edi @ 28, eip @ 32, eflags @ 36, cr0 @ 40,
    cr3 @ 44, cr4 @ 48, pad1 @ 52, efer @ 56, cs_base @ 64, ds_base @ 68, ss_base @ 72, es_base @ 76, tr_base @ 80,
    cs_limit @ 84, ds_limit @ 88, ss_limit @ 92, es_limit @ 96, tr_limit @ 100, cs_ar @ 104, ds_ar @ 106,
    ss_ar @ 108, es_ar @ 110, tr_ar @ 112, pad2 @ 114,
});

/// A start in 64-bit mode, with flat segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct X86_64 {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rip: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}
layout!(X86_64: 112 {
    rax @ 0, rcx @ 8, rdx @ 16, rbx @ 24, rsp @ 32, rbp @ 40, rsi @ 48, rdi @ 56, rip @ 64, rflags @ 72, cr0 @ 80,
    cr3 @ 88, cr4 @ 96, efer @ 104,
});
