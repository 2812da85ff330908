//! What a virtual CPU waits for, and what it is given before it enters the guest.

use core::sync::atomic::Ordering;

use machine::exit::Exit;
use machine::virt::{Virt, Window};
use model::regs::{Event, Rflags};
use sync::Cx;
use sync::place::Root;

use super::apic;
use crate::domain::{Info, attention};
use crate::run::{Next, Running};
use crate::{blocking, sched, updown};

/// After an exit that only says that something may have changed.
pub fn look_again(run: &mut Running, exit: Exit) -> Next {
    match exit {
        Exit::InterruptWindow | Exit::NmiWindow => {
            run.context.hw.want_window(Window::None);
            run.context.window = Window::None;
        }
        // What waited for that has been left alone since.
        Exit::TprBelowThreshold => run.vcpu().note(attention::APIC),
        _ => {}
    }
    Next::Enter
}

/// Before each entry: starts and stops, then the most urgent event.
#[inline]
pub fn prepare(cx: &mut Cx<'_, Root>, run: &mut Running) -> Next {
    let vcpu = run.vcpu();
    let mut noted = 0;
    if vcpu.attention.load(Ordering::Relaxed) != 0 {
        noted = vcpu.attention.swap(0, Ordering::Acquire); // pairs with `Vcpu::note`
    }
    if noted & attention::SCHEDULE != 0 {
        run.vcpu().note(noted & !attention::SCHEDULE);
        return Next::Schedule;
    }
    if noted & attention::START != 0 && !updown::apply(cx, run) {
        run.vcpu().note(noted & !attention::START);
        return Next::Schedule;
    }
    let has_upcall = has_upcall(run);
    if noted & (attention::NMI | attention::APIC) != 0 || has_upcall {
        give(cx, run, noted, has_upcall);
    }
    Next::Enter
}

/// Whether the event-channel upcall is to be delivered. As in Xen, for a guest with a callback vector the upcall flag
/// is a level: the vector comes as long as the flag is set and the guest takes interrupts.
#[inline]
fn has_upcall(run: &Running) -> bool {
    run.domain.callback_vector.load(Ordering::Relaxed) != 0 && run.info.as_ref().is_some_and(Info::has_upcall)
}

/// Injects what can be injected, and asks for an exit when the rest can be.
#[inline(never)]
fn give(cx: &mut Cx<'_, Root>, run: &mut Running, noted: u32, has_upcall: bool) {
    if noted & attention::NMI != 0 {
        if run.context.hw.pending().is_none() && run.context.hw.nmis_open() {
            run.context.hw.inject(Event::Nmi);
            // The interrupts wait until after the entry that this NMI needs.
            return wait_for(run, Window::Interrupt, noted & attention::APIC);
        }
        return wait_for(run, Window::Nmi, noted);
    }
    if has_upcall {
        if run.context.hw.interrupts_open(&run.context.regs) {
            let vector = run.domain.callback_vector.load(Ordering::Relaxed);
            run.context.hw.inject(Event::Interrupt(vector));
            // The local APIC's interrupts come when the handler of this one is done.
            let window = if noted & attention::APIC != 0 { Window::Interrupt } else { Window::None };
            return wait_for(run, window, noted & attention::APIC);
        }
        return wait_for(run, Window::Interrupt, noted & attention::APIC);
    }
    if run.context.hw.posted().is_some() {
        return wait_for(run, Window::None, 0);
    }
    let open = run.context.hw.interrupts_open(&run.context.regs);
    let (vector, more) = {
        let (vcpu, context) = run.parts();
        let (mut state, _) = cx.lock(&vcpu.state);
        apic::fetch(context, &mut state);
        let vector = state.lapic.highest_pending();
        if let (Some(vector), true) = (vector, open) {
            state.lapic.acknowledge(vector);
        }
        apic::show(context, &mut state);
        (vector, state.lapic.highest_pending().is_some())
    };
    match vector {
        Some(vector) if open => {
            run.context.hw.inject(Event::Interrupt(vector));
            let again = if more { attention::APIC } else { 0 };
            wait_for(run, if more { Window::Interrupt } else { Window::None }, again);
        }
        Some(_) => wait_for(run, Window::Interrupt, attention::APIC),
        None => wait_for(run, Window::None, 0),
    }
}

/// Keeps `noted` for the next look, and has the guest exit when `window` opens.
fn wait_for(run: &mut Running, window: Window, noted: u32) {
    if noted != 0 {
        run.vcpu().note(noted);
    }
    if run.context.window != window {
        run.context.window = window;
        run.context.hw.want_window(window);
    }
}

/// Whether something waits for the virtual CPU that ends a HLT.
pub fn has_work(cx: &mut Cx<'_, Root>, run: &mut Running) -> bool {
    let noted = run.vcpu().attention.load(Ordering::Acquire);
    has_upcall(run)
        || noted & (attention::NMI | attention::START | attention::SCHEDULE) != 0
        || apic::is_interrupted(cx, run)
}

/// HLT. With interrupts off only an NMI or INIT could end it: as in Xen the virtual CPU goes down then.
pub fn halt(cx: &mut Cx<'_, Root>, run: &mut Running, len: u8) -> Next {
    let context = &mut *run.context;
    context.hw.skip(&mut context.regs, len);
    let is_for_good = run.context.regs.rflags & Rflags::IF.bits() == 0;
    if is_for_good && run.vcpu().attention.load(Ordering::Acquire) & attention::NMI == 0 {
        updown::take_down(cx, run);
        return Next::Schedule;
    }
    blocking::block(cx, run);
    Next::Schedule
}

/// PAUSE in a loop: others go first.
pub fn pause(run: &mut Running, len: u8) -> Next {
    let context = &mut *run.context;
    context.hw.skip(&mut context.regs, len);
    if sched::yield_(run) { Next::Schedule } else { Next::Enter }
}
