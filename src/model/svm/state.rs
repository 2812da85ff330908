//! The guest's registers in the control block: segments, control registers, MSRs.
//!
//! EFER.SVME must be set in the block (APM 2 15.5.1) though the guest believes it clear; so reads of EFER
//! exit too, and [`Vmcb::efer`] hides the bit.

use super::vmcb::{IntCtl, Intercept3, Intercept4, Seg, Vmcb};
use crate::addr::{MachineAddr, Mfn};
use crate::debug::{DR6_RESET, DR7_RESET, reported};
use crate::regs::{Cr0, DescriptorTable, Efer, GuestMsr, Segment, SegmentName, vector};

/// PAUSEs until a guest counts as spinning: some tens of microseconds, longer than a lock is held.
const SPINS: u16 = 4000;
/// Cycles between two PAUSEs of one loop; after a longer time the count begins anew.
const SPIN_CYCLES: u16 = 128;

const V_TPR: u64 = 0xf;
const V_INTR_PRIO_SHIFT: u32 = 16;

impl Vmcb {
    /// Fills a zeroed block with what to intercept and with the state after RESET (APM 2 table 14-1).
    ///
    /// Not intercepted: CR0, CR3 and CR4, whose changes nested paging makes harmless to the host; INVLPG; RDTSC,
    /// which TSC_OFFSET serves. #DB and #AC are, because their delivery can raise them again without end
    /// (CVE-2015-8104, CVE-2015-5307); DR0 to DR15 as long as the processor has not the guest's.
    pub fn initialise(&mut self, nested_root: Mfn, msrpm: MachineAddr, iopm: MachineAddr) {
        self.intercept_exceptions.set(1 << vector::DB | 1 << vector::AC | 1 << vector::MC, &mut self.clean);
        let intercept3 = Intercept3::INTR
            | Intercept3::NMI
            | Intercept3::INIT
            | Intercept3::RDPMC
            | Intercept3::CPUID
            | Intercept3::INVD
            | Intercept3::HLT
            | Intercept3::INVLPGA
            | Intercept3::IOIO_PROT
            | Intercept3::MSR_PROT
            | Intercept3::TASK_SWITCH
            | Intercept3::SHUTDOWN;
        self.intercept3.set(intercept3, &mut self.clean);
        self.intercept4.set(Intercept4::all(), &mut self.clean);
        self.set_debug_exits(true);
        self.iopm_base.set(iopm.raw(), &mut self.clean);
        self.msrpm_base.set(msrpm.raw(), &mut self.clean);
        self.int_ctl.set(IntCtl::V_INTR_MASKING, &mut self.clean);
        self.np_control.set(1, &mut self.clean);
        self.n_cr3.set(nested_root.base().raw(), &mut self.clean);
        self.reset();
    }

    /// Makes [`SPINS`] PAUSEs exit, if they come close together where the processor can tell (APM 2 15.14.4).
    pub fn watch_spinning(&mut self, has_threshold: bool) {
        self.set_intercept(Intercept3::PAUSE, true);
        self.pause_filter_count.set(SPINS, &mut self.clean);
        self.pause_filter_threshold.set(if has_threshold { SPIN_CYCLES } else { 0 }, &mut self.clean);
    }

    fn reset(&mut self) {
        let data = Segment { selector: 0, attributes: 0x93, limit: 0xffff, base: 0 };
        for segment in &mut self.segments {
            segment.set(Seg::from_segment(data), &mut self.clean);
        }
        let code = Segment { selector: 0xf000, attributes: 0x9b, base: 0xffff_0000, ..data };
        self.set_segment(SegmentName::Cs, code);
        self.set_segment(SegmentName::Ldtr, Segment { attributes: 0x82, ..data });
        self.set_segment(SegmentName::Tr, Segment { attributes: 0x8b, ..data });
        let table = DescriptorTable { base: 0, limit: 0xffff };
        self.gdtr.set(Seg::from_table(table), &mut self.clean);
        self.idtr.set(Seg::from_table(table), &mut self.clean);
        self.cr0.set((Cr0::CD | Cr0::NW | Cr0::ET).bits(), &mut self.clean);
        self.dr6.set(DR6_RESET, &mut self.clean);
        self.dr7.set(DR7_RESET, &mut self.clean);
        self.efer.set(Efer::SVME.bits(), &mut self.clean);
        self.g_pat.set(0x0007_0406_0007_0406, &mut self.clean);
    }

    /// A segment register.
    #[inline]
    pub fn segment(&self, name: SegmentName) -> Segment {
        match name {
            SegmentName::Ldtr => self.ldtr,
            SegmentName::Tr => self.tr,
            _ => self.segments[name as usize].get(),
        }
        .to_segment()
    }

    /// Writes a segment; the privilege level is that of SS.
    pub fn set_segment(&mut self, name: SegmentName, segment: Segment) {
        let raw = Seg::from_segment(segment);
        match name {
            SegmentName::Ldtr => self.ldtr = raw,
            SegmentName::Tr => self.tr = raw,
            _ => self.segments[name as usize].set(raw, &mut self.clean),
        }
        if name == SegmentName::Ss {
            self.cpl.set(segment.dpl(), &mut self.clean);
        }
    }

    /// The current privilege level.
    #[inline]
    pub fn cpl(&self) -> u8 {
        self.cpl.get()
    }

    /// GDTR.
    pub fn gdtr(&self) -> DescriptorTable {
        self.gdtr.get().to_table()
    }

    /// Writes GDTR.
    pub fn set_gdtr(&mut self, table: DescriptorTable) {
        self.gdtr.set(Seg::from_table(table), &mut self.clean);
    }

    /// IDTR.
    pub fn idtr(&self) -> DescriptorTable {
        self.idtr.get().to_table()
    }

    /// Writes IDTR.
    pub fn set_idtr(&mut self, table: DescriptorTable) {
        self.idtr.set(Seg::from_table(table), &mut self.clean);
    }

    /// DR6.
    pub fn dr6(&self) -> u64 {
        self.dr6.get()
    }

    /// Writes DR6.
    pub fn set_dr6(&mut self, value: u64) {
        self.dr6.set(value, &mut self.clean);
    }

    /// DR7.
    pub fn dr7(&self) -> u64 {
        self.dr7.get()
    }

    /// Writes DR7.
    pub fn set_dr7(&mut self, value: u64) {
        self.dr7.set(value, &mut self.clean);
    }

    /// A debug exception has come: DR6 tells of breakpoints that are on, and of no others.
    pub fn note_debug_exception(&mut self) {
        self.set_dr6(reported(self.dr6(), self.dr7()));
    }

    /// Control register 0, 2, 3 or 4; 0 for another number.
    #[inline]
    pub fn cr(&self, n: u8) -> u64 {
        match n {
            0 => self.cr0.get(),
            2 => self.cr2.get(),
            3 => self.cr3.get(),
            4 => self.cr4.get(),
            _ => 0,
        }
    }

    /// Writes control register 0, 2, 3 or 4; another number changes nothing.
    pub fn set_cr(&mut self, n: u8, value: u64) {
        match n {
            0 => {
                self.cr0.set(value, &mut self.clean);
                self.set_efer(self.efer.get());
            }
            2 => self.cr2.set(value, &mut self.clean),
            3 => self.cr3.set(value, &mut self.clean),
            4 => self.cr4.set(value, &mut self.clean),
            _ => {}
        }
    }

    /// EFER as the guest believes it to be.
    #[inline]
    pub fn efer(&self) -> u64 {
        self.efer.get() & !Efer::SVME.bits()
    }

    /// Writes EFER; LMA follows from LME and CR0.PG.
    pub fn set_efer(&mut self, value: u64) {
        let mut efer = value & !Efer::LMA.bits() | Efer::SVME.bits();
        if efer & Efer::LME.bits() != 0 && self.cr0.get() & Cr0::PG.bits() != 0 {
            efer |= Efer::LMA.bits();
        }
        self.efer.set(efer, &mut self.clean);
    }

    /// Whether the guest is in long mode.
    #[inline]
    pub fn is_long(&self) -> bool {
        self.efer.get() & Efer::LMA.bits() != 0
    }

    /// Whether the guest runs 64-bit code.
    #[inline]
    pub fn in_64_bit_code(&self) -> bool {
        self.is_long() && self.segment(SegmentName::Cs).is_long()
    }

    /// The MSRs that the block holds: `None` for TSC_AUX.
    #[inline]
    pub fn msr(&self, msr: GuestMsr) -> Option<u64> {
        Some(match msr {
            GuestMsr::Efer => self.efer(),
            GuestMsr::Star => self.star,
            GuestMsr::Lstar => self.lstar,
            GuestMsr::Cstar => self.cstar,
            GuestMsr::SyscallMask => self.sfmask,
            GuestMsr::KernelGsBase => self.kernel_gs_base,
            GuestMsr::FsBase => self.segment(SegmentName::Fs).base,
            GuestMsr::GsBase => self.segment(SegmentName::Gs).base,
            GuestMsr::SysenterCs => self.sysenter_cs,
            GuestMsr::SysenterEsp => self.sysenter_esp,
            GuestMsr::SysenterEip => self.sysenter_eip,
            GuestMsr::Pat => self.g_pat.get(),
            GuestMsr::TscAux => return None,
        })
    }

    /// Writes an MSR of [`Vmcb::msr`]; TSC_AUX is not one.
    pub fn set_msr(&mut self, msr: GuestMsr, value: u64) {
        match msr {
            GuestMsr::Efer => self.set_efer(value),
            GuestMsr::Star => self.star = value,
            GuestMsr::Lstar => self.lstar = value,
            GuestMsr::Cstar => self.cstar = value,
            GuestMsr::SyscallMask => self.sfmask = value,
            GuestMsr::KernelGsBase => self.kernel_gs_base = value,
            GuestMsr::FsBase => self.set_base(SegmentName::Fs, value),
            GuestMsr::GsBase => self.set_base(SegmentName::Gs, value),
            GuestMsr::SysenterCs => self.sysenter_cs = value,
            GuestMsr::SysenterEsp => self.sysenter_esp = value,
            GuestMsr::SysenterEip => self.sysenter_eip = value,
            GuestMsr::Pat => self.g_pat.set(value, &mut self.clean),
            GuestMsr::TscAux => {}
        }
    }

    fn set_base(&mut self, name: SegmentName, base: u64) {
        self.set_segment(name, Segment { base, ..self.segment(name) });
    }

    /// CR8, which the processor keeps in V_TPR.
    #[inline]
    pub fn cr8(&self) -> u8 {
        (self.int_ctl.get().bits() & V_TPR) as u8
    }

    /// Sets CR8; only its low four bits exist.
    pub fn set_cr8(&mut self, cr8: u8) {
        let rest = self.int_ctl.get().bits() & !0xff;
        self.int_ctl.set(IntCtl::from_bits_retain(rest | u64::from(cr8) & V_TPR), &mut self.clean);
    }

    /// Sets V_INTR_PRIO, below which V_TPR must be for the virtual interrupt to count.
    pub fn set_priority(&mut self, priority: u8) {
        let rest = self.int_ctl.get().bits() & !(0xf << V_INTR_PRIO_SHIFT);
        self.int_ctl
            .set(IntCtl::from_bits_retain(rest | (u64::from(priority) & 0xf) << V_INTR_PRIO_SHIFT), &mut self.clean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset() -> Box<Vmcb> {
        let mut vmcb = Vmcb::zeroed();
        vmcb.initialise(Mfn::new(5), MachineAddr::new(0x2000), MachineAddr::new(0x4000));
        vmcb
    }

    #[test]
    fn lma_follows_lme_and_paging_in_either_order() {
        let on = Cr0::PE.bits() | Cr0::PG.bits();
        let long = Efer::LME.bits() | Efer::LMA.bits();
        let mut vmcb = reset();
        vmcb.set_efer(Efer::LME.bits());
        assert_eq!(vmcb.efer(), Efer::LME.bits());
        vmcb.set_cr(0, on);
        assert_eq!(vmcb.efer(), long);
        vmcb.set_cr(0, Cr0::PE.bits());
        assert_eq!(vmcb.efer(), Efer::LME.bits());

        let mut vmcb = reset();
        vmcb.set_cr(0, on);
        vmcb.set_msr(GuestMsr::Efer, long);
        assert_eq!(vmcb.msr(GuestMsr::Efer), Some(long));
        vmcb.set_efer(0);
        assert_eq!(vmcb.efer(), 0);
    }

    #[test]
    fn svme_is_always_set_and_never_shown() {
        let mut vmcb = reset();
        for efer in [0, Efer::SVME.bits(), u64::MAX] {
            vmcb.set_efer(efer);
            assert_ne!(vmcb.efer.get() & Efer::SVME.bits(), 0);
            assert_eq!(vmcb.efer() & Efer::SVME.bits(), 0);
        }
    }

    #[test]
    fn the_first_instruction_after_reset_is_16_bytes_below_4_gib() {
        let vmcb = reset();
        let code = vmcb.segment(SegmentName::Cs);
        assert_eq!((code.base, code.selector), (0xffff_0000, 0xf000));
        assert!(!vmcb.in_64_bit_code());
        assert_eq!(vmcb.cr(0), 0x6000_0010);
    }

    #[test]
    fn each_segment_is_read_back_as_written() {
        use SegmentName::*;
        let mut vmcb = reset();
        for (n, name) in [Es, Cs, Ss, Ds, Fs, Gs, Ldtr, Tr].into_iter().enumerate() {
            let segment = Segment { selector: n as u16, attributes: 0xcf3, limit: u32::MAX, base: n as u64 };
            vmcb.set_segment(name, segment);
            assert_eq!(vmcb.segment(name), segment);
        }
        assert_eq!(vmcb.cpl(), 3);
    }

    #[test]
    fn cr8_and_priority_leave_the_other_controls_alone() {
        let mut vmcb = reset();
        vmcb.set_int_ctl(vmcb.int_ctl() | IntCtl::V_IRQ);
        vmcb.set_cr8(0xff);
        vmcb.set_priority(9);
        assert_eq!(vmcb.cr8(), 15);
        assert_eq!(vmcb.int_ctl().bits(), 1 << 24 | 9 << 16 | 1 << 8 | 15);
        vmcb.set_cr8(0);
        vmcb.set_priority(0);
        assert_eq!(vmcb.int_ctl(), IntCtl::V_INTR_MASKING | IntCtl::V_IRQ);
    }
}
