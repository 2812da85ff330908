//! Commands that are typed at the hypervisor itself: the line they are typed on, and what each does.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use model::config::command::{COMMANDS, Command, Who};
use model::typing::{Typed, Typing};
use sync::place::{self, before};
use sync::{Cx, Lock};

use super::{HYPERVISOR, keys};
use crate::domain::{self, Domain};
use crate::{sched, time};

static TYPING: Lock<place::Console, Typing> = Lock::new(Typing::new());

fn show(bytes: &[u8], is_end: bool) {
    machine::console::line(HYPERVISOR, "euxen", bytes, is_end);
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
            let command = Command::parse(&line, None).map_err(|error| error.to_string());
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
        Command::Vcpus(who) => chosen(cx, who.as_ref())?.iter().for_each(|domain| list(cx, domain)),
        _ => return Err(String::from("this is not built yet")),
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
        let place = sched::held_by(vcpu.key).map_or(String::from("no CPU"), |cpu| cpu.to_string());
        let ran_ms = runstate.times_at(time::now())[0] / 1_000_000;
        log::info!(
            "  {} ({}) {}: {:?}, on {place}, ran {}.{:03} s",
            domain.id,
            domain.name,
            vcpu.id,
            runstate.state(),
            ran_ms / 1000,
            ran_ms % 1000,
        );
    }
}

fn say_shares(domain: &Domain) {
    let (weight, cap) = (domain.account.weight(), domain.account.cap());
    log::info!("  {} ({}): weight {weight}, cap {cap}", domain.id, domain.name);
}
