//! The domains' consoles: their output, line by line with the domain's name, and who has the input.

mod commands;
mod keys;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::console::XenconsInterface;
use abi::xen::VIRQ_CONSOLE;
use machine::irq::{self, pending};
use machine::mem::PinnedFrame;
use machine::percpu::this_cpu;
use model::evtchn::{EvtchnPort, Wake};
use model::ids::{CpuId, DomId, VcpuId};
use sync::Cx;
use sync::place::before;

use crate::domain::{self, Domain};
use crate::{events, time};

/// The number of the console among the hypervisor's ends of event channels.
pub const SERVICE: u8 = 1;

/// Bytes of the rings (`xen/include/public/io/console.h`).
const OUT: u32 = 2048;
const IN: u32 = 1024;
/// Bytes of output that are printed at once.
const AT_ONCE: u32 = 256;
/// Bytes of an output line that is never ended.
const MAX_LINE: usize = 512;
/// Input bytes kept while the ring is full.
const MAX_INPUT: usize = 256;

/// A domain's console.
pub struct Guest {
    ring: Option<PinnedFrame>,
    port: Option<EvtchnPort>,
    line: Vec<u8>,
    input: VecDeque<u8>,
}

impl Guest {
    /// With its ring and port, if it has them.
    pub fn new(ring: Option<PinnedFrame>, port: Option<EvtchnPort>) -> Self {
        Self { ring, port, line: Vec::new(), input: VecDeque::new() }
    }

    /// Takes what the guest has put into its output ring, at most [`AT_ONCE`]. Says whether there is more.
    fn drain(&mut self) -> Option<(Vec<u8>, bool)> {
        let ring = self.ring.as_ref()?;
        let consumer = ring.word(offset_of!(XenconsInterface, out_cons));
        let producer = ring.word(offset_of!(XenconsInterface, out_prod)).load(Ordering::Acquire);
        let from = consumer.load(Ordering::Relaxed);
        // What is beyond the ring's size was overwritten, and is given up.
        let filled = producer.wrapping_sub(from);
        let from = if filled > OUT { producer.wrapping_sub(OUT) } else { from };
        let count = filled.min(AT_ONCE);
        let bytes = (0..count).map(|n| {
            let at = (from.wrapping_add(n) & (OUT - 1)) as usize;
            ring.byte(offset_of!(XenconsInterface, output) + at).load(Ordering::Relaxed)
        });
        let bytes: Vec<u8> = bytes.collect();
        let taken = from.wrapping_add(count);
        consumer.store(taken, Ordering::Release);
        (count != 0).then_some((bytes, taken != producer))
    }

    /// Puts pending input into the ring as far as there is room. Says whether anything went.
    fn feed(&mut self) -> bool {
        let Some(ring) = &self.ring else { return false };
        let producer = ring.word(offset_of!(XenconsInterface, in_prod));
        let consumed = ring.word(offset_of!(XenconsInterface, in_cons)).load(Ordering::Acquire);
        let from = producer.load(Ordering::Relaxed);
        let room = IN.saturating_sub(from.wrapping_sub(consumed));
        let mut at = from;
        for byte in self.input.drain(..(room as usize).min(self.input.len())) {
            ring.byte(offset_of!(XenconsInterface, input) + (at & (IN - 1)) as usize).store(byte, Ordering::Relaxed);
            at = at.wrapping_add(1);
        }
        producer.store(at, Ordering::Release);
        at != from
    }
}

/// Who has the input: a domain's number, or this for the hypervisor.
const HYPERVISOR: u32 = u32::MAX;
static FOCUS: AtomicU32 = AtomicU32::new(HYPERVISOR);
/// A domain has input that its ring had no room for.
static HAS_INPUT: AtomicBool = AtomicBool::new(false);
/// A domain has output that was not printed yet.
static IS_BEHIND: AtomicBool = AtomicBool::new(false);
/// Times that Ctrl-A was typed in a row.
static ESCAPES: AtomicU32 = AtomicU32::new(0);
const CTRL_A: u8 = 1;

fn has_focus(domain: &Domain) -> bool {
    FOCUS.load(Ordering::Relaxed) == u32::from(domain.id.0)
}

/// Prints what a domain says: whole lines, and what it has of a line at once if it has the input.
pub fn guest_write<P: before::Store>(cx: &mut Cx<P>, domain: &Domain, bytes: &[u8]) {
    let (mut console, _) = cx.lock(&domain.console);
    let focused = has_focus(domain);
    for &byte in bytes {
        match byte {
            b'\n' => {
                machine::console::line(u32::from(domain.id.0), &domain.label, &console.line, true);
                console.line.clear();
            }
            b'\r' => {}
            0x20.. | b'\t' | 0x08 => console.line.push(byte),
            0x1b if focused => console.line.push(byte),
            _ => {}
        }
        if console.line.len() >= MAX_LINE {
            machine::console::line(u32::from(domain.id.0), &domain.label, &console.line, false);
            console.line.clear();
        }
    }
    if focused && !console.line.is_empty() {
        machine::console::line(u32::from(domain.id.0), &domain.label, &console.line, false);
        console.line.clear();
    }
}

/// [`guest_write`] of a line or a piece of one, without waiting. `None`, and nothing has been done, if a lock is not free or
/// there is more to it.
pub fn try_write(domain: &Domain, bytes: &[u8]) -> Option<()> {
    let (text, is_end) = match bytes {
        [] => return None,
        [text @ .., b'\n'] => (text, true),
        text => (text, false),
    };
    let is_plain = text.iter().all(|byte| matches!(byte, 0x20.. | b'\t'));
    let console = domain.console.try_lock()?;
    if !is_plain || !console.line.is_empty() || !(is_end || has_focus(domain)) {
        return None;
    }
    machine::console::try_line(u32::from(domain.id.0), &domain.label, text, is_end).then_some(())
}

/// The guest has told its console port.
pub fn notified<P: before::DomainList>(cx: &mut Cx<P>, domain: &Arc<Domain>, service: u8) {
    if service != SERVICE {
        return;
    }
    serve(cx, domain);
}

/// Moves what waits in the rings. What is left of the output comes at the next look of this CPU, or when the serial port
/// has caught up.
fn serve<P: before::DomainList>(cx: &mut Cx<P>, domain: &Arc<Domain>) {
    let has_room = machine::console::has_room();
    let (output, fed) = {
        let (mut console, _) = cx.lock(&domain.console);
        (if has_room { console.drain() } else { None }, console.feed())
    };
    if !has_room {
        IS_BEHIND.store(true, Ordering::Relaxed);
    }
    if let Some((bytes, has_more)) = &output {
        guest_write(cx, domain, bytes);
        if *has_more {
            IS_BEHIND.store(true, Ordering::Relaxed);
            irq::note(this_cpu(), pending::KICK); // so that the next look is set, and guests run until then
        }
    }
    if output.is_some() || fed {
        notify(cx, domain);
    }
}

/// Tells the guest that its rings have moved.
fn notify<P: before::DomainList>(cx: &mut Cx<P>, domain: &Arc<Domain>) {
    let Some(port) = cx.lock(&domain.console).0.port else { return };
    let wake = cx.lock(&domain.channels).0.raise_service(port, &domain.shared);
    events::act(cx, domain, Wake { service: None, ..wake });
}

/// How often a serial port without an interrupt is looked at: while it does nothing else, its FIFO empties in 1.4 ms at the
/// usual rate.
const LOOK_NS: u64 = 1_000_000;

/// Whether this CPU is the one that looks at a serial port without an interrupt.
fn looks() -> bool {
    machine::console::is_polled() && this_cpu() == CpuId(0)
}

/// When this CPU is to come to [`poll`] at the latest.
#[inline]
pub fn next_look() -> Option<u64> {
    (looks() || IS_BEHIND.load(Ordering::Relaxed)).then(|| time::now() + LOOK_NS)
}

/// What could not be done at once is tried again.
pub fn poll<P: before::DomainList>(cx: &mut Cx<P>) {
    if looks() {
        attend(cx);
    }
    let has_input = HAS_INPUT.swap(false, Ordering::Relaxed);
    // While the serial port has not caught up it is not looked for who waits for that.
    let is_behind = IS_BEHIND.load(Ordering::Relaxed) && machine::console::has_room();
    if is_behind {
        IS_BEHIND.store(false, Ordering::Relaxed);
    }
    if !has_input && !is_behind {
        return;
    }
    for domain in domain::all(cx) {
        give(cx, &domain, &[]);
        if is_behind {
            serve(cx, &domain);
        }
    }
}

/// The serial port is empty, or something was typed.
pub fn attend<P: before::DomainList>(cx: &mut Cx<P>) {
    let mut typed = [0; 64];
    loop {
        let count = machine::console::serve(&mut typed);
        if count != 0 {
            input(cx, &typed[..count]);
        }
        if count < typed.len() {
            return;
        }
    }
}

/// Something was typed.
fn input<P: before::DomainList>(cx: &mut Cx<P>, bytes: &[u8]) {
    let mut typed = Vec::new();
    for &byte in bytes {
        if byte == CTRL_A && ESCAPES.fetch_add(1, Ordering::Relaxed) == 2 {
            ESCAPES.store(0, Ordering::Relaxed);
            switch(cx);
            typed.clear();
            continue;
        }
        if byte != CTRL_A {
            ESCAPES.store(0, Ordering::Relaxed);
        }
        typed.push(byte);
    }
    let focus = FOCUS.load(Ordering::Relaxed);
    if focus == HYPERVISOR {
        typed.into_iter().filter(|&byte| byte != CTRL_A).for_each(|byte| commands::take(cx, byte));
    } else if let Some(domain) = u16::try_from(focus).ok().and_then(|id| domain::find(cx, DomId(id))) {
        give(cx, &domain, &typed);
    }
}

fn give<P: before::DomainList>(cx: &mut Cx<P>, domain: &Arc<Domain>, typed: &[u8]) {
    let (fed, left) = {
        let (mut console, _) = cx.lock(&domain.console);
        let room = MAX_INPUT.saturating_sub(console.input.len());
        console.input.extend(typed.iter().take(room));
        (console.feed(), !console.input.is_empty())
    };
    if left {
        HAS_INPUT.store(true, Ordering::Relaxed);
    }
    if fed {
        notify(cx, domain);
    }
    if domain.id == DomId(0) && !typed.is_empty() {
        events::raise_virq(cx, domain, VcpuId(0), VIRQ_CONSOLE);
    }
}

/// `CONSOLEIO_read`: input that the ring has not taken.
pub fn read_input<P: before::Store>(cx: &mut Cx<P>, domain: &Domain, count: usize) -> Vec<u8> {
    let (mut console, _) = cx.lock(&domain.console);
    let count = count.min(console.input.len());
    console.input.drain(..count).collect()
}

fn set_focus<P: before::DomainList>(cx: &mut Cx<P>, id: u32) {
    commands::abandon(cx);
    FOCUS.store(id, Ordering::Relaxed);
    let name = u16::try_from(id).ok().and_then(|id| domain::find(cx, DomId(id))).map(|domain| domain.name.clone());
    let who = name.map_or(String::from("Euxen"), |name| alloc::format!("({name})"));
    log::info!("*** Serial input to {who} (type 'CTRL-a' three times to switch input)");
}

/// The input goes to the next domain, and from the last one to the hypervisor.
fn switch<P: before::DomainList>(cx: &mut Cx<P>) {
    let now = FOCUS.load(Ordering::Relaxed);
    let ids = domain::all(cx).into_iter().map(|domain| u32::from(domain.id.0));
    let next = ids.into_iter().find(|&id| now == HYPERVISOR || id > now).unwrap_or(HYPERVISOR);
    set_focus(cx, next);
}

/// If the hypervisor has the input, the first domain gets it.
pub fn focus_first<P: before::DomainList>(cx: &mut Cx<P>) {
    if FOCUS.load(Ordering::Relaxed) == HYPERVISOR
        && let Some(first) = domain::all(cx).first()
    {
        set_focus(cx, u32::from(first.id.0));
    }
}

/// A domain is gone: its last lines are printed, and the input goes on.
pub fn forget<P: before::DomainList>(cx: &mut Cx<P>, gone: &Domain) {
    let id = gone.id;
    for _ in 0..OUT / AT_ONCE {
        let output = cx.lock(&gone.console).0.drain();
        let Some((bytes, _)) = output else { break };
        guest_write(cx, gone, &bytes);
    }
    if FOCUS.load(Ordering::Relaxed) == u32::from(id.0) {
        let next = domain::all(cx).into_iter().find(|domain| domain.id != id);
        set_focus(cx, next.map_or(HYPERVISOR, |domain| u32::from(domain.id.0)));
    }
}
