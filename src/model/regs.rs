//! A virtual CPU's registers, as both vendors and PV keep them.

/// The general registers of a guest at the moment it left for the hypervisor.
///
/// The one entry frame: the VT-x, AMD-V and PV exit paths fill it, and the entry paths load it back. `rip`, `rsp`
/// and `rflags` are part of it for every kind of virtual CPU, so nothing above the back-ends asks where they
/// live. The assembly relies on the order and the offsets: from `rip` to `ss` it is what the processor pushes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub struct Regs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// PV: the vector by which the guest left.
    pub vector: u64,
    /// PV: the error code, for the vectors that push one.
    pub error: u64,
    pub rip: u64,
    /// PV: the selector; a segment of the other kinds has a hidden part and is [`Segment`].
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    /// PV: as `cs`.
    pub ss: u64,
    /// PV: the hypervisor's stack pointer while the guest runs.
    pub host_rsp: u64,
}

impl Regs {
    /// General register `n` in the processor's encoding: 0 rax, 1 rcx, 2 rdx, 3 rbx, 4 rsp, 5 rbp, 6 rsi, 7 rdi, 8 to 15.
    pub fn gpr(&self, n: u8) -> u64 {
        match n & 15 {
            0 => self.rax,
            1 => self.rcx,
            2 => self.rdx,
            3 => self.rbx,
            4 => self.rsp,
            5 => self.rbp,
            6 => self.rsi,
            7 => self.rdi,
            8 => self.r8,
            9 => self.r9,
            10 => self.r10,
            11 => self.r11,
            12 => self.r12,
            13 => self.r13,
            14 => self.r14,
            _ => self.r15,
        }
    }

    /// The register of [`Regs::gpr`], to write.
    pub fn gpr_mut(&mut self, n: u8) -> &mut u64 {
        match n & 15 {
            0 => &mut self.rax,
            1 => &mut self.rcx,
            2 => &mut self.rdx,
            3 => &mut self.rbx,
            4 => &mut self.rsp,
            5 => &mut self.rbp,
            6 => &mut self.rsi,
            7 => &mut self.rdi,
            8 => &mut self.r8,
            9 => &mut self.r9,
            10 => &mut self.r10,
            11 => &mut self.r11,
            12 => &mut self.r12,
            13 => &mut self.r13,
            14 => &mut self.r14,
            _ => &mut self.r15,
        }
    }
}

/// Registers that the processor or the back-end switches with the guest. Reads and writes of them by the guest
/// need no exit, but for EFER, of which writes exit and reads do not where the processor can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub enum GuestMsr {
    Efer,
    Star,
    Lstar,
    Cstar,
    SyscallMask,
    KernelGsBase,
    FsBase,
    GsBase,
    SysenterCs,
    SysenterEsp,
    SysenterEip,
    Pat,
    TscAux,
}

pub use flags::{Cr0, Cr4, Efer, Rflags};

#[expect(missing_docs, reason = "the names of the bits are the architecture's")]
mod flags {
    use bitflags::bitflags;

    bitflags! {
        /// Bits of RFLAGS that the hypervisor looks at (SDM 1 3.4.3).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Rflags: u64 {
            const CF = 1 << 0;
            const RESERVED_1 = 1 << 1;
            const PF = 1 << 2;
            const AF = 1 << 4;
            const ZF = 1 << 6;
            const SF = 1 << 7;
            const TF = 1 << 8;
            const IF = 1 << 9;
            const DF = 1 << 10;
            const OF = 1 << 11;
            const IOPL = 3 << 12;
            const NT = 1 << 14;
            const RF = 1 << 16;
            const VM = 1 << 17;
            const AC = 1 << 18;
        }

        /// CR0 (SDM 3A 2.5).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Cr0: u64 {
            const PE = 1 << 0;
            const MP = 1 << 1;
            const EM = 1 << 2;
            const TS = 1 << 3;
            const ET = 1 << 4;
            const NE = 1 << 5;
            const WP = 1 << 16;
            const AM = 1 << 18;
            const NW = 1 << 29;
            const CD = 1 << 30;
            const PG = 1 << 31;
        }

        /// CR4 (SDM 3A 2.5).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Cr4: u64 {
            const VME = 1 << 0;
            const PVI = 1 << 1;
            const TSD = 1 << 2;
            const DE = 1 << 3;
            const PSE = 1 << 4;
            const PAE = 1 << 5;
            const MCE = 1 << 6;
            const PGE = 1 << 7;
            const PCE = 1 << 8;
            const OSFXSR = 1 << 9;
            const OSXMMEXCPT = 1 << 10;
            const UMIP = 1 << 11;
            const LA57 = 1 << 12;
            const VMXE = 1 << 13;
            const SMXE = 1 << 14;
            const FSGSBASE = 1 << 16;
            const PCIDE = 1 << 17;
            const OSXSAVE = 1 << 18;
            const SMEP = 1 << 20;
            const SMAP = 1 << 21;
            const PKE = 1 << 22;
            const CET = 1 << 23;
        }

        /// EFER (APM 2 3.1.7).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Efer: u64 {
            const SCE = 1 << 0;
            const LME = 1 << 8;
            const LMA = 1 << 10;
            const NXE = 1 << 11;
            const SVME = 1 << 12;
            const LMSLE = 1 << 13;
            const FFXSR = 1 << 14;
        }
    }
}

/// One segment register with its hidden part.
///
/// `attributes` is the descriptor's bits 40 to 47 in bits 0 to 7 and 52 to 55 in bits 8 to 11, as a VMCB
/// has them (APM 2 15.5): type 0-3, S 4, DPL 5-6, P 7, AVL 8, L 9, D/B 10, G 11. `limit` is in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub struct Segment {
    pub selector: u16,
    pub attributes: u16,
    pub limit: u32,
    pub base: u64,
}

impl Segment {
    /// The P bit; a segment without it is unusable (SDM 3C 24.4.1).
    pub const PRESENT: u16 = 1 << 7;

    /// Whether the L bit is set: a code segment for 64-bit mode.
    pub fn is_long(self) -> bool {
        self.attributes & (1 << 9) != 0
    }
    /// Whether the D/B bit is set: 32-bit operands by default.
    pub fn is_big(self) -> bool {
        self.attributes & (1 << 10) != 0
    }
    /// The descriptor privilege level.
    pub fn dpl(self) -> u8 {
        ((self.attributes >> 5) & 3) as u8
    }
}

/// Which segment register; in the processor's encoding, then the two system segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the architecture's")]
pub enum SegmentName {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
    Ldtr = 6,
    Tr = 7,
}

/// Base and limit of the GDT or the IDT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DescriptorTable {
    /// Linear address of the first descriptor.
    pub base: u64,
    /// Offset of the last byte.
    pub limit: u16,
}

/// An event to deliver to a virtual CPU at its next entry (SDM 3C 24.8.3; APM 2 15.20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A maskable interrupt with this vector.
    Interrupt(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// A hardware exception, with its error code where the vector has one.
    Exception {
        /// Vector below 32.
        vector: u8,
        /// Error code, for the vectors that push one.
        error: Option<u32>,
    },
}

/// Exception vectors (SDM 3A table 6-1).
#[expect(missing_docs, reason = "the names are the architecture's")]
pub mod vector {
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const AC: u8 = 17;
    pub const MC: u8 = 18;
}

impl Event {
    /// `#UD`.
    pub const UD: Event = Event::Exception { vector: vector::UD, error: None };
    /// `#GP(0)`.
    pub const GP: Event = Event::Exception { vector: vector::GP, error: Some(0) };
}
