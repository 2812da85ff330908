//! What each physical CPU does, for ever: take what is pending, ask the scheduler, run a virtual CPU.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::cell::Cell;
use core::sync::atomic::Ordering;

use machine::irq::{self, pending};
use machine::percpu::this_cpu;
use machine::virt::Virt;
use machine::{cpu, hw};
use model::ids::VcpuId;
use model::sched::Key;
use model::time::earlier;
use sync::Cx;
use sync::place::Root;

use crate::cpus::{self, Visits};
use crate::domain::{Context, Domain, Info, Vcpu, attention, flush, life};
use crate::hvm;
use crate::stretch::{self, What};
use crate::time::Due;
use crate::{blocking, caches, console, idle, pv, runstate, sched, time};

/// What follows an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// The same virtual CPU goes on.
    Enter,
    /// The scheduler is asked.
    Schedule,
}

/// A virtual CPU as the physical CPU that runs it has it. While none does it rests with the scheduler.
pub struct Running {
    /// Its domain.
    pub domain: Arc<Domain>,
    /// Its number.
    pub id: VcpuId,
    /// Its part that others reach.
    pub vcpu: Arc<Vcpu>,
    /// Its registers.
    pub context: Box<Context>,
    /// What of the physical CPU is looked at often.
    pub here: Here,
    /// Its `vcpu_info`, if it has one.
    pub info: Option<Info>,
    /// That is where it was registered.
    has_moved: bool,
    /// At the next decision it lets another go first.
    pub yields: bool,
}

/// What of the physical CPU that runs it a virtual CPU has at hand.
#[derive(Clone, Copy)]
pub struct Here {
    /// How often it was in a guest.
    pub visits: Visits,
    /// What has happened to it.
    pub pending: irq::Pending,
}

impl Here {
    fn new() -> Self {
        Self { visits: Visits::here(), pending: irq::Pending::here() }
    }
}

impl Running {
    /// A virtual CPU that has not run.
    pub fn new(domain: Arc<Domain>, vcpu: Arc<Vcpu>, context: Box<Context>) -> Self {
        Self { domain, id: vcpu.id, vcpu, context, here: Here::new(), info: None, has_moved: false, yields: false }
    }

    /// The virtual CPU.
    #[inline]
    pub fn vcpu(&self) -> &Vcpu {
        &self.vcpu
    }

    /// Its part that others reach, and its own.
    pub fn parts(&mut self) -> (&Vcpu, &mut Context) {
        (&self.vcpu, &mut self.context)
    }

    /// Looks anew where its `vcpu_info` is.
    pub fn find_info(&mut self) {
        self.has_moved = self.domain.shared.has_moved(self.id);
        self.info = self.domain.shared.info(self.domain.id, self.id);
    }

    /// Whether it is a PV virtual CPU.
    #[inline]
    pub fn is_pv(&self) -> bool {
        self.domain.pv.is_some()
    }
}

/// How long a guest may run while this CPU has long work to do.
const BETWEEN_STEPS_NS: u64 = 200_000;

/// What a CPU does that has come up.
pub fn join() -> ! {
    cpu::speculation::enable_this_cpu();
    hw::enable_this_cpu();
    idle::take_part();
    main_loop()
}

/// Takes part in running domains. Called once on each CPU, with virtualization on.
pub fn main_loop() -> ! {
    let mut cx = Cx::root();
    sched::add_this_cpu(&mut cx);
    let mut running: Option<Box<Running>> = None;
    let mut last = Weak::new();
    let mut next = Next::Schedule;
    loop {
        stretch::end();
        let what = irq::take_pending();
        stretch::begin();
        if what != 0 {
            stretch::at(What::Serve);
            if serve(&mut cx, what) == Next::Schedule {
                next = Next::Schedule;
            }
            if irq::is_pending() {
                continue; // what was served has kicked this CPU
            }
        }
        if next == Next::Schedule {
            stretch::at(What::Schedule);
            let now_ns = time::now();
            let yields = running.as_mut().is_some_and(|run| core::mem::take(&mut run.yields));
            let decision = sched::schedule(&mut cx, yields, now_ns);
            // Before all else: who is woken in the following may make it earlier.
            time::arm(&mut cx, earlier(decision.until_ns, console::next_look()));
            switch(&mut cx, &mut running, &mut last, decision.run, now_ns);
            stretch::at(What::LongWork);
            if life::work(&mut cx) {
                time::arm_by(&mut cx, time::now() + BETWEEN_STEPS_NS);
                if running.is_none() {
                    irq::note(this_cpu(), pending::KICK); // it does not sleep meanwhile
                }
            }
        }
        if let Some(run) = &mut running {
            next = step(&mut cx, run);
        } else {
            stretch::end();
            cpus::sleep();
            next = Next::Schedule;
        }
    }
}

/// What interrupts have noted. Timers and the console are nothing to the scheduler unless they kick this CPU.
fn serve(cx: &mut Cx<'_, Root>, what: u32) -> Next {
    let mut next = if what & pending::KICK == 0 { Next::Enter } else { Next::Schedule };
    if what & pending::TIMER != 0 {
        loop {
            match time::pop_due(cx) {
                Due::Timer(key, kind) => blocking::timer(cx, key, kind),
                Due::Nothing { is_over: false } => break,
                Due::Nothing { is_over: true } => {
                    next = Next::Schedule;
                    break;
                }
            }
        }
        console::poll(cx);
    }
    if what & pending::KICK != 0 {
        caches::serve();
    }
    if what & pending::CONSOLE != 0 {
        console::attend(cx);
        console::poll(cx);
    }
    next
}

/// Some stays in the guest.
#[inline]
fn step(cx: &mut Cx<'_, Root>, run: &mut Running) -> Next {
    if core::mem::take(&mut run.context.is_polling) {
        blocking::end_poll(cx, run);
    }
    // One that is down and was woken is told so; one that goes down asks the scheduler.
    if !run.vcpu().is_up.load(Ordering::Relaxed) {
        run.vcpu().note(attention::START);
    }
    if run.is_pv() { pv::stay::step(cx, run) } else { hvm::step(cx, run) }
}

/// This CPU enters the guest, with translations that are of its memory as it is. Says whether it does: not if something has been
/// noted for it meanwhile.
#[inline(always)]
pub fn begin_stay(run: &mut Running) -> bool {
    let Context { hw, tlb_epoch, .. } = &mut *run.context;
    run.here.begin_stay(&run.domain, tlb_epoch, || hw.flush())
}

impl Here {
    /// [`begin_stay`] of a virtual CPU whose translations are of `tlb_epoch`.
    #[inline(always)]
    pub fn begin_stay(self, domain: &Domain, tlb_epoch: &Cell<u64>, flush: impl FnOnce()) -> bool {
        self.visits.entering();
        // Who notes something later sees this CPU in the guest, and interrupts it.
        if self.pending.is_some() {
            self.visits.left();
            return false;
        }
        // What was noted until here is seen here; what is noted later comes with an interrupt, which ends the stay.
        let epoch = flush::epoch(domain);
        if tlb_epoch.replace(epoch) != epoch {
            flush();
        }
        true
    }

    /// Whether this CPU has to look at what is noted for it, beyond what there is for the virtual CPU that runs.
    #[inline(always)]
    pub fn is_wanted(self) -> bool {
        self.pending.is_some() && !self.pending.was_a_look()
    }
}

/// Makes this CPU have what the scheduler decided at `now_ns`. `last` is the domain whose virtual CPU it had last.
fn switch(
    cx: &mut Cx<'_, Root>,
    running: &mut Option<Box<Running>>,
    last: &mut Weak<Domain>,
    new: Option<Key>,
    now_ns: u64,
) {
    let old = running.as_ref().map(|run| run.vcpu().key);
    if old == new {
        return;
    }
    let new = new
        .map(|key| sched::take(cx, key).expect("the scheduler gives out a virtual CPU whose registers are in memory"));
    if let Some(mut run) = core::mem::replace(running, new) {
        switch_out(cx, &mut run);
        sched::put_back(cx, run, now_ns);
    }
    if let Some(run) = running {
        // What `last` points to is not used anew as long as it does, so no other domain has the address.
        if last.as_ptr() != Arc::as_ptr(&run.domain) {
            cpu::speculation::change_domain();
            *last = Arc::downgrade(&run.domain);
        }
        switch_in(cx, run);
    }
}

fn switch_out(cx: &mut Cx<'_, Root>, run: &mut Running) {
    runstate::update_area(cx, run);
    run.context.hw.unload(); // first, as a guest's CR0.TS may be set while it is loaded
    run.context.extended.save();
}

fn switch_in(cx: &mut Cx<'_, Root>, run: &mut Running) {
    run.context.extended.restore();
    run.context.hw.load();
    let here = this_cpu();
    if run.context.last_cpu != Some(here) {
        // What this CPU knows of the guest's memory may be from before changes that the virtual CPU saw elsewhere.
        run.context.hw.flush();
        run.context.last_cpu = Some(here);
        run.here = Here::new();
    }
    if run.info.is_none() || run.has_moved != run.domain.shared.has_moved(run.id) {
        run.find_info();
    }
    runstate::update_area(cx, run);
    if run.is_pv()
        && let Some(selectors) = run.context.hw.pv_mut().take_lost_selectors()
    {
        pv::exit::failsafe(cx, run, selectors);
    }
}
