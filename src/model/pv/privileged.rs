//! What becomes of an instruction that ring 3 may not execute: the guest's kernel, which runs there, believes it may.
//!
//! The processor raised `#GP`, or `#UD` for CPUID behind the prefix that forces its emulation. [`super::code`] reads the
//! instruction, [`judge`] says whether the guest may have it. What Xen emulates is emulated here; INVLPG and HLT are, too.
//! All else gets the exception that it raised.

use crate::emul::{ControlOp, Port, System};
use crate::regs::{Cr0, Cr4, Event, Rflags};

/// `ud2a; .ascii "xen"`: CPUID behind it is answered by the hypervisor (`xen/include/public/arch-x86/xen.h`).
pub const FORCED: [u8; 5] = *b"\x0f\x0bxen";
/// The only instruction that may follow [`FORCED`].
pub const CPUID: [u8; 2] = *b"\x0f\xa2";

/// Who executes an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The guest's kernel.
    pub is_kernel: bool,
    /// The level that `PHYSDEVOP_set_iopl` has set, 0 to 3.
    pub iopl: u8,
    /// `VMASST_TYPE_architectural_iopl`: the kernel counts as level 0, else as 1.
    pub architectural_iopl: bool,
    /// CR4 as the guest believes it to be.
    pub cr4: u64,
}

impl Who {
    /// Whether the guest's I/O privilege level lets it use ports and interrupts.
    pub fn has_io(&self) -> bool {
        let level = match (self.is_kernel, self.architectural_iopl) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 3,
        };
        level <= self.iopl
    }

    fn has(&self, bit: Cr4) -> bool {
        self.cr4 & bit.bits() != 0
    }
}

/// What the guest gets for an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done for the guest.
    Allowed(System),
    /// It is done if the guest's own bitmap of ports ([`bitmap_allows`]) has this one.
    AskBitmap(Port, System),
    /// The guest gets the exception that the instruction raised.
    Bounce,
    /// The guest gets this exception.
    Fault(Event),
}

/// Whether `who` may have the instruction.
pub fn judge(what: System, who: &Who) -> Verdict {
    let allowed = |condition| if condition { Verdict::Allowed(what) } else { Verdict::Bounce };
    match what {
        System::Cpuid => Verdict::Allowed(what),
        System::In(port) | System::Out(port) | System::StringIo(port) => {
            if who.has_io() {
                Verdict::Allowed(what)
            } else {
                Verdict::AskBitmap(port, what)
            }
        }
        System::SetInterrupts => allowed(who.has_io()),
        System::Rdtsc | System::Rdtscp => allowed(who.is_kernel || !who.has(Cr4::TSD)),
        _ if !who.is_kernel => Verdict::Bounce,
        System::Xsetbv if !who.has(Cr4::OSXSAVE) => Verdict::Fault(Event::UD),
        System::Control(ControlOp::Read { cr, .. } | ControlOp::Write { cr, .. }) => allowed(matches!(cr, 0 | 2..=4)),
        System::Control(ControlOp::Lmsw { .. }) => Verdict::Bounce,
        System::ReadDebug { dr, gpr } => match debug_register(dr, who) {
            Some(dr) => Verdict::Allowed(System::ReadDebug { dr, gpr }),
            None => Verdict::Fault(Event::UD),
        },
        System::WriteDebug { dr, gpr } => match debug_register(dr, who) {
            Some(dr) => Verdict::Allowed(System::WriteDebug { dr, gpr }),
            None => Verdict::Fault(Event::UD),
        },
        System::Rdmsr | System::Wrmsr | System::Xsetbv | System::Control(ControlOp::Clts) => Verdict::Allowed(what),
        System::Hlt | System::Wbinvd | System::Invlpg { .. } => Verdict::Allowed(what),
    }
}

/// The register that a number names: 4 and 5 are 6 and 7 without debugging extensions (SDM 3B 18.2.2).
fn debug_register(dr: u8, who: &Who) -> Option<u8> {
    match dr {
        4 | 5 if !who.has(Cr4::DE) => Some(dr + 2),
        0..=3 | 6 | 7 => Some(dr),
        _ => None,
    }
}

/// Whether a bitmap as `PHYSDEVOP_set_iobitmap` gives it has a port: `limit` ports, a set bit forbids. `read` copies two
/// bytes at an offset in the bitmap, ones where it cannot.
pub fn bitmap_allows(port: Port, limit: u32, read: impl FnOnce(u64) -> [u8; 2]) -> bool {
    if u32::from(port.number) + u32::from(port.size) > limit {
        return false;
    }
    let mask = ((1u16 << port.size) - 1) << (port.number % 8);
    u16::from_le_bytes(read(u64::from(port.number / 8))) & mask == 0
}

/// `INT` with a vector whose gate the processor does not let ring 3 use comes as `#GP` with the vector in its error code
/// (SDM 3A 6.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftInterrupt {
    /// The vector.
    pub vector: u8,
}

impl SoftInterrupt {
    /// The length of `INT n`; other encodings do not come this way.
    pub const LEN: u8 = 2;

    /// From the error code of `#GP`.
    pub fn from_error(error: u32) -> Option<Self> {
        const EXTERNAL: u32 = 1;
        const IDT: u32 = 2;
        if error & (EXTERNAL | IDT) != IDT {
            return None;
        }
        u8::try_from(error >> 3).ok().map(|vector| Self { vector })
    }

    /// Whether the guest's gate, with this privilege level in its trap table, lets the guest raise it. Its kernel counts
    /// as level 1.
    pub fn is_permitted(self, gate_dpl: u8, is_kernel: bool) -> bool {
        gate_dpl + 2 * u8::from(is_kernel) >= 3
    }
}

/// RFLAGS behind an instruction that was done for the guest, and whether it gets `#DB` with DR6.BS for its single step.
pub fn retire(rflags: u64) -> (u64, bool) {
    (rflags & !Rflags::RF.bits(), rflags & Rflags::TF.bits() != 0)
}

/// CR0 as a PV guest reads it but for TS: protection, paging, write protection, alignment checks, numeric errors.
const CR0: Cr0 = Cr0::PE.union(Cr0::MP).union(Cr0::ET).union(Cr0::NE).union(Cr0::WP).union(Cr0::AM).union(Cr0::PG);

/// What the guest reads of CR0.
pub fn read_cr0(is_ts_set: bool) -> u64 {
    CR0.bits() | if is_ts_set { Cr0::TS.bits() } else { 0 }
}

/// TS after a write of CR0; `None` if the write changes another bit, which is `#GP`.
pub fn write_cr0(value: u64) -> Option<bool> {
    let ts = Cr0::TS.bits();
    (value & !ts == CR0.bits()).then_some(value & ts != 0)
}

/// The bits of CR4 that a guest sets for itself, if its CPUID has them.
const CR4_GUESTS: Cr4 = Cr4::TSD.union(Cr4::DE).union(Cr4::FSGSBASE).union(Cr4::OSXSAVE);
/// The bits of CR4 that it sees as the hypervisor has them.
const CR4_VISIBLE: Cr4 = Cr4::PAE.union(Cr4::MCE).union(Cr4::OSFXSR).union(Cr4::OSXMMEXCPT);

/// CR4 as the guest reads it once it has written `value`. Bits that are not its to change are as they were, without a
/// fault. `allowed` is what its CPUID lets it set ([`crate::policy::control::ControlPolicy::cr4_allowed`]).
pub fn write_cr4(value: u64, allowed: u64) -> u64 {
    value & CR4_GUESTS.bits() & allowed | CR4_VISIBLE.bits()
}

#[cfg(test)]
#[path = "privileged_tests.rs"]
mod tests;
