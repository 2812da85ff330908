//! Copying from and to a guest's memory: typed handles, by address in the address space of the running virtual CPU.
//!
//! Values are read once, into ours. A copy can fail in the middle, with [`Errno::EFAULT`]; what was written by then
//! stays written, as in Xen.

use alloc::vec::Vec;
use core::marker::PhantomData;

use abi::errno::Errno;
use machine::mem::PinnedFrame;
use machine::virt::{GuestMsr, Virt};
use model::addr::{Gfn, GuestPhys, GuestVirt, PAGE_SIZE};
use model::paging::guest::{Access, Fault, Mode, translate};
use model::pv::is_guests;
use model::regs::{Cr0, Cr4, Efer};
use sync::Cx;
use sync::place::before;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::cpus::Visits;
use crate::domain::{Context, Domain, flush};
use crate::run::Running;

/// The part of a page that a copy touches.
const PAGE: usize = PAGE_SIZE as usize;

/// Takes a reference to the frame behind a guest frame, if it is ordinary memory that may be used in this way.
pub fn pin<P: before::P2m>(cx: &mut Cx<P>, domain: &Domain, gfn: Gfn, for_writing: bool) -> Option<PinnedFrame> {
    let (memory, _) = cx.lock(&domain.memory);
    let mfn = memory.ram(gfn, for_writing)?;
    PinnedFrame::get(mfn, domain.id).ok()
}

/// Copies to guest-physical memory; `false` where there is none that may be written.
pub fn write_physical<P: before::P2m>(cx: &mut Cx<P>, domain: &Domain, to: GuestPhys, bytes: &[u8]) -> bool {
    let mut done = 0;
    while done < bytes.len() {
        let Some(at) = to.checked_add(done as u64) else { return false };
        let count = (PAGE - at.offset()).min(bytes.len() - done);
        let Some(frame) = pin(cx, domain, at.frame(), true) else { return false };
        frame.write(at.offset(), &bytes[done..done + count]);
        done += count;
    }
    true
}

/// How the guest translates addresses now.
fn mode(domain: &Domain, context: &Context) -> Mode {
    Mode {
        cr0: Cr0::from_bits_retain(context.hw.cr(0)),
        cr3: context.hw.cr(3),
        cr4: Cr4::from_bits_retain(context.hw.cr(4)),
        efer: Efer::from_bits_retain(context.hw.msr(GuestMsr::Efer)),
        phys_bits: domain.phys_bits,
        has_gib_pages: domain.has_gib_pages,
    }
}

/// Where a linear address of the running virtual CPU leads.
pub fn walk<P: before::P2m>(
    cx: &mut Cx<P>,
    domain: &Domain,
    context: &Context,
    at: GuestVirt,
    access: Access,
) -> Result<GuestPhys, Fault> {
    let (mut memory, _) = cx.lock(&domain.memory);
    let mut guest = memory.guest().ok_or(Fault::NonCanonical)?;
    Ok(translate(&mode(domain, context), access, at, |entry, len| guest.word(entry, len))?.gpa)
}

/// As long as it lives, this CPU may use the guest's memory by the guest's own addresses, as it has them mapped now: a PV
/// guest's page tables are in use while its virtual CPU runs. Meanwhile the CPU counts as being in the guest, so that no
/// frame becomes a page table under a translation that lets it be written.
pub struct Window(Visits);

impl Window {
    /// Begins it.
    #[inline]
    pub fn open(run: &Running) -> Self {
        run.here.visits.entering();
        let epoch = flush::epoch(&run.domain);
        if run.context.tlb_epoch.replace(epoch) != epoch {
            machine::pv::forget_translations();
        }
        Self(run.here.visits)
    }
}

impl Drop for Window {
    #[inline]
    fn drop(&mut self) {
        self.0.left();
    }
}

/// Does something in a [`Window`].
#[inline]
pub fn window<R>(run: &Running, f: impl FnOnce() -> R) -> R {
    let _window = Window::open(run);
    f()
}

/// Bytes that a window lasts for.
const AT_ONCE: usize = 4096;

/// Reads a `T` of a few words from a PV guest's memory; `None` for other sizes.
#[inline(always)]
fn read_small<T: FromBytes>(run: &Running, from: u64) -> Option<Result<T, Errno>> {
    let at = GuestVirt::new(from);
    fn value<T: FromBytes, W: IntoBytes + Immutable>(words: Option<W>) -> Result<T, Errno> {
        let words = words.ok_or(Errno::EFAULT)?;
        T::read_from_bytes(words.as_bytes()).map_err(|_| Errno::EFAULT)
    }
    Some(match size_of::<T>() {
        4 => value(window(run, || machine::pv::read_half(at))),
        8 => value(window(run, || machine::pv::read1(at))),
        16 => value(window(run, || machine::pv::read2(at))),
        24 => value(window(run, || machine::pv::read3(at))),
        64 => value(window(run, || machine::pv::read8(at))),
        _ => return None,
    })
}

/// [`copy_in`] for a PV virtual CPU. Nothing of the hole is reached.
#[inline]
pub fn copy_in_pv(run: &Running, from: u64, out: &mut [u8]) -> Result<(), Errno> {
    if !is_guests(from, out.len()) {
        return Err(Errno::EFAULT);
    }
    if out.len() > AT_ONCE {
        return copy_in_long(run, from, out);
    }
    let left = window(run, || machine::pv::copy_from(GuestVirt::new(from), out));
    if left == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Two words of a PV guest's, as [`copy_in_pv`].
#[inline]
pub fn read2(run: &Running, from: u64) -> Result<[u64; 2], Errno> {
    window(run, || machine::pv::read2(GuestVirt::new(from))).ok_or(Errno::EFAULT)
}

/// Three words of a PV guest's, as [`copy_in_pv`].
#[inline]
pub fn read3(run: &Running, from: u64) -> Result<[u64; 3], Errno> {
    window(run, || machine::pv::read3(GuestVirt::new(from))).ok_or(Errno::EFAULT)
}

fn copy_in_long(run: &Running, from: u64, out: &mut [u8]) -> Result<(), Errno> {
    out.chunks_mut(AT_ONCE).zip(0..).try_for_each(|(part, n)| copy_in_pv(run, from + n * AT_ONCE as u64, part))
}

/// [`copy_out`] for a PV virtual CPU. Nothing of the hole is reached.
#[inline]
pub fn copy_out_pv(run: &Running, to: u64, bytes: &[u8]) -> Result<(), Errno> {
    if !is_guests(to, bytes.len()) {
        return Err(Errno::EFAULT);
    }
    if bytes.len() > AT_ONCE {
        return copy_out_long(run, to, bytes);
    }
    let left = window(run, || machine::pv::copy_to(GuestVirt::new(to), bytes));
    if left == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

fn copy_out_long(run: &Running, to: u64, bytes: &[u8]) -> Result<(), Errno> {
    bytes.chunks(AT_ONCE).zip(0..).try_for_each(|(part, n)| copy_out_pv(run, to + n * AT_ONCE as u64, part))
}

/// Copies at most a page from a PV virtual CPU's linear address space, and says how many bytes are left.
pub fn copy_in_part(run: &Running, from: u64, out: &mut [u8]) -> usize {
    if !is_guests(from, out.len()) {
        return out.len();
    }
    window(run, || machine::pv::copy_from(GuestVirt::new(from), out))
}

/// Copies at most a page to it, and says how many bytes are left.
pub fn copy_out_part(run: &Running, to: u64, bytes: &[u8]) -> usize {
    if !is_guests(to, bytes.len()) {
        return bytes.len();
    }
    window(run, || machine::pv::copy_to(GuestVirt::new(to), bytes))
}

/// Copies from the running virtual CPU's linear address space. As for Xen's hypercall arguments, its kernel's rights count.
#[inline]
pub fn copy_in<P: before::P2m>(cx: &mut Cx<P>, run: &Running, from: u64, out: &mut [u8]) -> Result<(), Errno> {
    if run.is_pv() {
        return copy_in_pv(run, from, out);
    }
    copy_in_translated(cx, run, from, out)
}

/// Copies to the running virtual CPU's linear address space.
#[inline]
pub fn copy_out<P: before::P2m>(cx: &mut Cx<P>, run: &Running, to: u64, bytes: &[u8]) -> Result<(), Errno> {
    if run.is_pv() {
        return copy_out_pv(run, to, bytes);
    }
    copy_out_translated(cx, run, to, bytes)
}

fn copy_in_translated<P: before::P2m>(cx: &mut Cx<P>, run: &Running, from: u64, out: &mut [u8]) -> Result<(), Errno> {
    let mode = mode(&run.domain, &run.context);
    let (mut memory, _) = cx.lock(&run.domain.memory);
    let mut guest = memory.guest().ok_or(Errno::EFAULT)?;
    pages(from, out.len(), |at, done, count| {
        let to = translate(&mode, Access::COPY_IN, at, |entry, len| guest.word(entry, len)).ok()?;
        guest.read(to.gpa, &mut out[done..done + count]).then_some(())
    })
}

fn copy_out_translated<P: before::P2m>(cx: &mut Cx<P>, run: &Running, to: u64, bytes: &[u8]) -> Result<(), Errno> {
    let mode = mode(&run.domain, &run.context);
    let (mut memory, _) = cx.lock(&run.domain.memory);
    let mut guest = memory.guest().ok_or(Errno::EFAULT)?;
    pages(to, bytes.len(), |at, done, count| {
        let to = translate(&mode, Access::COPY_OUT, at, |entry, len| guest.word(entry, len)).ok()?;
        guest.write(to.gpa, &bytes[done..done + count]).then_some(())
    })
}

/// Calls `each` with the part of a linear range that lies in one page after the other: where it begins, how many bytes
/// came before it, and how many it has.
#[inline]
fn pages(from: u64, len: usize, mut each: impl FnMut(GuestVirt, usize, usize) -> Option<()>) -> Result<(), Errno> {
    let mut done = 0;
    while done < len {
        let at = GuestVirt::new(from.checked_add(done as u64).ok_or(Errno::EFAULT)?);
        let count = (PAGE - at.offset()).min(len - done);
        each(at, done, count).ok_or(Errno::EFAULT)?;
        done += count;
    }
    Ok(())
}

/// A `T` in the guest's memory: an address, not checked yet.
pub struct GuestPtr<T> {
    address: u64,
    of: PhantomData<T>,
}

impl<T> Clone for GuestPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for GuestPtr<T> {}

impl<T> GuestPtr<T> {
    /// A handle as the guest gave it.
    pub fn new(address: u64) -> Self {
        Self { address, of: PhantomData }
    }

    /// The `index`th of an array that begins here.
    pub fn at(self, index: u64) -> Self {
        let offset = index.wrapping_mul(size_of::<T>() as u64);
        // One that wraps around leads to a non-canonical address or to the guest's own memory: both are its own affair.
        Self::new(self.address.wrapping_add(offset))
    }
}

impl<T> GuestPtr<T> {
    /// Where the byte at an offset is.
    #[inline]
    pub fn field(self, offset: usize) -> u64 {
        self.address.wrapping_add(offset as u64)
    }
}

impl<T: FromBytes + IntoBytes> GuestPtr<T> {
    /// Reads it.
    #[inline]
    pub fn read<P: before::P2m>(self, cx: &mut Cx<P>, run: &Running) -> Result<T, Errno> {
        if run.is_pv()
            && let Some(value) = read_small(run, self.address)
        {
            return value;
        }
        let mut value = T::new_zeroed();
        copy_in(cx, run, self.address, value.as_mut_bytes())?;
        Ok(value)
    }
}

impl<T: IntoBytes + Immutable> GuestPtr<T> {
    /// Writes it.
    #[inline]
    pub fn write<P: before::P2m>(self, cx: &mut Cx<P>, run: &Running, value: &T) -> Result<(), Errno> {
        if size_of::<T>() == 8 && run.is_pv() {
            let Ok(word) = <[u8; 8]>::try_from(value.as_bytes()) else { return Err(Errno::EFAULT) };
            let at = GuestVirt::new(self.address);
            let is_written = window(run, || machine::pv::write1(at, [u64::from_le_bytes(word)]));
            return if is_written { Ok(()) } else { Err(Errno::EFAULT) };
        }
        copy_out(cx, run, self.address, value.as_bytes())
    }
}

/// Reads `len` bytes, at most `limit`.
pub fn read_bytes<P: before::P2m>(cx: &mut Cx<P>, run: &Running, from: u64, len: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(len, 0);
    copy_in(cx, run, from, &mut bytes)?;
    Ok(bytes)
}
