//! Hypercalls by 32-bit code without paging, which is how a PVH guest starts.

use abi::event_channel::{BindIpi, EVTCHNOP_BIND_IPI, EVTCHNOP_SEND, Send};
use abi::hvm_op::{HVMOP_GET_PARAM, HVMOP_SET_PARAM, HvmParam};
use abi::hvm_params::*;
use abi::memory::*;
use abi::sched::{SCHEDOP_POLL, SCHEDOP_YIELD};
use abi::version::*;
use abi::xen::{CONSOLEIO_WRITE, DOMID_SELF, SharedInfo};
use abi::{Errno, nr};
use guest::check::equal;
use guest::hypercall::{self, Ret};
use guest::start::Boot;
use guest::time::{self, MILLISECOND};
use guest::{check, events, mem};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

unsafe extern "C" {
    fn hypercall_32(registers: *mut u32);
}

/// A call by 32-bit code.
fn call(number: u64, args: [u64; 3]) -> u64 {
    let [b, c, d] = args.map(|arg| arg as u32);
    let mut registers = [number as u32, b, c, d, 0, 0, u32::from(hypercall::by_vmmcall())];
    // SAFETY: the guest lies below 4 GiB and is mapped one to one; the arguments are structures of this test's.
    unsafe { hypercall_32(registers.as_mut_ptr()) };
    registers[0].into()
}

fn op<T: FromBytes + IntoBytes>(number: u64, op: u32, arg: &mut T) -> u64 {
    call(number, [op.into(), mem::addr_of_mut(arg), 0])
}

fn error(errno: Errno) -> u64 {
    Ret::err(errno).0 as u64 & 0xffff_ffff
}

/// Runs the test.
pub fn run(boot: &Boot) {
    equal(call(nr::XEN_VERSION, [XENVER_VERSION.into(), 0, 0]), 0x0004_0011, "32-bit code asks for the version");
    equal(call(nr::XEN_VERSION, [XENVER_PAGESIZE.into(), 0, 0]), 4096, "and for the size of a page");
    equal(call(9999, [0; 3]), error(Errno::ENOSYS), "a hypercall of no number is ENOSYS as 32 bits");
    equal(call(nr::SCHED_OP, [SCHEDOP_YIELD.into(), 0, 0]), 0, "32-bit code yields");
    let text = b"(a line by 32-bit code)\n";
    let write = [CONSOLEIO_WRITE.into(), text.len() as u64, text.as_ptr() as u64];
    equal(call(nr::CONSOLE_IO, write), 0, "32-bit code writes on the console");
    let mut info = FeatureInfo { submap_idx: 0, submap: 0 };
    equal(op(nr::XEN_VERSION, XENVER_GET_FEATURES, &mut info), 0, "32-bit code asks for the features");
    check!(mem::read::<[u32; 2]>(mem::addr_of(&info))[1] != 0, "and finds some");
    let mut param = HvmParam { domid: DOMID_SELF, pad: 0, index: HVM_PARAM_CONSOLE_PFN, value: 0 };
    equal(op(nr::HVM_OP, HVMOP_GET_PARAM, &mut param), 0, "32-bit code reads a parameter");
    memory(boot);
    shared_page();
    polls();
    // The layout is that of 64-bit code again.
    check!(events::init() == Ret(0), "64-bit code takes the shared page back");
}

/// `struct compat_memory_map`, `struct compat_add_to_physmap`, `struct compat_sched_poll`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Words<const N: usize>([u32; N]);

static PAGE: mem::Page = mem::Page::new();

fn memory(boot: &Boot) {
    let mut map = Words([64, PAGE.addr() as u32]);
    equal(op(nr::MEMORY_OP, XENMEM_MEMORY_MAP, &mut map), 0, "32-bit code asks for the memory map");
    equal(mem::read::<[u32; 2]>(mem::addr_of(&map))[0].into(), boot.info.memmap_entries.into(), "and gets all of it");
    let entry: E820Entry = mem::read(PAGE.addr());
    let first = boot.memmap().next().map(|entry| entry.size);
    check!(
        first == Some(u64::from(entry.size_high) << 32 | u64::from(entry.size_low)),
        "with the sizes that there are"
    );
    let domain = &mut MemoryDomain { domid: DOMID_SELF };
    check!(op(nr::MEMORY_OP, XENMEM_CURRENT_RESERVATION, domain) > 1000, "32-bit code asks how many pages it has");
    // domid and size, space, idx, gpfn
    let space = XENMAPSPACE_SHARED_INFO;
    let mut add = Words([DOMID_SELF.into(), space, 0, (events::SHARED_INFO >> 12) as u32]);
    equal(op(nr::MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &mut add), 0, "32-bit code maps the shared page");
    let reservation = op(nr::MEMORY_OP, XENMEM_POPULATE_PHYSMAP, &mut Words([0u32; 8]));
    equal(reservation, error(Errno::ENOSYS), "what is not built for 32-bit code is ENOSYS");
}

fn shared_page() {
    let by_vector = HVM_PARAM_CALLBACK_TYPE_VECTOR << HVM_PARAM_CALLBACK_IRQ_TYPE_SHIFT | u64::from(events::VECTOR);
    let mut param = HvmParam { domid: DOMID_SELF, pad: 0, index: HVM_PARAM_CALLBACK_IRQ, value: by_vector };
    let page = events::SHARED_INFO;
    let pending = page + core::mem::offset_of!(SharedInfo, evtchn_pending) as u64;
    let (masks, clock) = (pending + 128, pending + 256);
    (0..32).for_each(|word| mem::poke32(masks + word * 4, !0));
    equal(op(nr::HVM_OP, HVMOP_SET_PARAM, &mut param), 0, "32-bit code sets the callback");
    check!(mem::peek32(clock + 4) != 0, "the time of day is where 32-bit code looks for it");
    let mut bind = BindIpi::new_zeroed();
    equal(op(nr::EVENT_CHANNEL_OP, EVTCHNOP_BIND_IPI, &mut bind), 0, "32-bit code binds a port");
    let port: u32 = mem::read::<[u32; 2]>(mem::addr_of(&bind))[1];
    let (word, bit) = (u64::from(port / 32) * 4, port % 32);
    // The console's port may have raised the upcall before it was masked.
    mem::poke8(page, 0);
    mem::poke32(page + 4, 0);
    let mut send = Send { port };
    equal(op(nr::EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut send), 0, "32-bit code sends to it");
    check!(mem::peek32(pending + word) >> bit & 1 == 1, "the port is pending in its word of 32 bits");
    check!(mem::peek8(page) == 0, "masked in the shorter array, it raises no upcall");
    mem::poke32(pending + word, 0);
    mem::poke32(masks + word, !(1 << bit));
    equal(op(nr::EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut send), 0, "32-bit code sends again");
    check!(mem::peek8(page) == 1, "not masked, it raises the upcall");
    check!(mem::peek32(page + 4) >> (port / 32) & 1 == 1, "and its selector has the word's bit");
    mem::poke32(pending + word, 0);
    mem::poke32(page + 4, 0);
    mem::poke8(page, 0);
    guest::events::close(port);
}

fn polls() {
    let due = time::now() + 3 * MILLISECOND;
    let mut poll = Words([0, 0, due as u32, (due >> 32) as u32]);
    equal(op(nr::SCHED_OP, SCHEDOP_POLL, &mut poll), 0, "32-bit code polls no port");
    check!(time::now() >= due, "until its time has come");
}
