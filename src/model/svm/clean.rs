//! Clean bits: what of a control block the processor need not load again (APM 2 15.15, table 15-9).
//!
//! A processor may keep parts of a block from one VMRUN to the next. The clean field of the block has a bit for each group
//! of fields: set, it says that what was kept is what the block holds. A field of a group is a [`Cached`], so that it cannot be
//! written but with its group's bit cleared, where it stands, in the block:
//!
//! ```text
//!            VMRUN, on a processor that has clean bits
//!   dirty -----------------------------------------------> clean
//!     ^                                                      |
//!     +------ a field written; another CPU or address -------+
//! ```
//!
//! What #VMEXIT stores the processor keeps too. Fields of no group are loaded each time: RIP, RSP, RAX, RFLAGS, EVENTINJ,
//! TLB_CONTROL, the interrupt shadow; and what VMLOAD loads.

use super::Vmcb;
use crate::addr::MachineAddr;
use crate::ids::CpuId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The groups, by their bits. The block has no field of the others: LBR (10), AVIC (11), CET (12).
pub(super) mod group {
    /// Intercepts, TSC offset, pause filter.
    pub(in crate::svm) const I: u32 = 1 << 0;
    /// The addresses of both permission maps.
    pub(in crate::svm) const IOPM: u32 = 1 << 1;
    pub(in crate::svm) const ASID: u32 = 1 << 2;
    /// All of offset 0x060: V_TPR, V_IRQ and what belongs to them.
    pub(in crate::svm) const TPR: u32 = 1 << 3;
    /// Nested paging, with the guest's PAT.
    pub(in crate::svm) const NP: u32 = 1 << 4;
    /// CR0, CR3, CR4, EFER.
    pub(in crate::svm) const CRX: u32 = 1 << 5;
    /// DR6, DR7.
    pub(in crate::svm) const DRX: u32 = 1 << 6;
    /// GDTR, IDTR.
    pub(in crate::svm) const DT: u32 = 1 << 7;
    /// CS, DS, ES, SS and the privilege level.
    pub(in crate::svm) const SEG: u32 = 1 << 8;
    pub(in crate::svm) const CR2: u32 = 1 << 9;
    pub(in crate::svm) const ALL: u32 = (1 << 10) - 1;
}

/// The clean field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Clean(u32);

impl Clean {
    /// Nothing is as the processor may have kept it.
    pub(super) const NOTHING: Self = Self(0);

    /// What is clean after VMRUN, on a processor that has clean bits (CPUID leaf 0x8000_000a, EDX bit 5) or has none.
    pub fn after_run(has_clean_bits: bool) -> Self {
        if has_clean_bits { Self(group::ALL) } else { Self::NOTHING }
    }
}

/// A field of the groups `GROUP`.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(super) struct Cached<T, const GROUP: u32>(T);

impl<T: Copy, const GROUP: u32> Cached<T, GROUP> {
    #[inline(always)]
    pub(super) fn get(&self) -> T {
        self.0
    }

    /// Writes the field of the block whose clean field is `clean`.
    #[inline(always)]
    pub(super) fn set(&mut self, value: T, clean: &mut Clean) {
        self.0 = value;
        clean.0 &= !GROUP;
    }
}

/// Where a block was loaded last. Only there can the processor have kept what is the block's.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Residence(Option<(CpuId, MachineAddr)>);

impl Residence {
    /// `vmcb`, which is at `addr`, is loaded on `cpu`.
    pub fn arrive(&mut self, vmcb: &mut Vmcb, cpu: CpuId, addr: MachineAddr) {
        if self.0.replace((cpu, addr)) != Some((cpu, addr)) {
            vmcb.forget_kept();
        }
    }

    /// Whether that is where it was loaded last.
    pub fn is_at(&self, cpu: CpuId, addr: MachineAddr) -> bool {
        self.0 == Some((cpu, addr))
    }
}
