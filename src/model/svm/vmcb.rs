//! The virtual machine control block: what the processor loads at VMRUN and stores at #VMEXIT.
//!
//! One page, in two parts: the control area from 0, which says what to intercept and why the guest left, and
//! the state save area from 0x400. Names and offsets are those of APM 2 appendix B, tables B-1 and B-2.
//! Every field holds any bit pattern, so a zeroed page is a valid [`Vmcb`].

use super::clean::group::*;
use super::clean::{Cached, Clean};
use crate::regs::{DescriptorTable, Segment};
use alloc::boxed::Box;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Intercepts of offset 0x00c.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Intercept3(u32);

/// Intercepts of offset 0x010.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Intercept4(u32);

/// The virtual interrupt controls, offset 0x060. V_TPR is bits 7:0, V_INTR_PRIO bits 19:16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct IntCtl(u64);

#[expect(missing_docs, reason = "the names are the manual's")]
mod bits {
    use super::{IntCtl, Intercept3, Intercept4};

    bitflags::bitflags! {
        impl Intercept3: u32 {
            const INTR = 1 << 0;
            const NMI = 1 << 1;
            const INIT = 1 << 3;
            const VINTR = 1 << 4;
            const RDPMC = 1 << 15;
            const CPUID = 1 << 18;
            const IRET = 1 << 20;
            const INVD = 1 << 22;
            const PAUSE = 1 << 23;
            const HLT = 1 << 24;
            const INVLPGA = 1 << 26;
            const IOIO_PROT = 1 << 27;
            const MSR_PROT = 1 << 28;
            const TASK_SWITCH = 1 << 29;
            const SHUTDOWN = 1 << 31;
        }

        impl Intercept4: u32 {
            const VMRUN = 1 << 0;
            const VMMCALL = 1 << 1;
            const VMLOAD = 1 << 2;
            const VMSAVE = 1 << 3;
            const STGI = 1 << 4;
            const CLGI = 1 << 5;
            const SKINIT = 1 << 6;
            const WBINVD = 1 << 9;
            const MONITOR = 1 << 10;
            const MWAIT = 1 << 11;
            const MWAIT_ARMED = 1 << 12;
            const XSETBV = 1 << 13;
        }

        impl IntCtl: u64 {
            const V_IRQ = 1 << 8;
            const V_IGN_TPR = 1 << 20;
            const V_INTR_MASKING = 1 << 24;
            const _ = !0;
        }
    }
}

/// TLB_CONTROL: what to forget at VMRUN (APM 2 table 15-9).
pub mod tlb_control {
    /// Nothing.
    pub const NOTHING: u8 = 0;
    /// Every ASID's entries.
    pub const ALL: u8 = 1;
    /// This ASID's entries; only with flush by ASID.
    pub const THIS_ASID: u8 = 3;
}

/// A segment register as the save area has it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Seg {
    selector: u16,
    attributes: u16,
    limit: u32,
    base: u64,
}

impl Seg {
    /// In the words of both vendors.
    #[inline]
    pub fn to_segment(self) -> Segment {
        Segment { selector: self.selector, attributes: self.attributes, limit: self.limit, base: self.base }
    }

    /// From the words of both vendors.
    #[inline]
    pub fn from_segment(from: Segment) -> Self {
        Self { selector: from.selector, attributes: from.attributes & 0xfff, limit: from.limit, base: from.base }
    }

    /// As a descriptor table's register.
    #[inline]
    pub fn to_table(self) -> DescriptorTable {
        // The limit has 16 bits (APM 2 4.6.1); the field's upper half is reserved.
        DescriptorTable { base: self.base, limit: (self.limit & 0xffff) as u16 }
    }

    /// From a descriptor table's register.
    #[inline]
    pub fn from_table(from: DescriptorTable) -> Self {
        Self { selector: 0, attributes: 0, limit: u32::from(from.limit), base: from.base }
    }
}

/// The control block. A field that a clean bit covers is written by the functions of [`Vmcb`] alone.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
#[expect(missing_docs, reason = "the names are the manual's")]
pub struct Vmcb {
    intercept_cr: Cached<u32, I>,
    pub(super) intercept_dr: Cached<u32, I>,
    pub(super) intercept_exceptions: Cached<u32, I>,
    pub(super) intercept3: Cached<Intercept3, I>,
    pub(super) intercept4: Cached<Intercept4, I>,
    reserved_014: [u8; 0x28],
    pub(super) pause_filter_threshold: Cached<u16, I>,
    pub(super) pause_filter_count: Cached<u16, I>,
    pub(super) iopm_base: Cached<u64, IOPM>,
    pub(super) msrpm_base: Cached<u64, IOPM>,
    pub(super) tsc_offset: Cached<u64, I>,
    pub(super) asid: Cached<u32, ASID>,
    pub tlb_control: u8,
    reserved_05d: [u8; 3],
    pub(super) int_ctl: Cached<IntCtl, TPR>,
    /// Bit 0 is the interrupt shadow.
    pub int_state: u64,
    pub exit_code: u64,
    pub exit_info1: u64,
    pub exit_info2: u64,
    pub exit_int_info: u64,
    /// Bit 0 turns nested paging on.
    pub(super) np_control: Cached<u64, NP>,
    reserved_098: [u8; 0x10],
    pub event_inj: u64,
    pub(super) n_cr3: Cached<u64, NP>,
    reserved_0b8: [u8; 8],
    pub(super) clean: Clean,
    reserved_0c4: [u8; 4],
    pub next_rip: u64,
    reserved_0d0: [u8; 0x330],

    /// ES, CS, SS, DS, FS, GS, as [`crate::regs::SegmentName`] counts. FS and GS are VMLOAD's and would need no bit.
    pub(super) segments: [Cached<Seg, SEG>; 6],
    pub(super) gdtr: Cached<Seg, DT>,
    pub(super) ldtr: Seg,
    pub(super) idtr: Cached<Seg, DT>,
    pub(super) tr: Seg,
    reserved_4a0: [u8; 0x2b],
    pub(super) cpl: Cached<u8, SEG>,
    reserved_4cc: [u8; 4],
    pub(super) efer: Cached<u64, CRX>,
    reserved_4d8: [u8; 0x70],
    pub(super) cr4: Cached<u64, CRX>,
    pub(super) cr3: Cached<u64, CRX>,
    pub(super) cr0: Cached<u64, CRX>,
    pub(super) dr7: Cached<u64, DRX>,
    pub(super) dr6: Cached<u64, DRX>,
    pub rflags: u64,
    pub rip: u64,
    reserved_580: [u8; 0x58],
    pub rsp: u64,
    reserved_5e0: [u8; 0x18],
    pub rax: u64,
    pub(super) star: u64,
    pub(super) lstar: u64,
    pub(super) cstar: u64,
    pub(super) sfmask: u64,
    pub(super) kernel_gs_base: u64,
    pub(super) sysenter_cs: u64,
    pub(super) sysenter_esp: u64,
    pub(super) sysenter_eip: u64,
    pub(super) cr2: Cached<u64, CR2>,
    reserved_648: [u8; 0x20],
    pub(super) g_pat: Cached<u64, NP>,
    reserved_670: [u8; 0x990],
}

macro_rules! offsets {
    ($($field:ident $offset:literal)*) => {
        const _: () = { $(assert!(core::mem::offset_of!(Vmcb, $field) == $offset);)* };
    };
}

offsets! {
    intercept_cr 0x000  intercept_dr 0x004  intercept_exceptions 0x008  intercept3 0x00c  intercept4 0x010
    pause_filter_threshold 0x03c  pause_filter_count 0x03e  iopm_base 0x040  msrpm_base 0x048  tsc_offset 0x050  asid 0x058  tlb_control 0x05c  int_ctl 0x060
    int_state 0x068  exit_code 0x070  exit_info1 0x078  exit_info2 0x080  exit_int_info 0x088  np_control 0x090
    event_inj 0x0a8  n_cr3 0x0b0  clean 0x0c0  next_rip 0x0c8
    segments 0x400  gdtr 0x460  ldtr 0x470  idtr 0x480  tr 0x490  cpl 0x4cb  efer 0x4d0  cr4 0x548  cr3 0x550
    cr0 0x558  dr7 0x560  dr6 0x568  rflags 0x570  rip 0x578  rsp 0x5d8  rax 0x5f8  star 0x600  lstar 0x608
    cstar 0x610  sfmask 0x618  kernel_gs_base 0x620  sysenter_cs 0x628  sysenter_esp 0x630  sysenter_eip 0x638
    cr2 0x640  g_pat 0x668
}
const _: () = assert!(size_of::<Vmcb>() == 4096);

impl Vmcb {
    /// A block of zeroes.
    pub fn zeroed() -> Box<Self> {
        Box::new(Self::new_zeroed())
    }

    /// The block has run, on a processor that keeps what `clean` says (APM 2 15.15).
    #[inline(always)]
    pub fn note_run(&mut self, clean: Clean) {
        self.clean = clean;
    }

    /// All of it is loaded at the next VMRUN.
    pub(super) fn forget_kept(&mut self) {
        self.clean = Clean::NOTHING;
    }

    /// Whether STI or MOV SS holds interrupts off for one instruction.
    #[inline]
    pub fn shadow(&self) -> bool {
        self.int_state & 1 != 0
    }

    /// Ends the interrupt shadow.
    #[inline]
    pub fn end_shadow(&mut self) {
        self.int_state &= !1;
    }

    /// What exits.
    pub fn intercepts(&self) -> Intercept3 {
        self.intercept3.get()
    }

    /// Whether these exit.
    pub fn set_intercept(&mut self, what: Intercept3, exits: bool) {
        let mut all = self.intercept3.get();
        all.set(what, exits);
        self.intercept3.set(all, &mut self.clean);
    }

    /// Whether accesses to debug registers exit.
    #[inline]
    pub fn set_debug_exits(&mut self, exits: bool) {
        let all = if exits { u32::MAX } else { 0 };
        if self.intercept_dr.get() != all {
            self.intercept_dr.set(all, &mut self.clean);
        }
    }

    /// The virtual interrupt controls.
    pub fn int_ctl(&self) -> IntCtl {
        self.int_ctl.get()
    }

    /// Writes [`Vmcb::int_ctl`].
    pub fn set_int_ctl(&mut self, value: IntCtl) {
        self.int_ctl.set(value, &mut self.clean);
    }

    /// Sets the address-space identifier.
    pub fn set_asid(&mut self, asid: u32) {
        self.asid.set(asid, &mut self.clean);
    }

    /// Sets what is added to the TSC.
    pub fn set_tsc_offset(&mut self, offset: u64) {
        self.tsc_offset.set(offset, &mut self.clean);
    }
}
