//! The other virtual CPUs: started by INIT and SIPI, or by VCPUOP_initialise and VCPUOP_up.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use abi::hvm_vcpu::{HvmContext, VCPU_HVM_MODE_64B, X86_64};
use abi::vcpu::{VCPUOP_INITIALISE, VCPUOP_UP};
use zerocopy::{FromZeros, IntoBytes};

use crate::hypercall::{self, Ret};
use crate::{cpu, interrupts, lapic, mem};

/// How many have arrived.
pub static ARRIVED: AtomicU32 = AtomicU32::new(0);
static WORK: AtomicUsize = AtomicUsize::new(0);

/// The page where SIPI vector 8 starts.
const TRAMPOLINE: u64 = 0x8000;
const SIPI_VECTOR: u32 = 8;

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static boot_pml4: u8;
    fn ap_start64();
}

#[unsafe(no_mangle)]
extern "C" fn ap_entry(_ticket: u32) -> ! {
    interrupts::load();
    ARRIVED.fetch_add(1, SeqCst);
    let work = WORK.load(SeqCst);
    if work != 0 {
        // SAFETY: `set_work` stored a function of this type.
        unsafe { core::mem::transmute::<usize, fn()>(work)() };
    }
    cpu::cli_hlt()
}

/// What a virtual CPU does once it is up, with interrupts off and the local APIC untouched; then it halts.
pub fn set_work(work: fn()) {
    WORK.store(work as usize, SeqCst);
}

/// Starts the virtual CPU with this APIC id through real mode.
pub fn start_by_sipi(apic_id: u32) {
    let (first, last) = (&raw const trampoline_start as u64, &raw const trampoline_end as u64);
    for i in 0..last - first {
        mem::poke8(TRAMPOLINE + i, mem::peek8(first + i));
    }
    lapic::send(apic_id, 0x4500); // INIT, assert
    lapic::send(apic_id, 0x4600 | SIPI_VECTOR);
    lapic::send(apic_id, 0x4600 | SIPI_VECTOR);
}

/// A context that starts a virtual CPU in 64-bit mode.
pub fn context() -> HvmContext {
    let registers = X86_64 {
        rip: ap_start64 as *const () as u64,
        rflags: 2,
        cr0: 0x8000_0033,
        cr3: &raw const boot_pml4 as u64,
        cr4: 0x20,
        efer: 0x500,
        ..X86_64::new_zeroed()
    };
    let mut context = HvmContext { mode: VCPU_HVM_MODE_64B, ..HvmContext::new_zeroed() };
    let bytes = registers.as_bytes();
    context.cpu_regs.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
    context
}

/// Starts a virtual CPU by hypercall: the results of `VCPUOP_initialise` and `VCPUOP_up`.
pub fn start_by_vcpuop(vcpu: u32) -> (Ret, Ret) {
    let initialised = hypercall::vcpu_op(VCPUOP_INITIALISE, vcpu, &mut context());
    (initialised, hypercall::vcpu_op(VCPUOP_UP, vcpu, &mut 0u64))
}
