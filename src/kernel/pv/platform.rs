//! `platform_op` (`xen/include/public/platform.h`): what an initial domain does to the machine. What Xen has and this has
//! not answers as a Xen that was built without it.

use abi::errno::Errno;
use abi::platform::*;
use machine::cpu::features;
use machine::irq::lapic;
use machine::{acpi, smp, start};
use model::ids::CpuId;
use model::time::WallClock;
use sync::Cx;
use sync::place::Root;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::guest_memory::GuestPtr;
use crate::hypercall::{Answer, Args, Outcome};
use crate::run::Running;
use crate::time;

const NS_PER_SEC: u32 = 1_000_000_000;

/// `XENPF_*`: `args[0]` the operation.
pub fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let ptr = GuestPtr::<PlatformOp>::new(args[0]);
    let mut op = ptr.read(cx, run)?;
    if op.interface_version != INTERFACE_VERSION {
        return Err(Errno::EACCES);
    }
    if !super::is_initial(run) {
        return Err(Errno::EPERM);
    }
    match op.cmd {
        XENPF_SETTIME32 => {
            let time: Settime32 = part(&op);
            set_time(cx, u64::from(time.secs), time.nsecs, time.system_time)
        }
        XENPF_SETTIME64 => {
            let time: Settime64 = part(&op);
            if time.mbz != 0 {
                return Err(Errno::EINVAL);
            }
            set_time(cx, time.secs, time.nsecs, time.system_time)
        }
        // No register of memory types is told.
        XENPF_ADD_MEMTYPE | XENPF_DEL_MEMTYPE | XENPF_READ_MEMTYPE => Err(Errno::EINVAL),
        XENPF_FIRMWARE_INFO => Err(firmware_info(part(&op))),
        XENPF_ENTER_ACPI_SLEEP => enter_sleep(run, part(&op)),
        XENPF_GET_CPUINFO => {
            let answer = cpu_info(part(&op));
            put(&mut op, &answer);
            ptr.write(cx, run, &op)?;
            Ok(Outcome::DONE)
        }
        XENPF_GET_CPU_VERSION => {
            let answer = cpu_version(part(&op));
            put(&mut op, &answer);
            ptr.write(cx, run, &op)?;
            Ok(Outcome::DONE)
        }
        _ => Err(Errno::ENOSYS),
    }
}

/// An operation's part of the union.
fn part<T: FromBytes + KnownLayout + Immutable>(op: &PlatformOp) -> T {
    let (part, _) = T::read_from_prefix(op.u.as_bytes()).expect("no part is longer than the union");
    part
}

fn put<T: IntoBytes + Immutable>(op: &mut PlatformOp, part: &T) {
    let bytes = part.as_bytes();
    op.u.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
}

/// The time of day, for all domains. Xen takes any number of nanoseconds; more than a second of them are carried.
fn set_time(cx: &mut Cx<'_, Root>, secs: u64, nsecs: u32, system_time: u64) -> Answer {
    let secs = secs.checked_add(u64::from(nsecs / NS_PER_SEC)).ok_or(Errno::EINVAL)?;
    time::set_wall_clock(cx, WallClock::with_ns(secs, nsecs % NS_PER_SEC, system_time));
    Ok(Outcome::DONE)
}

/// What a BIOS knew when the machine started: nothing of it was kept, as after a start by UEFI.
fn firmware_info(info: FirmwareInfo) -> Errno {
    match info.kind {
        XEN_FW_DISK_INFO | XEN_FW_DISK_MBR_SIGNATURE => Errno::ENOENT,
        XEN_FW_VBEDDC_INFO | XEN_FW_KBD_SHIFT_FLAGS => Errno::ESRCH,
        XEN_FW_EFI_INFO => Errno::ENOSYS,
        _ => Errno::EINVAL,
    }
}

/// Turns the machine off. Other sleep states are not entered.
fn enter_sleep(run: &Running, sleep: EnterAcpiSleep) -> Answer {
    const OFF: u32 = 5;
    let board = start::board();
    if sleep.flags & XENPF_ACPI_SLEEP_EXTENDED != 0 || !acpi::sleep::is_possible(board) {
        return Err(Errno::EPERM);
    }
    if sleep.flags != 0 || sleep.sleep_state != OFF {
        return Err(Errno::EINVAL);
    }
    log::info!("({}) turns the machine off", run.domain.name);
    acpi::sleep::power_off(board, [sleep.val_a, sleep.val_b]);
    Err(Errno::EIO)
}

/// A physical CPU. They are numbered without gaps.
fn cpu_info(mut info: PcpuInfo) -> PcpuInfo {
    info.max_present = smp::online() - 1;
    if info.xen_cpuid > info.max_present {
        info.flags = XEN_PCPU_FLAGS_INVALID;
        return info;
    }
    info.flags = XEN_PCPU_FLAGS_ONLINE;
    info.apic_id = lapic::id_of(CpuId(info.xen_cpuid));
    info.acpi_id = start::board().acpi_id(info.apic_id).unwrap_or(u32::MAX);
    info
}

/// Which processor a physical CPU is: all are like the one that answers.
fn cpu_version(mut version: PcpuVersion) -> PcpuVersion {
    version.max_present = smp::online() - 1;
    if version.xen_cpuid > version.max_present {
        (version.vendor_id, version.family, version.model, version.stepping) = ([0; 12], 0, 0, 0);
        return version;
    }
    let [_, ebx, ecx, edx] = features::leaf(0, 0);
    for (bytes, word) in version.vendor_id.chunks_exact_mut(4).zip([ebx, edx, ecx]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let [signature, ..] = features::leaf(1, 0);
    let family = signature >> 8 & 15;
    version.family = if family == 15 { family + (signature >> 20 & 0xff) } else { family };
    version.model = signature >> 4 & 15 | if family >= 6 { signature >> 12 & 0xf0 } else { 0 };
    version.stepping = signature & 15;
    version
}
