//! The areas in a guest's memory that tell it how its virtual CPUs' time goes, and what time it is.

use core::mem::offset_of;
use core::sync::atomic::Ordering;

use abi::errno::Errno;
use abi::vcpu::{RunstateInfo, XEN_RUNSTATE_UPDATE};
use abi::xen::{VMASST_TYPE_RUNSTATE_UPDATE_FLAG, VcpuTimeInfo};
use model::addr::GuestVirt;
use model::sched::Runstate;
use sync::Cx;
use sync::place::Root;
use zerocopy::IntoBytes;

use crate::domain::Vcpu;
use crate::guest_memory::copy_out;
use crate::run::Running;
use crate::{sched, time};

/// The time account of a virtual CPU up to now.
pub fn info(cx: &mut Cx<'_, Root>, vcpu: &Vcpu) -> RunstateInfo {
    sched::runstate(cx, vcpu.key).map_or(
        RunstateInfo { state: 3, pad: 0, state_entry_time: 0, time: [0; 4] },
        |runstate| RunstateInfo { time: runstate.times_at(time::now()), ..at_entry(&runstate) },
    )
}

/// As the area has it: times up to when the present state was entered.
fn at_entry(runstate: &Runstate) -> RunstateInfo {
    RunstateInfo {
        state: runstate.state() as u32,
        pad: 0,
        state_entry_time: runstate.entered_ns(),
        time: runstate.times_ns(),
    }
}

/// Brings the areas of the virtual CPU up to date, after the scheduler has changed its state. What cannot be written
/// is left, as in Xen: the guest unmapped what it had registered.
#[inline(always)]
pub fn update_area(cx: &mut Cx<'_, Root>, run: &mut Running) {
    let area = run.vcpu().runstate_area.load(Ordering::Relaxed);
    if area == 0 {
        return;
    }
    write_area(cx, run, GuestVirt::new(area));
}

fn write_area(cx: &mut Cx<'_, Root>, run: &mut Running, area: GuestVirt) {
    // The address is one of the kernel's, which may not be there in user mode.
    let is_user = run.is_pv() && !run.context.hw.pv().is_kernel();
    if is_user {
        run.context.hw.pv_mut().toggle_mode();
    }
    write_runstate_area(cx, run, area);
    if is_user {
        run.context.hw.pv_mut().toggle_mode();
    }
}

fn write_runstate_area(cx: &mut Cx<'_, Root>, run: &Running, area: GuestVirt) {
    if let Some(runstate) = sched::runstate(cx, run.vcpu().key) {
        let mut info = at_entry(&runstate);
        let with_flag = run.domain.assists(VMASST_TYPE_RUNSTATE_UPDATE_FLAG);
        let entry_time = area.raw().wrapping_add(offset_of!(RunstateInfo, state_entry_time) as u64);
        if with_flag {
            info.state_entry_time |= XEN_RUNSTATE_UPDATE;
            let _ = copy_out(cx, run, entry_time, info.state_entry_time.as_bytes());
        }
        let _ = copy_out(cx, run, area.raw(), info.as_bytes());
        if with_flag {
            info.state_entry_time &= !XEN_RUNSTATE_UPDATE;
            let _ = copy_out(cx, run, entry_time, info.state_entry_time.as_bytes());
        }
    }
}

/// Writes a `vcpu_time_info` at an address of the guest's choice. The clock never changes, so it is written once.
pub fn write_time_area(cx: &mut Cx<'_, Root>, run: &Running, area: GuestVirt) -> Result<(), Errno> {
    let time = time::time_info();
    let info = VcpuTimeInfo {
        version: 2,
        pad0: 0,
        tsc_timestamp: time.tsc_timestamp,
        system_time: time.system_time,
        tsc_to_system_mul: time.tsc_to_system_mul,
        tsc_shift: time.tsc_shift,
        flags: time.flags,
        pad1: [0; 2],
    };
    copy_out(cx, run, area.raw(), info.as_bytes())
}
