//! Making a domain from a configuration and boot modules, in bounded steps.
//!
//! | file | what |
//! |---|---|
//! | `kernel` | kernels in boot modules |
//! | `parts` | what every domain has |
//! | `pvh` | what only PVH has; [`crate::pv::builder`] has what only PV has |

mod kernel;
mod parts;
mod pvh;

use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use model::config::xl::{DomainConfig, DomainKind};
use model::ids::DomId;
use sync::Cx;
use sync::place::Root;

pub use kernel::{Kernel, unpack};
pub use parts::make_domain;

use crate::domain::{self, Domain, Start, StartState, attention};
use crate::{pv, sched, time};

/// What a domain is made from, and can be made from again.
#[derive(Clone)]
pub struct Source {
    /// Its configuration.
    pub config: DomainConfig,
    /// The number it is to have, if not any.
    pub id: Option<DomId>,
    /// Its kernel's module.
    pub kernel: &'static [u8],
    /// Its ramdisk's.
    pub ramdisk: Option<&'static [u8]>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    More,
    /// The domain runs.
    Done,
}

/// A domain in the making.
pub struct Builder {
    source: Source,
    kernel: Option<Arc<Kernel>>,
    plan: Option<Plan>,
}

/// How far a domain in the making is.
enum Plan {
    Pvh(pvh::Plan),
    Pv(pv::builder::Plan),
}

impl Builder {
    /// Nothing done yet.
    pub fn new(source: Source) -> Self {
        Self { source, kernel: None, plan: None }
    }

    /// The kernel, which another domain that is made meanwhile need not unpack.
    pub fn kernel(&self) -> Option<&Arc<Kernel>> {
        self.kernel.as_ref()
    }

    /// The domain's name.
    pub fn name(&self) -> &str {
        &self.source.config.name
    }

    /// Does a part of it. The first step, which unpacks the kernel, is the only one without a bound.
    pub fn step(&mut self, cx: &mut Cx<'_, Root>) -> Result<Progress, String> {
        let Some(plan) = &mut self.plan else {
            let (kernel, plan) = prepare(cx, &self.source)?;
            (self.kernel, self.plan) = (Some(kernel), Some(plan));
            return Ok(Progress::More);
        };
        let has_more = match plan {
            Plan::Pvh(plan) => pvh::step(cx, plan, &self.source)?,
            Plan::Pv(plan) => plan.step(cx, &self.source)?,
        };
        if has_more {
            return Ok(Progress::More);
        }
        if let Some(plan) = self.plan.take() {
            finish(cx, plan)?;
        }
        Ok(Progress::Done)
    }

    /// Gives up: the domain, if there is one by now, is to give its memory back.
    pub fn abandon(self, cx: &mut Cx<'_, Root>) -> Option<Arc<Domain>> {
        let domain = self.plan?.into_domain();
        for vcpu in &domain.vcpus {
            sched::release(cx, vcpu.key);
        }
        Some(domain)
    }
}

impl Plan {
    fn into_domain(self) -> Arc<Domain> {
        match self {
            Self::Pvh(plan) => plan.domain,
            Self::Pv(plan) => plan.domain().clone(),
        }
    }
}

/// Everything that can be known to fail before memory is taken.
fn prepare(cx: &mut Cx<'_, Root>, source: &Source) -> Result<(Arc<Kernel>, Plan), String> {
    let vendor = match source.config.kind {
        DomainKind::Pvh => Some(pvh::vendor()?),
        DomainKind::Pv => None,
    };
    let kernel = unpack(cx, source.kernel)?;
    let plan = match vendor {
        Some(vendor) => Plan::Pvh(pvh::prepare(cx, source, kernel.clone(), vendor)?),
        None => Plan::Pv(pv::builder::prepare(cx, source, kernel.clone())?),
    };
    Ok((kernel, plan))
}

/// The last step: the first virtual CPU, and off it goes.
fn finish(cx: &mut Cx<'_, Root>, plan: Plan) -> Result<(), String> {
    let (domain, start) = match plan {
        Plan::Pvh(plan) => {
            pvh::open_console(cx, &plan.domain)?;
            let registers = StartState { registers: plan.registers, cr3: 0, cr4: 0, efer: 0 };
            (plan.domain, Start::Registers(alloc::boxed::Box::new(registers)))
        }
        Plan::Pv(plan) => (plan.domain().clone(), Start::Pv(alloc::boxed::Box::new(plan.first_state()))),
    };
    let first = &domain.vcpus[0];
    {
        let (mut state, _) = cx.lock(&first.state);
        state.start = Some(start);
        state.waits_for_startup = false;
        state.is_initialised = true;
    }
    first.is_up.store(true, Ordering::Release);
    domain.nr_up.store(1, Ordering::Release);
    for vcpu in &domain.vcpus {
        domain.shared.write_time(vcpu.id, &time::time_info());
        vcpu.note(attention::START);
    }
    domain::publish(cx, domain.clone());
    time::tell_wall_clock(cx, &domain);
    let mib = domain.pages(cx) >> 8;
    log::info!(
        "({}) {}: {mib} MiB, {} virtual CPU{}, {} ticks after the first instruction",
        domain.name,
        domain.id,
        domain.vcpus.len(),
        if domain.vcpus.len() == 1 { "" } else { "s" },
        machine::cpu::rdtsc() - machine::time::boot(),
    );
    for vcpu in &domain.vcpus {
        sched::unpause(cx, vcpu.key);
    }
    Ok(())
}
