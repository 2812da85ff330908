//! Bringing up the other processors: INIT, STARTUP, and through the trampoline (SDM 3A 9.4).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use model::addr::PAGE_SIZE;
use model::ids::CpuId;

use crate::acpi::Topology;
use crate::cpu::{self, descriptors, features};
use crate::irq::lapic;
use crate::mem::{self, OwnedPages, layout, map};
use crate::{percpu, time};

unsafe extern "C" {
    static trampoline_start: [u8; 0];
    static trampoline_end: [u8; 0];
    static entry_start: [u8; 0];
    static boot_l4: [u8; 0];
    fn ap_entry();
}

/// CPUs that run, numbered from 0.
static ONLINE: AtomicU32 = AtomicU32::new(1);

/// What a CPU that has come up does.
static WORK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Milliseconds that a processor has to come up.
const PATIENCE_MS: u64 = 2000;

/// How many CPUs run; their numbers are those below.
pub fn online() -> u32 {
    ONLINE.load(Ordering::Acquire)
}

/// Gives CPU `id` its block. `None` when memory is short.
pub fn map_block(id: CpuId) -> Option<()> {
    let block = percpu::block(id);
    let mut tables = None;
    for page in (0..percpu::BLOCK / PAGE_SIZE).filter(|page| !percpu::GUARDS.contains(page)) {
        let (to, rights) = if page == percpu::STUBS {
            (mem::image_phys(&raw const entry_start as u64), map::Rights::RX)
        } else {
            let frame = OwnedPages::zeroed(0)?;
            let to = frame.addr();
            core::mem::forget(frame); // a block is never given back
            if page == percpu::TABLES {
                tables = Some(to);
            }
            (to.raw(), map::Rights::RW)
        };
        // What is below the stack is also in the address space of isolated guests.
        let slim = (page <= percpu::TABLES).then(map::slim);
        for root in [Some(map::root()), slim].into_iter().flatten() {
            // SAFETY: the place is this CPU's own and was not mapped before.
            unsafe { map::map(&mut map::Direct, root, block + page * PAGE_SIZE, to, PAGE_SIZE, rights, 12)? };
        }
    }
    // SAFETY: the block has just been mapped, and its CPU has not started.
    unsafe {
        percpu::initialise(id);
        descriptors::initialise(id, tables?);
    }
    Some(())
}

/// Starts every other processor of the board, at most `limit` CPUs in all; each runs `work` and never comes back.
pub fn start_all(topology: &Topology, limit: u32, work: fn() -> !) {
    WORK.store(work as *mut (), Ordering::Release); // pairs with `euxen_start_ap`
    let own = lapic::id();
    let others: Vec<u32> = topology.apic_ids().iter().copied().filter(|&id| id != own).collect();
    let limit = limit.min(percpu::MAX_CPUS as u32);
    if others.is_empty() || limit <= 1 {
        return;
    }
    let Some(page) = mem::low_page() else {
        log::warn!("no free page below 1 MiB to start other CPUs from: one CPU is used");
        return;
    };
    for apic_id in others {
        if online() >= limit {
            log::info!("further CPUs are left alone, as `maxcpus={limit}` says");
            break;
        }
        let id = CpuId(online());
        if !lapic::is_x2apic() && apic_id >= 255 {
            log::warn!("the processor with APIC id {apic_id} cannot be reached without x2APIC");
        } else if map_block(id).is_none() {
            log::warn!("no memory for the stacks of another CPU");
            break;
        } else if !start(id, apic_id, page) {
            // It may still come up at any time, and would then use this block: no number is given out after it.
            log::warn!("the processor with APIC id {apic_id} did not start; those after it are left alone");
            break;
        }
    }
}

/// Writes the trampoline and its arguments to `page`, and starts one processor. Says whether it came up.
fn start(id: CpuId, apic_id: u32, page: u64) -> bool {
    let code = &raw const trampoline_start as *const u8;
    let len = (&raw const trampoline_end as usize) - code as usize;
    let to = layout::direct(model::addr::MachineAddr::new(page));
    let arguments = [
        (0xfd8, mem::image_phys(&raw const boot_l4 as u64)),
        (0xfe0, u64::from(id.0)),
        (0xfe8, percpu::stack_top(id)),
        (0xff0, map::root().raw()),
        (0xff8, ap_entry as *const () as u64),
    ];
    // SAFETY: the page is ours, mapped by the direct map, and the trampoline is far shorter than 0xfd8 bytes.
    unsafe {
        core::ptr::copy_nonoverlapping(code, to, len);
        for (offset, value) in arguments {
            to.add(offset).cast::<u64>().write_volatile(value);
        }
    }
    lapic::send_init(apic_id);
    time::delay_us(10_000);
    for _ in 0..2 {
        lapic::send_startup(apic_id, (page >> 12) as u8);
        time::delay_us(200);
    }
    let end = time::now() + PATIENCE_MS * 1_000_000;
    while online() == id.0 {
        if time::now() > end {
            return false;
        }
        cpu::relax();
    }
    true
}

/// Where a started processor comes to, on its own stack and the hypervisor's page tables.
#[unsafe(no_mangle)]
extern "C" fn euxen_start_ap() -> ! {
    features::protect();
    let id = percpu::this_cpu();
    descriptors::load(id);
    lapic::enable(id);
    let work = WORK.load(Ordering::Acquire);
    // SAFETY: `start_all` stored a `fn() -> !` before any processor started.
    let work: fn() -> ! = unsafe { core::mem::transmute::<*mut (), fn() -> !>(work) };
    ONLINE.store(id.0 + 1, Ordering::Release);
    work()
}
