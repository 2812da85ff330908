//! `grant_table_op` (`xen/include/public/grant_table.h`), as far as a guest's grant code needs it to start up.
//! Mapping and copying grants is not built.

use alloc::sync::Arc;

use abi::errno::Errno;
use abi::grant_table::*;
use model::addr::Mfn;
use model::grant::Status;
use sync::Cx;
use sync::place::{Root, before};

use super::{Answer, Args, Outcome, command};
use crate::domain::{self, Domain};
use crate::guest_memory::GuestPtr;
use crate::run::Running;

/// `GNTTABOP_*`: `args[0]` the command, `args[1]` an array of `args[2]` arguments.
pub(super) fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let count = args[2] as u32;
    if count > i32::MAX as u32 {
        return Err(Errno::EINVAL); // it is an `int` in Xen
    }
    match command(args) {
        GNTTABOP_QUERY_SIZE if count == 1 => query_size(cx, run, args[1]),
        GNTTABOP_SETUP_TABLE if count == 1 => setup_table(cx, run, args[1]),
        GNTTABOP_SET_VERSION => set_version(cx, run, args[1]),
        GNTTABOP_GET_VERSION => get_version(cx, run, args[1]),
        GNTTABOP_QUERY_SIZE | GNTTABOP_SETUP_TABLE => Err(Errno::EINVAL),
        _ => Err(Errno::ENOSYS),
    }
}

/// Whose table is meant: the caller's own, or a status that says why not.
fn own(cx: &mut Cx<'_, Root>, run: &Running, dom: u16) -> Result<(), Status> {
    domain::own_from_guest(cx, &run.domain, dom)
        .map_err(|errno| if errno == Errno::EPERM { Status::PERMISSION_DENIED } else { Status::BAD_DOMAIN })
}

fn query_size(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<QuerySize>::new(at);
    let mut arg = ptr.read(cx, run)?;
    match own(cx, run, arg.dom) {
        Ok(()) => {
            let (used, max) = cx.lock(&run.domain.grants).0.query_size();
            (arg.nr_frames, arg.max_nr_frames, arg.status) = (used, max, GNTST_OKAY);
        }
        Err(status) => arg.status = status.raw(),
    }
    ptr.write(cx, run, &arg)?;
    Ok(Outcome::DONE)
}

fn setup_table(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<SetupTable>::new(at);
    let mut arg = ptr.read(cx, run)?;
    let grown = own(cx, run, arg.dom).and_then(|()| {
        let missing = cx.lock(&run.domain.grants).0.missing(arg.nr_frames)?;
        grow(cx, &run.domain, missing).map_err(|_| Status::GENERAL_ERROR)
    });
    let told = grown.and_then(|()| tell_frames(cx, run, &arg));
    arg.status = told.err().map_or(GNTST_OKAY, Status::raw);
    ptr.write(cx, run, &arg)?;
    Ok(Outcome::DONE)
}

/// Tells where the table's frames are. A translated guest is told no machine frames: it maps the table by
/// `XENMEM_add_to_physmap`, and a frame that it has not mapped is ~0.
fn tell_frames(cx: &mut Cx<'_, Root>, run: &Running, arg: &SetupTable) -> Result<(), Status> {
    let list = GuestPtr::<u64>::new(arg.frame_list);
    for index in 0..u64::from(arg.nr_frames) {
        let Some(mfn) = cx.lock(&run.domain.grants).0.frame(index) else { break };
        let place = if run.domain.pv.is_some() {
            mfn.raw()
        } else {
            cx.lock(&run.domain.memory).0.place_of_special(mfn).map_or(u64::MAX, |gfn| gfn.raw())
        };
        list.at(index).write(cx, run, &place).map_err(|_| Status::BAD_VIRT_ADDR)?;
    }
    Ok(())
}

fn set_version(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<SetVersion>::new(at);
    let mut arg = ptr.read(cx, run)?;
    let (result, version) = {
        let (grants, _) = cx.lock(&run.domain.grants);
        (grants.set_version(arg.version), grants.version())
    };
    arg.version = version;
    ptr.write(cx, run, &arg)?;
    result.map(|()| Outcome::DONE)
}

fn get_version(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<GetVersion>::new(at);
    let mut arg = ptr.read(cx, run)?;
    domain::own_from_guest(cx, &run.domain, arg.dom)?;
    arg.version = cx.lock(&run.domain.grants).0.version();
    ptr.write(cx, run, &arg)?;
    Ok(Outcome::DONE)
}

/// Adds frames to the table.
fn grow<P: before::Grants>(cx: &mut Cx<P>, domain: &Arc<Domain>, count: u32) -> Result<(), Errno> {
    for _ in 0..count {
        let (mut grants, mut cx) = cx.lock(&domain.grants);
        let (mut memory, _) = cx.lock(&domain.memory);
        let frame = memory.new_special()?;
        grants.grow(frame.mfn()).map_err(|_| Errno::ENOMEM)?;
    }
    Ok(())
}

/// Frame `index` of the grant table, for `XENMEM_add_to_physmap`; the table grows to it.
pub(super) fn frame<P: before::Grants>(cx: &mut Cx<P>, domain: &Arc<Domain>, index: u64) -> Result<Mfn, Errno> {
    let missing = cx.lock(&domain.grants).0.missing_for_index(index)?;
    grow(cx, domain, missing)?;
    cx.lock(&domain.grants).0.frame(index).ok_or(Errno::EINVAL)
}
