//! The pages that a domain and the hypervisor both write: `shared_info`, and where each `vcpu_info` is.
//!
//! Offsets are those of `xen/include/public/xen.h` for 64-bit guests; where 32-bit ones have others, see [`COMPAT_MASK`].

use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};

use abi::xen::{ArchSharedInfo, SharedInfo, VcpuInfo, VcpuTimeInfo, XEN_LEGACY_MAX_VCPUS};
use machine::mem::{PartView, PinnedFrame, PinnedPart};
use model::addr::PAGE_SIZE;
use model::evtchn::{BITS_PER_WORD, EvtchnPort, InfoBits, NR_PORTS, SharedBits};
use model::ids::{DomId, VcpuId};
use model::time::{TimeInfo, WallClock};
use sync::Once;

const PAGE: usize = PAGE_SIZE as usize;
const PENDING: usize = offset_of!(SharedInfo, evtchn_pending);
const MASK: usize = offset_of!(SharedInfo, evtchn_mask);
const UPCALL: usize = offset_of!(VcpuInfo, evtchn_upcall_pending);
const UPCALL_MASK: usize = offset_of!(VcpuInfo, evtchn_upcall_mask);
const CR2: usize = offset_of!(VcpuInfo, arch);
const SELECTOR: usize = offset_of!(VcpuInfo, evtchn_pending_sel);
const TIME: usize = offset_of!(VcpuInfo, time);

/// For 32-bit guests words have 32 bits, and so the arrays of 32 words are shorter and what follows comes earlier. The
/// pending bits begin where they do for others, and a bit has the same place in its array.
const COMPAT_MASK: usize = PENDING + 128;
const COMPAT_CLOCK: usize = PENDING + 256;
/// `arch.wc_sec_hi`, behind six words of `arch` and the clock's three.
const COMPAT_CLOCK_HIGH: usize = COMPAT_CLOCK + 12 + 24;
const COMPAT_SELECTOR: usize = 4;

/// The shared pages of a domain.
pub struct Shared {
    info: PinnedFrame,
    /// The layout is that of 32-bit guests.
    is_32: AtomicBool,
    /// Where `VCPUOP_register_vcpu_info` put each `vcpu_info`: the frame and the offset in it.
    moved: Vec<Once<(PinnedFrame, usize)>>,
}

impl Shared {
    /// With `shared_info` in this frame, for so many virtual CPUs.
    pub fn new(info: PinnedFrame, nr_vcpus: u32) -> Self {
        Self { info, is_32: AtomicBool::new(false), moved: (0..nr_vcpus).map(|_| Once::new()).collect() }
    }

    /// The frame of `shared_info`.
    pub fn frame(&self) -> &PinnedFrame {
        &self.info
    }

    /// Sets the layout, and says whether it was another. Bits that are set stay where they are.
    pub fn set_layout(&self, is_32: bool) -> bool {
        self.is_32.swap(is_32, Ordering::Relaxed) != is_32
    }

    fn masks(&self) -> usize {
        if self.is_32.load(Ordering::Relaxed) { COMPAT_MASK } else { MASK }
    }

    /// How many frames a PV domain says it has numbers for.
    pub fn max_pfn(&self) -> u64 {
        self.info.read_long(offset_of!(SharedInfo, arch) + offset_of!(ArchSharedInfo, max_pfn))
    }

    /// Whether a virtual CPU has a `vcpu_info`, in the shared page or where it was registered.
    pub fn has_vcpu_info(&self, vcpu: VcpuId) -> bool {
        self.vcpu_info(vcpu).is_some()
    }

    /// Where the `vcpu_info` of a virtual CPU is; `None` if it has none yet.
    #[inline]
    fn vcpu_info(&self, vcpu: VcpuId) -> Option<(&PinnedFrame, usize)> {
        if let Some((frame, offset)) = self.moved.get(vcpu.0 as usize).and_then(Once::get) {
            return Some((frame, *offset));
        }
        (vcpu.0 < XEN_LEGACY_MAX_VCPUS).then(|| (&self.info, vcpu.0 as usize * size_of::<VcpuInfo>()))
    }

    /// Moves the `vcpu_info` of a virtual CPU to its new place, with what it holds; can be done once. The caller has
    /// checked that it lies in the frame and is aligned to 8.
    pub fn move_vcpu_info(&self, vcpu: VcpuId, frame: PinnedFrame, offset: usize) -> bool {
        let Some(cell) = self.moved.get(vcpu.0 as usize).filter(|cell| cell.get().is_none()) else { return false };
        let mut bytes = [0; size_of::<VcpuInfo>()];
        match self.vcpu_info(vcpu) {
            Some((old, at)) => old.read(at, &mut bytes),
            // One without a `vcpu_info` so far takes no upcalls: as in Xen it starts with them masked.
            None => bytes[offset_of!(VcpuInfo, evtchn_upcall_mask)] = 1,
        }
        frame.write(offset, &bytes);
        cell.set((frame, offset)).is_ok()
    }

    /// Whether [`Shared::move_vcpu_info`] has been done for a virtual CPU.
    pub fn has_moved(&self, vcpu: VcpuId) -> bool {
        self.moved.get(vcpu.0 as usize).is_some_and(|cell| cell.get().is_some())
    }

    /// Holds upcalls back, as every PV virtual CPU finds it at its start.
    pub fn mask_upcalls(&self) {
        for n in 0..XEN_LEGACY_MAX_VCPUS as usize {
            self.info.byte(n * size_of::<VcpuInfo>() + UPCALL_MASK).store(1, Ordering::Relaxed);
        }
    }

    /// Whether a virtual CPU has an upcall to take, masked or not.
    pub fn has_upcall(&self, vcpu: VcpuId) -> bool {
        self.vcpu_info(vcpu).is_some_and(|(frame, at)| frame.byte(at + UPCALL).load(Ordering::Acquire) != 0)
    }

    /// The `vcpu_info` of a virtual CPU, for the CPU that runs it. `None` if it has none yet.
    pub fn info(&self, owner: DomId, vcpu: VcpuId) -> Option<Info> {
        let (frame, at) = self.vcpu_info(vcpu)?;
        Some(Info(PinnedPart::new(PinnedFrame::get(frame.mfn(), owner).ok()?, at)))
    }

    /// Tells a virtual CPU the time, as a function of the TSC.
    pub fn write_time(&self, vcpu: VcpuId, time: &TimeInfo) {
        if let Some((frame, at)) = self.vcpu_info(vcpu) {
            write_time(frame, at + TIME, time);
        }
    }

    /// Tells the domain the time of day at system time zero.
    pub fn write_wall_clock(&self, clock: &WallClock) {
        let (at, high) = if self.is_32.load(Ordering::Relaxed) {
            (COMPAT_CLOCK, COMPAT_CLOCK_HIGH)
        } else {
            (offset_of!(SharedInfo, wc_version), offset_of!(SharedInfo, wc_sec_hi))
        };
        let version = self.info.word(at);
        version.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        let seconds = clock.sec();
        self.info.word(at + 4).store(seconds as u32, Ordering::Relaxed);
        self.info.word(at + 8).store(clock.nsec(), Ordering::Relaxed);
        self.info.word(high).store((seconds >> 32) as u32, Ordering::Relaxed);
        version.fetch_add(1, Ordering::Release);
    }
}

/// The bytes of a `vcpu_info`.
const INFO_SIZE: usize = size_of::<VcpuInfo>();

/// The `vcpu_info` of a virtual CPU that runs.
pub struct Info(PinnedPart<INFO_SIZE>);

impl Info {
    /// Whether there is an upcall to take, masked or not.
    #[inline]
    pub fn has_upcall(&self) -> bool {
        self.words().pending().load(Ordering::Acquire) != 0
    }

    /// Its words, for who looks at them again and again.
    #[inline(always)]
    pub fn words(&self) -> Words<'_> {
        Words(self.0.view())
    }
}

/// Words of a `vcpu_info`.
#[derive(Clone, Copy)]
pub struct Words<'a>(PartView<'a, INFO_SIZE>);

impl<'a> Words<'a> {
    /// Whether upcalls are masked: `evtchn_upcall_mask`.
    #[inline(always)]
    pub fn mask(self) -> &'a AtomicU8 {
        self.0.byte(UPCALL_MASK)
    }

    #[inline(always)]
    fn pending(self) -> &'a AtomicU8 {
        self.0.byte(UPCALL)
    }

    #[inline(always)]
    fn selector(self) -> &'a AtomicU64 {
        self.0.long(SELECTOR)
    }

    /// Whether there is an upcall to take, and upcalls are not masked.
    #[inline(always)]
    pub fn is_upcall_due(self) -> bool {
        self.pending().load(Ordering::Acquire) != 0 && self.mask().load(Ordering::Acquire) == 0
    }

    /// Tells where the last page fault of a PV virtual CPU was.
    #[inline]
    pub fn set_cr2(self, address: u64) {
        self.0.long(CR2).store(address, Ordering::Relaxed);
    }
}

/// Writes a `vcpu_time_info` by its version protocol: odd while it changes.
pub fn write_time(frame: &PinnedFrame, at: usize, time: &TimeInfo) {
    let version = frame.word(at + offset_of!(VcpuTimeInfo, version));
    version.store(version.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let long = |field: usize, value: u64| frame.long(at + field).store(value, Ordering::Relaxed);
    long(offset_of!(VcpuTimeInfo, tsc_timestamp), time.tsc_timestamp);
    long(offset_of!(VcpuTimeInfo, system_time), time.system_time);
    frame.word(at + offset_of!(VcpuTimeInfo, tsc_to_system_mul)).store(time.tsc_to_system_mul, Ordering::Relaxed);
    frame.byte(at + offset_of!(VcpuTimeInfo, tsc_shift)).store(time.tsc_shift as u8, Ordering::Relaxed);
    frame.byte(at + offset_of!(VcpuTimeInfo, flags)).store(time.flags, Ordering::Relaxed);
    version.store((version.load(Ordering::Relaxed) | 1).wrapping_add(1), Ordering::Release);
}

/// What a PV domain shares, to one of its virtual CPUs that knows where its own words are.
pub struct Near<'a> {
    shared: &'a Shared,
    page: PartView<'a, PAGE>,
    id: VcpuId,
    words: Words<'a>,
}

impl Shared {
    /// The same, to virtual CPU `id` of a PV domain, whose own words these are.
    #[inline(always)]
    pub fn near<'a>(&'a self, id: VcpuId, words: Words<'a>) -> Near<'a> {
        Near { shared: self, page: self.page(), id, words }
    }

    #[inline(always)]
    fn page(&self) -> PartView<'_, PAGE> {
        self.info.part(0)
    }

    #[inline(always)]
    fn words(&self, vcpu: VcpuId) -> Option<Words<'_>> {
        self.vcpu_info(vcpu).map(|(frame, at)| Words(frame.part(at)))
    }
}

/// The layout is that of 64-bit guests, as PV domains are.
impl SharedBits for Near<'_> {
    #[inline(always)]
    fn set_pending(&self, port: EvtchnPort) -> bool {
        set_bit(self.page, PENDING, port)
    }
    #[inline]
    fn clear_pending(&self, port: EvtchnPort) {
        clear_bit(self.page, PENDING, port);
    }
    #[inline]
    fn is_pending(&self, port: EvtchnPort) -> bool {
        test_bit(self.page, PENDING, port)
    }
    #[inline(always)]
    fn is_masked(&self, port: EvtchnPort) -> bool {
        test_bit(self.page, MASK, port)
    }
    #[inline]
    fn clear_mask(&self, port: EvtchnPort) -> bool {
        clear_bit(self.page, MASK, port)
    }
    #[inline(always)]
    fn info_of(&self, vcpu: VcpuId) -> Option<impl InfoBits> {
        if vcpu == self.id { Some(self.words) } else { self.shared.words(vcpu) }
    }
}

impl InfoBits for Words<'_> {
    #[inline(always)]
    fn set_selector(&self, word: u32) -> bool {
        let bit = 1 << (word % u64::BITS);
        self.selector().fetch_or(bit, Ordering::SeqCst) & bit != 0
    }
    #[inline(always)]
    fn set_upcall_pending(&self) -> bool {
        self.pending().swap(1, Ordering::SeqCst) != 0
    }
}

impl SharedBits for Shared {
    #[inline]
    fn set_pending(&self, port: EvtchnPort) -> bool {
        set_bit(self.page(), PENDING, port)
    }
    fn clear_pending(&self, port: EvtchnPort) {
        clear_bit(self.page(), PENDING, port);
    }
    fn is_pending(&self, port: EvtchnPort) -> bool {
        test_bit(self.page(), PENDING, port)
    }
    #[inline]
    fn is_masked(&self, port: EvtchnPort) -> bool {
        test_bit(self.page(), self.masks(), port)
    }
    fn clear_mask(&self, port: EvtchnPort) -> bool {
        clear_bit(self.page(), self.masks(), port)
    }
    #[inline]
    fn info_of(&self, vcpu: VcpuId) -> Option<impl InfoBits> {
        self.words(vcpu).map(|words| EitherWords { words, is_32: self.is_32.load(Ordering::Relaxed) })
    }
}

/// Words of a `vcpu_info`, in either layout.
struct EitherWords<'a> {
    words: Words<'a>,
    is_32: bool,
}

impl InfoBits for EitherWords<'_> {
    #[inline]
    fn set_selector(&self, word: u32) -> bool {
        if self.is_32 {
            // Our word is two of the guest's, of which it looks at both.
            let both = 3u32.checked_shl(word * 2).unwrap_or(0);
            return self.words.0.word(COMPAT_SELECTOR).fetch_or(both, Ordering::SeqCst) & both == both;
        }
        self.words.set_selector(word)
    }
    #[inline]
    fn set_upcall_pending(&self) -> bool {
        self.words.set_upcall_pending()
    }
}

/// The word with a port's bit, which is below `NR_PORTS`, in one of the arrays.
#[inline(always)]
fn long<'a>(page: PartView<'a, PAGE>, array: usize, port: EvtchnPort) -> &'a AtomicU64 {
    page.long(array + (port.word() % NR_PORTS.div_ceil(BITS_PER_WORD)) as usize * 8)
}

#[inline(always)]
fn set_bit(page: PartView<'_, PAGE>, array: usize, port: EvtchnPort) -> bool {
    let bit = 1 << port.bit();
    long(page, array, port).fetch_or(bit, Ordering::SeqCst) & bit != 0
}

#[inline(always)]
fn clear_bit(page: PartView<'_, PAGE>, array: usize, port: EvtchnPort) -> bool {
    let bit = 1 << port.bit();
    long(page, array, port).fetch_and(!bit, Ordering::SeqCst) & bit != 0
}

#[inline(always)]
fn test_bit(page: PartView<'_, PAGE>, array: usize, port: EvtchnPort) -> bool {
    long(page, array, port).load(Ordering::SeqCst) & 1 << port.bit() != 0
}
