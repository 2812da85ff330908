//! The virtual machine control block: what the processor loads at VMRUN and stores at #VMEXIT.
//!
//! One page, in two parts: the control area from 0, which says what to intercept and why the guest left, and
//! the state save area from 0x400. Names and offsets are those of APM 2 appendix B, tables B-1 and B-2.
//! Every field holds any bit pattern, so a zeroed page is a valid [`Vmcb`].

use bitflags::bitflags;
use model::regs::{DescriptorTable, Segment};

bitflags! {
    /// Intercepts of offset 0x00c.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub(super) struct Intercept3: u32 {
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

    /// Intercepts of offset 0x010.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub(super) struct Intercept4: u32 {
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

    /// The virtual interrupt controls, offset 0x060. V_TPR is bits 7:0, V_INTR_PRIO bits 19:16.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub(super) struct IntCtl: u64 {
        const V_IRQ = 1 << 8;
        const V_IGN_TPR = 1 << 20;
        const V_INTR_MASKING = 1 << 24;
        const _ = !0;
    }
}

/// TLB_CONTROL: what to forget at VMRUN (APM 2 table 15-9).
pub(super) mod tlb_control {
    pub(crate) const NOTHING: u8 = 0;
    /// Every ASID's entries.
    pub(crate) const ALL: u8 = 1;
    /// This ASID's entries; only with flush by ASID.
    pub(crate) const THIS_ASID: u8 = 3;
}

/// A segment register as the save area has it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Seg {
    selector: u16,
    attributes: u16,
    limit: u32,
    base: u64,
}

impl Seg {
    pub(super) fn to_segment(self) -> Segment {
        Segment { selector: self.selector, attributes: self.attributes, limit: self.limit, base: self.base }
    }

    pub(super) fn from_segment(from: Segment) -> Self {
        Self { selector: from.selector, attributes: from.attributes & 0xfff, limit: from.limit, base: from.base }
    }

    pub(super) fn to_table(self) -> DescriptorTable {
        // The limit has 16 bits (APM 2 4.6.1); the field's upper half is reserved.
        DescriptorTable { base: self.base, limit: (self.limit & 0xffff) as u16 }
    }

    pub(super) fn from_table(from: DescriptorTable) -> Self {
        Self { selector: 0, attributes: 0, limit: u32::from(from.limit), base: from.base }
    }
}

/// The control block.
#[repr(C, align(4096))]
pub(super) struct Vmcb {
    pub(super) intercept_cr: u32,
    pub(super) intercept_dr: u32,
    pub(super) intercept_exceptions: u32,
    pub(super) intercept3: Intercept3,
    pub(super) intercept4: Intercept4,
    reserved_014: [u8; 0x28],
    pub(super) pause_filter_threshold: u16,
    pub(super) pause_filter_count: u16,
    pub(super) iopm_base: u64,
    pub(super) msrpm_base: u64,
    pub(super) tsc_offset: u64,
    pub(super) asid: u32,
    pub(super) tlb_control: u8,
    reserved_05d: [u8; 3],
    pub(super) int_ctl: IntCtl,
    /// Bit 0 is the interrupt shadow.
    pub(super) int_state: u64,
    pub(super) exit_code: u64,
    pub(super) exit_info1: u64,
    pub(super) exit_info2: u64,
    pub(super) exit_int_info: u64,
    /// Bit 0 turns nested paging on.
    pub(super) np_control: u64,
    reserved_098: [u8; 0x10],
    pub(super) event_inj: u64,
    pub(super) n_cr3: u64,
    reserved_0b8: [u8; 8],
    /// Zero: the processor keeps nothing of this block from one VMRUN to the next (APM 2 15.15).
    clean: u64,
    pub(super) next_rip: u64,
    reserved_0d0: [u8; 0x330],

    /// ES, CS, SS, DS, FS, GS, as [`model::regs::SegmentName`] counts.
    pub(super) segments: [Seg; 6],
    pub(super) gdtr: Seg,
    pub(super) ldtr: Seg,
    pub(super) idtr: Seg,
    pub(super) tr: Seg,
    reserved_4a0: [u8; 0x2b],
    pub(super) cpl: u8,
    reserved_4cc: [u8; 4],
    pub(super) efer: u64,
    reserved_4d8: [u8; 0x70],
    pub(super) cr4: u64,
    pub(super) cr3: u64,
    pub(super) cr0: u64,
    pub(super) dr7: u64,
    pub(super) dr6: u64,
    pub(super) rflags: u64,
    pub(super) rip: u64,
    reserved_580: [u8; 0x58],
    pub(super) rsp: u64,
    reserved_5e0: [u8; 0x18],
    pub(super) rax: u64,
    pub(super) star: u64,
    pub(super) lstar: u64,
    pub(super) cstar: u64,
    pub(super) sfmask: u64,
    pub(super) kernel_gs_base: u64,
    pub(super) sysenter_cs: u64,
    pub(super) sysenter_esp: u64,
    pub(super) sysenter_eip: u64,
    pub(super) cr2: u64,
    reserved_648: [u8; 0x20],
    pub(super) g_pat: u64,
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
    /// Whether STI or MOV SS holds interrupts off for one instruction.
    pub(super) fn shadow(&self) -> bool {
        self.int_state & 1 != 0
    }

    /// Ends the interrupt shadow.
    pub(super) fn end_shadow(&mut self) {
        self.int_state &= !1;
    }
}

#[cfg(test)]
impl Vmcb {
    /// A block of zeroes, for the tests of what reads and writes it.
    pub(super) fn zeroed() -> alloc::boxed::Box<Self> {
        // SAFETY: every field holds any bit pattern.
        alloc::boxed::Box::new(unsafe { core::mem::zeroed() })
    }
}
