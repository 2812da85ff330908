//! The local APIC of each CPU, by its page or, where the processor has it, as x2APIC by MSRs (SDM 3A chapter 11).

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use model::addr::MachineAddr;
use model::ids::CpuId;

use super::SPURIOUS;
use crate::cpu::{self, features, msr};
use crate::mem::map::{self, Rights};
use crate::percpu::MAX_CPUS;

/// Registers, by their offset in the page; an x2APIC has each at MSR 0x800 + offset / 16.
mod register {
    pub const ID: u32 = 0x20;
    pub const TPR: u32 = 0x80;
    pub const EOI: u32 = 0xb0;
    pub const SVR: u32 = 0xf0;
    pub const ESR: u32 = 0x280;
    pub const ICR: u32 = 0x300;
    pub const ICR_HIGH: u32 = 0x310;
    pub const LVT_TIMER: u32 = 0x320;
    pub const LVT_LINT0: u32 = 0x350;
    pub const LVT_LINT1: u32 = 0x360;
    pub const LVT_ERROR: u32 = 0x370;
    pub const INITIAL_COUNT: u32 = 0x380;
    pub const CURRENT_COUNT: u32 = 0x390;
    pub const DIVIDE: u32 = 0x3e0;
}

const APIC_BASE: u32 = 0x1b;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const APIC_BASE_ENABLE: u64 = 1 << 11;
const TSC_DEADLINE: u32 = 0x6e0;

const MASKED: u32 = 1 << 16;
const TIMER_TSC_DEADLINE: u32 = 2 << 17;
const ICR_NMI: u32 = 4 << 8;
const ICR_INIT: u32 = 5 << 8;
const ICR_STARTUP: u32 = 6 << 8;
const ICR_PENDING: u32 = 1 << 12;
const ICR_ASSERT: u32 = 1 << 14;
const ICR_ALL_BUT_SELF: u32 = 3 << 18;

static IS_X2APIC: AtomicBool = AtomicBool::new(false);
static HAS_DEADLINE: AtomicBool = AtomicBool::new(false);
static PAGE: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
/// APIC ids by CPU number.
static IDS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
/// The timer's ticks in a nanosecond, times 2^32, for one-shot mode with divisor 1.
static TIMER_SCALE: AtomicU64 = AtomicU64::new(0);

fn read(offset: u32) -> u32 {
    if IS_X2APIC.load(Ordering::Relaxed) {
        // SAFETY: x2APIC is on, and only its registers are named here.
        return unsafe { msr::read(0x800 + offset / 16) } as u32;
    }
    // SAFETY: `prepare` mapped the page.
    unsafe { PAGE.load(Ordering::Relaxed).add(offset as usize).cast::<u32>().read_volatile() }
}

#[inline]
fn write(offset: u32, value: u32) {
    if IS_X2APIC.load(Ordering::Relaxed) {
        // SAFETY: x2APIC is on; the registers change interrupts alone.
        unsafe { msr::write(0x800 + offset / 16, u64::from(value)) };
        return;
    }
    // SAFETY: `prepare` mapped the page.
    unsafe { PAGE.load(Ordering::Relaxed).add(offset as usize).cast::<u32>().write_volatile(value) };
}

/// Chooses how local APICs are reached. Called once, by the first CPU; `false` when the page cannot be mapped.
pub fn prepare() -> bool {
    let [_, _, ecx, _] = features::leaf(1, 0);
    IS_X2APIC.store(ecx & 1 << 21 != 0, Ordering::Relaxed);
    HAS_DEADLINE.store(ecx & 1 << 24 != 0, Ordering::Relaxed);
    let base = address();
    if !IS_X2APIC.load(Ordering::Relaxed) {
        let Some(page) = map::device(MachineAddr::new(base), 4096, Rights::DEVICE) else { return false };
        PAGE.store(page, Ordering::Relaxed);
    }
    true
}

/// The machine address of the local APICs' registers.
pub fn address() -> u64 {
    // SAFETY: every 64-bit processor has the register.
    unsafe { msr::read(APIC_BASE) & 0x000f_ffff_ffff_f000 }
}

/// Whether the APICs are used as x2APICs.
#[inline]
pub fn is_x2apic() -> bool {
    IS_X2APIC.load(Ordering::Relaxed)
}

/// Turns this CPU's local APIC on, with everything masked.
pub fn enable(cpu: CpuId) {
    // SAFETY: every 64-bit processor has the register; the bits turn the APIC on in the way that `prepare` chose.
    unsafe {
        let base = msr::read(APIC_BASE) | APIC_BASE_ENABLE;
        msr::write(APIC_BASE, base);
        if is_x2apic() {
            msr::write(APIC_BASE, base | APIC_BASE_X2APIC);
        }
    }
    for lvt in [register::LVT_TIMER, register::LVT_LINT0, register::LVT_LINT1, register::LVT_ERROR] {
        write(lvt, MASKED);
    }
    write(register::TPR, 0);
    write(register::SVR, 1 << 8 | u32::from(SPURIOUS));
    write(register::ESR, 0);
    write(register::DIVIDE, 0b1011);
    unmask_timer();
    IDS[cpu.0 as usize].store(id(), Ordering::Release);
}

/// Lets the timer interrupt, in the mode in which deadlines are given.
fn unmask_timer() {
    let mode = if has_deadline() { TIMER_TSC_DEADLINE } else { 0 };
    write(register::LVT_TIMER, u32::from(super::TIMER) | mode);
}

/// This CPU's APIC id.
pub fn id() -> u32 {
    let raw = read(register::ID);
    if is_x2apic() { raw } else { raw >> 24 }
}

/// The APIC id of a CPU that [`enable`] has run on.
#[inline]
pub fn id_of(cpu: CpuId) -> u32 {
    IDS[cpu.0 as usize].load(Ordering::Acquire)
}

/// Ends the interrupt in service.
#[inline]
pub fn end_of_interrupt() {
    write(register::EOI, 0);
}

#[inline(always)]
fn command(destination: u32, low: u32) {
    if is_x2apic() {
        // SAFETY: sends an interrupt, which the receiver's handlers expect.
        unsafe { msr::write(0x830, u64::from(destination) << 32 | u64::from(low)) };
        return;
    }
    command_by_page(destination, low);
}

#[inline(never)]
fn command_by_page(destination: u32, low: u32) {
    while read(register::ICR) & ICR_PENDING != 0 {
        cpu::relax();
    }
    write(register::ICR_HIGH, destination << 24);
    write(register::ICR, low);
}

/// Interrupts another CPU.
#[inline(always)]
pub fn send(cpu: CpuId, vector: u8) {
    command(id_of(cpu), u32::from(vector) | ICR_ASSERT);
}

/// Sends NMIs to all other CPUs, which then stop: the hypervisor is ending.
pub fn stop_others() {
    if is_x2apic() || !PAGE.load(Ordering::Relaxed).is_null() {
        command(0, ICR_NMI | ICR_ASSERT | ICR_ALL_BUT_SELF);
    }
}

/// Sends INIT to the processor with this APIC id.
pub fn send_init(apic_id: u32) {
    command(apic_id, ICR_INIT | ICR_ASSERT);
}

/// Sends STARTUP for the page at `page * 4096`.
pub fn send_startup(apic_id: u32, page: u8) {
    command(apic_id, ICR_STARTUP | ICR_ASSERT | u32::from(page));
}

/// Whether deadlines are given as TSC values.
pub fn has_deadline() -> bool {
    HAS_DEADLINE.load(Ordering::Relaxed)
}

/// Lets the timer count from its maximum, without an interrupt.
pub fn start_count() {
    write(register::LVT_TIMER, MASKED | u32::from(super::TIMER));
    write(register::INITIAL_COUNT, u32::MAX);
}

/// What the timer has still to count.
pub fn count() -> u32 {
    read(register::CURRENT_COUNT)
}

/// The timer rests, and is as [`enable`] left it.
pub fn end_count() {
    write(register::INITIAL_COUNT, 0);
    unmask_timer();
}

/// Says how fast the timer counts, where deadlines are not TSC values: its ticks in a nanosecond, times 2^32.
pub fn set_timer_scale(scale: u64) {
    TIMER_SCALE.store(scale, Ordering::Relaxed);
}

/// Raises [`super::TIMER`] when the TSC reaches `tsc`, which is `ns` nanoseconds from now. Replaces the deadline before.
#[inline]
pub fn set_deadline(tsc: u64, ns: u64) {
    if has_deadline() {
        // SAFETY: CPUID says that the register exists; it raises an interrupt that has a handler.
        unsafe { msr::write(TSC_DEADLINE, tsc.max(1)) };
        return;
    }
    let count = (u128::from(ns) * u128::from(TIMER_SCALE.load(Ordering::Relaxed))) >> 32;
    let count = count.clamp(1, u128::from(u32::MAX));
    write(register::INITIAL_COUNT, count as u32);
}
