//! Why a virtual CPU left the guest, in our words, fully decoded.
//!
//! Both back-ends translate their exit codes (SDM 3D appendix C; APM 2 appendix C) to these and nothing
//! above them sees a raw code but in [`Exit::Unknown`] and [`Exit::EntryFailed`].

use model::addr::{GuestPhys, GuestVirt};

/// How long the instruction that caused an exit is, in bytes, where the processor told.
///
/// AMD-V without next-RIP save does not tell (APM 2 15.7.1): the kernel then decodes the instruction itself.
pub type Length = Option<u8>;

/// What a guest did, or what happened to it. The tag is a byte of its own, whose numbers are those of [`Kind`]: so it takes
/// one load to tell them apart, or to count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// A physical interrupt or NMI came, and its host handler has run.
    Host,
    /// The guest can take an interrupt now, as [`super::virt::Virt::want_window`] asked.
    InterruptWindow,
    /// The guest can take an NMI now, as [`super::virt::Virt::want_window`] asked.
    NmiWindow,
    /// VMCALL or VMMCALL.
    Hypercall {
        /// Length of the instruction.
        len: Length,
    },
    /// CPUID.
    Cpuid {
        /// Length of the instruction.
        len: Length,
    },
    /// RDMSR of the register in ECX.
    Rdmsr {
        /// Length of the instruction.
        len: Length,
    },
    /// WRMSR of EDX:EAX to the register in ECX.
    Wrmsr {
        /// Length of the instruction.
        len: Length,
    },
    /// IN, OUT, INS or OUTS.
    Io(Io),
    /// MOV to or from CR0, CR3, CR4 or CR8, CLTS or LMSW.
    Cr {
        /// What the instruction does.
        access: CrAccess,
        /// Length of the instruction.
        len: Length,
    },
    /// HLT.
    Hlt {
        /// Length of the instruction.
        len: Length,
    },
    /// PAUSE, where the back-end counts spinning.
    Pause {
        /// Length of the instruction.
        len: Length,
    },
    /// WBINVD or INVD.
    Wbinvd {
        /// Length of the instruction.
        len: Length,
    },
    /// XSETBV of EDX:EAX to the register in ECX.
    Xsetbv {
        /// Length of the instruction.
        len: Length,
    },
    /// RDPMC.
    Rdpmc {
        /// Length of the instruction.
        len: Length,
    },
    /// An instruction that no guest has, MONITOR, MWAIT and the virtualization instructions: `#UD`.
    Undefined,
    /// PV: SYSCALL by the guest's user mode; RIP is behind it.
    UserSyscall {
        /// From 32-bit code (CSTAR).
        is_compat: bool,
    },
    /// PV: SYSENTER. Where the guest was is not known but by its own convention.
    Sysenter,
    /// PV: INT with a vector that its user mode may raise by itself (0x80); RIP is behind it.
    SoftInterrupt(u8),
    /// PV: the processor refused to go back to the guest: its selectors, RIP or RSP cannot be loaded. The registers are
    /// those with which it was to go on.
    IretFault {
        /// The vector that IRET raised.
        vector: u8,
        /// Its error code.
        error: u32,
    },
    /// An access that the nested page tables do not allow.
    NestedFault(NestedFault),
    /// The guest has written a register of its local APIC by the page that the processor serves
    /// ([`super::virt::Virt::serve_apic_page`]); RIP is behind the instruction.
    ApicWrite {
        /// The register's offset in the page.
        offset: u16,
    },
    /// An exception that the back-end intercepts, not yet delivered to the guest.
    Exception {
        /// Vector below 32.
        vector: u8,
        /// Error code, for the vectors that push one.
        error: Option<u32>,
    },
    /// A hardware task switch, which Euxen does not emulate.
    TaskSwitch,
    /// Triple fault, or AMD-V's shutdown.
    TripleFault,
    /// CR8 fell below the threshold given to [`super::virt::Virt::set_cr8`].
    TprBelowThreshold,
    /// The processor refused the guest's state.
    EntryFailed {
        /// VT-x: the VM-instruction error, or the exit reason with bit 31; AMD-V: the exit code.
        code: u64,
        /// VT-x: exit qualification; AMD-V: EXITINFO1.
        info: u64,
    },
    /// An exit that Euxen does not know.
    Unknown {
        /// VT-x: the exit reason; AMD-V: the exit code.
        code: u64,
        /// VT-x: exit qualification; AMD-V: EXITINFO1.
        info: u64,
    },
}

/// What kind of [`Exit`] it is, for whoever counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// [`Exit::Host`].
    Host,
    /// [`Exit::InterruptWindow`].
    InterruptWindow,
    /// [`Exit::NmiWindow`].
    NmiWindow,
    /// [`Exit::Hypercall`].
    Hypercall,
    /// [`Exit::Cpuid`].
    Cpuid,
    /// [`Exit::Rdmsr`].
    Rdmsr,
    /// [`Exit::Wrmsr`].
    Wrmsr,
    /// [`Exit::Io`].
    Io,
    /// [`Exit::Cr`].
    Cr,
    /// [`Exit::Hlt`].
    Hlt,
    /// [`Exit::Pause`].
    Pause,
    /// [`Exit::Wbinvd`].
    Wbinvd,
    /// [`Exit::Xsetbv`].
    Xsetbv,
    /// [`Exit::Rdpmc`].
    Rdpmc,
    /// [`Exit::Undefined`].
    Undefined,
    /// [`Exit::UserSyscall`].
    UserSyscall,
    /// [`Exit::Sysenter`].
    Sysenter,
    /// [`Exit::SoftInterrupt`].
    SoftInterrupt,
    /// [`Exit::IretFault`].
    IretFault,
    /// [`Exit::NestedFault`].
    NestedFault,
    /// [`Exit::ApicWrite`].
    ApicWrite,
    /// [`Exit::Exception`].
    Exception,
    /// [`Exit::TaskSwitch`].
    TaskSwitch,
    /// [`Exit::TripleFault`].
    TripleFault,
    /// [`Exit::TprBelowThreshold`].
    TprBelowThreshold,
    /// [`Exit::EntryFailed`].
    EntryFailed,
    /// [`Exit::Unknown`].
    Unknown,
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = Self::Unknown as usize + 1;

    /// All, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Host,
        Self::InterruptWindow,
        Self::NmiWindow,
        Self::Hypercall,
        Self::Cpuid,
        Self::Rdmsr,
        Self::Wrmsr,
        Self::Io,
        Self::Cr,
        Self::Hlt,
        Self::Pause,
        Self::Wbinvd,
        Self::Xsetbv,
        Self::Rdpmc,
        Self::Undefined,
        Self::UserSyscall,
        Self::Sysenter,
        Self::SoftInterrupt,
        Self::IretFault,
        Self::NestedFault,
        Self::ApicWrite,
        Self::Exception,
        Self::TaskSwitch,
        Self::TripleFault,
        Self::TprBelowThreshold,
        Self::EntryFailed,
        Self::Unknown,
    ];
}

impl Exit {
    /// Its kind.
    #[inline]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Host => Kind::Host,
            Self::InterruptWindow => Kind::InterruptWindow,
            Self::NmiWindow => Kind::NmiWindow,
            Self::Hypercall { .. } => Kind::Hypercall,
            Self::Cpuid { .. } => Kind::Cpuid,
            Self::Rdmsr { .. } => Kind::Rdmsr,
            Self::Wrmsr { .. } => Kind::Wrmsr,
            Self::Io(_) => Kind::Io,
            Self::Cr { .. } => Kind::Cr,
            Self::Hlt { .. } => Kind::Hlt,
            Self::Pause { .. } => Kind::Pause,
            Self::Wbinvd { .. } => Kind::Wbinvd,
            Self::Xsetbv { .. } => Kind::Xsetbv,
            Self::Rdpmc { .. } => Kind::Rdpmc,
            Self::Undefined => Kind::Undefined,
            Self::UserSyscall { .. } => Kind::UserSyscall,
            Self::Sysenter => Kind::Sysenter,
            Self::SoftInterrupt(_) => Kind::SoftInterrupt,
            Self::IretFault { .. } => Kind::IretFault,
            Self::NestedFault(_) => Kind::NestedFault,
            Self::ApicWrite { .. } => Kind::ApicWrite,
            Self::Exception { .. } => Kind::Exception,
            Self::TaskSwitch => Kind::TaskSwitch,
            Self::TripleFault => Kind::TripleFault,
            Self::TprBelowThreshold => Kind::TprBelowThreshold,
            Self::EntryFailed { .. } => Kind::EntryFailed,
            Self::Unknown { .. } => Kind::Unknown,
        }
    }
}

/// A port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// First port.
    pub port: u16,
    /// Bytes: 1, 2 or 4.
    pub size: u8,
    /// IN or INS, not OUT or OUTS.
    pub is_in: bool,
    /// INS or OUTS.
    pub is_string: bool,
    /// With a REP prefix.
    pub is_rep: bool,
    /// Length of the instruction.
    pub len: Length,
}

/// A control-register access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrAccess {
    /// MOV to control register `cr` from general register `gpr` ([`model::regs::Regs::gpr`]).
    Write {
        /// 0, 3, 4 or 8.
        cr: u8,
        /// Source.
        gpr: u8,
    },
    /// MOV from control register `cr` to general register `gpr`.
    Read {
        /// 0, 3, 4 or 8.
        cr: u8,
        /// Destination.
        gpr: u8,
    },
    /// CLTS.
    Clts,
    /// LMSW with this value.
    Lmsw {
        /// The 16-bit operand.
        value: u16,
    },
    /// A control-register access whose operands the processor did not tell (AMD-V without decode
    /// assists, APM 2 15.8.1): the kernel decodes the instruction itself.
    Undecoded,
}

/// A nested page fault: EPT violation or misconfiguration, or NPT fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NestedFault {
    /// The guest-physical address.
    pub gpa: GuestPhys,
    /// The linear address, where the processor told.
    pub gva: Option<GuestVirt>,
    /// The access was a write.
    pub is_write: bool,
    /// The access was an instruction fetch.
    pub is_fetch: bool,
    /// The access was to the guest's own page tables, in the course of a walk.
    pub in_walk: bool,
}
