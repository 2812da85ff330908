//! The descriptor tables of a CPU.
//!
//! Selectors are those of Xen's ABI (`xen/include/public/arch-x86/xen.h`): of the sixteen pages that a GDT can
//! have, fourteen belong to a PV guest and the hypervisor's descriptors start at 0xe000. The table's base is
//! therefore 0xe000 below the one page that holds ours.

use core::arch::asm;
use model::addr::PAGE_SIZE;
use model::ids::CpuId;

use crate::mem::OwnedPages;
use crate::percpu;

/// Where the hypervisor's descriptors start in a GDT.
pub const FIRST_RESERVED: u16 = 0xe000;
/// The hypervisor's code.
pub const HV_CS: u16 = 0xe008;
/// The hypervisor's data.
pub const HV_DS: u16 = 0xe010;
/// The task state segment.
pub const TSS: u16 = 0xe040;

/// A 64-bit task state segment (SDM 3A figure 8-11), followed by the end of the I/O map.
#[repr(C, packed(4))]
struct TaskState {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map: u16,
}

const TSS_LIMIT: u64 = size_of::<TaskState>() as u64 - 1;

/// Offset of the TSS in the page that holds the descriptors.
const TSS_OFFSET: usize = 0x100;

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Makes and loads GDT, TSS and IDT of this CPU, number `id`, for good. `None` when memory is short.
pub fn load(id: CpuId) -> Option<()> {
    let page = OwnedPages::zeroed(0)?;
    let tss = page.ptr().wrapping_add(TSS_OFFSET).cast::<TaskState>();
    let mut ist = [0; 7];
    for (slot, end) in ist.iter_mut().zip(percpu::IST_ENDS) {
        *slot = percpu::block(id) + end * PAGE_SIZE;
    }
    let state = TaskState {
        reserved0: 0,
        rsp: [percpu::stack_top(id), 0, 0],
        reserved1: 0,
        ist,
        reserved2: 0,
        reserved3: 0,
        io_map: size_of::<TaskState>() as u16,
    };
    let base = tss as u64;
    let table: [u64; 10] = [
        0,
        0x00af_9b00_0000_ffff, // 0xe008: 64-bit code, ring 0
        0x00cf_9300_0000_ffff, // 0xe010: data, ring 0
        0,
        0x00cf_fb00_0000_ffff, // 0xe023: 32-bit code, ring 3
        0x00cf_f300_0000_ffff, // 0xe02b: data, ring 3
        0x00af_fb00_0000_ffff, // 0xe033: 64-bit code, ring 3
        0,
        TSS_LIMIT | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56,
        base >> 32,
    ];
    let gdt = page.ptr().cast::<[u64; 10]>();
    // SAFETY: both lie in the page, apart from each other, and the page is ours.
    unsafe {
        tss.write(state);
        gdt.write(table);
    }
    let pointer = Pointer {
        limit: FIRST_RESERVED + size_of_val(&table) as u16 - 1,
        base: page.ptr() as u64 - u64::from(FIRST_RESERVED),
    };
    core::mem::forget(page); // the CPU uses it as long as the machine runs
    // SAFETY: the descriptors that are loaded are the ones just written.
    unsafe { install(&pointer) };
    super::trap::load_idt();
    Some(())
}

/// Loads a GDT and every segment register from it.
unsafe fn install(pointer: &Pointer) {
    // SAFETY: by the caller, the table holds what the selectors name. The far return goes to the next instruction.
    unsafe {
        asm!(
            "lgdt [{pointer}]",
            "push {cs}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ss, {ds:e}",
            "mov ds, {null:e}",
            "mov es, {null:e}",
            "mov fs, {null:e}",
            "mov gs, {null:e}",
            "ltr {tss:x}",
            pointer = in(reg) pointer,
            cs = in(reg) u64::from(HV_CS),
            ds = in(reg) u32::from(HV_DS),
            null = in(reg) 0u32,
            tss = in(reg) TSS,
            scratch = out(reg) _,
        );
    }
}
