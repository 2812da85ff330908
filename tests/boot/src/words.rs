//! What the hypervisor writes on the serial port, as far as the tests rely on it.
//!
//! The one place to change when a message or a prefix changes.

/// Who wrote a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The hypervisor itself.
    Host,
    /// The domain of this name.
    Domain(String),
}

/// The name that stands for the hypervisor in a line's prefix.
pub const HOST: &str = "euxen";

/// Splits a line `(name) text` into who wrote it and what.
///
/// A line without a prefix, as firmware and GRUB write them, has no speaker.
pub fn split(line: &str) -> (Option<Speaker>, &str) {
    let prefixed = line.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    match prefixed {
        Some((HOST, text)) => (Some(Speaker::Host), text.trim_start()),
        Some((name, text)) if is_name(name) => (Some(Speaker::Domain(name.into())), text.trim_start()),
        _ => (None, line),
    }
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Text in a line of the hypervisor's that no test may show unless it asks for it.
pub const HOST_DISASTERS: &[&str] = &["PANIC", "error: "];

/// The hypervisor's line when it has nothing more to do: a test that still waits waits in vain.
pub const NOTHING_LEFT: &str = "(euxen) no domain is left";

/// Text in a guest's line that no test may show unless it asks for it.
pub const GUEST_DISASTERS: &[&str] =
    &["Kernel panic", "BUG: ", "Oops: ", "soft lockup", "GUEST-FAIL", "rcu_sched self-detected"];

/// The hypervisor's line on a domain that has ended for this reason.
pub fn ended(domain: &str, reason: &str) -> String {
    format!("({domain}) * ended: * {reason}")
}

/// Why a domain ended that asked for the power to go.
pub const POWERED_OFF: &str = "powered off";
/// Why one ended that asked to start again.
pub const REBOOTED: &str = "asked for a reboot";
/// Why one ended that reported its own crash.
pub const CRASHED: &str = "reported its own crash";
/// Why one ended that set a watchdog and did not pat it.
pub const WATCHDOG: &str = "was ended by its watchdog";
/// Why one ended that had an exception without a handler.
pub const TRIPLE_FAULT: &str = "triple fault";
/// Why one ended that jumped to where it has no memory.
pub const WILD_JUMP: &str = "executed at guest-physical";

/// Why a PV one ended whose fault has no handler.
pub const NO_TRAP: &str = "for which its trap table has no handler";
/// Why one ended whose kernel's stack cannot be written.
pub const NO_STACK: &str = "a frame cannot be written to its kernel's stack";
/// Why one ended whose IRET hypercall has no frame.
pub const NO_FRAME: &str = "IRET with a frame at";
/// Why one ended that returned to a user mode without page tables.
pub const NO_USER_TABLES: &str = "IRET to user mode, which has no page tables";

/// The hypervisor's line on a domain that it starts once more.
pub fn starts_again(domain: &str) -> String {
    format!("({domain}) starts again")
}

/// The hypervisor's line on a domain that it cannot start.
pub fn refused(domain: &str, reason: &str) -> String {
    format!("({domain}) is not started: {reason}")
}

/// What the hypervisor says when all of a domain is gone.
pub const DESTROYED: &str = "is destroyed";

/// The hypervisor's line when all of this domain is gone.
pub fn destroyed(domain: &str) -> String {
    format!("({domain}) {DESTROYED}")
}

/// The hypervisor's line before it makes a domain, the number of free KiB at `#`.
pub const FREE_BEFORE: &str = "# KiB free before the first domain";

/// The hypervisor's line when all of this domain is gone, the number of free KiB at `#`.
pub fn free_after(domain: &str) -> String {
    format!("({domain}) {DESTROYED}; # KiB free")
}

/// The hypervisor's line when the input goes to this domain.
pub fn input_to(domain: &str) -> String {
    format!("Serial input to ({domain})")
}

/// The hypervisor's line when it gets the input itself.
pub const INPUT_TO_HOST: &str = "Serial input to Euxen";

/// The hypervisor's line on how idle CPUs sleep, which is `how`.
pub fn idle_by(how: &str) -> String {
    format!("idle CPUs sleep by {how}")
}

/// MWAIT, as all went well when two CPUs tried it.
pub const MWAIT_WORKS: &str = "MWAIT: another CPU's write ended it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_belongs_to_whom_its_prefix_names() {
        assert_eq!(split("(euxen) hello"), (Some(Speaker::Host), "hello"));
        assert_eq!(split("(web) [    0.0] x"), (Some(Speaker::Domain("web".into())), "[    0.0] x"));
    }

    #[test]
    fn a_line_of_the_firmware_belongs_to_nobody() {
        assert_eq!(split("Booting (first try) now"), (None, "Booting (first try) now"));
        assert_eq!(split("(not a name) x"), (None, "(not a name) x"));
    }
}
