//! The descriptor tables of a CPU.
//!
//! Selectors are those of Xen's ABI (`xen/include/public/arch-x86/xen.h`): of the sixteen pages that a GDT can
//! have, fourteen belong to a PV guest and the hypervisor's descriptors start at 0xe000. The table's base is
//! therefore 0xe000 below the one page that holds ours. While a PV virtual CPU is loaded, that page is the fifteenth
//! of the guest's own table.

use core::arch::asm;
use core::mem::offset_of;
use model::addr::{MachineAddr, PAGE_SIZE};
use model::ids::CpuId;

use crate::mem::map;
use crate::percpu::{self, this_cpu};

/// Where the hypervisor's descriptors start in a GDT.
pub const FIRST_RESERVED: u16 = 0xe000;
/// The hypervisor's code.
pub const HV_CS: u16 = 0xe008;
/// The hypervisor's data.
pub const HV_DS: u16 = 0xe010;
/// The task state segment.
pub const TSS: u16 = 0xe040;
/// The LDT of the PV virtual CPU that is loaded.
pub const LDT: u16 = 0xe050;

/// A 64-bit task state segment (SDM 3A figure 8-11), without an I/O map.
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

/// Descriptors in the table; the task register's and the LDT's have two places each.
const NR_DESCRIPTORS: usize = 12;

/// The page [`percpu::TABLES`] of a CPU's block.
#[repr(C)]
struct Tables {
    gdt: [u64; NR_DESCRIPTORS],
    tss: TaskState,
    /// Where the `Regs` of the PV virtual CPU end that is loaded, in its domain's part of the hole.
    regs_end: u64,
    /// The stack pointer of a guest between SYSCALL and the first push.
    user_rsp: u64,
    /// The hypervisor's L4 table.
    root: u64,
    /// The page's own machine address.
    addr: u64,
}

/// Offset of the end of the loaded virtual CPU's `Regs`.
pub const REGS_END: usize = offset_of!(Tables, regs_end);
/// Offset of the place for a guest's stack pointer.
pub const USER_RSP: usize = offset_of!(Tables, user_rsp);
/// Offset of the hypervisor's CR3.
pub const ROOT: usize = offset_of!(Tables, root);

fn tables(id: CpuId) -> *mut Tables {
    (percpu::block(id) + percpu::TABLES * PAGE_SIZE) as *mut Tables
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Fills in the tables of CPU `id`, whose page for them is at `addr`.
///
/// # Safety
/// The block is mapped and its CPU has not started.
pub unsafe fn initialise(id: CpuId, addr: MachineAddr) {
    let mut ist = [0; 7];
    for (slot, end) in ist.iter_mut().zip(percpu::IST_ENDS) {
        *slot = percpu::block(id) + end * PAGE_SIZE;
    }
    let tss = TaskState {
        reserved0: 0,
        rsp: [percpu::stack_top(id), 0, 0],
        reserved1: 0,
        ist,
        reserved2: 0,
        reserved3: 0,
        io_map: size_of::<TaskState>() as u16,
    };
    let base = tables(id) as u64 + offset_of!(Tables, tss) as u64;
    let gdt = [
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
        0,
        0,
    ];
    let root = map::root().raw();
    // SAFETY: by the caller the page is mapped and nobody uses it yet.
    unsafe { tables(id).write(Tables { gdt, tss, regs_end: 0, user_rsp: 0, root, addr: addr.raw() }) };
}

/// Loads GDT, TSS and IDT of this CPU, number `id`, and the registers of SYSCALL and SYSENTER, for good.
pub fn load(id: CpuId) {
    // SAFETY: the descriptors that are loaded are those that `initialise` wrote.
    unsafe { install(&own_gdt(id)) };
    super::trap::load_idt();
    crate::pv::enable_this_cpu(id);
}

/// The GDT of a CPU that runs no PV guest.
fn own_gdt(id: CpuId) -> Pointer {
    Pointer {
        limit: FIRST_RESERVED + size_of::<[u64; NR_DESCRIPTORS]>() as u16 - 1,
        base: tables(id) as u64 - u64::from(FIRST_RESERVED),
    }
}

/// The machine address of this CPU's page of descriptors.
pub(crate) fn page() -> MachineAddr {
    // SAFETY: the page of a running CPU is mapped, and only it changes it.
    MachineAddr::new(unsafe { (*tables(this_cpu())).addr })
}

/// What changes with the PV virtual CPU that a CPU has loaded.
pub(crate) struct Loaded {
    /// Where its GDT lies, sixteen pages, the one from [`FIRST_RESERVED`] on being [`page`].
    pub gdt: u64,
    /// Where its `Regs` end.
    pub regs_end: u64,
    /// Base and limit of its LDT.
    pub ldt: Option<(u64, u32)>,
}

/// Makes this CPU use the tables of a PV virtual CPU.
///
/// # Safety
/// The tables are mapped at these places in the address space that is loaded.
pub(crate) unsafe fn use_guest_tables(loaded: &Loaded) {
    let tables = tables(this_cpu());
    // The last page is nobody's.
    let pointer = Pointer { limit: FIRST_RESERVED + PAGE_SIZE as u16 - 1, base: loaded.gdt };
    // SAFETY: this CPU's own page, which it does not use at this moment; the table has the descriptors of the
    // segments that are loaded at the same places.
    unsafe {
        (*tables).regs_end = loaded.regs_end;
        (*tables).tss.rsp[0] = loaded.regs_end;
        asm!("lgdt [{0}]", in(reg) &pointer, options(readonly, nostack, preserves_flags));
        use_ldt(loaded.ldt);
    }
}

/// Makes this CPU use an LDT, or none.
///
/// # Safety
/// A PV virtual CPU's tables are in use, and the LDT is in its part of the hole.
pub(crate) unsafe fn use_ldt(ldt: Option<(u64, u32)>) {
    let Some((base, limit)) = ldt else {
        // SAFETY: no LDT: selectors of it fault.
        return unsafe { asm!("lldt {0:x}", in(reg) 0u32, options(nomem, nostack, preserves_flags)) };
    };
    let limit = u64::from(limit);
    let low =
        limit & 0xffff | (base & 0xff_ffff) << 16 | 0x82 << 40 | (limit >> 16 & 15) << 48 | (base >> 24 & 0xff) << 56;
    let tables = tables(this_cpu());
    let index = usize::from((LDT - FIRST_RESERVED) / 8);
    // SAFETY: the page is this CPU's own, and the descriptor is loaded after it was written.
    unsafe {
        (&raw mut (*tables).gdt[index]).write_volatile(low);
        (&raw mut (*tables).gdt[index + 1]).write_volatile(base >> 32);
        asm!("lldt {0:x}", in(reg) LDT, options(readonly, nostack, preserves_flags));
    }
}

/// Gives up the tables of a PV virtual CPU: this CPU uses its own again, and no data segment.
pub(crate) fn use_own_tables() {
    let id = this_cpu();
    let tables = tables(id);
    // SAFETY: this CPU's own page and table, as `load` had them.
    unsafe {
        (*tables).regs_end = 0;
        (*tables).tss.rsp[0] = percpu::stack_top(id);
        asm!(
            "lldt {null:x}",
            "mov ds, {null:e}",
            "mov es, {null:e}",
            "mov fs, {null:e}",
            "mov gs, {null:e}",
            "lgdt [{pointer}]",
            null = in(reg) 0u32,
            pointer = in(reg) &own_gdt(id),
            options(readonly, nostack, preserves_flags)
        );
    }
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
