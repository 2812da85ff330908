//! Hypercalls by 32-bit code of PVH guests: number in EAX, arguments in EBX, ECX, EDX, ESI, EDI, EBP, result in EAX
//! (`xen/include/public/arch-x86/xen-x86_32.h`).
//!
//! Most arguments are laid out as for 64-bit code, since they have no pointers and no frame numbers; some others are
//! converted here. What is neither is not built, and answers `-ENOSYS`.

use abi::errno::Errno;
use abi::grant_table::{GNTTABOP_GET_VERSION, GNTTABOP_QUERY_SIZE, GNTTABOP_SET_VERSION};
use abi::memory::*;
use abi::nr;
use abi::sched::{Poll, SCHEDOP_POLL};
use abi::vcpu::*;
use abi::version::XENVER_PLATFORM_PARAMETERS;
use model::regs::Regs;
use sync::Cx;
use sync::place::Root;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::memory::{self, progress};
use super::{Answer, Args, Outcome, command, physmap, sched, vcpu};
use crate::guest_memory::GuestPtr;
use crate::run::Running;

/// The arguments of a call.
pub(super) fn args(regs: &Regs) -> Args {
    [regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp].map(|register| register & 0xffff_ffff)
}

/// Sets the arguments with which a call is executed again.
pub(super) fn set_args(regs: &mut Regs, args: Args) {
    [regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp] = args.map(|register| register & 0xffff_ffff);
}

/// One call, by number.
pub(super) fn dispatch(cx: &mut Cx<'_, Root>, run: &mut Running, number: u64, args: &Args) -> Answer {
    match (number, command(args)) {
        (nr::XEN_VERSION, XENVER_PLATFORM_PARAMETERS) => {
            GuestPtr::<u32>::new(args[1]).write(cx, run, &0)?;
            Ok(Outcome::DONE)
        }
        (nr::SCHED_OP, SCHEDOP_POLL) => {
            let arg = GuestPtr::<Poll32>::new(args[1]).read(cx, run)?;
            let arg = Poll { ports: arg.ports.into(), nr_ports: arg.nr_ports, pad: 0, timeout: arg.timeout() };
            sched::poll(cx, run, &arg)
        }
        // Its argument has 64 bits, in two registers.
        (nr::SET_TIMER_OP, _) => vcpu::set_timer(cx, run, &[args[0] | args[1] << 32, 0, 0, 0, 0, 0]),
        (nr::MEMORY_OP, _) => memory_op(cx, run, args),
        (
            nr::VCPU_OP,
            VCPUOP_GET_RUNSTATE_INFO | VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA | VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA,
        ) => Err(Errno::ENOSYS),
        (nr::GRANT_TABLE_OP, GNTTABOP_QUERY_SIZE | GNTTABOP_SET_VERSION | GNTTABOP_GET_VERSION) => {
            super::dispatch(cx, run, number, args)
        }
        (nr::GRANT_TABLE_OP | nr::MULTICALL, _) => Err(Errno::ENOSYS),
        _ => super::dispatch(cx, run, number, args),
    }
}

/// `struct compat_sched_poll`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Poll32 {
    ports: u32,
    nr_ports: u32,
    timeout: [u32; 2],
}

impl Poll32 {
    fn timeout(&self) -> u64 {
        u64::from(self.timeout[0]) | u64::from(self.timeout[1]) << 32
    }
}

/// `struct compat_add_to_physmap`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct AddToPhysmap32 {
    domid: u16,
    size: u16,
    space: u32,
    idx: u32,
    gpfn: u32,
}

/// `struct compat_remove_from_physmap`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RemoveFromPhysmap32 {
    domid: u16,
    pad: u16,
    gpfn: u32,
}

/// `struct compat_memory_map`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MemoryMap32 {
    nr_entries: u32,
    buffer: u32,
}

fn memory_op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let (command, done) = progress(args);
    match command {
        XENMEM_MAXIMUM_RAM_PAGE | XENMEM_CURRENT_RESERVATION | XENMEM_MAXIMUM_RESERVATION | XENMEM_MAXIMUM_GPFN => {
            memory::op(cx, run, args)
        }
        XENMEM_ADD_TO_PHYSMAP => {
            let AddToPhysmap32 { domid, size, space, idx, gpfn } = GuestPtr::new(args[1]).read(cx, run)?;
            let arg = AddToPhysmap { domid, size, space, idx: idx.into(), gpfn: gpfn.into() };
            physmap::add(cx, run, args, &arg, done)
        }
        XENMEM_REMOVE_FROM_PHYSMAP => {
            let arg = GuestPtr::<RemoveFromPhysmap32>::new(args[1]).read(cx, run)?;
            physmap::remove(cx, run, arg.domid, arg.gpfn.into(), done)
        }
        XENMEM_MEMORY_MAP => {
            let ptr = GuestPtr::<MemoryMap32>::new(args[1]);
            let mut arg = ptr.read(cx, run)?;
            arg.nr_entries = memory::write_map(cx, run, arg.nr_entries, arg.buffer.into())?;
            ptr.write(cx, run, &arg)?;
            Ok(Outcome::DONE)
        }
        _ => Err(Errno::ENOSYS),
    }
}
