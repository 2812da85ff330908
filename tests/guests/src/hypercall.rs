//! Hypercalls by the processor's instruction and by the hypercall page.

use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use abi::hvm_op::HvmParam;
use abi::{Errno, cpuid, hvm_op, nr, sched, xen};

use crate::{cpu, mem, pv};

static IS_AMD: AtomicBool = AtomicBool::new(false);
static BASE: AtomicU32 = AtomicU32::new(0);

/// The hypercall page: a PV guest's from the start, another's once [`fill_page`] has run.
#[unsafe(export_name = "guest_hypercall_page")]
pub static PAGE: mem::Page = mem::Page::new();

/// What a hypercall returned; prints an error's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ret(pub i64);

impl Ret {
    /// The return value that means this error.
    pub fn err(errno: Errno) -> Self {
        Ret(-i64::from(errno.number()))
    }
    /// The error, if it is one.
    pub fn errno(self) -> Option<Errno> {
        i32::try_from(self.0.checked_neg()?).ok().and_then(Errno::new).filter(|errno| errno.number() < 4096)
    }
    /// Zero or a number.
    pub fn is_ok(self) -> bool {
        self.0 >= 0
    }
}

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno() {
            Some(errno) => write!(f, "-{errno}"),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

/// Finds the hypervisor's CPUID leaves and the processor's hypercall instruction.
pub fn init() {
    IS_AMD.store(cpu::is_amd(), Relaxed);
    let signature = [cpuid::XEN_CPUID_SIGNATURE_EBX, cpuid::XEN_CPUID_SIGNATURE_ECX, cpuid::XEN_CPUID_SIGNATURE_EDX];
    for base in (cpuid::XEN_CPUID_FIRST_LEAF..cpuid::XEN_CPUID_FIRST_LEAF + 0x1_0000).step_by(0x100) {
        let leaf = cpu::cpuid(base, 0);
        if [leaf.ebx, leaf.ecx, leaf.edx] == signature {
            BASE.store(base, Relaxed);
            return;
        }
    }
    if pv::is_pv() {
        return;
    }
    // Another machine has interrupt controllers that its firmware left running.
    cpu::outb(0x21, 0xff);
    cpu::outb(0xa1, 0xff);
}

/// First CPUID leaf of the hypervisor, if it is Xen or says so.
pub fn cpuid_base() -> Option<u32> {
    let base = BASE.load(Relaxed);
    (base != 0).then_some(base)
}

/// The processor's instruction is VMMCALL, not VMCALL.
pub fn by_vmmcall() -> bool {
    IS_AMD.load(Relaxed)
}

/// A hypercall of five arguments by the instruction of the guest's kind.
pub fn call(number: u64, args: [u64; 5]) -> Ret {
    let ret: i64;
    // A call that was continued comes back with other arguments.
    macro_rules! by {
        ($instruction:literal) => {
            asm!($instruction, inout("rax") number => ret, inout("rdi") args[0] => _, inout("rsi") args[1] => _,
                inout("rdx") args[2] => _, inout("r10") args[3] => _, inout("r8") args[4] => _, out("rcx") _, out("r11") _)
        };
    }
    // SAFETY: the arguments' addresses are structures the test owns, or addresses that the test knows to be bad.
    unsafe {
        if pv::is_pv() {
            by!("syscall")
        } else if by_vmmcall() {
            by!("vmmcall")
        } else {
            by!("vmcall")
        }
    }
    Ret(ret)
}

/// Asks the hypervisor to fill [`PAGE`].
pub fn fill_page() -> Result<(), crate::interrupts::Fault> {
    let base = cpuid_base().unwrap_or(cpuid::XEN_CPUID_FIRST_LEAF);
    cpu::try_wrmsr(cpu::cpuid(base + 2, 0).ebx, PAGE.addr())
}

/// A hypercall by [`PAGE`], filled before.
pub fn call_by_page(number: u64, args: [u64; 5]) -> Ret {
    let ret: i64;
    let entry = PAGE.addr() + number * 32;
    // SAFETY: as for `call`; the page's entry is a near return from the hypercall.
    unsafe {
        asm!("call {entry}", entry = in(reg) entry, out("rax") ret, in("rdi") args[0], in("rsi") args[1],
            in("rdx") args[2], in("r10") args[3], in("r8") args[4], clobber_abi("C"));
    }
    Ret(ret)
}

/// A hypercall of one sub-operation and the address of its argument.
pub fn op<T>(number: u64, op: u32, arg: &mut T) -> Ret {
    call(number, [u64::from(op), core::ptr::from_mut(arg) as u64, 0, 0, 0])
}

/// `vcpu_op`.
pub fn vcpu_op<T>(op: u32, vcpu: u32, arg: &mut T) -> Ret {
    call(nr::VCPU_OP, [u64::from(op), u64::from(vcpu), core::ptr::from_mut(arg) as u64, 0, 0])
}

/// `HVMOP_get_param` of the caller.
pub fn get_param(index: u32) -> Result<u64, Ret> {
    let mut arg = HvmParam { domid: xen::DOMID_SELF, pad: 0, index, value: 0 };
    match op(nr::HVM_OP, hvm_op::HVMOP_GET_PARAM, &mut arg) {
        Ret(0) => Ok(arg.value),
        error => Err(error),
    }
}

/// `HVMOP_set_param` of the caller.
pub fn set_param(index: u32, value: u64) -> Ret {
    let mut arg = HvmParam { domid: xen::DOMID_SELF, pad: 0, index, value };
    op(nr::HVM_OP, hvm_op::HVMOP_SET_PARAM, &mut arg)
}

/// `SCHEDOP_yield`.
pub fn yield_cpu() {
    call(nr::SCHED_OP, [u64::from(sched::SCHEDOP_YIELD), 0, 0, 0, 0]);
}

/// `SCHEDOP_shutdown`; without Xen, the exit device and the ACPI port of QEMU's machines.
pub fn shutdown(reason: u32) -> ! {
    crate::console::drain();
    if cpuid_base().is_some() {
        op(nr::SCHED_OP, sched::SCHEDOP_SHUTDOWN, &mut sched::Shutdown { reason });
    }
    if !pv::is_pv() {
        cpu::outl(0xf4, reason);
        cpu::outw(0x604, 0x2000);
    }
    cpu::cli_hlt()
}
