//! From the first Rust instruction to a machine that is ready: memory, console, tables, clocks.

use core::arch::{asm, global_asm};

use model::addr::MachineAddr;
use model::ids::CpuId;
use model::regions::Span;
use spin::Once;

use crate::acpi::Topology;
use crate::boot::{BootInfo, Module, symbols};
use crate::cpu::{self, descriptors, trap};
use crate::irq::{self, ioapic, lapic, pic};
use crate::mem::layout;
use crate::time::{self, Calibration};
use crate::{console, mem, smp};

global_asm!(include_str!("../../boot/header.S"));
global_asm!(include_str!("../../boot/trampoline.S"));

static BOOT: Once<BootInfo> = Once::new();
static RAM: Once<u64> = Once::new();
static BOARD: Once<Topology> = Once::new();

/// What the boot loader said.
pub fn boot_info() -> &'static BootInfo {
    BOOT.get().expect("boot information is taken first of all")
}

/// Bytes of RAM.
pub fn ram() -> u64 {
    *RAM.get().expect("memory is set up before anything asks")
}

/// What firmware says of the board.
pub fn board() -> &'static Topology {
    BOARD.get().expect("firmware's tables are read before anything asks")
}

/// How the operator wants the machine.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Port and rate of the serial console.
    pub serial: Option<(u16, u32)>,
    /// Use the screen.
    pub screen: bool,
    /// What is logged of the hypervisor's own messages.
    pub levels: console::Levels,
    /// What is logged of those that guests cause.
    pub guest_levels: console::Levels,
    /// Restart after a panic.
    pub reboot: bool,
}

/// What the caller of [`start`] decides.
pub struct Wishes {
    /// Above which byte memory is left alone, by the command line. Called without a heap.
    pub memory_limit: fn(&str) -> u64,
    /// The rest, by the command line.
    pub settings: fn(&str) -> Settings,
    /// What to go on with.
    pub then: fn() -> !,
}

/// Brings up the first CPU and goes on with `then` on its own stack.
///
/// # Safety
/// Called once, by the entry code, with the loader's information at physical address `info`, the image at `loaded`,
/// the boot page tables loaded and interrupts off.
pub unsafe fn start(info: u64, loaded: u64, wishes: &'static Wishes) -> ! {
    trap::prepare_idt();
    // SAFETY: by the caller.
    let info = match unsafe { BootInfo::take(info) } {
        Ok(info) => BOOT.call_once(|| info),
        Err(error) => stop(error),
    };
    let symbols = symbols::spans(info);
    let kept = info.modules().map(|module| module.span);
    let kept = kept.chain(symbols.into_iter().flat_map(|(symbols, strings)| [symbols, strings]));
    // SAFETY: by the caller; this is the one call.
    let ram = unsafe { mem::set_up(info.ram(), kept, loaded, (wishes.memory_limit)(info.command_line())) };
    let Some(ram) = ram else { stop("the firmware reports too little RAM below 4 GiB to start") };
    RAM.call_once(|| ram);
    if let Some((table, strings)) = symbols.filter(|(a, b)| is_ram(*a) && is_ram(*b)) {
        // SAFETY: both were kept out of the allocator and lie in RAM that the direct map has.
        unsafe { symbols::keep(table, strings) };
    }
    let settings = (wishes.settings)(info.command_line());
    open_console(&settings);
    let Some(top) = mem::first_block() else { stop("there is no memory for the first CPU's stacks") };
    // SAFETY: the new stack is mapped and empty; nothing on the old one is used again but through statics.
    unsafe {
        asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "call {on}",
            "ud2",
            top = in(reg) top,
            on = sym on_own_stack,
            in("rdi") wishes,
            in("rsi") u64::from(settings.screen),
            options(noreturn)
        );
    }
}

fn is_ram(span: Span) -> bool {
    boot_info().ram().iter().any(|ram| ram.start <= span.start && span.end <= ram.end)
}

fn open_console(settings: &Settings) {
    console::start_log(settings.levels, settings.guest_levels);
    crate::panic::set_reboot(settings.reboot);
    if let Some((port, baud)) = settings.serial {
        console::open_serial(port, baud);
    }
}

/// The rest, on the first CPU's own stack.
extern "C" fn on_own_stack(wishes: &Wishes, with_screen: u64) -> ! {
    let first = CpuId(0);
    descriptors::load(first);
    if with_screen != 0
        && let Some(framebuffer) = boot_info().framebuffer()
        && !console::open_screen(framebuffer)
    {
        log::info!("the screen is of a form that Euxen cannot write to: the console is serial alone");
    }
    let topology = BOARD.call_once(|| Topology::read(boot_info().rsdp()));
    pic::silence();
    if !lapic::prepare() {
        stop("the local APIC's registers cannot be mapped");
    }
    lapic::enable(first);
    match time::calibrate(topology) {
        Ok(Calibration { counter, rates }) => {
            log::info!("TSC {} kHz by the {counter}", rates.tsc_hz / 1000);
            if !rates.agree() {
                log::warn!(
                    "the TSC or the local APIC's timer is uneven by {} millionths: guests' time may be wrong",
                    rates.differ_ppm
                );
            }
        }
        Err(why) => stop(why),
    }
    ioapic::mask_all(topology);
    (wishes.then)()
}

/// The first CPU, which calls this, takes interrupts from now on. The serial console's line is ISA interrupt `serial`, if it
/// has one; who prints waits for it no longer, unless `is_synchronous`.
pub fn open_interrupts(serial: Option<u8>, is_synchronous: bool) {
    let has_line = serial.is_some_and(|line| ioapic::route(board(), line, irq::SERIAL));
    console::start(has_line, is_synchronous);
}

/// The bytes of a boot module, which stay in RAM for good; none if the loader put it where there is no RAM.
pub fn module_bytes(module: &Module) -> &'static [u8] {
    if !is_ram(module.span) {
        return &[];
    }
    let from = layout::direct(MachineAddr::new(module.span.start));
    // SAFETY: the span was kept out of the allocator, lies in RAM that the direct map has, and nobody writes it.
    unsafe { core::slice::from_raw_parts(from, module.span.len() as usize) }
}

/// Ends before there is anything to run; on the first serial port where no console is open yet.
fn stop(why: &str) -> ! {
    if !console::is_open() {
        console::open_serial(0x3f8, 115_200);
    }
    console::print_forced(format_args!("(euxen) error: {why}\n"));
    cpu::stop()
}

/// Starts the other processors.
pub fn start_others(limit: u32, work: fn() -> !) {
    smp::start_all(board(), limit, work);
    let mode = if lapic::is_x2apic() { "x2APIC" } else { "xAPIC" };
    let deadline = if lapic::has_deadline() { "TSC deadline" } else { "one-shot" };
    log::info!("{} CPUs, {mode}, timers by {deadline}", smp::online());
}
