//! Linux's system calls, by number (`arch/x86/entry/syscalls/syscall_64.tbl`).

use core::arch::asm;

/// A system call; an error is negative.
pub fn call(number: u64, args: [u64; 6]) -> i64 {
    let ret: i64;
    // SAFETY: the callers pass addresses that are theirs, or that they mean to be bad.
    unsafe {
        asm!("syscall", inout("rax") number => ret, in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5], out("rcx") _, out("r11") _);
    }
    ret
}

macro_rules! calls {
    ($($name:ident($($arg:ident),*) = $number:literal;)*) => {
        $(
            /// The system call of this name.
            pub fn $name($($arg: u64),*) -> i64 {
                let given = [$($arg),*];
                let mut args = [0; 6];
                args[..given.len()].copy_from_slice(&given);
                call($number, args)
            }
        )*
    };
}

calls! {
    read(fd, buffer, count) = 0;
    write(fd, buffer, count) = 1;
    open(path, flags, mode) = 2;
    close(fd) = 3;
    mmap(addr, length, prot, flags, fd, offset) = 9;
    mprotect(addr, length, prot) = 10;
    munmap(addr, length) = 11;
    pread(fd, buffer, count, offset) = 17;
    pwrite(fd, buffer, count, offset) = 18;
    pipe(fds) = 22;
    mremap(addr, old, new, flags) = 25;
    msync(addr, length, flags) = 26;
    madvise(addr, length, advice) = 28;
    execve(path, argv, envp) = 59;
    exit(code) = 60;
    wait4(pid, status, options, usage) = 61;
    ftruncate(fd, length) = 77;
    unlink(path) = 87;
}

/// `fork`: the child's number, or zero in the child.
pub fn fork() -> i64 {
    call(57, [0; 6])
}

/// `sched_yield`.
pub fn sched_yield() -> i64 {
    call(24, [0; 6])
}

/// Seconds of the monotonic clock.
pub fn seconds() -> u64 {
    let mut time = [0u64; 2];
    call(228, [1, time.as_mut_ptr() as u64, 0, 0, 0, 0]);
    // SAFETY: the kernel has written it.
    unsafe { core::ptr::read_volatile(&time[0]) }
}

/// A file's descriptor may be used, a mapping's address be read.
pub fn is_ok(ret: i64) -> bool {
    !(-4095..0).contains(&ret)
}
