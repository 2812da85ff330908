//! From an exit of a PV virtual CPU to what is done about it.
//!
//! Most exceptions are the guest's own: its kernel gets them by its virtual IDT. First the hypervisor looks whether they
//! are what it makes the guest see otherwise: stores to page tables, privileged instructions, INT with any vector, a lazily
//! switched FPU, an LDT whose pages are mapped when they are used (Xen: `arch/x86/traps.c`, `x86_64/entry.S`).

use abi::pv_vcpu::FLAT_USER_CS32;
use abi::xen::VMASST_TYPE_WRITABLE_PAGETABLES;
use machine::exit::Exit;
use machine::pv::Table;
use machine::virt::Virt;
use model::addr::GuestVirt;
use model::pv::HOLE;
use model::pv::frame::Handler;
use model::pv::privileged::SoftInterrupt;
use model::regs::{Cr0, Regs, Rflags, vector};
use sync::Cx;
use sync::place::Root;

use super::bounce::{self, Bounce};
use super::{emulate, mmu, store};
use crate::domain::life::{self, Death};
use crate::hypercall;
use crate::run::{Next, Running};

/// Bits of a page fault's error code (SDM 3A 4.7).
pub mod error {
    pub const PRESENT: u32 = 1 << 0;
    pub const WRITE: u32 = 1 << 1;
    pub const USER: u32 = 1 << 2;
    pub const RESERVED: u32 = 1 << 3;
    pub const FETCH: u32 = 1 << 4;
}

/// An error code's bit: the selector is one of the LDT.
const LOCAL_TABLE: u32 = 1 << 2;
/// An error code's bit: the selector is one of the IDT.
const INTERRUPT_TABLE: u32 = 1 << 1;

/// Does what an exit asks for.
#[inline]
pub fn handle(cx: &mut Cx<'_, Root>, run: &mut Running, exit: Exit) -> Next {
    run.vcpu().exits.count(exit.kind());
    let done = match exit {
        Exit::Hypercall { .. } => return hypercall::enter_pv(cx, run),
        Exit::Host => return Next::Enter,
        // The processor refused to go on where the guest wanted to: it is the guest's own exception there.
        Exit::Exception { vector, error } => exception(cx, run, vector, error),
        Exit::IretFault { vector, error } => exception(cx, run, vector, has_error(vector).then_some(error)),
        Exit::UserSyscall { is_compat } => syscall(run, is_compat),
        Exit::Sysenter => sysenter(run),
        Exit::SoftInterrupt(number) => soft_interrupt(cx, run, number),
        Exit::EntryFailed { code, info } => Err(Death::EntryFailed { code, info }),
        _ => Err(Death::UnknownExit { code: 0, info: 0 }),
    };
    match done {
        Ok(next) => next,
        Err(why) => die(cx, run, exit, why),
    }
}

#[cold]
fn die(cx: &mut Cx<'_, Root>, run: &mut Running, exit: Exit, why: Death) -> Next {
    run.context.last_exit = Some(exit);
    life::end(cx, run, why);
    Next::Schedule
}

/// A virtual CPU that runs without a `vcpu_info`, where its events would stand.
#[cold]
pub fn die_without_info(cx: &mut Cx<'_, Root>, run: &mut Running) -> Next {
    life::end(cx, run, Death::NoCallback { which: "vcpu_info" });
    Next::Schedule
}

/// Whether an exception has an error code (SDM 3A table 6-1).
fn has_error(number: u8) -> bool {
    const WITH_ERROR: u32 = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21;
    WITH_ERROR >> number & 1 != 0
}

/// An exception that the guest raised.
#[inline]
fn exception(cx: &mut Cx<'_, Root>, run: &mut Running, number: u8, error: Option<u32>) -> Result<Next, Death> {
    match number {
        vector::PF => return page_fault(cx, run, error.unwrap_or(0)),
        vector::GP => return general_protection(cx, run, error.unwrap_or(0)),
        vector::UD => {
            if let Some(next) = emulate::undefined(cx, run) {
                return next;
            }
        }
        vector::NM => {
            // The guest's kernel switches the FPU lazily; it finds TS clear, as it asked for nothing else.
            let cr0 = run.context.hw.cr(0);
            run.context.hw.set_cr(0, cr0 & !Cr0::TS.bits());
        }
        vector::DB => run.context.note_debug_trap(),
        _ => {}
    }
    trap(run, number, error)
}

/// Gives the guest's kernel an exception, or an interrupt that it raised itself.
#[inline]
pub fn trap(run: &mut Running, number: u8, error: Option<u32>) -> Result<Next, Death> {
    let handler = run.context.pv().trap(number);
    if handler.address == 0 {
        return Err(Death::NoTrapHandler { vector: number, error: error.unwrap_or(0) });
    }
    bounce::bounce(run, Bounce::to(handler).with_error(error))?;
    Ok(Next::Enter)
}

/// `#PF`.
fn page_fault(cx: &mut Cx<'_, Root>, run: &mut Running, error: u32) -> Result<Next, Death> {
    let at = run.context.hw.cr(2);
    if HOLE.contains(&at) {
        // Only the processor itself, when it loads a selector, gets to the descriptor tables.
        if error & (error::USER | error::RESERVED) == 0
            && let Some((table, _)) = space(run).find(run.id, at)
        {
            return descriptor_fault(cx, run, error, table);
        }
    } else if is_store_to_tables(run, error)
        && let Some(next) = store::write_fault(cx, run, GuestVirt::new(at))
    {
        return next;
    }
    give_page_fault(run, at, error)
}

fn space(run: &Running) -> &machine::pv::Space {
    &run.domain.pv.as_ref().expect("a PV virtual CPU's domain is a PV domain").space
}

/// Whether a fault can be the guest's kernel writing to one of its page tables, which are mapped read-only.
#[inline]
fn is_store_to_tables(run: &Running, error: u32) -> bool {
    error & (error::PRESENT | error::WRITE | error::RESERVED | error::FETCH) == error::PRESENT | error::WRITE
        && run.context.hw.pv().is_kernel()
        && run.domain.assists(VMASST_TYPE_WRITABLE_PAGETABLES)
}

/// Gives the guest's kernel a page fault: with CR2 in `vcpu_info`, and the user bit as if its kernel were no user.
pub fn give_page_fault(run: &mut Running, at: u64, error: u32) -> Result<Next, Death> {
    run.context.hw.set_cr(2, at);
    if let Some(info) = &run.info {
        info.words().set_cr2(at);
    }
    let user = if run.context.hw.pv().is_kernel() { 0 } else { error::USER };
    trap(run, vector::PF, Some(error & !error::USER | user))
}

/// The processor found no page at a descriptor of the guest's.
fn descriptor_fault(cx: &mut Cx<'_, Root>, run: &mut Running, error: u32, table: Table) -> Result<Next, Death> {
    let offset = run.context.hw.cr(2) & 0xffff;
    match table {
        Table::Ldt => {
            if mmu::map_ldt_page(cx, run, offset as usize >> 12) {
                return Ok(Next::Enter);
            }
            let at = ldt_base(cx, run).wrapping_add(offset);
            if GuestVirt::new(at).is_canonical() {
                return give_page_fault(run, at, error);
            }
            trap(run, vector::GP, Some(offset as u32 & !3 | LOCAL_TABLE))
        }
        Table::Gdt => trap(run, vector::GP, Some(offset as u32 & !7)),
    }
}

/// Where the guest has its LDT.
fn ldt_base(cx: &mut Cx<'_, Root>, run: &Running) -> u64 {
    let Some(pv) = &run.domain.pv else { return 0 };
    cx.lock(&pv.mmu).0.vcpus.get(run.id.0 as usize).map_or(0, |tables| tables.ldt_base)
}

/// `#GP`: INT with a vector that the processor keeps from ring 3, a privileged instruction, or the guest's own.
fn general_protection(cx: &mut Cx<'_, Root>, run: &mut Running, error: u32) -> Result<Next, Death> {
    if let Some(interrupt) = SoftInterrupt::from_error(error) {
        let dpl = run.context.pv().traps[usize::from(interrupt.vector)].dpl();
        let is_kernel = run.context.hw.pv().is_kernel();
        if interrupt.is_permitted(dpl, is_kernel) {
            run.context.regs.rip = run.context.regs.rip.wrapping_add(u64::from(SoftInterrupt::LEN));
            return trap(run, interrupt.vector, None);
        }
    }
    if error == 0
        && let Some(next) = emulate::general_protection(cx, run)
    {
        return next;
    }
    trap(run, vector::GP, Some(error))
}

/// INT 0x80, which comes without `#GP`: to its handler, whatever its privilege, as in Xen.
fn soft_interrupt(cx: &mut Cx<'_, Root>, run: &mut Running, number: u8) -> Result<Next, Death> {
    if run.context.pv().trap(number).address != 0 {
        return trap(run, number, None);
    }
    let regs = &mut run.context.regs;
    regs.rip = regs.rip.wrapping_sub(u64::from(SoftInterrupt::LEN));
    general_protection(cx, run, u32::from(number) << 3 | INTERRUPT_TABLE)
}

/// SYSCALL by user mode. Whether events are masked is the 64-bit callback's affair for both.
fn syscall(run: &mut Running, is_compat: bool) -> Result<Next, Death> {
    let callbacks = &run.context.pv().callbacks;
    let masks_events = callbacks.syscall.masks_events;
    let address = if is_compat { callbacks.syscall32.address } else { callbacks.syscall.address };
    if address == 0 {
        let regs = &mut run.context.regs;
        regs.rip = regs.rip.wrapping_sub(2);
        return trap(run, vector::UD, None);
    }
    debug_assert!(!is_compat || run.context.regs.cs as u16 == FLAT_USER_CS32, "the stub says whence it came");
    bounce::bounce(run, Bounce::to(Handler { address, masks_events }))?;
    clear(&mut run.context.regs, Rflags::DF);
    Ok(Next::Enter)
}

/// SYSENTER. Where it was is not known; its flags are live, but for the interrupt flag.
fn sysenter(run: &mut Running) -> Result<Next, Death> {
    run.context.regs.rflags |= Rflags::IF.bits();
    let handler = run.context.pv().callbacks.sysenter;
    if handler.address == 0 {
        return trap(run, vector::GP, Some(0));
    }
    bounce::bounce(run, Bounce::to(handler))?;
    Ok(Next::Enter)
}

fn clear(regs: &mut Regs, flags: Rflags) {
    regs.rflags &= !flags.bits();
}

/// Some of the selectors with which the virtual CPU was to go on cannot be loaded: it hears of it by its callback.
#[cold]
pub fn failsafe(cx: &mut Cx<'_, Root>, run: &mut Running, selectors: [u16; 4]) {
    let handler = run.context.pv().callbacks.failsafe;
    let done = if handler.address == 0 {
        Err(Death::NoCallback { which: "failsafe" })
    } else {
        bounce::bounce(run, Bounce::to(handler).with_selectors(selectors))
    };
    if let Err(why) = done {
        life::end(cx, run, why);
    }
}
