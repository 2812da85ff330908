//! Commands that are typed at the hypervisor itself: the line they are typed on, and what each does.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use model::config::command::{COMMANDS, Command, ParamChanges, Who};
use model::config::cpus::List;
use model::ids::{CpuId, VcpuId};
use model::sched::CpuSet;
use model::typing::{Typed, Typing};
use sync::place::{self, before};
use sync::{Cx, Lock};

use super::{HYPERVISOR, keys};
use crate::domain::{self, Domain, Vcpu};
use crate::{sched, time};

static TYPING: Lock<place::Console, Typing> = Lock::new(Typing::new());

fn show(bytes: &[u8], is_end: bool) {
    machine::console::line(HYPERVISOR, "(euxen) ", bytes, is_end);
}

/// A byte was typed at the hypervisor: a key, or a part of a command.
pub fn take<P: before::DomainList>(cx: &mut Cx<P>, byte: u8) {
    let mut echo = Vec::new();
    let typed = cx.lock(&TYPING).0.take(byte, &mut echo);
    if !echo.is_empty() {
        show(&echo, false);
    }
    match typed {
        Typed::Nothing => {}
        Typed::Key(key) => keys::press(cx, key),
        Typed::Abandoned => show(b"", true),
        Typed::Line(line) => {
            show(b"", true);
            let command = Command::parse(&line, Some(&sched::node_cpus)).map_err(|error| error.to_string());
            if let Err(wrong) = command.and_then(|command| carry_out(cx, command)) {
                log::error!("{wrong}");
            }
        }
    }
}

/// What is typed from now on is a command, up to its end.
pub fn open<P: before::Console>(cx: &mut Cx<P>) {
    cx.lock(&TYPING).0.open();
    show(b": ", false);
}

/// The input goes elsewhere: a command that is not ended is given up.
pub fn abandon<P: before::Console>(cx: &mut Cx<P>) {
    if cx.lock(&TYPING).0.abandon() {
        show(b"", true);
    }
}

/// Does it, or says why not, and then nothing has been changed.
fn carry_out<P: before::DomainList>(cx: &mut Cx<P>, command: Command) -> Result<(), String> {
    match command {
        Command::Help => COMMANDS.iter().for_each(|(usage, what)| log::info!("  {usage}  {what}")),
        Command::Shares(who) => chosen(cx, who.as_ref())?.iter().for_each(|domain| say_shares(domain)),
        Command::SetShares { domain, weight, cap } => set_shares(cx, &domain, weight, cap)?,
        Command::Params => say_params(),
        Command::SetParams(changes) => set_params(changes)?,
        Command::Vcpus(who) => chosen(cx, who.as_ref())?.iter().for_each(|domain| list(cx, domain)),
        Command::Pin { domain, vcpu, hard, soft } => pin(cx, &domain, vcpu, [hard, soft])?,
        Command::Online(cpu) => set_online(cx, cpu, true)?,
        Command::Offline(cpu) => set_online(cx, cpu, false)?,
    }
    Ok(())
}

fn find<P: before::DomainList>(cx: &mut Cx<P>, who: &Who) -> Result<Arc<Domain>, String> {
    let found = domain::all(cx).into_iter().find(|domain| who.is(domain.id, &domain.name));
    found.ok_or_else(|| format!("there is no domain {who}; type vcpu-list to see which there are"))
}

/// That domain, or all.
fn chosen<P: before::DomainList>(cx: &mut Cx<P>, who: Option<&Who>) -> Result<Vec<Arc<Domain>>, String> {
    match who {
        Some(who) => Ok(vec![find(cx, who)?]),
        None => Ok(domain::all(cx)),
    }
}

fn list<P: before::DomainList>(cx: &mut Cx<P>, domain: &Domain) {
    for vcpu in &domain.vcpus {
        let Some(runstate) = sched::runstate(cx, vcpu.key) else { continue };
        let Some((hard, soft)) = sched::affinity(cx, vcpu.key) else { continue };
        let place = sched::held_by(vcpu.key).map_or(String::from("no CPU"), |cpu| cpu.to_string());
        let ran_ms = runstate.times_at(time::now())[0] / 1_000_000;
        log::info!(
            "  {} ({}) {}: {:?}, on {place}, ran {}.{:03} s, hard {}, soft {}",
            domain.id,
            domain.name,
            vcpu.id,
            runstate.state(),
            ran_ms / 1000,
            ran_ms % 1000,
            List(hard),
            List(soft),
        );
    }
}

fn say_shares(domain: &Domain) {
    let (weight, cap) = (domain.account.weight(), domain.account.cap());
    log::info!("  {} ({}): weight {weight}, cap {cap}", domain.id, domain.name);
}

fn set_shares<P: before::DomainList>(
    cx: &mut Cx<P>,
    who: &Who,
    weight: Option<u16>,
    cap: Option<u16>,
) -> Result<(), String> {
    let domain = find(cx, who)?;
    if let Some(weight) = weight {
        domain.account.set_weight(u32::from(weight)).expect("a command has no weight of 0");
    }
    if let Some(cap) = cap {
        domain.account.set_cap(u32::from(cap), time::now());
    }
    domain.vcpus.iter().for_each(|vcpu| sched::reweigh(cx, vcpu.key));
    say_shares(&domain);
    Ok(())
}

fn say_params() {
    let params = sched::params();
    log::info!(
        "  tslice_ms {}, ratelimit_us {}, migration_delay_us {}",
        params.tslice_ms,
        params.ratelimit_us,
        params.vcpu_migr_delay_us,
    );
}

fn set_params(changes: ParamChanges) -> Result<(), String> {
    let params = changes.on(sched::params()).map_err(|error| error.to_string())?;
    sched::set_params(params).expect("they were looked at");
    say_params();
    Ok(())
}

fn pin<P: before::DomainList>(
    cx: &mut Cx<P>,
    who: &Who,
    vcpu: Option<VcpuId>,
    [hard, soft]: [Option<CpuSet>; 2],
) -> Result<(), String> {
    let domain = find(cx, who)?;
    let vcpus = vcpus(&domain, vcpu)?;
    let online = sched::usable_cpus(cx);
    if let Some(set) = [hard, soft].into_iter().flatten().find(|set| set.and(&online).is_empty()) {
        return Err(format!("of {} no CPU is online; online are {}", List(set), List(online)));
    }
    if let Some(own) = vcpus.iter().find(|vcpu| cx.lock(&vcpu.state).0.overridden.is_some()) {
        return Err(format!(
            "{} has put {} on a CPU itself (SCHEDOP_pin_override), until it takes that back",
            domain.id, own.id
        ));
    }
    for vcpu in vcpus {
        let Some((old_hard, old_soft)) = sched::affinity(cx, vcpu.key) else { continue };
        sched::set_affinity(cx, vcpu.key, hard.unwrap_or(old_hard), soft.unwrap_or(old_soft));
    }
    list(cx, &domain);
    Ok(())
}

/// That virtual CPU, or all.
fn vcpus(domain: &Domain, id: Option<VcpuId>) -> Result<Vec<&Vcpu>, String> {
    let Some(id) = id else { return Ok(domain.vcpus.iter().map(|vcpu| &**vcpu).collect()) };
    let none = || format!("{} has no {id}; type vcpu-list {} to see which it has", domain.id, domain.id.0);
    Ok(vec![domain.vcpu(id).ok_or_else(none)?])
}

fn set_online<P: before::DomainList>(cx: &mut Cx<P>, cpu: CpuId, is_on: bool) -> Result<(), String> {
    let count = machine::smp::online();
    if cpu.0 >= count {
        return Err(format!("there is no {cpu}; CPUs have numbers from 0 to {}", count - 1));
    }
    if sched::usable_cpus(cx).contains(cpu) == is_on {
        return Err(format!("{cpu} is {} already", if is_on { "online" } else { "offline" }));
    }
    match (is_on, cpu) {
        (true, _) => sched::online(cx, cpu),
        (false, CpuId(0)) => return Err(format!("{cpu} stays online, as it serves the console; name another")),
        (false, _) => sched::offline(cx, cpu).map_err(|only| {
            let (id, vcpu) = (only.domain.id, only.id);
            format!(
                "{cpu} stays online, as {id} {vcpu} may run nowhere else; let it by vcpu-pin {} {} all",
                id.0, vcpu.0
            )
        })?,
    }
    log::info!("  online: {}", List(sched::usable_cpus(cx)));
    Ok(())
}
