//! `physdev_op` (`xen/include/public/physdev.h`): a PV guest's I/O privilege, and what an initial domain says of PCI.
//!
//! No physical interrupt goes to a domain: the operations about them answer as for an interrupt that does not exist.

use alloc::collections::BTreeSet;

use abi::errno::Errno;
use abi::physdev::*;
use machine::irq::ioapic;
use machine::start;
use sync::place::{self, Root};
use sync::{Cx, Lock};

use super::{IoBitmap, is_initial};
use crate::guest_memory::GuestPtr;
use crate::hypercall::{Answer, Args, Outcome};
use crate::run::Running;

/// I/O ports of a PC.
const PORTS: u32 = 65536;
/// PCI devices that are remembered.
const MOST_DEVICES: usize = 65536;

/// The PCI devices that an initial domain has found: segment, bus, device and function.
static DEVICES: Lock<place::Domain, BTreeSet<(u16, u8, u8)>> = Lock::new(BTreeSet::new());

/// `PHYSDEVOP_*`: `args[0]` the command, `args[1]` its argument.
pub fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let command = (args[0] & 0xffff_ffff) as u32;
    match command {
        PHYSDEVOP_SET_IOPL => set_iopl(cx, run, args[1]),
        PHYSDEVOP_SET_IOBITMAP => set_iobitmap(cx, run, args[1]),
        PHYSDEVOP_EOI | PHYSDEVOP_IRQ_STATUS_QUERY => Err(Errno::EINVAL),
        PHYSDEVOP_PIRQ_EOI_GMFN_V1 | PHYSDEVOP_PIRQ_EOI_GMFN_V2 => Err(Errno::ENOSYS),
        PHYSDEVOP_APIC_READ
        | PHYSDEVOP_APIC_WRITE
        | PHYSDEVOP_ALLOC_IRQ_VECTOR
        | PHYSDEVOP_MAP_PIRQ
        | PHYSDEVOP_UNMAP_PIRQ
        | PHYSDEVOP_GET_FREE_PIRQ
        | PHYSDEVOP_SETUP_GSI
        | PHYSDEVOP_MANAGE_PCI_ADD
        | PHYSDEVOP_MANAGE_PCI_ADD_EXT
        | PHYSDEVOP_MANAGE_PCI_REMOVE
        | PHYSDEVOP_PCI_DEVICE_ADD
        | PHYSDEVOP_PCI_DEVICE_REMOVE
        | PHYSDEVOP_PCI_MMCFG_RESERVED
        | PHYSDEVOP_RESTORE_MSI
        | PHYSDEVOP_RESTORE_MSI_EXT
        | PHYSDEVOP_PREPARE_MSIX
        | PHYSDEVOP_RELEASE_MSIX
        | PHYSDEVOP_DBGP_OP
            if !is_initial(run) =>
        {
            Err(Errno::EPERM)
        }
        PHYSDEVOP_APIC_READ => apic_read(cx, run, args[1]),
        PHYSDEVOP_APIC_WRITE => apic_write(cx, run, args[1]),
        PHYSDEVOP_ALLOC_IRQ_VECTOR | PHYSDEVOP_SETUP_GSI => Err(Errno::EINVAL),
        PHYSDEVOP_MAP_PIRQ | PHYSDEVOP_UNMAP_PIRQ | PHYSDEVOP_GET_FREE_PIRQ => Err(Errno::EINVAL),
        PHYSDEVOP_MANAGE_PCI_ADD | PHYSDEVOP_MANAGE_PCI_ADD_EXT => {
            let device = GuestPtr::<ManagePci>::new(args[1]).read(cx, run)?;
            add_device(cx, (0, device.bus, device.devfn))
        }
        PHYSDEVOP_MANAGE_PCI_REMOVE => {
            let device = GuestPtr::<ManagePci>::new(args[1]).read(cx, run)?;
            remove_device(cx, (0, device.bus, device.devfn))
        }
        PHYSDEVOP_PCI_DEVICE_ADD => {
            let device = GuestPtr::<PciDevice>::new(args[1]).read(cx, run)?;
            add_device(cx, (device.seg, device.bus, device.devfn))
        }
        PHYSDEVOP_PCI_DEVICE_REMOVE => {
            let device = GuestPtr::<PciDevice>::new(args[1]).read(cx, run)?;
            remove_device(cx, (device.seg, device.bus, device.devfn))
        }
        PHYSDEVOP_PCI_MMCFG_RESERVED => mmcfg_reserved(cx, run, args[1]),
        // No device has an MSI that could be restored.
        PHYSDEVOP_RESTORE_MSI | PHYSDEVOP_RESTORE_MSI_EXT => Err(Errno::ESRCH),
        PHYSDEVOP_PREPARE_MSIX | PHYSDEVOP_RELEASE_MSIX => Err(Errno::ENODEV),
        // The hypervisor's console is on no USB debug port: there is nothing to be told.
        PHYSDEVOP_DBGP_OP => Ok(Outcome::DONE),
        _ => Err(Errno::ENOSYS),
    }
}

fn set_iopl(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<SetIopl>::new(at).read(cx, run)?;
    if arg.iopl > 3 {
        return Err(Errno::EINVAL);
    }
    run.context.pv().iopl = u64::from(arg.iopl) << 12;
    Ok(Outcome::DONE)
}

fn set_iobitmap(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<SetIobitmap>::new(at).read(cx, run)?;
    if arg.nr_ports > PORTS {
        return Err(Errno::EINVAL);
    }
    run.context.pv().io_bitmap = IoBitmap { at: arg.bitmap, ports: arg.nr_ports };
    Ok(Outcome::DONE)
}

fn apic_read(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<Apic>::new(at);
    let mut arg = ptr.read(cx, run)?;
    arg.value = ioapic::read(start::board(), arg.apic_physbase, arg.reg).ok_or(Errno::EINVAL)?;
    ptr.write(cx, run, &arg)?;
    Ok(Outcome::DONE)
}

/// As in Xen what is not a line's register is passed over; no line is the domain's.
fn apic_write(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    const REDIRECTION: u32 = 0x10;
    let arg = GuestPtr::<Apic>::new(at).read(cx, run)?;
    if ioapic::read(start::board(), arg.apic_physbase, 0).is_none() {
        return Err(Errno::EINVAL);
    }
    if arg.reg < REDIRECTION || arg.reg & 1 != 0 {
        return Ok(Outcome::DONE);
    }
    Err(Errno::EPERM)
}

fn add_device(cx: &mut Cx<'_, Root>, device: (u16, u8, u8)) -> Answer {
    let (mut devices, _) = cx.lock(&DEVICES);
    if devices.len() >= MOST_DEVICES && !devices.contains(&device) {
        return Err(Errno::ENOMEM);
    }
    devices.insert(device);
    Ok(Outcome::DONE)
}

fn remove_device(cx: &mut Cx<'_, Root>, device: (u16, u8, u8)) -> Answer {
    if cx.lock(&DEVICES).0.remove(&device) { Ok(Outcome::DONE) } else { Err(Errno::ENODEV) }
}

/// Whether firmware's table has an area for PCI configuration where the domain has found it reserved.
fn mmcfg_reserved(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<PciMmcfgReserved>::new(at).read(cx, run)?;
    let is_it = |area: &machine::acpi::PciSegment| {
        (area.address, area.segment, area.buses) == (arg.address, arg.segment, (arg.start_bus, arg.end_bus))
    };
    if start::board().pci_segments().iter().any(is_it) { Ok(Outcome::DONE) } else { Err(Errno::ENODEV) }
}
