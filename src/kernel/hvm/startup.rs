//! The states in which PVH and HVM virtual CPUs start, by INIT and STARTUP or by `VCPUOP_initialise`.

use core::sync::atomic::Ordering;

use abi::errno::Errno;
use abi::hvm_vcpu::{HvmContext, VCPU_HVM_MODE_32B, VCPU_HVM_MODE_64B, X86_32, X86_64};
use machine::virt::{GuestMsr, Virt};
use model::addr::GuestPhys;
use model::policy::control::Controls;
use model::pvh::Registers;
use model::regs::{Cr0, Efer, Regs, Segment, SegmentName};
use sync::Cx;
use sync::place::Root;
use zerocopy::{FromBytes, IntoBytes};

use super::apic;
use super::msr::Fault;
use crate::domain::{Domain, Start, StartState, Vcpu, attention};
use crate::guest_memory::write_physical;
use crate::run::Running;
use crate::{hypercall, sched, updown};

/// The bytes of a hypercall page's entry: `mov eax, number`, VMCALL or VMMCALL, `ret`.
const ENTRY: usize = 32;

/// Writes a hypercall page (`xen/include/public/arch-x86/cpuid.h`, leaf 2): entry `n` is at byte `32 n`.
pub fn write_hypercall_page(cx: &mut Cx<'_, Root>, run: &mut Running, at: GuestPhys) -> Result<(), Fault> {
    // The lower bits are the page's index: there is one.
    if at.offset() != 0 {
        return Err(Fault);
    }
    let call = match machine::hw::vendor() {
        Ok(machine::hw::Vendor::Svm) => [0x0f, 0x01, 0xd9],
        _ => [0x0f, 0x01, 0xc1],
    };
    let mut page = [0xcc; 4096];
    for (number, entry) in (0u32..).zip(page.chunks_exact_mut(ENTRY)) {
        entry[0] = 0xb8;
        entry[1..5].copy_from_slice(&number.to_le_bytes());
        entry[5..8].copy_from_slice(&call);
        entry[8] = 0xc3;
    }
    // IRET is a PV call: #UD.
    let iret = abi::nr::IRET as usize * ENTRY;
    page[iret..iret + 2].copy_from_slice(&[0x0f, 0x0b]);
    if !write_physical(cx, &run.domain, at, &page) {
        return Err(Fault);
    }
    hypercall::params::latch_layout(cx, run);
    Ok(())
}

/// The registers that a `vcpu_hvm_context` asks for.
pub fn from_hvm_context(context: &HvmContext) -> Result<StartState, Errno> {
    if context.pad != 0 {
        return Err(Errno::EINVAL);
    }
    match context.mode {
        VCPU_HVM_MODE_32B => {
            let (regs, _) = X86_32::read_from_prefix(context.cpu_regs.as_bytes()).map_err(|_| Errno::EINVAL)?;
            from_32(&regs)
        }
        VCPU_HVM_MODE_64B => {
            let (regs, _) = X86_64::read_from_prefix(context.cpu_regs.as_bytes()).map_err(|_| Errno::EINVAL)?;
            from_64(&regs)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn segment(selector: u16, base: u32, limit: u32, attributes: u16) -> Segment {
    Segment { selector, attributes: attributes & 0xfff, limit, base: u64::from(base) }
}

/// Rules of Xen's `arch_set_info_hvm_guest`: segments that are there, code that is code, a stack that can be written.
fn check_segments(cs: Segment, ss: Segment, tr: Segment) -> Result<(), Errno> {
    let is_present = |segment: Segment| segment.attributes & Segment::PRESENT != 0;
    let is_code = cs.attributes & 0x18 == 0x18;
    let is_writable_data = ss.attributes & 0x1a == 0x12;
    let is_busy_tss = matches!(tr.attributes & 0x1f, 0x3 | 0xb);
    let is_valid = is_present(cs) && is_code && is_present(ss) && is_writable_data && is_busy_tss;
    if is_valid && cs.dpl() == ss.dpl() { Ok(()) } else { Err(Errno::EINVAL) }
}

fn from_32(r: &X86_32) -> Result<StartState, Errno> {
    if r.pad1 != 0 || r.pad2 != [0; 3] {
        return Err(Errno::EINVAL);
    }
    let cs = segment(0, r.cs_base, r.cs_limit, r.cs_ar);
    let ss = segment(0, r.ss_base, r.ss_limit, r.ss_ar);
    let ds = segment(0, r.ds_base, r.ds_limit, r.ds_ar);
    let es = segment(0, r.es_base, r.es_limit, r.es_ar);
    let tr = segment(0, r.tr_base, r.tr_limit, r.tr_ar);
    check_segments(cs, ss, tr)?;
    // A state that the processor would refuse is refused here.
    let paging = r.cr0 & 1 << 31 != 0;
    if (paging && r.cr0 & 1 == 0)
        || r.efer & Efer::LMA.bits() != 0
        || u64::from(r.cr0) & (Cr0::NW | Cr0::CD).bits() == Cr0::NW.bits()
    {
        return Err(Errno::EINVAL);
    }
    let wide = u64::from;
    let regs = Regs {
        rax: wide(r.eax),
        rcx: wide(r.ecx),
        rdx: wide(r.edx),
        rbx: wide(r.ebx),
        rsp: wide(r.esp),
        rbp: wide(r.ebp),
        rsi: wide(r.esi),
        rdi: wide(r.edi),
        rip: wide(r.eip),
        rflags: wide(r.eflags) & 0x0021_7fd7 | 2,
        ..Regs::default()
    };
    let segments = all_segments(cs, ds, es, ss, tr);
    Ok(StartState {
        registers: Registers { regs, cr0: Cr0::from_bits_retain(wide(r.cr0)), segments },
        cr3: wide(r.cr3),
        cr4: wide(r.cr4),
        efer: r.efer,
    })
}

fn from_64(r: &X86_64) -> Result<StartState, Errno> {
    // As in Xen: long mode with paging, flat segments.
    let needed = (Efer::LME | Efer::LMA).bits();
    let has = |value: u64, bits: u64| value & bits == bits;
    if !has(r.cr0, (Cr0::PG | Cr0::PE).bits()) || !has(r.cr4, 1 << 5) || !has(r.efer, needed) {
        return Err(Errno::EINVAL);
    }
    let canonical = model::addr::GuestVirt::new(r.rip).is_canonical();
    if !canonical {
        return Err(Errno::EINVAL);
    }
    let regs = Regs {
        rax: r.rax,
        rcx: r.rcx,
        rdx: r.rdx,
        rbx: r.rbx,
        rsp: r.rsp,
        rbp: r.rbp,
        rsi: r.rsi,
        rdi: r.rdi,
        rip: r.rip,
        rflags: r.rflags & 0x0021_7fd7 | 2,
        ..Regs::default()
    };
    let data = Segment { selector: 0, attributes: 0xc93, limit: u32::MAX, base: 0 };
    let code = Segment { attributes: 0xa9b, ..data };
    let tr = Segment { selector: 0, attributes: 0x8b, limit: 0x67, base: 0 };
    let segments = all_segments(code, data, data, data, tr);
    Ok(StartState {
        registers: Registers { regs, cr0: Cr0::from_bits_retain(r.cr0), segments },
        cr3: r.cr3,
        cr4: r.cr4,
        efer: r.efer,
    })
}

/// Whether the domain may have such control registers: as when its virtual CPU wrote them itself.
pub fn check_controls(domain: &Domain, state: &StartState) -> Result<(), Errno> {
    let policy = domain.controls;
    let efer = state.efer & !Efer::LMA.bits();
    let old = Controls { cr0: 0, cr3: 0, cr4: state.cr4, efer: 0, cs_is_long: false };
    let is_good = policy.check_efer(efer, &old).is_ok()
        && state.cr4 & !policy.cr4_allowed() == 0
        && policy.check_cr0(state.registers.cr0.bits(), &old).is_ok()
        && policy.check_cr3(state.cr3, &Controls { efer: state.efer, ..old }).is_ok();
    if is_good { Ok(()) } else { Err(Errno::EINVAL) }
}

fn all_segments(cs: Segment, ds: Segment, es: Segment, ss: Segment, tr: Segment) -> [(SegmentName, Segment); 8] {
    let none = Segment::default();
    [
        (SegmentName::Es, es),
        (SegmentName::Cs, cs),
        (SegmentName::Ss, ss),
        (SegmentName::Ds, ds),
        (SegmentName::Fs, none),
        (SegmentName::Gs, none),
        (SegmentName::Ldtr, none),
        (SegmentName::Tr, tr),
    ]
}

/// The state after STARTUP: real mode at `page:0` (SDM 3A 9.4.2, table 9-1).
pub fn real_mode(page: u8) -> StartState {
    let data = Segment { selector: 0, attributes: 0x93, limit: 0xffff, base: 0 };
    let code = Segment { selector: u16::from(page) << 8, attributes: 0x9b, limit: 0xffff, base: u64::from(page) << 12 };
    let tr = Segment { selector: 0, attributes: 0x8b, limit: 0xffff, base: 0 };
    let mut segments = all_segments(code, data, data, data, tr);
    segments[4].1 = data;
    segments[5].1 = data;
    segments[6].1 = Segment { selector: 0, attributes: 0x82, limit: 0xffff, base: 0 };
    let regs = Regs { rflags: 2, rdx: 0x600, ..Regs::default() };
    StartState { registers: Registers { regs, cr0: Cr0::ET, segments }, cr3: 0, cr4: 0, efer: 0 }
}

/// Puts a start state into the hardware's hands.
pub fn set_registers(cx: &mut Cx<'_, Root>, run: &mut Running, state: &StartState) {
    let context = &mut *run.context;
    let hw = &mut context.hw;
    *context.regs = state.registers.regs;
    hw.set_msr(GuestMsr::Efer, state.efer & !Efer::LMA.bits());
    hw.set_cr(4, state.cr4);
    hw.set_cr(3, state.cr3);
    hw.set_cr(2, 0);
    hw.set_cr(0, state.registers.cr0.bits());
    for (name, segment) in state.registers.segments {
        hw.set_segment(name, segment);
    }
    hw.set_gdtr(model::regs::DescriptorTable { base: 0, limit: 0xffff });
    hw.set_idtr(model::regs::DescriptorTable { base: 0, limit: 0xffff });
    hw.flush();
    apic::start(cx, run);
}

/// INIT for a virtual CPU: it waits for STARTUP. The bootstrap processor's restarts nothing, as in Xen.
pub fn init(cx: &mut Cx<'_, Root>, domain: &Domain, vcpu: &Vcpu) {
    {
        let (mut state, _) = cx.lock(&vcpu.state);
        if state.waits_for_startup && state.start.is_none() {
            apic::init(&mut state);
            return;
        }
        if vcpu.id.0 == 0 {
            return;
        }
        apic::init(&mut state);
        state.start = Some(Start::Wait);
        state.waits_for_startup = true;
    }
    if vcpu.is_up.swap(false, Ordering::AcqRel) {
        domain.nr_up.fetch_sub(1, Ordering::AcqRel);
    }
    vcpu.note(attention::START);
    sched::wake(cx, vcpu.key);
}

/// STARTUP for a virtual CPU, which counts only while it waits for it.
pub fn startup(cx: &mut Cx<'_, Root>, domain: &Domain, vcpu: &Vcpu, page: u8) {
    {
        let (mut state, _) = cx.lock(&vcpu.state);
        if !state.waits_for_startup {
            return;
        }
        state.waits_for_startup = false;
        state.start = Some(Start::Startup(page));
        state.is_initialised = true;
    }
    vcpu.note(attention::START);
    updown::bring_up(cx, domain, vcpu.id);
}
