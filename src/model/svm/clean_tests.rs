//! The clean bits against a simulated processor that believes each of them, and that has kept something of whatever
//! address it is given: what nobody vouched for shows at once.

use super::clean::group;
use super::{Clean, IntCtl, Intercept3, Residence, Vmcb};
use crate::addr::{MachineAddr, Mfn};
use crate::ids::CpuId;
use crate::regs::{DescriptorTable, GuestMsr, Segment, SegmentName};
use core::mem::offset_of;
use proptest::prelude::*;
use std::collections::BTreeMap;
use zerocopy::IntoBytes;

/// What each clean bit covers (APM 2 table 15-9, at the offsets of appendix B): offset, bytes, bit.
const COVERED: [(usize, usize, u32); 26] = [
    (0x000, 0x18, 0),  // intercepts
    (0x03c, 4, 0),     // pause filter: threshold and count
    (0x050, 8, 0),     // TSC_OFFSET
    (0x040, 8, 1),     // IOPM_BASE_PA
    (0x048, 8, 1),     // MSRPM_BASE_PA
    (0x058, 4, 2),     // guest ASID
    (0x060, 8, 3),     // V_TPR, V_IRQ, V_INTR_PRIO, V_IGN_TPR, V_INTR_MASKING, V_INTR_VECTOR
    (0x090, 8, 4),     // NP_ENABLE
    (0x0b0, 8, 4),     // N_CR3
    (0x668, 8, 4),     // G_PAT
    (0x4d0, 8, 5),     // EFER
    (0x548, 8, 5),     // CR4
    (0x550, 8, 5),     // CR3
    (0x558, 8, 5),     // CR0
    (0x560, 8, 6),     // DR7
    (0x568, 8, 6),     // DR6
    (0x460, 0x10, 7),  // GDTR
    (0x480, 0x10, 7),  // IDTR
    (0x400, 0x40, 8),  // ES, CS, SS, DS
    (0x4cb, 1, 8),     // CPL
    (0x640, 8, 9),     // CR2
    (0x670, 0x28, 10), // DBGCTL, BR_FROM, BR_TO, LASTEXCPFROM, LASTEXCPTO
    (0x098, 8, 11),    // AVIC APIC_BAR
    (0x0e0, 8, 11),    // AVIC APIC_BACKING_PAGE
    (0x0f0, 0x10, 11), // AVIC LOGICAL_TABLE, PHYSICAL_TABLE
    (0x5e0, 0x18, 12), // S_CET, SSP, ISST_ADDR
];

/// What #VMEXIT stores of the guest that a bit covers: offset, bytes.
const STORED: [(usize, usize); 10] = [
    (0x060, 2), // V_TPR, V_IRQ
    (0x400, 0x40),
    (0x460, 0x10),
    (0x480, 0x10),
    (0x4cb, 1),
    (0x4d0, 8),
    (0x548, 0x18),
    (0x560, 0x10),
    (0x640, 8),
    (0x668, 8),
];

const CLEAN: usize = 0x0c0;

type Page = [u8; 4096];

/// A store of the guest's that the exit brings: which of the bytes of [`STORED`], and what.
type Store = (usize, u8);

/// One CPU: what it has kept, by address.
#[derive(Default)]
struct Processor(BTreeMap<u64, Page>);

impl Processor {
    /// VMRUN, the guest's stores, #VMEXIT. `Err` tells an offset at which the guest ran on something else than the block.
    fn run(&mut self, addr: MachineAddr, vmcb: &mut Vmcb, stores: &[Store]) -> Result<(), usize> {
        let block: &mut Page = vmcb.as_mut_bytes().try_into().expect("a block is a page");
        let kept = self.0.entry(addr.raw()).or_insert([0xa5; 4096]);
        let clean = u32::from_le_bytes(block[CLEAN..CLEAN + 4].try_into().expect("four bytes"));
        let mut loaded = *block;
        for (at, len, _) in COVERED.into_iter().filter(|(.., bit)| clean >> bit & 1 != 0) {
            loaded[at..at + len].copy_from_slice(&kept[at..at + len]);
        }
        let differs = (0..4096).find(|&at| loaded[at] != block[at]);
        let stored: Vec<usize> = STORED.into_iter().flat_map(|(at, len)| at..at + len).collect();
        for &(which, value) in stores {
            let at = stored[which % stored.len()];
            (loaded[at], block[at]) = (value, value);
        }
        *kept = loaded;
        differs.map_or(Ok(()), Err)
    }
}

const MSRS: [GuestMsr; 13] = [
    GuestMsr::Efer,
    GuestMsr::Star,
    GuestMsr::Lstar,
    GuestMsr::Cstar,
    GuestMsr::SyscallMask,
    GuestMsr::KernelGsBase,
    GuestMsr::FsBase,
    GuestMsr::GsBase,
    GuestMsr::SysenterCs,
    GuestMsr::SysenterEsp,
    GuestMsr::SysenterEip,
    GuestMsr::Pat,
    GuestMsr::TscAux,
];

const SEGMENTS: [SegmentName; 8] = [
    SegmentName::Es,
    SegmentName::Cs,
    SegmentName::Ss,
    SegmentName::Ds,
    SegmentName::Fs,
    SegmentName::Gs,
    SegmentName::Ldtr,
    SegmentName::Tr,
];

/// A write by each function of the block that writes.
fn write(vmcb: &mut Vmcb, which: u8, value: u64) {
    let (byte, long) = (value as u8, value as u32);
    let table = DescriptorTable { base: value, limit: value as u16 };
    let addr = |n: u64| MachineAddr::new(value.wrapping_add(n) << 12 & 0xf_ffff_f000);
    match which {
        0 => vmcb.set_intercept(Intercept3::from_bits_truncate(long), value >> 63 != 0),
        1 => vmcb.set_int_ctl(IntCtl::from_bits_retain(value)),
        2 => vmcb.set_asid(long),
        3 => vmcb.set_tsc_offset(value),
        4 => vmcb.set_gdtr(table),
        5 => vmcb.set_idtr(table),
        6 => vmcb.set_dr6(value),
        7 => vmcb.set_cr((value >> 61) as u8, value),
        8 => vmcb.set_efer(value),
        9 => vmcb.set_msr(MSRS[value as usize % MSRS.len()], value),
        10 => vmcb.set_cr8(byte),
        11 => vmcb.set_priority(byte),
        12 => vmcb.watch_spinning(value & 1 != 0),
        13 => vmcb.initialise(Mfn::new(u64::from(long)), addr(1), addr(2)),
        14 => vmcb.end_shadow(),
        15 => (vmcb.rip, vmcb.rsp, vmcb.rax, vmcb.rflags) = (value, value, value, value),
        16 => (vmcb.event_inj, vmcb.int_state, vmcb.tlb_control) = (value, value & 1, byte & 3),
        17 => vmcb.set_debug_exits(value & 1 != 0),
        18 => vmcb.set_dr7(value),
        19 => vmcb.note_debug_exception(),
        _ => {
            let segment =
                Segment { selector: value as u16, attributes: value as u16 & 0xfff, limit: long, base: value };
            vmcb.set_segment(SEGMENTS[which as usize % SEGMENTS.len()], segment);
        }
    }
}
const NR_WRITES: u8 = 20 + SEGMENTS.len() as u8;

#[derive(Clone, Debug)]
enum Step {
    Write(u8, u64),
    /// A run, in which the guest changes this.
    Run(Vec<Store>),
    /// The virtual CPU is loaded on this CPU, or again on the same.
    Load(u32),
    /// The block moves to this page.
    Move(u64),
    /// The virtual CPU ends; a new one gets the page.
    New,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stores = prop::collection::vec((0..256usize, any::<u8>()), 0..4);
    let step = prop_oneof![
        6 => (0..NR_WRITES, any::<u64>()).prop_map(|(which, value)| Step::Write(which, value)),
        6 => stores.prop_map(Step::Run),
        1 => (0..3u32).prop_map(Step::Load),
        1 => (1..4u64).prop_map(Step::Move),
        1 => Just(Step::New),
    ];
    prop::collection::vec(step, 0..80)
}

/// A virtual CPU on one of three processors.
struct World {
    processors: [Processor; 3],
    vmcb: Box<Vmcb>,
    residence: Residence,
    cpu: u32,
    addr: MachineAddr,
    clean: Clean,
}

impl World {
    fn new(has_clean_bits: bool) -> Self {
        let mut world = Self {
            processors: Default::default(),
            vmcb: Vmcb::zeroed(),
            residence: Residence::default(),
            cpu: 0,
            addr: MachineAddr::new(0x1000),
            clean: Clean::after_run(has_clean_bits),
        };
        world.load();
        world
    }

    fn load(&mut self) {
        self.residence.arrive(&mut self.vmcb, CpuId(self.cpu), self.addr);
    }

    fn run(&mut self, stores: &[Store]) -> Result<(), usize> {
        let ran = self.processors[self.cpu as usize].run(self.addr, &mut self.vmcb, stores);
        self.vmcb.note_run(self.clean);
        ran
    }

    fn step(&mut self, step: &Step) -> Result<(), usize> {
        match *step {
            Step::Write(which, value) => write(&mut self.vmcb, which, value),
            Step::Run(ref stores) => return self.run(stores),
            Step::Load(cpu) => self.cpu = cpu,
            Step::Move(page) => self.addr = MachineAddr::new(page << 12),
            Step::New => (self.vmcb, self.residence) = (Vmcb::zeroed(), Residence::default()),
        }
        self.load();
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_processor_that_believes_the_clean_bits_runs_what_the_block_says(steps in steps(), has in any::<bool>()) {
        let mut world = World::new(has);
        for step in &steps {
            prop_assert_eq!(world.step(step), Ok(()));
        }
        prop_assert_eq!(world.run(&[]), Ok(()));
    }
}

/// The groups that this write marks.
fn marked(write: impl FnOnce(&mut Vmcb)) -> u32 {
    let mut vmcb = Vmcb::zeroed();
    vmcb.note_run(Clean::after_run(true));
    write(&mut vmcb);
    group::ALL & !u32::from_le_bytes(vmcb.as_bytes()[CLEAN..CLEAN + 4].try_into().expect("four bytes"))
}

/// Offset and marked groups of each field that can be written.
macro_rules! fields {
    ($($field:ident)*) => {
        [$((offset_of!(Vmcb, $field), marked(|vmcb| vmcb.$field.set(vmcb.$field.get(), &mut vmcb.clean)))),*]
    };
}

#[test]
fn a_field_marks_the_bit_that_the_manual_gives_its_offset() {
    let fields = fields! {
        intercept_dr intercept_exceptions intercept3 intercept4 pause_filter_threshold pause_filter_count iopm_base msrpm_base
        tsc_offset asid int_ctl np_control n_cr3 gdtr idtr cpl efer cr4 cr3 cr0 dr7 dr6 cr2 g_pat
    };
    for (offset, marked) in fields {
        let (.., bit) = COVERED.into_iter().find(|&(at, len, _)| (at..at + len).contains(&offset)).expect("is covered");
        assert_eq!(marked, 1 << bit, "{offset:#x}");
    }
}

#[test]
fn a_write_marks_its_own_group_alone() {
    assert_eq!(marked(|vmcb| vmcb.set_tsc_offset(1)), 1 << 0);
    assert_eq!(marked(|vmcb| vmcb.set_intercept(Intercept3::IRET, true)), 1 << 0);
    assert_eq!(marked(|vmcb| vmcb.set_debug_exits(true)), 1 << 0);
    assert_eq!(marked(|vmcb| vmcb.set_debug_exits(false)), 0);
    assert_eq!(marked(|vmcb| vmcb.set_asid(1)), 1 << 2);
    assert_eq!(marked(|vmcb| vmcb.set_cr8(1)), 1 << 3);
    assert_eq!(marked(|vmcb| vmcb.set_msr(GuestMsr::Pat, 1)), 1 << 4);
    assert_eq!(marked(|vmcb| vmcb.set_cr(3, 1)), 1 << 5);
    assert_eq!(marked(|vmcb| vmcb.set_dr6(1)), 1 << 6);
    assert_eq!(marked(|vmcb| vmcb.set_dr7(1)), 1 << 6);
    assert_eq!(marked(|vmcb| vmcb.set_idtr(DescriptorTable { base: 1, limit: 1 })), 1 << 7);
    assert_eq!(marked(|vmcb| vmcb.set_cr(2, 1)), 1 << 9);
    assert_eq!(marked(|vmcb| vmcb.set_msr(GuestMsr::Lstar, 1)), 0);
    assert_eq!(marked(|vmcb| (vmcb.rip, vmcb.event_inj) = (1, 1)), 0);
}

#[test]
fn a_byte_that_is_written_without_a_mark_is_seen() {
    let nr_groups = group::ALL.count_ones();
    for (at, len, _) in COVERED.into_iter().filter(|&(.., bit)| bit < nr_groups) {
        for at in at..at + len {
            let mut world = World::new(true);
            assert_eq!(world.run(&[]), Ok(()));
            world.vmcb.as_mut_bytes()[at] ^= 1;
            assert_eq!(world.run(&[]), Err(at));
        }
    }
}

#[test]
fn a_block_that_comes_to_another_cpu_or_address_unannounced_is_seen() {
    for change in [|world: &mut World| world.cpu = 1, |world: &mut World| world.addr = MachineAddr::new(0x2000)] {
        let mut world = World::new(true);
        assert_eq!(world.run(&[]), Ok(()));
        change(&mut world);
        assert!(world.run(&[]).is_err());
    }
}

#[test]
fn the_field_stays_zero_where_the_processor_has_no_clean_bits() {
    let mut world = World::new(false);
    assert_eq!(world.run(&[]), Ok(()));
    assert_eq!(world.vmcb.as_bytes()[CLEAN..CLEAN + 8], [0; 8]);
}
