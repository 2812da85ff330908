//! The frame that a PV guest's kernel finds on its stack, and the way into that kernel and back.
//!
//! From low to high: RCX, R11, for the failsafe callback DS, ES, FS and GS, the error code where there is one, RIP, CS
//! with the saved upcall mask in its byte 4, RFLAGS, RSP, SS. RFLAGS.IF on the stack is the upcall mask's
//! opposite: the real flag is always set. Where it is written: Linux `arch/x86/xen/xen-asm.S`, and
//! `xen/include/public/arch-x86/xen-x86_64.h` for the way back.

use abi::pv_vcpu::{FLAT_KERNEL_CS64, FLAT_KERNEL_SS64, IretContext, VGCF_IN_SYSCALL};

use core::ops::Deref;

use crate::regs::{Regs, Rflags};

/// The registers with which a PV guest runs: CS and SS have ring 3's privilege, and RFLAGS are [`safe_rflags`]. What the
/// processor leaves there when the guest leaves is so too, and nothing changes it here.
pub struct PvRegs<'a>(&'a mut Regs);

impl<'a> PvRegs<'a> {
    /// Takes registers that may hold anything, and makes them such.
    #[inline]
    pub fn new(regs: &'a mut Regs) -> Self {
        regs.cs |= 3;
        regs.ss |= 3;
        regs.rflags = safe_rflags(regs.rflags);
        Self(regs)
    }

    /// The same for a while.
    #[inline(always)]
    pub fn reborrow(&mut self) -> PvRegs<'_> {
        PvRegs(self.0)
    }

    /// Where they are, for the processor.
    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut Regs {
        self.0
    }

    /// General register `n`; see [`Regs::gpr`].
    #[inline(always)]
    pub fn gpr_mut(&mut self, n: u8) -> &mut u64 {
        self.0.gpr_mut(n)
    }

    /// RAX, for a result.
    #[inline(always)]
    pub fn set_rax(&mut self, value: u64) {
        self.0.rax = value;
    }

    /// RDI and RSI, the first two arguments of a hypercall.
    #[inline(always)]
    pub fn set_arguments(&mut self, first: u64, second: u64) {
        (self.0.rdi, self.0.rsi) = (first, second);
    }

    /// EAX, EBX, ECX and EDX, their upper halves clear.
    #[inline(always)]
    pub fn set_four(&mut self, [eax, ebx, ecx, edx]: [u32; 4]) {
        (self.0.rax, self.0.rbx) = (u64::from(eax), u64::from(ebx));
        (self.0.rcx, self.0.rdx) = (u64::from(ecx), u64::from(edx));
    }

    /// EDX:EAX, their upper halves clear.
    #[inline(always)]
    pub fn set_pair(&mut self, value: u64) {
        (self.0.rax, self.0.rdx) = (value & 0xffff_ffff, value >> 32);
    }

    /// Where the guest goes on.
    #[inline(always)]
    pub fn set_rip(&mut self, rip: u64) {
        self.0.rip = rip;
    }

    /// Passes an instruction of so many bytes.
    #[inline(always)]
    pub fn skip(&mut self, len: u64) {
        self.0.rip = self.0.rip.wrapping_add(len);
        self.0.rflags &= !Rflags::RF.bits();
    }

    /// Clears the direction flag.
    #[inline(always)]
    pub fn clear_direction(&mut self) {
        self.0.rflags &= !Rflags::DF.bits();
    }
}

impl Deref for PvRegs<'_> {
    type Target = Regs;

    #[inline(always)]
    fn deref(&self) -> &Regs {
        self.0
    }
}

/// Where the guest's kernel is entered, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handler {
    /// Linear address; 0 for none.
    pub address: u64,
    /// Event delivery is masked at entry.
    pub masks_events: bool,
}

/// Where a frame of so many words begins if the stack's top is `top`: frames end at a multiple of 16.
#[inline]
pub const fn place(top: u64, words: usize) -> u64 {
    (top & !15).wrapping_sub(words as u64 * 8)
}

/// What besides the registers goes into a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The guest's kernel was running, not its user mode.
    pub was_kernel: bool,
    /// `evtchn_upcall_mask` so far.
    pub upcall_mask: u8,
    /// Bits 12 and 13, where the guest has asked to see them there.
    pub iopl: u64,
}

/// CS, with the upcall mask in its byte 4, and RFLAGS as a frame has them.
#[inline]
pub fn state(regs: &Regs, how: &Circumstances) -> (u64, u64) {
    // Ring 3 as the guest runs, ring 0 as its kernel believes.
    let cs = regs.cs & 0xfffc | if how.was_kernel { 0 } else { 3 };
    let flag = if how.upcall_mask == 0 { Rflags::IF.bits() } else { 0 };
    let rflags = regs.rflags & 0xffff_ffff & !(Rflags::IF | Rflags::IOPL).bits() | flag | how.iopl;
    (cs | u64::from(how.upcall_mask) << 32, rflags)
}

/// The frame of the failsafe callback, with DS, ES, FS and GS.
pub fn failsafe(regs: &Regs, how: &Circumstances, selectors: [u16; 4]) -> [u64; 11] {
    let (cs, rflags) = state(regs, how);
    let [ds, es, fs, gs] = selectors.map(u64::from);
    [regs.rcx, regs.r11, ds, es, fs, gs, regs.rip, cs, rflags, regs.rsp, regs.ss & 0xffff]
}

/// Makes the registers those with which the guest's kernel starts at `address`, its frame being at `frame`.
#[inline]
pub fn enter(regs: &mut PvRegs<'_>, frame: u64, address: u64) {
    let regs = &mut *regs.0;
    let cleared = Rflags::AC | Rflags::VM | Rflags::RF | Rflags::NT | Rflags::TF;
    regs.rflags &= !cleared.bits();
    regs.rip = address;
    regs.cs = u64::from(FLAT_KERNEL_CS64);
    regs.rsp = frame;
    regs.ss = u64::from(FLAT_KERNEL_SS64);
}

/// What the IRET hypercall leads to, besides the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// To user mode.
    pub to_user: bool,
    /// Bits 12 and 13 of the flags that were asked for.
    pub iopl: u64,
    /// `evtchn_upcall_mask` from now on.
    pub upcall_mask: u8,
}

/// The IRET hypercall: makes the registers those that it asks for. Privilege is the guest's whatever the selectors say.
#[inline]
pub fn iret(regs: &mut PvRegs<'_>, context: &IretContext) -> Return {
    let regs = &mut *regs.0;
    let to_user = context.cs & 3 == 3;
    regs.rip = context.rip;
    regs.cs = context.cs & 0xffff | 3;
    regs.rflags = safe_rflags(context.rflags);
    regs.rsp = context.rsp;
    regs.ss = context.ss & 0xffff | 3;
    regs.rax = context.rax;
    if context.flags & VGCF_IN_SYSCALL == 0 {
        (regs.rcx, regs.r11) = (context.rcx, context.r11);
    } else {
        // As SYSRET leaves them, and without RF, which it clears.
        regs.rflags &= !Rflags::RF.bits();
        (regs.rcx, regs.r11) = (regs.rip, regs.rflags);
    }
    Return {
        to_user,
        iopl: context.rflags & Rflags::IOPL.bits(),
        upcall_mask: u8::from(context.rflags & Rflags::IF.bits() == 0),
    }
}

/// Flags with which a guest may run: real interrupts on, no I/O privilege, no virtual-8086 mode, none of the reserved bits.
#[inline]
pub const fn safe_rflags(rflags: u64) -> u64 {
    // CF, PF, AF, ZF, SF, TF, IF, DF, OF, NT, RF, AC, VIF, VIP, ID.
    let kept = rflags & 0x003d_4fd5;
    kept & !((1 << 19) | (1 << 20)) | Rflags::IF.bits() | Rflags::RESERVED_1.bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regs() -> Regs {
        Regs { rip: 0x1000, cs: 0xe033, rflags: 0x4_3302, rsp: 0x2008, ss: 0xe02b, rcx: 1, r11: 2, ..Regs::default() }
    }

    #[test]
    fn a_frame_from_user_mode_keeps_the_selectors_privilege_and_tells_the_mask() {
        let how = Circumstances { upcall_mask: 1, ..Circumstances::default() };
        assert_eq!(state(&regs(), &how), (0xe033 | 1 << 32, 0x4_0102));
        assert_eq!(place(0x8008, 8), 0x8000 - 64);
    }

    #[test]
    fn a_frame_from_the_kernel_says_ring_0_and_interrupts_on() {
        let how = Circumstances { was_kernel: true, iopl: 1 << 12, ..Circumstances::default() };
        assert_eq!(state(&regs(), &how), (0xe030, 0x4_1302));
        assert_eq!(place(0x8000, 7), 0x8000 - 56);
    }

    #[test]
    fn the_failsafe_callbacks_frame_has_the_selectors_above_r11() {
        let frame = failsafe(&regs(), &Circumstances::default(), [3, 4, 5, 6]);
        assert_eq!(frame, [1, 2, 3, 4, 5, 6, 0x1000, 0xe033, 0x4_0302, 0x2008, 0xe02b]);
    }

    #[test]
    fn the_kernel_is_entered_with_flat_segments_and_traps_off() {
        let mut regs = Regs { rflags: 0x7_7fd7, ..regs() };
        enter(&mut PvRegs::new(&mut regs), 0x3000, 0x4000);
        assert_eq!((regs.rip, regs.cs, regs.rsp, regs.ss), (0x4000, 0xe033, 0x3000, 0xe02b));
        assert_eq!(regs.rflags, 0xed7 & !0x100);
    }

    #[test]
    fn iret_gives_no_privilege_whatever_it_is_asked_for() {
        let mut regs = Regs::default();
        let context =
            IretContext { cs: 0xe030, ss: 0x18, rflags: u64::MAX, rcx: 5, r11: 6, rax: 7, ..Default::default() };
        let back = iret(&mut PvRegs::new(&mut regs), &context);
        assert_eq!(back, Return { to_user: false, iopl: 3 << 12, upcall_mask: 0 });
        assert_eq!((regs.cs, regs.ss), (0xe033, 0x1b));
        assert_eq!(regs.rflags & (Rflags::IOPL | Rflags::VM).bits(), 0);
        assert_ne!(regs.rflags & Rflags::IF.bits(), 0);
        assert_eq!((regs.rax, regs.rcx, regs.r11), (7, 5, 6));
    }

    #[test]
    fn iret_from_a_system_call_leaves_rcx_and_r11_as_sysret_does() {
        let mut regs = Regs::default();
        let context = IretContext {
            flags: VGCF_IN_SYSCALL,
            rip: 0x40,
            cs: 0xe033,
            rflags: 0x2,
            rcx: 5,
            r11: 6,
            ..Default::default()
        };
        let back = iret(&mut PvRegs::new(&mut regs), &context);
        assert_eq!(back, Return { to_user: true, iopl: 0, upcall_mask: 1 });
        assert_eq!((regs.rcx, regs.r11), (0x40, 0x202));
    }

    #[test]
    fn a_guest_has_interrupts_on_and_no_right_to_ports() {
        let mut regs = Regs { cs: 0xe008, ss: 0, rflags: u64::MAX, ..Regs::default() };
        let tame = *PvRegs::new(&mut regs);
        assert_eq!((tame.cs, tame.ss), (0xe00b, 3));
        let never = Rflags::IOPL | Rflags::VM;
        assert_eq!(tame.rflags & never.bits(), 0);
        assert_eq!(tame.rflags & (3 << 19), 0, "VIF and VIP");
        let own = Rflags::CF | Rflags::PF | Rflags::AF | Rflags::ZF | Rflags::SF | Rflags::OF | Rflags::DF | Rflags::IF;
        let own = own | Rflags::TF | Rflags::NT | Rflags::RF | Rflags::AC;
        assert_eq!(tame.rflags & own.bits(), own.bits());
    }
}
