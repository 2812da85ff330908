//! `console_io`: the hypervisor's console, for the domains that were started at boot (`is_console` in Xen).

use abi::errno::Errno;
use abi::xen::{CONSOLEIO_READ, CONSOLEIO_WRITE};
use model::addr::GuestVirt;
use sync::Cx;
use sync::place::Root;

use super::{Answer, Args, Outcome, command};
use crate::console;
use crate::domain::Domain;
use crate::guest_memory::{copy_in, copy_out};
use crate::run::Running;

/// Bytes that one step writes.
const STEP: usize = 64;

/// `CONSOLEIO_*`: `args[0]` the command, `args[1]` the count, `args[2]` the buffer.
pub(super) fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    let count = args[1] & 0xffff_ffff;
    match command(args) {
        CONSOLEIO_WRITE => {
            // The guest tries again until the serial port has caught up. Interrupts are let in each time.
            if !machine::console::has_room() {
                return Ok(Outcome::Again(*args));
            }
            let mut buffer = [0; STEP];
            let now = count.min(STEP as u64);
            let bytes = &mut buffer[..now as usize];
            copy_in(cx, run, args[2], bytes)?;
            console::guest_write(cx, &run.domain, bytes);
            if now == count {
                return Ok(Outcome::DONE);
            }
            Ok(Outcome::Again([args[0], count - now, args[2].wrapping_add(now), args[3], args[4], args[5]]))
        }
        // The result is the count or an error, so that there is a limit.
        CONSOLEIO_READ if count > i32::MAX as u64 => Err(Errno::E2BIG),
        CONSOLEIO_READ => {
            let typed = console::read_input(cx, &run.domain, count as usize);
            copy_out(cx, run, args[2], &typed)?;
            Ok(Outcome::Done(typed.len() as u64))
        }
        _ => Err(Errno::ENOSYS),
    }
}

/// `CONSOLEIO_write` of a running PV virtual CPU within its stay in the guest: without waiting. `None`, and nothing has
/// been done, if more is to be done.
#[inline(never)]
pub fn try_write(domain: &Domain, count: u64, from: u64) -> Option<u64> {
    let count = (count & 0xffff_ffff) as usize;
    machine::pv::with_bytes::<STEP, _>(GuestVirt::new(from), count, |bytes| console::try_write(domain, bytes))??;
    Some(0)
}
