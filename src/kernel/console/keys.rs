//! Debug keys: what the hypervisor itself does with what is typed.

use core::sync::atomic::Ordering;

use machine::exit::Kind;
use model::evtchn::SharedBits;
use sync::Cx;
use sync::place::before;

use super::commands;
use crate::{domain, sched, time};

/// A key, what it does in words, and the doing.
struct Key<P: before::DomainList> {
    key: u8,
    what: &'static str,
    act: fn(&mut Cx<P>),
}

const KEYS: usize = 9 + cfg!(feature = "stretch") as usize + cfg!(feature = "locks") as usize;

fn keys<P: before::DomainList>() -> [Key<P>; KEYS] {
    [
        Key { key: b'e', what: "event channels of every domain", act: channels },
        Key { key: b'h', what: "this list", act: help },
        #[cfg(feature = "locks")]
        Key { key: b'k', what: "locks since this was asked last", act: locks },
        #[cfg(feature = "stretch")]
        Key { key: b'l', what: "the longest times without a look at pending work", act: stretches },
        Key { key: b'm', what: "memory", act: memory },
        Key { key: b'q', what: "domains and their virtual CPUs", act: domains },
        Key { key: b'r', what: "time accounts of every virtual CPU", act: runstates },
        Key { key: b't', what: "clocks", act: clocks },
        Key { key: b'x', what: "exits of every domain by reason", act: exits },
        Key { key: b'R', what: "restart the machine", act: restart },
        Key { key: b':', what: "type a command", act: commands::open },
    ]
}

/// Does what a key stands for.
pub fn press<P: before::DomainList>(cx: &mut Cx<P>, key: u8) {
    if let Some(found) = keys().iter().find(|known| known.key == key) {
        log::info!("'{}' pressed: {}", char::from(key), found.what);
        (found.act)(cx);
    }
}

fn help<P: before::DomainList>(_: &mut Cx<P>) {
    for key in keys::<P>() {
        log::info!("  {}  {}", char::from(key.key), key.what);
    }
}

fn domains<P: before::DomainList>(cx: &mut Cx<P>) {
    for domain in domain::all(cx) {
        let (pages, max) = (domain.pages(cx), cx.lock(&domain.memory).0.max_pages());
        let state = if domain.life.has_ended() { "ended" } else { "runs" };
        log::info!("  {} ({}) {state}, {} KiB of at most {} KiB", domain.id, domain.name, pages * 4, max * 4);
        for vcpu in &domain.vcpus {
            let place = sched::held_by(vcpu.key);
            let up = if vcpu.is_up.load(Ordering::Relaxed) { "up" } else { "down" };
            let exits = vcpu.exits.all();
            let upcall = domain.shared.has_upcall(vcpu.id);
            match place {
                Some(cpu) => log::info!("    {} {up}, on {cpu}, {exits} exits, upcall {upcall}", vcpu.id),
                None => log::info!("    {} {up}, on no CPU, {exits} exits, upcall {upcall}", vcpu.id),
            }
        }
    }
}

fn runstates<P: before::DomainList>(cx: &mut Cx<P>) {
    for domain in domain::all(cx) {
        for vcpu in &domain.vcpus {
            let Some(runstate) = sched::runstate(cx, vcpu.key) else { continue };
            let [running, runnable, blocked, offline] = runstate.times_at(time::now()).map(|ns| ns / 1_000_000);
            log::info!(
                "  {} ({}) {}: {:?}, ms running {running}, runnable {runnable}, blocked {blocked}, offline {offline}",
                domain.id,
                domain.name,
                vcpu.id,
                runstate.state(),
            );
        }
    }
}

fn exits<P: before::DomainList>(cx: &mut Cx<P>) {
    for domain in domain::all(cx) {
        log::info!("  {} ({})", domain.id, domain.name);
        for kind in Kind::ALL {
            let count: u64 = domain.vcpus.iter().map(|vcpu| vcpu.exits.of(kind)).sum();
            if count != 0 {
                log::info!("    {kind:?} {count}");
            }
        }
    }
}

fn memory<P: before::DomainList>(_: &mut Cx<P>) {
    log::info!("  RAM {} KiB", machine::start::ram() / 1024);
    log::info!("  free {} KiB", domain::life::free_kib());
    log::info!("  heap {} KiB", machine::mem::heap::size() / 1024);
}

fn channels<P: before::DomainList>(cx: &mut Cx<P>) {
    for domain in domain::all(cx) {
        log::info!("  {} ({})", domain.id, domain.name);
        let (channels, _) = cx.lock(&domain.channels);
        for port in channels.open_ports() {
            let Ok((status, vcpu)) = channels.status(port) else { continue };
            let pending = if domain.shared.is_pending(port) { "pending" } else { "-" };
            let masked = if domain.shared.is_masked(port) { "masked" } else { "-" };
            log::info!("    {port:?} {status:?} for {vcpu}: {pending}, {masked}");
        }
    }
}

fn clocks<P: before::DomainList>(cx: &mut Cx<P>) {
    log::info!("  TSC {} kHz, {} ns since the first instruction", machine::time::tsc_hz() / 1000, time::now());
    log::info!("  wall clock at that instruction: {} s since 1970", time::wall_clock(cx).sec());
}

#[cfg(feature = "locks")]
fn locks<P: before::DomainList>(_: &mut Cx<P>) {
    for counts in sync::place::COUNTS {
        let counted = counts().take();
        log::info!(
            "  {}: taken {}, missed {}, spins {}, held for at most {} ticks",
            counted.name,
            counted.taken,
            counted.missed,
            counted.spins,
            counted.longest_ticks,
        );
    }
}

#[cfg(feature = "stretch")]
fn stretches<P: before::DomainList>(_: &mut Cx<P>) {
    crate::stretch::report();
}

fn restart<P: before::DomainList>(_: &mut Cx<P>) {
    machine::console::flush();
    machine::cpu::reset()
}
