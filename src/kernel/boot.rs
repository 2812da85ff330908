//! From a machine that is ready to domains that run.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use machine::cpu::{extended, features, speculation};
use machine::start::{self, Settings};
use machine::{hw, mem};
use model::config::cmdline::{Level, Levels, Options, Uart};
use model::config::modules::{self, Dom0};
use model::config::scheduling::{Affinity, Scheduling};
use model::config::xl::{self, Action, DomainConfig, DomainKind};
use model::ids::DomId;
use model::policy::isolation::needs_isolation;
use model::policy::mitigation;
use model::{config, emul};
use sync::place::Root;
use sync::{Cx, Once};

use crate::builder::{Builder, Kernel, Progress, Source};
use crate::{console, idle, run, sched, time};

static OPTIONS: Once<Options> = Once::new();

/// The hypervisor's command line.
pub fn command_line() -> &'static str {
    start::boot_info().command_line()
}

fn options() -> &'static Options {
    OPTIONS.get().expect("the command line is read before anything else")
}

/// Memory above this byte is left alone (`mem=`). Called before there is a heap.
pub fn memory_limit(command_line: &str) -> u64 {
    let word = command_line.split_whitespace().find_map(|word| word.strip_prefix("mem="));
    word.and_then(config::cmdline::size).unwrap_or(u64::MAX)
}

/// Reads the operator's wishes for the machine itself.
pub fn settings(command_line: &str) -> Settings {
    // Set once, by the first CPU.
    let _ = OPTIONS.set(Options::parse(command_line));
    let options = options();
    Settings {
        serial: serial(options).map(|uart| (uart.io_base, uart.baud.unwrap_or(115_200))),
        screen: options.console.vga,
        levels: levels(options.loglvl, log::LevelFilter::Info),
        guest_levels: levels(options.guest_loglvl, log::LevelFilter::Warn),
        reboot: !options.noreboot,
    }
}

/// The serial port that is the console. Without `com1=` it is the PC's own.
fn serial(options: &Options) -> Option<Uart> {
    let wanted = (0..2).find(|&n| options.console.com[n])?;
    Some(options.com[wanted].unwrap_or(Uart::standard(wanted)))
}

/// The levels of an option, of which `warning` is printed up to this.
fn levels(of: Levels, warning: log::LevelFilter) -> machine::console::Levels {
    let filter = |level| match level {
        Level::None => log::LevelFilter::Off,
        Level::Error => log::LevelFilter::Error,
        Level::Warning => warning,
        Level::Info => log::LevelFilter::Info,
        Level::All => log::LevelFilter::Trace,
    };
    machine::console::Levels { always: filter(of.always), limited: filter(of.limited) }
}

/// Starts everything, on the first CPU.
pub fn run() -> ! {
    log::info!("Euxen {}: {}", env!("CARGO_PKG_VERSION"), command_line());
    for warning in &options().warnings {
        log::warn!("{warning}");
    }
    log::info!("{} MiB of RAM, {} MiB free", start::ram() >> 20, mem::frames::free_frames() >> 8);
    if options().pv_check {
        log::info!("pv-check: page tables of PV domains are looked at again after each change");
        crate::pv::mmu::check::enable();
    }
    emul::prepare();
    let mut cx = Cx::root();
    time::start(&mut cx);
    match hw::vendor() {
        Ok(hw::Vendor::Vmx) => log::info!("virtualization by VT-x and EPT"),
        Ok(hw::Vendor::Svm) => log::info!("virtualization by AMD-V and nested paging"),
        Err(missing) => log::warn!("no PVH domains: the machine has no {}; {}", missing.feature, missing.advice),
    }
    prepare_isolation();
    prepare_mitigations();
    hw::enable_this_cpu();
    extended::prepare();
    start::start_others(options().maxcpus.unwrap_or(u32::MAX), run::join);
    idle::prepare(options().mwait_idle);
    machine::pv::prepare();
    let mut cx = Cx::root();
    log::info!("{} KiB free before the first domain", crate::domain::life::free_kib());
    sched::prepare_this_cpu(&mut cx);
    sched::set_params(options().sched).expect("a command line has none that are out of range");
    start_domains(&mut cx);
    console::focus_first(&mut cx);
    start::open_interrupts(serial(options()).and_then(|uart| uart.irq), options().sync_console);
    run::main_loop()
}

/// Whether a PV domain runs isolated from the hypervisor's address space.
pub fn isolates(is_initial: bool) -> bool {
    let xpti = options().xpti;
    let asked = if is_initial { xpti.dom0 } else { xpti.domu };
    asked.unwrap_or_else(|| needs_isolation(features::leaf, features::arch_capabilities))
}

/// Says and prepares what [`isolates`] decides.
fn prepare_isolation() {
    let [initial, others] = [true, false].map(isolates);
    if !initial && !others {
        features::use_global_pages();
    }
    let word = |is_isolated| if is_isolated { "on" } else { "off" };
    log::info!(
        "page-table isolation of PV domains: {} for the initial one, {} for others",
        word(initial),
        word(others)
    );
}

/// Decides what is done against speculation attacks, and says it.
fn prepare_mitigations() {
    let chosen = mitigation::choose(features::leaf, features::arch_capabilities, &options().spec_ctrl);
    log::info!("against speculation: {chosen}");
    log::info!("not mitigated: {}", chosen.open.join(", "));
    speculation::choose(chosen);
    speculation::enable_this_cpu();
}

/// Builds what the boot modules ask for. What is wrong is said, and the rest starts.
fn start_domains(cx: &mut Cx<'_, Root>) {
    let modules: Vec<_> = start::boot_info().modules().collect();
    let strings: Vec<&str> = modules.iter().map(|module| modules::string(module.string)).collect();
    let bytes: Vec<&'static [u8]> = modules.iter().map(start::module_bytes).collect();
    let parsed: Vec<(usize, Option<DomainConfig>)> =
        modules::configs(&strings).into_iter().map(|n| (n, read_config(modules::name(strings[n]), bytes[n]))).collect();
    let references: Vec<_> = parsed.iter().map(|(n, config)| (*n, config.as_ref())).collect();
    let plan = match modules::plan(&strings, &references) {
        Ok(plan) => plan,
        Err(error) => return log::error!("{error}"),
    };
    let mut sources = Vec::new();
    match plan.dom0 {
        Dom0::None => {}
        Dom0::Unknown => {
            log::warn!("the first module is not started: a configuration that may refer to it has an error")
        }
        Dom0::Start { kernel, ramdisk, cmdline } => {
            let (config, ramdisk) = (dom0_config(cmdline), ramdisk.map(|n| bytes[n]));
            sources.push(Source { config, id: Some(DomId(0)), kernel: bytes[kernel], ramdisk });
        }
    }
    for domain in plan.domains {
        match domain {
            Err(error) => log::error!("{error}"),
            Ok(domain) => {
                let config = parsed.iter().find(|(n, _)| *n == domain.config).and_then(|(_, config)| config.clone());
                let (kernel, ramdisk) = (bytes[domain.kernel], domain.ramdisk.map(|n| bytes[n]));
                sources.extend(config.map(|config| Source { config, id: None, kernel, ramdisk }));
            }
        }
    }
    build_all(cx, sources);
}

/// Builds domains one after the other. A kernel stays unpacked until the last domain that has it is there.
fn build_all(cx: &mut Cx<'_, Root>, sources: Vec<Source>) {
    let modules: Vec<*const u8> = sources.iter().map(|source| source.kernel.as_ptr()).collect();
    let mut kernels = Vec::new();
    for (n, source) in sources.into_iter().enumerate() {
        kernels.push((modules[n], build(cx, source)));
        kernels.retain(|(module, _)| modules[n + 1..].contains(module));
    }
}

fn read_config(name: &str, file: &[u8]) -> Option<DomainConfig> {
    match xl::parse(file, Some(&sched::node_cpus)) {
        Ok(parsed) => {
            parsed.warnings.iter().for_each(|warning| log::warn!("{name}: {warning}"));
            Some(parsed.config)
        }
        Err(error) => {
            log::error!("{name}: {error}");
            None
        }
    }
}

/// The initial domain's configuration: from the command line, with Xen's defaults where that is silent.
fn dom0_config(cmdline: String) -> DomainConfig {
    let (bytes, max_bytes) = options().dom0_mem.of(mem::frames::free_frames() * 4096, start::ram());
    let pinned = options().dom0_vcpus_pin.then(|| Affinity::pinned(dom0_vcpus(), machine::smp::online()));
    DomainConfig {
        name: String::from("Domain-0"),
        kind: if options().dom0.pvh { DomainKind::Pvh } else { DomainKind::Pv },
        cmdline,
        memory_mib: bytes >> 20,
        maxmem_mib: max_bytes >> 20,
        vcpus: dom0_vcpus(),
        maxvcpus: dom0_vcpus(),
        scheduling: Scheduling { hard: pinned.unwrap_or_default(), ..Scheduling::default() },
        kernel: String::new(),
        ramdisk: None,
        uuid: None,
        on_poweroff: Action::Destroy,
        on_reboot: Action::Restart,
        on_watchdog: Action::Destroy,
        on_crash: Action::Destroy,
        on_soft_reset: Action::Destroy,
    }
}

/// As many virtual CPUs as there are CPUs, within `dom0_max_vcpus=`.
fn dom0_vcpus() -> u32 {
    let (min, max) = options().dom0_max_vcpus.unwrap_or((1, 128));
    machine::smp::online().clamp(min.clamp(1, 128), max.clamp(min.clamp(1, 128), 128))
}

/// Builds a domain, and gives back its kernel.
fn build(cx: &mut Cx<'_, Root>, source: Source) -> Option<Arc<Kernel>> {
    let mut builder = Builder::new(source);
    loop {
        match builder.step(cx) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => return builder.kernel().cloned(),
            Err(error) => {
                log::error!("({}) is not started: {error}", builder.name());
                let begun = builder.abandon(cx);
                crate::domain::life::relinquish_all(cx, begun);
                return None;
            }
        }
    }
}
