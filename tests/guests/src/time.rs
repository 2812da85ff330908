//! The paravirtual clock.

use core::sync::atomic::{Ordering::SeqCst, fence};

use abi::xen::VcpuTimeInfo;

use crate::{cpu, events, mem};

/// System time in nanoseconds by a record at this address.
pub fn by_record(record: u64) -> u64 {
    loop {
        let before = mem::peek32(record);
        fence(SeqCst);
        let info: VcpuTimeInfo = mem::read(record);
        let tsc = cpu::tsc();
        fence(SeqCst);
        if before & 1 == 0 && mem::peek32(record) == before {
            return info.system_time.wrapping_add(scale(tsc.wrapping_sub(info.tsc_timestamp), &info));
        }
    }
}

fn scale(ticks: u64, info: &VcpuTimeInfo) -> u64 {
    let shifted = match info.tsc_shift {
        shift @ 0.. => ticks.wrapping_shl(u32::from(shift.unsigned_abs())),
        shift => ticks.wrapping_shr(u32::from(shift.unsigned_abs())),
    };
    ((u128::from(shifted) * u128::from(info.tsc_to_system_mul)) >> 32) as u64
}

/// System time in nanoseconds on the first virtual CPU; the shared page is mapped.
pub fn now() -> u64 {
    by_record(events::vcpu_info(0) + core::mem::offset_of!(abi::xen::VcpuInfo, time) as u64)
}

/// Waits until `done`, or until this many nanoseconds have passed; says whether it was done.
pub fn wait_for(nanoseconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let end = now() + nanoseconds;
    loop {
        if done() {
            return true;
        }
        if now() > end {
            return false;
        }
        cpu::pause();
    }
}

/// A second.
pub const SECOND: u64 = 1_000_000_000;
/// A millisecond.
pub const MILLISECOND: u64 = 1_000_000;
