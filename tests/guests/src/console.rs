//! The console: lines go to Xen's console ring, or to port 0xE9 where there is none.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*, fence};

use abi::console::XenconsInterface;
use abi::hvm_params::{HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN};
use abi::{event_channel, nr, xen};

use crate::{cpu, hypercall, mem, pv, start};

/// The ring's address; zero while there is none.
static RING: AtomicU64 = AtomicU64::new(0);
static PORT: AtomicU32 = AtomicU32::new(0);
static BY_HYPERCALL: AtomicBool = AtomicBool::new(false);
static BUSY: AtomicBool = AtomicBool::new(false);

/// How often a full ring is looked at before its text is dropped.
const PATIENCE: u32 = 1_000_000;

const OUTPUT: u64 = core::mem::offset_of!(XenconsInterface, output) as u64;
const OUT_CONS: u64 = core::mem::offset_of!(XenconsInterface, out_cons) as u64;
const OUT_PROD: u64 = core::mem::offset_of!(XenconsInterface, out_prod) as u64;
const SIZE: u32 = 2048;

/// Finds the ring. The word `e9` on the command line leaves it alone.
pub fn init(boot: &start::Boot) {
    if let Some(info) = &boot.pv {
        if !pv::is_initial() && info.console_mfn != 0 {
            PORT.store(info.console_evtchn, Relaxed);
            RING.store(pv::m2p(info.console_mfn) << 12, Relaxed);
        }
        return;
    }
    if hypercall::cpuid_base().is_none() || boot.has("e9") {
        return;
    }
    let (Ok(pfn), Ok(port)) =
        (hypercall::get_param(HVM_PARAM_CONSOLE_PFN), hypercall::get_param(HVM_PARAM_CONSOLE_EVTCHN))
    else {
        return by_hypercall_if_allowed();
    };
    if (1..1 << 20).contains(&pfn) {
        PORT.store(port as u32, Relaxed);
        RING.store(pfn << 12, Relaxed);
    } else {
        by_hypercall_if_allowed();
    }
}

/// A PVH initial domain of Xen's has no ring.
fn by_hypercall_if_allowed() {
    BY_HYPERCALL.store(by_hypercall(b"") == hypercall::Ret(0), Relaxed);
}

/// The ring's address and port, if there is one.
pub fn ring() -> Option<(u64, u32)> {
    let ring = RING.load(Relaxed);
    (ring != 0).then(|| (ring, PORT.load(Relaxed)))
}

/// Waits until the other side has taken all, for a while.
pub fn drain() {
    let Some((ring, _)) = ring() else { return };
    for _ in 0..PATIENCE {
        if mem::peek32(ring + OUT_CONS) == mem::peek32(ring + OUT_PROD) {
            return;
        }
        hypercall::yield_cpu();
    }
}

/// From now on lines go to port 0xE9: the ring's port is about to be closed.
pub fn leave_ring() {
    drain();
    RING.store(0, Relaxed);
}

fn notify(port: u32) {
    hypercall::op(nr::EVENT_CHANNEL_OP, event_channel::EVTCHNOP_SEND, &mut event_channel::Send { port });
}

fn write_ring(ring: u64, port: u32, bytes: &[u8]) {
    let mut produced = mem::peek32(ring + OUT_PROD);
    for byte in bytes {
        let mut patience = PATIENCE;
        while produced.wrapping_sub(mem::peek32(ring + OUT_CONS)) >= SIZE {
            mem::poke32(ring + OUT_PROD, produced);
            if patience == PATIENCE {
                notify(port);
            }
            patience -= 1;
            if patience == 0 {
                return;
            }
            hypercall::yield_cpu();
        }
        mem::poke8(ring + OUTPUT + u64::from(produced % SIZE), *byte);
        produced = produced.wrapping_add(1);
    }
    fence(Release);
    mem::poke32(ring + OUT_PROD, produced);
    notify(port);
}

/// `CONSOLEIO_write`.
pub fn by_hypercall(bytes: &[u8]) -> hypercall::Ret {
    let args = [xen::CONSOLEIO_WRITE.into(), bytes.len() as u64, bytes.as_ptr() as u64, 0, 0];
    hypercall::call(nr::CONSOLE_IO, args)
}

struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let taken = text.len().min(room);
        self.bytes[self.len..self.len + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.len += taken;
        Ok(())
    }
}

/// Prints one line, at most 512 bytes of it; for [`crate::println!`].
pub fn print(args: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 512], len: 0 };
    let _ = line.write_fmt(args);
    line.len = line.len.min(line.bytes.len() - 1);
    let _ = line.write_str("\n");
    let bytes = &line.bytes[..line.len];
    while BUSY.swap(true, Acquire) {
        cpu::pause();
    }
    match ring() {
        Some((ring, port)) => write_ring(ring, port, bytes),
        None if pv::is_pv() || BY_HYPERCALL.load(Relaxed) => {
            by_hypercall(bytes);
        }
        None => bytes.iter().for_each(|byte| cpu::outb(xen::XEN_HVM_DEBUGCONS_IOPORT, *byte)),
    }
    BUSY.store(false, Release);
}

/// Prints a line on the console.
#[macro_export]
macro_rules! println {
    ($($args:tt)*) => {
        $crate::console::print(format_args!($($args)*))
    };
}
