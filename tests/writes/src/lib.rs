//! A plugin of QEMU that notes which words the hypervisor writes while a guest does one operation again and again.
//!
//! The guest says by a mark, a certain no-operation and a store behind it, which operation begins or that one ends: the number is
//! in the last six bits of the store's address. Each store of the hypervisor's by a CPU that is within an operation is counted by
//! its address. When all CPUs have come to the last mark all is written to the file `out=`, a line a word: operation, address, how
//! often each CPU has stored there, how often atomically, and the last instruction that did. Stores of the processor itself, as VMRUN's, are
//! not seen. The interface is that of `qemu-plugin.h` of QEMU 10.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

/// The version of the interface.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 4;

#[repr(C)]
struct Block([u8; 0]);
#[repr(C)]
struct Instruction([u8; 0]);

type OnBlock = extern "C" fn(u64, *mut Block);
type OnMemory = extern "C" fn(c_uint, u32, u64, *mut c_void);

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, on: OnBlock);
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    fn qemu_plugin_insn_data(instruction: *const Instruction, bytes: *mut c_void, len: usize) -> usize;
    fn qemu_plugin_register_vcpu_mem_cb(at: *mut Instruction, on: OnMemory, flags: c_int, rw: c_int, data: *mut c_void);
}

const NO_REGISTERS: c_int = 0;
const STORES: c_int = 2;

/// `nop dword ptr [rax + 0x4e585545]`, before the store that is the mark.
const MARK: [u8; 7] = [0x0f, 0x1f, 0x80, b'E', b'U', b'X', b'N'];
/// No operation, and the end of all.
const NONE: u64 = 0;
const LAST: u64 = 63;

/// The hypervisor's half of the address space.
const HALF: u64 = 0xffff_8000_0000_0000;
/// Set in an instruction's address whose store is not atomic; all of those of the hypervisor have the bit set.
const PLAIN: u64 = 1 << 63;

const CPUS: usize = 8;
static NOW: [AtomicU64; CPUS] = [const { AtomicU64::new(NONE) }; CPUS];
static WANTED: AtomicUsize = AtomicUsize::new(1);
static ENDED: AtomicUsize = AtomicUsize::new(0);
static WORDS: Mutex<Option<HashMap<(u64, u64), Word>>> = Mutex::new(None);
static OUT: Mutex<String> = Mutex::new(String::new());

#[derive(Default)]
struct Word {
    stores: [u64; CPUS],
    atomic: u64,
    by: u64,
}

/// QEMU calls this first: `out=FILE`, `cpus=N`.
///
/// # Safety
/// The arguments are as many strings as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    for index in 0..argc as usize {
        // SAFETY: QEMU gives this many strings.
        let text = unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy();
        match text.split_once('=') {
            Some(("out", path)) => *OUT.lock().expect("no panic") = path.to_string(),
            Some(("cpus", cpus)) => WANTED.store(cpus.parse().unwrap_or(1), SeqCst),
            _ => return -1,
        }
    }
    *WORDS.lock().expect("no panic") = Some(HashMap::new());
    // SAFETY: the function has the type that is wanted.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}

fn bytes(instruction: *const Instruction) -> ([u8; 15], usize) {
    let mut bytes = [0; 15];
    // SAFETY: QEMU writes as many bytes as there is room.
    let len = unsafe { qemu_plugin_insn_data(instruction, bytes.as_mut_ptr().cast(), bytes.len()) };
    (bytes, len.min(15))
}

/// LOCK before the opcode, or XCHG, which needs none.
fn is_atomic(bytes: &[u8]) -> bool {
    let is_prefix = |byte: &&u8| {
        matches!(**byte, 0x66 | 0x67 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65 | 0x40..=0x4f | 0xf0 | 0xf2 | 0xf3)
    };
    let prefixes = bytes.iter().take_while(is_prefix).count();
    bytes[..prefixes].contains(&0xf0) || matches!(bytes.get(prefixes), Some(0x86 | 0x87))
}

extern "C" fn translated(_id: u64, block: *mut Block) {
    let mut is_mark = false;
    // SAFETY: the block and its instructions are QEMU's, for as long as this runs.
    for index in 0..unsafe { qemu_plugin_tb_n_insns(block) } {
        // SAFETY: as above.
        let at = unsafe { qemu_plugin_tb_get_insn(block, index) };
        // SAFETY: as above.
        let address = unsafe { qemu_plugin_insn_vaddr(at) };
        let (bytes, len) = bytes(at);
        if is_mark {
            // SAFETY: the function has the type that is wanted.
            unsafe { qemu_plugin_register_vcpu_mem_cb(at, marked, NO_REGISTERS, STORES, std::ptr::null_mut()) };
        } else if address >= HALF {
            let data = if is_atomic(&bytes[..len]) { address & !PLAIN } else { address };
            // SAFETY: the function has the type that is wanted; the data is a number to it.
            unsafe { qemu_plugin_register_vcpu_mem_cb(at, stored, NO_REGISTERS, STORES, data as *mut c_void) };
        }
        is_mark = address < HALF && bytes[..len] == MARK;
    }
}

extern "C" fn stored(cpu: c_uint, _info: u32, address: u64, by: *mut c_void) {
    let operation = NOW[cpu as usize % CPUS].load(SeqCst);
    if operation == NONE {
        return;
    }
    let mut words = WORDS.lock().expect("no panic");
    let Some(words) = words.as_mut() else { return };
    let word = words.entry((operation, address)).or_default();
    word.stores[cpu as usize % CPUS] += 1;
    word.atomic += u64::from(by as u64 & PLAIN == 0);
    word.by = by as u64 | PLAIN;
}

extern "C" fn marked(cpu: c_uint, _info: u32, address: u64, _: *mut c_void) {
    let mark = address % 64;
    NOW[cpu as usize % CPUS].store(if mark == LAST { NONE } else { mark }, SeqCst);
    if mark == LAST && ENDED.fetch_add(1, SeqCst) + 1 == WANTED.load(SeqCst) {
        write();
    }
}

fn write() {
    let mut text = String::new();
    for ((operation, address), word) in WORDS.lock().expect("no panic").take().into_iter().flatten() {
        let [first, second, ..] = word.stores;
        let _ = writeln!(text, "{operation} {address:x} {first} {second} {} {:x}", word.atomic, word.by);
    }
    if let Err(error) = std::fs::write(&*OUT.lock().expect("no panic"), text) {
        eprintln!("the words cannot be written: {error}");
    }
}
