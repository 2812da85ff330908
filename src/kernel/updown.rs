//! How virtual CPUs come up and go down.

use core::sync::atomic::Ordering;

use abi::sched::SHUTDOWN_POWEROFF;
use model::ids::VcpuId;
use sync::Cx;
use sync::place::{Root, before};

use crate::domain::life::{self, Death};
use crate::domain::{Domain, Start, Vcpu, attention};
use crate::hvm::startup;
use crate::run::Running;
use crate::{pv, sched, time};

/// Carries out what was asked of the virtual CPU. `false` when it has to wait.
pub fn apply(cx: &mut Cx<'_, Root>, run: &mut Running) -> bool {
    let (start, waits) = {
        let (mut state, _) = cx.lock(&run.vcpu().state);
        (state.start.take(), state.waits_for_startup)
    };
    match start {
        Some(Start::Registers(state)) => startup::set_registers(cx, run, &state),
        Some(Start::Startup(page)) => startup::set_registers(cx, run, &startup::real_mode(page)),
        Some(Start::Pv(state)) => pv::start::set(cx, run, *state),
        Some(Start::Wait) | None => {}
    }
    let is_up = run.vcpu().is_up.load(Ordering::Acquire);
    if waits || !is_up {
        sched::go_down(cx, run.vcpu().key);
        // It may have been told to start since the look above.
        if run.vcpu().attention.load(Ordering::Acquire) & attention::START != 0 {
            sched::wake(cx, run.vcpu().key);
        }
        return false;
    }
    true
}

/// A virtual CPU that has its state runs.
pub fn bring_up(cx: &mut Cx<'_, Root>, domain: &Domain, id: VcpuId) {
    let Some(vcpu) = domain.vcpu(id) else { return };
    domain.shared.write_time(id, &time::time_info());
    if !vcpu.is_up.swap(true, Ordering::AcqRel) {
        domain.nr_up.fetch_add(1, Ordering::AcqRel);
    }
    sched::wake(cx, vcpu.key);
}

/// The running virtual CPU goes down. If it was the last one its domain powers off, as in Xen.
pub fn take_down(cx: &mut Cx<'_, Root>, run: &mut Running) -> bool {
    let vcpu = run.vcpu();
    if vcpu.is_up.swap(false, Ordering::AcqRel) && run.domain.nr_up.fetch_sub(1, Ordering::AcqRel) == 1 {
        life::end(cx, run, Death::Asked(SHUTDOWN_POWEROFF));
        return true;
    }
    sched::go_down(cx, vcpu.key);
    if vcpu.attention.load(Ordering::Acquire) & attention::START != 0 {
        sched::wake(cx, vcpu.key);
    }
    false
}

/// Another virtual CPU goes down, at its next exit. The caller is up, so it is not the last.
pub fn take_down_other<P: before::RunQueue>(cx: &mut Cx<P>, domain: &Domain, vcpu: &Vcpu) {
    if vcpu.is_up.swap(false, Ordering::AcqRel) {
        domain.nr_up.fetch_sub(1, Ordering::AcqRel);
        vcpu.note(attention::START);
        sched::wake(cx, vcpu.key);
    }
}
