//! `xen_version`: what this is, and what it can do. It answers as Xen 4.17, whose ABI it has.

use abi::errno::Errno;
use abi::features;
use abi::version::*;
use abi::xen::VMASST_TYPE_PAE_EXTENDED_CR3;
use sync::Cx;
use sync::place::Root;
use zerocopy::{Immutable, IntoBytes};

use super::{Answer, Args, Outcome, command};
use crate::guest_memory::GuestPtr;
use crate::run::Running;

/// 4.17, as `XENVER_version` has it.
pub const VERSION: u64 = 4 << 16 | 17;
const EXTRA: &str = ".0-euxen";
/// What kinds of domain there are.
const CAPABILITIES: &str = "xen-3.0-x86_64 ";
const CAPABILITIES_HVM: &str = "xen-3.0-x86_64 hvm-3.0-x86_64 ";
const CHANGESET: &str = "unavailable";
const COMPILER: &str = "rustc";

/// What a PVH guest finds in submap 0 of the features.
const FEATURES: u32 = 1 << features::XENFEAT_WRITABLE_PAGE_TABLES
    | 1 << features::XENFEAT_AUTO_TRANSLATED_PHYSMAP
    | 1 << features::XENFEAT_HVM_CALLBACK_VECTOR
    | 1 << features::XENFEAT_HVM_SAFE_PVCLOCK
    | 1 << features::XENFEAT_MEMORY_OP_VNODE_SUPPORTED
    | 1 << features::XENFEAT_NOT_DIRECT_MAPPED;

/// What a PV guest finds there.
const PV_FEATURES: u32 = 1 << features::XENFEAT_MMU_PT_UPDATE_PRESERVE_AD
    | 1 << features::XENFEAT_HIGHMEM_ASSIST
    | 1 << features::XENFEAT_GNTTAB_MAP_AVAIL_BITS
    | 1 << features::XENFEAT_MEMORY_OP_VNODE_SUPPORTED
    | 1 << features::XENFEAT_DIRECT_MAPPED;

fn features(run: &Running) -> u32 {
    let Some(pv) = &run.domain.pv else { return FEATURES };
    let flag = |condition: bool, bit: u32| if condition { 1 << bit } else { 0 };
    PV_FEATURES
        | flag(run.domain.assists(VMASST_TYPE_PAE_EXTENDED_CR3), features::XENFEAT_PAE_PGDIR_ABOVE_4GB)
        | flag(pv.is_initial, features::XENFEAT_DOM0)
}

/// `XENVER_*`: `args[0]` the command, `args[1]` the buffer.
pub(super) fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    // The call that guests make when they want to do nothing but come by.
    if command(args) == XENVER_VERSION { Ok(Outcome::Done(VERSION)) } else { tell(cx, run, args) }
}

#[inline(never)]
fn tell(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    match command(args) {
        XENVER_EXTRAVERSION => give(cx, run, args[1], &text::<16>(EXTRA)),
        XENVER_COMPILE_INFO => give(cx, run, args[1], &compile_info()),
        XENVER_CAPABILITIES => {
            let kinds = if machine::hw::vendor().is_ok() { CAPABILITIES_HVM } else { CAPABILITIES };
            give(cx, run, args[1], &text::<1024>(kinds))
        }
        XENVER_CHANGESET => give(cx, run, args[1], &text::<64>(CHANGESET)),
        XENVER_PLATFORM_PARAMETERS => {
            let virt_start = if run.is_pv() { model::pv::HOLE.start } else { 0 };
            give(cx, run, args[1], &PlatformParameters { virt_start })
        }
        XENVER_GET_FEATURES => get_features(cx, run, args[1]),
        XENVER_PAGESIZE if args[1] != 0 => Err(Errno::EINVAL),
        XENVER_PAGESIZE => Ok(Outcome::Done(model::addr::PAGE_SIZE)),
        XENVER_GUEST_HANDLE => {
            let handle = run.domain.handle;
            give(cx, run, args[1], &handle)
        }
        XENVER_COMMANDLINE => commandline(cx, run, args[1]),
        XENVER_BUILD_ID if run.domain.id.0 != 0 => Err(Errno::EPERM),
        // The image has no build id: ENODATA, as in a Xen without one.
        XENVER_BUILD_ID => Err(Errno::ENODATA),
        _ => Err(Errno::ENOSYS),
    }
}

fn give<T: IntoBytes + Immutable>(cx: &mut Cx<'_, Root>, run: &Running, to: u64, value: &T) -> Answer {
    GuestPtr::<T>::new(to).write(cx, run, value)?;
    Ok(Outcome::DONE)
}

/// `text` in a buffer of its ABI size, ended and filled up with zeros.
fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let len = text.len().min(N - 1);
    bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
    bytes
}

fn compile_info() -> CompileInfo {
    CompileInfo { compiler: text(COMPILER), compile_by: text(""), compile_domain: text(""), compile_date: text("") }
}

fn get_features(cx: &mut Cx<'_, Root>, run: &Running, at: u64) -> Answer {
    let info = GuestPtr::<FeatureInfo>::new(at);
    let asked = info.read(cx, run)?;
    if asked.submap_idx != 0 {
        return Err(Errno::EINVAL);
    }
    info.write(cx, run, &FeatureInfo { submap_idx: 0, submap: features(run) })?;
    Ok(Outcome::DONE)
}

/// The hypervisor's command line is for the initial domain; others are told nothing, as in Xen.
fn commandline(cx: &mut Cx<'_, Root>, run: &Running, at: u64) -> Answer {
    if run.domain.id.0 != 0 {
        return give(cx, run, at, b"<denied>\0");
    }
    give(cx, run, at, &text::<1024>(crate::boot::command_line()))
}
