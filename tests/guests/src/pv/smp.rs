//! The other virtual CPUs of a PV guest, started by VCPUOP_initialise and VCPUOP_up.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};

use abi::vcpu::{VCPUOP_DOWN, VCPUOP_INITIALISE, VCPUOP_UP};
use abi::{Errno, nr};

use super::{mmu, traps};
use crate::hypercall::{self, Ret};
use crate::mem::{self, Page};

/// `struct vcpu_guest_context` is 5168 bytes.
pub const CONTEXT_BYTES: usize = 5168;

/// A context, by its offsets.
#[repr(C, align(16))]
pub struct Context(pub [u8; CONTEXT_BYTES]);

/// Offsets in a context.
#[expect(missing_docs, reason = "the names are those of xen.h")]
pub mod offset {
    pub const FLAGS: usize = 512;
    pub const RDI: usize = 520 + 14 * 8;
    pub const RIP: usize = 520 + 16 * 8;
    pub const CS: usize = 520 + 17 * 8;
    pub const RFLAGS: usize = 520 + 18 * 8;
    pub const RSP: usize = 520 + 19 * 8;
    pub const SS: usize = 520 + 20 * 8;
    pub const TRAPS: usize = 720;
    pub const LDT_BASE: usize = 720 + 256 * 16;
    pub const LDT_ENTS: usize = LDT_BASE + 8;
    pub const GDT_FRAMES: usize = LDT_ENTS + 8;
    pub const GDT_ENTS: usize = GDT_FRAMES + 128;
    pub const KERNEL_SS: usize = GDT_ENTS + 8;
    pub const KERNEL_SP: usize = KERNEL_SS + 8;
    pub const CR: usize = KERNEL_SP + 8;
    pub const DR: usize = CR + 64;
    pub const EVENT_EIP: usize = DR + 64;
    pub const FAILSAFE_EIP: usize = EVENT_EIP + 8;
    pub const SYSCALL_EIP: usize = FAILSAFE_EIP + 8;
    pub const VM_ASSIST: usize = SYSCALL_EIP + 8;
    pub const FS_BASE: usize = VM_ASSIST + 8;
    pub const GS_KERNEL: usize = FS_BASE + 8;
    pub const GS_USER: usize = GS_KERNEL + 8;
}
const _: () = assert!(offset::GS_USER + 8 == CONTEXT_BYTES);

impl Context {
    /// Writes a word.
    pub fn set(&mut self, offset: usize, value: u64) {
        self.0[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// How many have arrived.
pub static ARRIVED: AtomicU32 = AtomicU32::new(0);
static WORK: AtomicUsize = AtomicUsize::new(0);
static SEVERAL: AtomicBool = AtomicBool::new(false);
/// Each virtual CPU's number, where its GS base points.
static NUMBERS: [AtomicU32; 32] = [const { AtomicU32::new(0) }; 32];
static STACKS: [[Page; 4]; 8] = [const { [const { Page::new() }; 4] }; 8];

/// The number of the virtual CPU that asks.
pub fn me() -> u32 {
    if !SEVERAL.load(SeqCst) {
        return 0;
    }
    let number: u32;
    // SAFETY: each virtual CPU's GS base is the address of its number.
    unsafe { core::arch::asm!("mov {0:e}, gs:[0]", out(reg) number, options(nostack, readonly)) };
    number
}

fn number_at(vcpu: u32) -> u64 {
    let slot = &NUMBERS[vcpu as usize % 32];
    slot.store(vcpu, SeqCst);
    slot.as_ptr() as u64
}

/// Gives the first virtual CPU its number, before others start.
pub fn prepare() -> Ret {
    let base = number_at(0);
    let ret = hypercall::call(nr::SET_SEGMENT_BASE, [2, base, 0, 0, 0]);
    SEVERAL.store(ret == Ret(0), SeqCst);
    ret
}

/// What a virtual CPU does once it is up, with events masked; then it goes down.
pub fn set_work(work: fn()) {
    WORK.store(work as usize, SeqCst);
}

#[unsafe(no_mangle)]
extern "C" fn pv_ap_entry(vcpu: u32) -> ! {
    let ret = traps::load();
    if ret != Ret(0) {
        crate::println!("FAIL the callbacks of vCPU {vcpu} can be set: {ret}");
    }
    ARRIVED.fetch_add(1, SeqCst);
    let work = WORK.load(SeqCst);
    if work != 0 {
        // SAFETY: `set_work` stored a function of this type.
        unsafe { core::mem::transmute::<usize, fn()>(work)() };
    }
    loop {
        down(vcpu);
    }
}

/// `VCPUOP_down`.
pub fn down(vcpu: u32) -> Ret {
    hypercall::call(nr::VCPU_OP, [VCPUOP_DOWN.into(), vcpu.into(), 0, 0, 0])
}

unsafe extern "C" {
    fn pv_ap_start();
}

/// A context that starts a virtual CPU on a stack of its own.
pub fn context(vcpu: u32) -> Context {
    let stack = &STACKS[vcpu as usize % 8];
    let (first, second) = (stack[1].addr() + 4096, stack[3].addr() + 4096);
    let mut context = Context([0; CONTEXT_BYTES]);
    let words = [
        (offset::FLAGS, 1 << 2), // VGCF_in_kernel; with VGCF_online Xen would take it for up before VCPUOP_up
        (offset::RDI, vcpu.into()),
        (offset::RIP, pv_ap_start as *const () as u64),
        (offset::CS, traps::KERNEL_CS.into()),
        (offset::RFLAGS, 0x2),
        (offset::RSP, second),
        (offset::SS, traps::FLAT_SS.into()),
        (offset::KERNEL_SS, traps::FLAT_SS.into()),
        (offset::KERNEL_SP, first),
        (offset::CR + 3 * 8, mmu::top() << 12),
        (offset::EVENT_EIP, traps::callback(traps::kind::EVENT)),
        (offset::FAILSAFE_EIP, traps::callback(traps::kind::FAILSAFE)),
        (offset::SYSCALL_EIP, traps::callback(traps::kind::SYSCALL)),
        (offset::GS_KERNEL, number_at(vcpu)),
    ];
    words.into_iter().for_each(|(offset, value)| context.set(offset, value));
    context
}

/// Starts a virtual CPU with this context: the results of `VCPUOP_initialise` and `VCPUOP_up`.
pub fn start(vcpu: u32, context: &mut Context) -> (Ret, Ret) {
    let initialised = hypercall::vcpu_op(VCPUOP_INITIALISE, vcpu, context);
    if initialised != Ret(0) {
        return (initialised, Ret::err(Errno::EINVAL));
    }
    // A vCPU's upcalls are unmasked until its context says otherwise.
    mem::poke8(crate::events::vcpu_info(vcpu) + 1, 1);
    (initialised, hypercall::vcpu_op(VCPUOP_UP, vcpu, &mut 0u64))
}
