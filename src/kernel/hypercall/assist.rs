//! `vm_assist` (`xen/include/public/xen.h`): what a guest wants to be helped with.

use core::sync::atomic::Ordering;

use abi::errno::Errno;
use abi::xen::*;
use sync::Cx;
use sync::place::Root;

use super::{Answer, Args, Outcome, command};
use crate::run::Running;

/// The assists that a PV guest may switch on or off. As in Xen, those for 32-bit guests do nothing for 64-bit ones.
pub const OF_PV: u64 = 1 << VMASST_TYPE_4GB_SEGMENTS
    | 1 << VMASST_TYPE_4GB_SEGMENTS_NOTIFY
    | 1 << VMASST_TYPE_WRITABLE_PAGETABLES
    | 1 << VMASST_TYPE_PAE_EXTENDED_CR3
    | 1 << VMASST_TYPE_ARCHITECTURAL_IOPL
    | 1 << VMASST_TYPE_RUNSTATE_UPDATE_FLAG
    | 1 << VMASST_TYPE_M2P_STRICT;

/// That of a translated guest.
const OF_HVM: u64 = 1 << VMASST_TYPE_RUNSTATE_UPDATE_FLAG;

/// `args[0]` the command, `args[1]` the assist.
pub(super) fn op(_: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let kind = args[1] & 0xffff_ffff;
    let valid = if run.is_pv() { OF_PV } else { OF_HVM };
    if kind >= 64 || valid & 1 << kind == 0 {
        return Err(Errno::EINVAL);
    }
    match command(args) {
        VMASST_CMD_ENABLE => run.domain.assists.fetch_or(1 << kind, Ordering::Relaxed),
        VMASST_CMD_DISABLE => run.domain.assists.fetch_and(!(1 << kind), Ordering::Relaxed),
        _ => return Err(Errno::ENOSYS),
    };
    Ok(Outcome::DONE)
}
