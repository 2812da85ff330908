//! CPUID as a domain sees it: a table made once from the host's, and the few bits that change while it runs.
//!
//! [`CpuidPolicy::new`] reads the host's leaves, keeps what [`super::features`] allows, takes out what lacks something it
//! depends on, and puts in the domain's own topology. [`CpuidPolicy::query`] looks up a leaf and fills in what depends on
//! the virtual CPU. Sources: SDM 2A CPUID; APM 3 appendix E.

use super::features::*;
use super::xen_leaves::XenLeaves;
use super::{topology, xstate};
use crate::ids::VcpuId;
use crate::regs::Cr4;
use alloc::vec::Vec;

/// EAX, EBX, ECX and EDX.
pub type Leaf = [u32; 4];

/// Whose processor the host is, so far as CPUID and MSRs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// Intel's way.
    Intel,
    /// AMD's way: AuthenticAMD or HygonGenuine.
    Amd,
}

impl Vendor {
    /// By leaf 0 of the host. Any that is not known to be AMD's kind is taken to be Intel's.
    pub fn from_leaf(leaf: Leaf) -> Self {
        const AUTH: u32 = u32::from_le_bytes(*b"Auth");
        const HYGO: u32 = u32::from_le_bytes(*b"Hygo");
        if leaf[1] == AUTH || leaf[1] == HYGO { Vendor::Amd } else { Vendor::Intel }
    }
}

/// Which interface a domain has to the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PVH or HVM: a processor of its own.
    Hvm,
    /// PV: ring 3 of the machine's.
    Pv {
        /// Bits of the highest machine address that it can meet.
        address_bits: u8,
    },
}

/// What the hypervisor can offer beside what the processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// To which kind of domain.
    pub kind: Kind,
    /// Virtual CPUs of the domain.
    pub nr_vcpus: u32,
    /// Components of XCR0 that are saved and restored with a virtual CPU; 0 hides XSAVE.
    pub xcr0: u64,
    /// The back-end lets guests use INVPCID; it needs nested paging. PCID is offered with it or where the host has no
    /// INVPCID at all.
    pub invpcid: bool,
    /// The back-end lets guests use RDTSCP and RDPID, and switches TSC_AUX.
    pub rdtscp: bool,
    /// SPEC_CTRL is switched with the virtual CPU, and PRED_CMD forwarded.
    pub spec_ctrl: bool,
    /// ARCH_CAPABILITIES of the host is given to [`super::MsrHost`].
    pub arch_caps: bool,
}

/// What CPUID depends on beside leaf and subleaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dynamic {
    /// Who asks.
    pub vcpu: VcpuId,
    /// Its CR4, for OSXSAVE and OSPKE.
    pub cr4: u64,
    /// Its XCR0, for the size of its save area.
    pub xcr0: u64,
    /// The enable bit of its APIC_BASE.
    pub apic_enabled: bool,
    /// EFER.LMA: outside long mode Intel hides SYSCALL.
    pub is_long: bool,
}

/// The highest basic leaf that a guest is told.
const MAX_BASIC: u32 = 0xd;
/// The lowest extended leaf.
const EXTENDED: u32 = 0x8000_0000;
/// The highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0021;

/// A domain's CPUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuidPolicy {
    kind: Kind,
    vendor: Vendor,
    nr_vcpus: u32,
    /// Subleaves 0 of the basic leaves, by leaf.
    basic: [Leaf; MAX_BASIC as usize + 1],
    /// And of the extended ones.
    extended: [Leaf; (MAX_EXTENDED - EXTENDED) as usize + 1],
    /// The other subleaves, sorted by leaf and subleaf.
    table: Vec<((u32, u32), Leaf)>,
    components: Vec<xstate::Component>,
    xcr0: u64,
    xen: XenLeaves,
}

impl CpuidPolicy {
    /// The policy of a domain on a host whose CPUID is `host` (leaf, subleaf).
    pub fn new(host: &impl Fn(u32, u32) -> Leaf, offer: &Offer, xen: XenLeaves) -> Self {
        let mut builder = Builder { host, offer, vendor: Vendor::from_leaf(host(0, 0)), table: Vec::new() };
        builder.basic();
        builder.extended();
        let (xcr0, components) = builder.xsave();
        builder.drop_what_lacks_xstate(xcr0);
        if offer.kind != Kind::Hvm {
            builder.drop_what_pv_lacks();
        }
        let Builder { vendor, mut table, .. } = builder;
        table.sort_unstable_by_key(|entry| entry.0);
        let mut policy = Self {
            kind: offer.kind,
            vendor,
            nr_vcpus: offer.nr_vcpus,
            basic: core::array::from_fn(|n| find(&table, n as u32, 0)),
            extended: core::array::from_fn(|n| find(&table, EXTENDED + n as u32, 0)),
            table,
            components,
            xcr0,
            xen,
        };
        policy.xen.has_rdtscp = policy.has_extended_edx(e1_edx::RDTSCP);
        policy
    }

    /// What CPUID answers.
    #[inline]
    pub fn query(&self, leaf: u32, subleaf: u32, now: &Dynamic) -> Leaf {
        // Guests ask for this one at any time, some only to serialize.
        if leaf == 1 { self.leaf_1(now) } else { self.query_other(leaf, subleaf, now) }
    }

    fn query_other(&self, leaf: u32, subleaf: u32, now: &Dynamic) -> Leaf {
        if XenLeaves::has(leaf) {
            return self.xen.query(leaf, subleaf, now.vcpu.0, self.kind);
        }
        let mut answer = self.fixed(leaf, subleaf);
        match (leaf, subleaf) {
            (7, 0) => set_if(&mut answer[2], l7_ecx::OSPKE, now.cr4 & Cr4::PKE.bits() != 0),
            (0xb, _) if self.kind == Kind::Hvm => {
                answer = topology::extended(subleaf, self.nr_vcpus);
                answer[3] = topology::apic_id(now.vcpu.0);
            }
            (0xd, 0) if self.xcr0 != 0 => answer[1] = xstate::standard_size(&self.components, now.xcr0),
            (0xd, 1) if answer[0] & ld_eax::XSAVEC != 0 => {
                answer[1] = xstate::compacted_size(&self.components, now.xcr0);
            }
            (0x8000_0001, _) => {
                set_if(&mut answer[3], l1_edx::APIC, now.apic_enabled && self.vendor == Vendor::Amd);
                if self.vendor == Vendor::Intel && !now.is_long {
                    answer[3] &= !e1_edx::SYSCALL;
                }
            }
            _ => {}
        }
        answer
    }

    /// For which kind of domain it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whose way the guest's processor goes.
    pub fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// The components of XCR0 that the guest may set; 0 if it has no XSAVE.
    pub fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// The Xen leaves, to change what time brings (the TSC offset).
    pub fn xen_mut(&mut self) -> &mut XenLeaves {
        &mut self.xen
    }

    /// The APIC id of a virtual CPU, for the MADT and the local APIC.
    pub fn apic_id(vcpu: VcpuId) -> u32 {
        topology::apic_id(vcpu.0)
    }

    /// Whether leaf 1, ECX has all of these.
    pub fn has_leaf_1_ecx(&self, bits: u32) -> bool {
        self.fixed(1, 0)[2] & bits == bits
    }
    /// Whether leaf 1, EDX has all of these.
    pub fn has_leaf_1_edx(&self, bits: u32) -> bool {
        self.fixed(1, 0)[3] & bits == bits
    }
    /// Whether leaf 7.0, EBX has all of these.
    pub fn has_leaf_7_ebx(&self, bits: u32) -> bool {
        self.fixed(7, 0)[1] & bits == bits
    }
    /// Whether leaf 7.0, ECX has all of these.
    pub fn has_leaf_7_ecx(&self, bits: u32) -> bool {
        self.fixed(7, 0)[2] & bits == bits
    }
    /// Whether leaf 7.0, EDX has all of these.
    pub fn has_leaf_7_edx(&self, bits: u32) -> bool {
        self.fixed(7, 0)[3] & bits == bits
    }
    /// Whether leaf 0x80000001, EDX has all of these.
    pub fn has_extended_edx(&self, bits: u32) -> bool {
        self.fixed(0x8000_0001, 0)[3] & bits == bits
    }
    /// Whether leaf 0x80000007, EDX tells of an invariant TSC.
    pub fn has_invariant_tsc(&self) -> bool {
        self.fixed(0x8000_0007, 0)[3] & e7_edx::ITSC != 0
    }
    /// The width of a physical address in bits; 36 where the host does not tell.
    pub fn phys_bits(&self) -> u32 {
        match self.fixed(0x8000_0008, 0)[0] & 0xff {
            0 => 36,
            bits => bits,
        }
    }
    /// Leaf 0x80000008, EBX.
    pub fn speculation_ebx(&self) -> u32 {
        self.fixed(0x8000_0008, 0)[1]
    }

    /// The table's part of an answer: zeros for what it does not hold, and subleaf 0 where a leaf has no other.
    fn fixed(&self, leaf: u32, subleaf: u32) -> Leaf {
        if subleaf != 0 && has_subleaves(leaf) {
            return find(&self.table, leaf, subleaf);
        }
        let of = |list: &[Leaf], first: u32| list.get(leaf.wrapping_sub(first) as usize).copied();
        of(&self.basic, 0).or_else(|| of(&self.extended, EXTENDED)).unwrap_or([0; 4])
    }

    #[inline]
    fn leaf_1(&self, now: &Dynamic) -> Leaf {
        let mut answer = self.basic[1];
        // A PV guest's processors are packages of one thread, numbered as Linux numbers them.
        let id = if self.kind == Kind::Hvm { topology::apic_id(now.vcpu.0) } else { now.vcpu.0 };
        answer[1] = (answer[1] & 0x00ff_ffff) | (id << 24);
        set_if(&mut answer[2], l1_ecx::OSXSAVE, now.cr4 & Cr4::OSXSAVE.bits() != 0);
        set_if(&mut answer[3], l1_edx::APIC, now.apic_enabled);
        answer
    }
}

/// An entry of a sorted table, zeros for what it does not hold.
fn find(table: &[((u32, u32), Leaf)], leaf: u32, subleaf: u32) -> Leaf {
    table.binary_search_by_key(&(leaf, subleaf), |entry| entry.0).map_or([0; 4], |at| table[at].1)
}

const fn has_subleaves(leaf: u32) -> bool {
    matches!(leaf, 4 | 7 | 0xb | 0xd)
}

fn set_if(register: &mut u32, bits: u32, condition: bool) {
    *register = if condition { *register | bits } else { *register & !bits };
}

/// The making of a table.
struct Builder<'a, H> {
    host: &'a H,
    offer: &'a Offer,
    vendor: Vendor,
    table: Vec<((u32, u32), Leaf)>,
}

impl<H: Fn(u32, u32) -> Leaf> Builder<'_, H> {
    fn put(&mut self, leaf: u32, subleaf: u32, answer: Leaf) {
        self.table.push(((leaf, subleaf), answer));
    }

    /// Processors in a package.
    fn nr_in_package(&self) -> u32 {
        if self.offer.kind == Kind::Hvm { self.offer.nr_vcpus } else { 1 }
    }

    fn entry(&mut self, leaf: u32, subleaf: u32) -> Option<&mut Leaf> {
        self.table.iter_mut().find(|entry| entry.0 == (leaf, subleaf)).map(|entry| &mut entry.1)
    }

    /// The host's leaf, zeros past its highest one.
    fn read(&self, leaf: u32, subleaf: u32) -> Leaf {
        let base = leaf & 0x8000_0000;
        let max = (self.host)(base, 0)[0];
        if max < base || leaf > max { [0; 4] } else { (self.host)(leaf, subleaf) }
    }

    fn basic(&mut self) {
        let [_, ebx, ecx, edx] = (self.host)(0, 0);
        self.put(0, 0, [MAX_BASIC, ebx, ecx, edx]);
        let one = self.leaf_1();
        self.put(1, 0, one);
        if self.vendor == Vendor::Intel {
            self.put(2, 0, self.read(2, 0));
            for subleaf in 0..8 {
                self.put(4, subleaf, topology::cache(self.read(4, subleaf), self.nr_in_package()));
            }
        }
        self.leaf_7();
    }

    fn leaf_1(&self) -> Leaf {
        let [eax, ebx, ecx, edx] = self.read(1, 0);
        let mut ecx = ecx & l1_ecx::ALLOWED & !l1_ecx::OSXSAVE;
        ecx |= l1_ecx::HYPERVISOR | l1_ecx::X2APIC | l1_ecx::TSC_DEADLINE;
        let host_has_invpcid = self.read(7, 0)[1] & l7_ebx::INVPCID != 0;
        if host_has_invpcid && !self.offer.invpcid {
            ecx &= !l1_ecx::PCID;
        }
        let mut edx = (edx & l1_edx::ALLOWED) | l1_edx::APIC;
        set_if(&mut edx, l1_edx::HTT, self.nr_in_package() > 1);
        let logical = topology::logical_count(self.vendor, self.nr_in_package()) << 16;
        [eax, (ebx & 0xffff) | logical, ecx, edx]
    }

    fn leaf_7(&mut self) {
        let [max, ebx, ecx, edx] = self.read(7, 0);
        let mut ebx = (ebx & l7_ebx::ALLOWED) | l7_ebx::TSC_ADJUST;
        if !self.offer.invpcid {
            ebx &= !l7_ebx::INVPCID;
        }
        let mut ecx = ecx & l7_ecx::ALLOWED & !l7_ecx::OSPKE;
        if !self.offer.rdtscp {
            ecx &= !l7_ecx::RDPID;
        }
        let mut edx = edx & l7_edx::ALLOWED;
        if !self.offer.spec_ctrl {
            edx &= !L7_EDX_SPEC;
        }
        if !self.offer.arch_caps {
            edx &= !l7_edx::ARCH_CAPS;
        }
        self.put(7, 0, [max.min(1), ebx, ecx, edx]);
        if max >= 1 {
            let eax = self.read(7, 1)[0] & l7s1_eax::ALLOWED;
            self.put(7, 1, [eax, 0, 0, 0]);
        }
    }

    fn extended(&mut self) {
        let [max, ebx, ecx, edx] = (self.host)(0x8000_0000, 0);
        let ceiling = if self.vendor == Vendor::Amd { MAX_EXTENDED } else { 0x8000_0008 };
        self.put(0x8000_0000, 0, [max.min(ceiling), ebx, ecx, edx]);
        let one = self.extended_1();
        self.put(0x8000_0001, 0, one);
        for leaf in 0x8000_0002..=0x8000_0006 {
            self.put(leaf, 0, self.read(leaf, 0));
        }
        let invariant = self.read(0x8000_0007, 0)[3] & e7_edx::ALLOWED;
        self.put(0x8000_0007, 0, [0, 0, 0, invariant]);
        let eight = self.extended_8();
        self.put(0x8000_0008, 0, eight);
        if self.vendor == Vendor::Amd {
            self.put(0x8000_0019, 0, self.read(0x8000_0019, 0));
            self.put(0x8000_001a, 0, self.read(0x8000_001a, 0));
            self.put(0x8000_0021, 0, [self.read(0x8000_0021, 0)[0] & e21_eax::ALLOWED, 0, 0, 0]);
        }
    }

    fn extended_1(&self) -> Leaf {
        let [eax, ebx, ecx, edx] = self.read(0x8000_0001, 0);
        let mut ecx = ecx & e1_ecx::ALLOWED;
        let mut allowed = e1_edx::ALLOWED;
        if !self.offer.rdtscp {
            allowed &= !e1_edx::RDTSCP;
        }
        let mut edx = edx & allowed;
        if self.vendor == Vendor::Amd {
            edx |= self.leaf_1()[3] & E1_EDX_REPEATED;
            set_if(&mut ecx, e1_ecx::CMP_LEGACY, self.nr_in_package() > 1);
        } else {
            ecx &= !e1_ecx::CMP_LEGACY;
        }
        [eax, ebx, ecx, edx]
    }

    fn extended_8(&self) -> Leaf {
        let [eax, ebx, ..] = self.read(0x8000_0008, 0);
        let mut ebx = ebx & e8_ebx::ALLOWED;
        if !self.offer.spec_ctrl {
            ebx &= !E8_EBX_SPEC;
        }
        let ecx = if self.vendor == Vendor::Amd { topology::core_count(self.nr_in_package()) } else { 0 };
        // Bits 23:16 would give the guest a physical address size of its own; it has the host's.
        [eax & 0xffff, ebx, ecx, 0]
    }

    /// Leaf 0xd, with what the guest may have in XCR0.
    fn xsave(&mut self) -> (u64, Vec<xstate::Component>) {
        let has_xsave = self.read(1, 0)[2] & l1_ecx::XSAVE != 0 && self.offer.xcr0 & xstate::SSE != 0;
        if !has_xsave {
            return (0, Vec::new());
        }
        let host = self.read(0xd, 0);
        let host_xcr0 = u64::from(host[0]) | u64::from(host[3]) << 32;
        // A PV guest has no protection keys.
        let known = if self.offer.kind == Kind::Hvm { xstate::KNOWN } else { xstate::KNOWN & !xstate::PKRU };
        let xcr0 = whole_components(host_xcr0 & self.offer.xcr0 & known | xstate::X87 | xstate::SSE);
        let bits = (2..63).filter(|bit| xcr0 & (1 << bit) != 0);
        let components: Vec<_> = bits.map(|bit| xstate::Component::from_leaf(bit, self.read(0xd, bit))).collect();
        let largest = xstate::standard_size(&components, xcr0);
        self.put(0xd, 0, [xcr0 as u32, 0, largest, (xcr0 >> 32) as u32]);
        self.put(0xd, 1, [self.read(0xd, 1)[0] & ld_eax::ALLOWED, 0, 0, 0]);
        for component in &components {
            self.put(0xd, component.bit, component.to_leaf());
        }
        (xcr0, components)
    }

    /// Takes out the features whose registers the guest cannot have.
    fn drop_what_lacks_xstate(&mut self, xcr0: u64) {
        let (mut one, mut ebx, mut ecx, mut edx, mut seven_1, mut amd) = (0, 0, 0, 0, 0, 0);
        if xcr0 == 0 {
            one |= l1_ecx::XSAVE;
        }
        if xcr0 & xstate::YMM == 0 {
            one |= l1_ecx::AVX | l1_ecx::FMA | l1_ecx::F16C;
            ebx |= l7_ebx::AVX2;
            ecx |= l7_ecx::VAES | l7_ecx::VPCLMULQDQ;
            seven_1 |= l7s1_eax::AVX_VNNI;
            amd |= e1_ecx::XOP | e1_ecx::FMA4;
        }
        if xcr0 & xstate::AVX512 == 0 {
            (ebx, ecx, edx) = (ebx | L7_EBX_AVX512, ecx | L7_ECX_AVX512, edx | L7_EDX_AVX512);
            seven_1 |= l7s1_eax::AVX512_BF16;
        }
        if xcr0 & xstate::PKRU == 0 {
            ecx |= l7_ecx::PKU;
        }
        self.clear(&[
            ((1, 0), [0, 0, one, 0]),
            ((7, 0), [0, ebx, ecx, edx]),
            ((7, 1), [seven_1, 0, 0, 0]),
            ((0x8000_0001, 0), [0, 0, amd, 0]),
        ]);
    }

    /// Takes out what a PV guest cannot use, or what is the hypervisor's own.
    fn drop_what_pv_lacks(&mut self) {
        let repeated = if self.vendor == Vendor::Amd { PV_LACKS_L1_EDX & E1_EDX_REPEATED } else { 0 };
        self.clear(&[
            ((1, 0), [0, 0, PV_LACKS_L1_ECX, PV_LACKS_L1_EDX]),
            ((7, 0), [0, PV_LACKS_L7_EBX, PV_LACKS_L7_ECX, 0]),
            ((0x8000_0001, 0), [0, 0, e1_ecx::CR8_LEGACY, e1_edx::PAGE1GB | repeated]),
            ((0x8000_0008, 0), [0, PV_LACKS_E8_EBX, 0, 0]),
        ]);
    }

    fn clear(&mut self, bits: &[((u32, u32), Leaf)]) {
        for &((leaf, subleaf), bits) in bits {
            if let Some(entry) = self.entry(leaf, subleaf) {
                (0..4).for_each(|i| entry[i] &= !bits[i]);
            }
        }
    }
}

/// Takes out of XCR0 what is there only in part or without what it builds on.
fn whole_components(mut xcr0: u64) -> u64 {
    if xcr0 & xstate::AVX512 != xstate::AVX512 || xcr0 & xstate::YMM == 0 {
        xcr0 &= !xstate::AVX512;
    }
    xcr0
}

#[cfg(test)]
#[path = "cpuid_tests.rs"]
pub(super) mod tests;
