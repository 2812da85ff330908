//! What a worker does, again and again, in an order that its number decides.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{fail, sys};

const READ: u64 = 1;
const WRITE: u64 = 2;
const PRIVATE: u64 = 0x22; // anonymous
const PAGE: u64 = 4096;

/// Numbers without order, the same for the same worker.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Works until the clock shows `end`.
pub fn run(number: u64, end: u64, rounds: &AtomicU64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (number + 1).wrapping_mul(0x1234_5678_9abc_def1));
    while sys::seconds() < end {
        match random.below(9) {
            0 => grow_and_shrink(&mut random),
            1 => protect(&mut random),
            2 => copy_on_write(&mut random),
            3 => file(number, &mut random),
            4 => pipe(&mut random),
            5 => far_apart(&mut random),
            6 => punished(&mut random),
            7 => program(),
            _ => registers(&mut random),
        }
        rounds.fetch_add(1, Relaxed);
    }
}

fn map(pages: u64) -> u64 {
    let address = sys::mmap(0, pages * PAGE, READ | WRITE, PRIVATE, !0, 0);
    if !sys::is_ok(address) {
        fail("memory can be mapped");
    }
    address as u64
}

fn put(address: u64, value: u64) {
    // SAFETY: the callers' mappings, reached by this alone.
    unsafe { core::ptr::write_volatile(address as *mut u64, value) }
}

fn get(address: u64) -> u64 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(address as *const u64) }
}

/// Writes a word to each page that tells its number.
fn fill(address: u64, pages: u64, seed: u64) {
    (0..pages).for_each(|i| put(address + i * PAGE + i % 512 * 8, seed ^ i));
}

fn verify(address: u64, pages: u64, seed: u64, what: &str) {
    if (0..pages).any(|i| get(address + i * PAGE + i % 512 * 8) != seed ^ i) {
        fail(what);
    }
}

fn grow_and_shrink(random: &mut Random) {
    let (pages, seed) = (1 + random.below(200), random.next());
    let mut address = map(pages);
    fill(address, pages, seed);
    let more = pages + 1 + random.below(600);
    let moved = sys::mremap(address, pages * PAGE, more * PAGE, 1);
    if !sys::is_ok(moved) {
        fail("a mapping can grow and move");
    }
    address = moved as u64;
    verify(address, pages, seed, "a mapping that moved has its content");
    if get(address + (more - 1) * PAGE) != 0 {
        fail("new memory is clear");
    }
    fill(address, more, seed);
    let keep = 1 + random.below(more);
    sys::munmap(address + keep * PAGE, (more - keep) * PAGE);
    verify(address, keep, seed, "what is kept of a mapping has its content");
    sys::madvise(address, keep * PAGE, 4); // MADV_DONTNEED
    if (0..keep).any(|i| get(address + i * PAGE + i % 512 * 8) != 0) {
        fail("memory that was given up is clear");
    }
    sys::munmap(address, keep * PAGE);
}

fn protect(random: &mut Random) {
    let (pages, seed) = (4 + random.below(100), random.next());
    let address = map(pages);
    fill(address, pages, seed);
    for _ in 0..8 {
        let first = random.below(pages);
        let count = 1 + random.below(pages - first);
        let prot = [0, READ, READ | WRITE][random.below(3) as usize];
        if sys::mprotect(address + first * PAGE, count * PAGE, prot) != 0 {
            fail("a mapping can be protected");
        }
    }
    sys::mprotect(address, pages * PAGE, READ);
    verify(address, pages, seed, "a protected mapping has its content");
    sys::mprotect(address, pages * PAGE, READ | WRITE);
    fill(address, pages, !seed);
    verify(address, pages, !seed, "a mapping that was protected can be written");
    sys::munmap(address, pages * PAGE);
}

fn child_of(what: &str) -> bool {
    match sys::fork() {
        0 => true,
        child if child > 0 => false,
        _ => fail(what),
    }
}

/// Waits for one child and gives its status.
fn waited() -> u32 {
    let mut status = !0u32;
    if sys::wait4(!0, core::ptr::from_mut(&mut status) as u64, 0, 0) < 0 {
        fail("a child can be waited for");
    }
    // SAFETY: the kernel has written it.
    unsafe { core::ptr::read_volatile(&status) }
}

fn copy_on_write(random: &mut Random) {
    let (pages, seed) = (16 + random.below(300), random.next());
    let address = map(pages);
    fill(address, pages, seed);
    if child_of("a process can fork") {
        verify(address, pages, seed, "a child has its parent's memory");
        fill(address, pages, !seed);
        if random.below(4) == 0 && child_of("a child can fork") {
            verify(address, pages, !seed, "a grandchild has the child's memory");
            sys::exit(0);
        }
        verify(address, pages, !seed, "a child has what it wrote");
        sys::exit(0);
    }
    fill(address, pages / 2, seed ^ 0x5555);
    verify(address, pages / 2, seed ^ 0x5555, "a parent has what it wrote");
    if waited() != 0 {
        fail("a child ends well");
    }
    let upper = pages / 2;
    if (upper..pages).any(|i| get(address + i * PAGE + i % 512 * 8) != seed ^ i) {
        fail("a parent's memory is its own");
    }
    sys::munmap(address, pages * PAGE);
}

fn file(number: u64, random: &mut Random) {
    let mut path = *b"/tmp/stress.00\0";
    path[12] = b'0' + (number / 10 % 10) as u8;
    path[13] = b'0' + (number % 10) as u8;
    let name = path.as_ptr() as u64;
    let fd = sys::open(name, 0o102 | 0o1000, 0o600); // read and write, create, truncate
    if fd < 0 {
        fail("a file can be created");
    }
    let (fd, pages, seed) = (fd as u64, 1 + random.below(64), random.next());
    sys::ftruncate(fd, pages * PAGE);
    let address = sys::mmap(0, pages * PAGE, READ | WRITE, 1, fd, 0);
    if !sys::is_ok(address) {
        fail("a file can be mapped");
    }
    let address = address as u64;
    fill(address, pages, seed);
    for i in 0..pages {
        let mut word = 0u64;
        sys::pread(fd, core::ptr::from_mut(&mut word) as u64, 8, i * PAGE + i % 512 * 8);
        // SAFETY: the kernel has written it.
        if unsafe { core::ptr::read_volatile(&word) } != seed ^ i {
            fail("a file has what its mapping was given");
        }
        let word = !seed ^ i;
        sys::pwrite(fd, core::ptr::from_ref(&word) as u64, 8, i * PAGE + i % 512 * 8);
    }
    verify(address, pages, !seed, "a mapping has what its file was given");
    if child_of("a process can fork") {
        fill(address, pages, seed);
        sys::exit(0);
    }
    waited();
    verify(address, pages, seed, "a shared mapping has what a child wrote");
    sys::msync(address, pages * PAGE, 4);
    sys::munmap(address, pages * PAGE);
    sys::close(fd);
    sys::unlink(name);
}

fn pipe(random: &mut Random) {
    let mut fds = [0u32; 2];
    if sys::pipe(fds.as_mut_ptr() as u64) != 0 {
        fail("a pipe can be had");
    }
    // SAFETY: the kernel has written them.
    let fds = fds.each_ref().map(|fd| u64::from(unsafe { core::ptr::read_volatile(fd) }));
    let (count, seed) = (1 + random.below(200), random.next());
    if child_of("a process can fork") {
        for i in 0..count {
            let word = seed ^ i;
            sys::write(fds[1], core::ptr::from_ref(&word) as u64, 8);
        }
        sys::exit(0);
    }
    for i in 0..count {
        let mut word = 0u64;
        let read = sys::read(fds[0], core::ptr::from_mut(&mut word) as u64, 8);
        // SAFETY: the kernel has written it.
        if read != 8 || unsafe { core::ptr::read_volatile(&word) } != seed ^ i {
            fail("a pipe gives what was written");
        }
    }
    waited();
    sys::close(fds[0]);
    sys::close(fds[1]);
}

/// Pages far from each other, each with page tables of its own.
fn far_apart(random: &mut Random) {
    let base = 0x1000_0000_0000 + random.below(1 << 16) * 0x4000_0000;
    for i in 0..8 {
        let wanted = base + i * 0x4020_1000;
        let address = sys::mmap(wanted, PAGE, READ | WRITE, PRIVATE | 0x10, !0, 0); // at this address
        if address as u64 != wanted {
            fail("a page can be mapped anywhere");
        }
        put(wanted, wanted);
    }
    sys::sched_yield();
    for i in 0..8 {
        let address = base + i * 0x4020_1000;
        if get(address) != address {
            fail("a page far away has its content");
        }
        sys::munmap(address, PAGE);
    }
}

/// A child that writes where it must not is killed for it.
fn punished(random: &mut Random) {
    let address = map(1);
    put(address, 7);
    sys::mprotect(address, PAGE, READ);
    let bad = [address, 0, 0xffff_8000_0000_0000, 0xffff_ffff_8100_0000][random.below(4) as usize];
    if child_of("a process can fork") {
        put(bad, 1);
        sys::exit(0);
    }
    if waited() & 0x7f != 11 {
        fail("a process that writes where it must not gets SIGSEGV");
    }
    if get(address) != 7 {
        fail("a read-only page is as it was");
    }
    sys::munmap(address, PAGE);
}

/// A child becomes another program.
fn program() {
    if child_of("a process can fork") {
        let (name, argument) = (b"/bin/busybox\0", b"true\0");
        let argv = [argument.as_ptr() as u64, 0];
        sys::execve(name.as_ptr() as u64, argv.as_ptr() as u64, core::ptr::from_ref(&argv[1]) as u64);
        sys::exit(9);
    }
    if waited() != 0 {
        fail("a program can be executed");
    }
}

/// Vector and general registers survive what the kernel and others do meanwhile.
fn registers(random: &mut Random) {
    let seed = random.next();
    for i in 0..50 {
        let (low, other): (u64, u64);
        // SAFETY: SYSCALL keeps all but RAX, RCX and R11; this program's own code uses no vector registers.
        unsafe {
            asm!("movq xmm7, {seed}", "movq xmm15, {seed}", "mov eax, 24", "syscall", "movq {low}, xmm7",
                "movq {other}, xmm15", seed = in(reg) seed ^ i, low = out(reg) low, other = out(reg) other, out("rax") _,
                out("rcx") _, out("r11") _);
        }
        if low != seed ^ i || other != seed ^ i {
            fail("a vector register keeps its value");
        }
    }
}
