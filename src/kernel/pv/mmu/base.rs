//! Which page tables a virtual CPU runs on, and frames that the hypervisor writes.

use abi::errno::Errno;
use abi::xen::VMASST_TYPE_M2P_STRICT;
use machine::mem::PinnedFrame;
use machine::pv::l4;
use machine::virt::Virt;
use model::addr::Mfn;
use model::ids::VcpuId;
use model::pv::mmu::Stop;
use sync::Cx;
use sync::place::Root;

use super::{Budget, Session, descriptors, with};
use crate::domain::Domain;
use crate::run::Running;

/// `MMUEXT_NEW_BASEPTR`: the running virtual CPU's kernel goes on with other page tables.
pub(super) fn set_kernel(session: &mut Session<'_>, run: &mut Running, mfn: Mfn) -> Result<(), Stop> {
    let at = run.id.0 as usize;
    if session.vcpus[at].kernel == Some(mfn) {
        run.context.hw.flush();
        return Ok(());
    }
    session.mmu().get_base(mfn)?;
    show_m2p(session, mfn, true);
    let old = session.vcpus[at].kernel.replace(mfn);
    // This CPU leaves the old tables here, before anybody may take them apart.
    run.context.hw.pv_mut().set_kernel_base(mfn);
    descriptors::map_ldt(session, run);
    if let Some(old) = old {
        session.mmu().put_base(old);
    }
    Ok(())
}

/// A write of CR3 by the running virtual CPU's kernel. [`Stop::Again`]: the same instruction goes on.
pub fn new_base(cx: &mut Cx<'_, Root>, run: &mut Running, mfn: Mfn) -> Result<(), Stop> {
    // The session borrows the domain, and the operation changes what else the CPU has.
    let domain = run.domain.clone();
    let answer = with(cx, &domain, false, &Budget::new(), |session| set_kernel(session, run, mfn));
    answer.unwrap_or(Err(Errno::EINVAL.into()))
}

/// `MMUEXT_NEW_USER_BASEPTR`: likewise its user mode; frame 0 is none.
pub(super) fn set_user(session: &mut Session<'_>, run: &mut Running, mfn: Mfn) -> Result<(), Stop> {
    let at = run.id.0 as usize;
    let new = (mfn.raw() != 0).then_some(mfn);
    if session.vcpus[at].user == new {
        return Ok(());
    }
    if let Some(new) = new {
        session.mmu().get_base(new)?;
        show_m2p(session, new, false);
    }
    let old = core::mem::replace(&mut session.vcpus[at].user, new);
    run.context.hw.pv_mut().set_user_base(new);
    if let Some(old) = old {
        session.mmu().put_base(old);
    }
    Ok(())
}

/// With `VMASST_TYPE_m2p_strict` only the kernel's tables have the machine-to-phys table.
#[inline]
fn show_m2p(session: &Session<'_>, l4: Mfn, is_shown: bool) {
    if session.tables.domain.assists(VMASST_TYPE_M2P_STRICT) {
        l4::show_m2p(l4, is_shown);
    }
}

/// Takes what a virtual CPU needs that does not run yet: the table of level 4 of its kernel, and perhaps of user mode. Its
/// registers are told by the caller. [`Stop::Again`]: the same call goes on.
pub fn set_bases(
    cx: &mut Cx<'_, Root>,
    domain: &Domain,
    vcpu: VcpuId,
    kernel: Mfn,
    user: Option<Mfn>,
) -> Result<(), Stop> {
    let answer = with(cx, domain, false, &Budget::new(), |session| {
        let at = vcpu.0 as usize;
        if session.vcpus.get(at).is_none_or(|tables| tables.kernel.is_some() || tables.user.is_some()) {
            return Err(Errno::EEXIST.into());
        }
        session.mmu().get_base(kernel)?;
        if let Some(user) = user
            && let Err(stop) = session.mmu().get_base(user)
        {
            session.mmu().put_base(kernel);
            return Err(stop);
        }
        (session.vcpus[at].kernel, session.vcpus[at].user) = (Some(kernel), user);
        Ok(())
    });
    answer.unwrap_or(Err(Errno::EINVAL.into()))
}

/// Takes a frame of a PV domain's that the hypervisor writes from now on, until the domain's end: it cannot be a page
/// table or descriptors, now or later. `EINVAL` if it is, or is not the domain's.
pub fn pin(cx: &mut Cx<'_, Root>, domain: &Domain, mfn: Mfn) -> Result<PinnedFrame, Stop> {
    let answer = with(cx, domain, false, &Budget::new(), |session| {
        session.written.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        match session.mmu().get_writable(mfn, domain.id) {
            Err(Stop::Refused(_)) => return Err(Errno::EINVAL.into()),
            answer => answer?,
        }
        session.written.push(mfn);
        // Refused only if there are too many references.
        PinnedFrame::get(mfn, domain.id).map_err(|_| Errno::EINVAL.into())
    });
    answer.unwrap_or(Err(Errno::EINVAL.into()))
}
