//! The state with which a PV virtual CPU starts: plain data, and the checks on what a guest gives for it
//! (`VCPUOP_initialise`, `struct vcpu_guest_context`).

use alloc::boxed::Box;

use abi::errno::Errno;
use abi::pv_vcpu::{
    CpuUserRegs, TrapInfo, VGCF_FAILSAFE_DISABLES_EVENTS, VGCF_I387_VALID, VGCF_IN_KERNEL, VGCF_ONLINE,
    VGCF_SYSCALL_DISABLES_EVENTS, VcpuGuestContext,
};

use super::debug::Debug;
use super::frame::{Handler, safe_rflags};
use super::is_guests;
use crate::addr::{GuestVirt, Mfn};
use crate::regs::{Cr0, Cr4, Regs, Rflags};

/// Entries that an LDT may have.
pub const MAX_LDT_ENTRIES: u64 = 8192;

/// The virtual IDT.
pub type TrapTable = [TrapInfo; 256];

/// A virtual IDT without handlers.
pub const NO_TRAPS: TrapTable = [TrapInfo { vector: 0, flags: 0, cs: 0, pad: 0, address: 0 }; 256];

/// Where the guest's kernel is entered other than by the virtual IDT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Callbacks {
    /// An event, which always masks further ones.
    pub event: u64,
    /// Selectors that cannot be loaded.
    pub failsafe: Handler,
    /// SYSCALL by 64-bit user code. Whether it masks events holds for 32-bit code too, as in Xen.
    pub syscall: Handler,
    /// SYSCALL by 32-bit user code.
    pub syscall32: Handler,
    /// SYSENTER.
    pub sysenter: Handler,
}

/// A descriptor table as a guest gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ldt {
    /// Linear address of the first page.
    pub base: u64,
    /// Entries of 8 bytes.
    pub entries: u32,
}

/// How a PV virtual CPU starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PvState {
    /// The general registers, RIP, RSP, RFLAGS, CS and SS.
    pub regs: Regs,
    /// DS, ES, FS, GS.
    pub selectors: [u16; 4],
    /// Base of FS.
    pub fs_base: u64,
    /// Base of GS in kernel mode.
    pub gs_base_kernel: u64,
    /// Base of GS in user mode.
    pub gs_base_user: u64,
    /// It starts in kernel mode.
    pub in_kernel: bool,
    /// The L4 table of kernel mode.
    pub kernel_l4: Mfn,
    /// The L4 table of user mode.
    pub user_l4: Option<Mfn>,
    /// CR0.TS.
    pub is_task_switched: bool,
    /// CR4 as it asked for; 0 for the usual one.
    pub cr4: u64,
    /// The virtual IDT.
    pub traps: Box<TrapTable>,
    /// The other handlers.
    pub callbacks: Callbacks,
    /// The kernel's stack, for entries from user mode.
    pub kernel_ss: u16,
    /// See `kernel_ss`.
    pub kernel_sp: u64,
    /// Bits 12 and 13: the I/O privilege that it believes to have.
    pub iopl: u64,
    /// Debug registers.
    pub debug: Debug,
    /// Its LDT.
    pub ldt: Ldt,
    /// The frames of its GDT.
    pub gdt_frames: [Mfn; 16],
    /// How many entries the GDT has.
    pub gdt_entries: u64,
    /// The x87 and SSE registers, in the form of FXSAVE.
    pub fpu: Option<Box<[u8; 512]>>,
    /// `VMASST_TYPE_*`; counts for virtual CPU 0 only.
    pub assists: u64,
    /// It is to run at once.
    pub is_online: bool,
}

impl PvState {
    /// A state with flat segments in kernel mode, at `rip`, with this stack and page table; all else is off or 0.
    pub fn new(rip: u64, rsp: u64, kernel_l4: Mfn) -> Self {
        let regs = Regs {
            rip,
            rsp,
            cs: u64::from(abi::pv_vcpu::FLAT_KERNEL_CS64),
            ss: u64::from(abi::pv_vcpu::FLAT_KERNEL_SS64),
            rflags: safe_rflags(0),
            ..Regs::default()
        };
        Self {
            regs,
            selectors: [0; 4],
            fs_base: 0,
            gs_base_kernel: 0,
            gs_base_user: 0,
            in_kernel: true,
            kernel_l4,
            user_l4: None,
            is_task_switched: false,
            cr4: 0,
            traps: Box::new(NO_TRAPS),
            callbacks: Callbacks::default(),
            kernel_ss: abi::pv_vcpu::FLAT_KERNEL_SS64,
            kernel_sp: rsp,
            iopl: 0,
            debug: Debug::default(),
            ldt: Ldt::default(),
            gdt_frames: [Mfn::new(0); 16],
            gdt_entries: 0,
            fpu: None,
            assists: 0,
            is_online: false,
        }
    }

    /// The state that a guest asks for, or `EINVAL`. Frames are only named here: whose they are, and whether they can be
    /// what they are to be, is for whoever takes the references.
    pub fn from_guest(context: &VcpuGuestContext) -> Result<Self, Errno> {
        check_addresses(context)?;
        let c = context;
        let user_l4 = (c.ctrlreg[1] != 0).then(|| table(c.ctrlreg[1]));
        let in_kernel = c.flags & VGCF_IN_KERNEL != 0;
        if !in_kernel && user_l4.is_none() {
            return Err(Errno::EINVAL);
        }
        let mut debug = Debug::default();
        let has_extensions = c.ctrlreg[4] & Cr4::DE.bits() != 0;
        for (n, value) in (0..).zip(c.debugreg) {
            // As in Xen, what is refused is left out.
            let _ = debug.set(n, value, has_extensions);
        }
        let mut traps = Box::new(c.trap_ctxt);
        traps.iter_mut().for_each(|trap| trap.cs = unprivileged(trap.cs));
        let handler = |address, flag| Handler { address, masks_events: c.flags & flag != 0 };
        let is_null = |selector: u16| selector & !3 == 0;
        let u = &c.user_regs;
        Ok(Self {
            regs: registers(u),
            selectors: [u.ds, u.es, u.fs, u.gs],
            // A selector that is not null brings its own base.
            fs_base: if is_null(u.fs) { c.fs_base } else { 0 },
            gs_base_kernel: c.gs_base_kernel,
            gs_base_user: if is_null(u.gs) { c.gs_base_user } else { 0 },
            in_kernel,
            kernel_l4: table(c.ctrlreg[3]),
            user_l4,
            is_task_switched: c.ctrlreg[0] & Cr0::TS.bits() != 0,
            cr4: c.ctrlreg[4],
            traps,
            callbacks: Callbacks {
                event: c.event_callback_eip,
                failsafe: handler(c.failsafe_callback_eip, VGCF_FAILSAFE_DISABLES_EVENTS),
                syscall: handler(c.syscall_callback_eip, VGCF_SYSCALL_DISABLES_EVENTS),
                syscall32: Handler::default(),
                sysenter: Handler::default(),
            },
            kernel_ss: unprivileged(c.kernel_ss as u16),
            kernel_sp: c.kernel_sp,
            iopl: u.rflags & Rflags::IOPL.bits(),
            debug,
            ldt: Ldt { base: c.ldt_base, entries: c.ldt_ents as u32 },
            gdt_frames: c.gdt_frames.map(Mfn::new),
            gdt_entries: c.gdt_ents,
            fpu: (c.flags & VGCF_I387_VALID != 0).then(|| Box::new(c.fpu_ctxt)),
            assists: c.vm_assist,
            is_online: c.flags & VGCF_ONLINE != 0,
        })
    }
}

/// A selector with the guest's privilege.
pub const fn unprivileged(selector: u16) -> u16 {
    selector | 3
}

/// The frame in a CR3 value of a 64-bit guest.
fn table(cr3: u64) -> Mfn {
    Mfn::new(cr3 >> 12)
}

fn check_addresses(c: &VcpuGuestContext) -> Result<(), Errno> {
    let is_canonical = |address: u64| GuestVirt::new(address).is_canonical();
    let addresses = [
        c.user_regs.rip,
        c.user_regs.rsp,
        c.kernel_sp,
        c.fs_base,
        c.gs_base_kernel,
        c.gs_base_user,
        c.event_callback_eip,
        c.syscall_callback_eip,
        c.failsafe_callback_eip,
    ];
    let has_good_ldt = is_guests(c.ldt_base, 1) && c.ldt_base & 0xfff == 0 && c.ldt_ents <= MAX_LDT_ENTRIES;
    let are_good = addresses.iter().all(|&address| is_canonical(address))
        && c.trap_ctxt.iter().all(|trap| is_canonical(trap.address));
    if are_good && has_good_ldt { Ok(()) } else { Err(Errno::EINVAL) }
}

fn registers(u: &CpuUserRegs) -> Regs {
    Regs {
        r15: u.r15,
        r14: u.r14,
        r13: u.r13,
        r12: u.r12,
        rbp: u.rbp,
        rbx: u.rbx,
        r11: u.r11,
        r10: u.r10,
        r9: u.r9,
        r8: u.r8,
        rax: u.rax,
        rcx: u.rcx,
        rdx: u.rdx,
        rsi: u.rsi,
        rdi: u.rdi,
        rip: u.rip,
        cs: u64::from(unprivileged(u.cs)),
        rflags: safe_rflags(u.rflags),
        rsp: u.rsp,
        ss: u64::from(unprivileged(u.ss)),
        ..Regs::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    const BAD: u64 = 0x8000_0000_0000;

    fn context() -> VcpuGuestContext {
        VcpuGuestContext { flags: VGCF_IN_KERNEL, ..VcpuGuestContext::new_zeroed() }
    }

    fn refuses(change: impl FnOnce(&mut VcpuGuestContext)) {
        let mut context = context();
        change(&mut context);
        assert_eq!(PvState::from_guest(&context), Err(Errno::EINVAL));
    }

    #[test]
    fn an_address_that_is_not_canonical_is_refused() {
        refuses(|c| c.user_regs.rip = BAD);
        refuses(|c| c.user_regs.rsp = BAD);
        refuses(|c| c.kernel_sp = BAD);
        refuses(|c| c.fs_base = BAD);
        refuses(|c| c.gs_base_kernel = BAD);
        refuses(|c| c.gs_base_user = BAD);
        refuses(|c| c.event_callback_eip = BAD);
        refuses(|c| c.failsafe_callback_eip = BAD);
        refuses(|c| c.syscall_callback_eip = BAD);
        refuses(|c| c.trap_ctxt[255].address = BAD);
    }

    #[test]
    fn an_ldt_that_is_too_large_or_in_the_hole_or_within_a_page_is_refused() {
        refuses(|c| c.ldt_ents = 8193);
        refuses(|c| c.ldt_base = super::super::HOLE.start);
        refuses(|c| c.ldt_base = 0x1008);
    }

    #[test]
    fn user_mode_needs_a_page_table_of_its_own() {
        refuses(|c| c.flags = 0);
        let c = VcpuGuestContext { flags: 0, ctrlreg: [0, 0x5000, 0, 0x4000, 0, 0, 0, 0], ..context() };
        let state = PvState::from_guest(&c).expect("a user table is there");
        assert_eq!((state.kernel_l4, state.user_l4), (Mfn::new(4), Some(Mfn::new(5))));
    }

    #[test]
    fn selectors_and_flags_lose_their_privilege() {
        let mut c = context();
        c.user_regs.cs = 0xe030;
        c.user_regs.ss = 0x10;
        c.kernel_ss = 0x18;
        c.trap_ctxt[3].cs = 0xe031;
        c.user_regs.rflags = u64::MAX;
        let state = PvState::from_guest(&c).expect("selectors are corrected");
        assert_eq!((state.regs.cs, state.regs.ss, state.kernel_ss, state.traps[3].cs), (0xe033, 0x13, 0x1b, 0xe033));
        assert_eq!(state.regs.rflags & (Rflags::IOPL | Rflags::VM | Rflags::IF).bits(), Rflags::IF.bits());
        assert_eq!(state.iopl, 3 << 12);
    }

    #[test]
    fn a_breakpoint_on_the_hypervisor_is_left_out() {
        let mut c = context();
        (c.debugreg[2], c.debugreg[3]) = (super::super::HOLE.start, 0x1000);
        let debug = PvState::from_guest(&c).expect("the rest is good").debug;
        assert_eq!((debug.get(2, true), debug.get(3, true)), (Ok(0), Ok(0x1000)));
    }

    #[test]
    fn a_base_counts_only_with_a_null_selector() {
        let mut c = context();
        (c.fs_base, c.gs_base_user, c.user_regs.fs, c.user_regs.gs) = (0x1000, 0x2000, 0x2b, 3);
        let state = PvState::from_guest(&c).expect("nothing is wrong");
        assert_eq!((state.fs_base, state.gs_base_user), (0, 0x2000));
    }
}
