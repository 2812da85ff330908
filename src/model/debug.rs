//! A guest's debug registers, and when the processor has them (SDM 3B 18.2; APM 2 13.1.1).
//!
//! DR0 to DR3 are not switched by the processor, and on VT-x nor is DR6. Few guests use them, so they go in for one that does:
//!
//! ```text
//!          the guest accesses one, or is loaded with a breakpoint on
//!   kept ------------------------------------------------------------> in the processor
//!    ^                                                                        |
//!    +--------------------------- the guest is unloaded ----------------------+
//! ```
//!
//! While they are kept each access exits, and what the processor has is anybody's.

/// DR6 after reset: the bits that are always one.
pub const DR6_RESET: u64 = 0xffff_0ff0;
/// DR7 after reset: no breakpoint is on.
pub const DR7_RESET: u64 = 0x400;

/// The breakpoints in DR6, and what turns them on in DR7.
const BREAKPOINTS: u64 = 0xf;
const ENABLES: u64 = 0xff;

/// Whether a breakpoint is on.
#[inline(always)]
pub fn is_armed(dr7: u64) -> bool {
    dr7 & ENABLES != 0
}

/// DR6 after a debug exception, without the breakpoints that are off: a processor may report those too, by what it has in
/// DR0 to DR3, which may be another guest's.
pub fn reported(dr6: u64, dr7: u64) -> u64 {
    let on = (0..4).filter(|n| dr7 >> (2 * n) & 3 != 0).fold(0, |on, n| on | 1 << n);
    dr6 & (!BREAKPOINTS | on)
}

/// `N` registers that are switched so.
#[derive(Debug)]
pub struct OnDemand<const N: usize> {
    kept: [u64; N],
    is_in: bool,
    /// A breakpoint was on when the guest was unloaded. It cannot turn one on while the registers are kept.
    is_armed: bool,
}

impl<const N: usize> OnDemand<N> {
    /// Kept, with the values after reset.
    pub const fn new(kept: [u64; N]) -> Self {
        Self { kept, is_in: false, is_armed: false }
    }

    /// Whether an access of the guest's is to exit.
    pub fn exits(&self) -> bool {
        !self.is_in && !self.is_armed
    }

    /// Whether the processor has them.
    #[inline(always)]
    pub fn is_in(&self) -> bool {
        self.is_in
    }

    /// The guest is loaded. Gives what goes into the processor.
    #[inline(always)]
    pub fn load(&mut self) -> Option<[u64; N]> {
        if self.is_armed { self.demand() } else { None }
    }

    /// The guest needs them. Gives what goes into the processor, unless they are there.
    pub fn demand(&mut self) -> Option<[u64; N]> {
        (!core::mem::replace(&mut self.is_in, true)).then_some(self.kept)
    }

    /// The guest is unloaded, with these in the processor, and this DR7.
    pub fn unload(&mut self, registers: [u64; N], dr7: u64) {
        *self = Self { kept: registers, is_in: false, is_armed: is_armed(dr7) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a virtual CPU does.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Another takes its turn.
        Switch(usize),
        Write(usize, u64),
        WriteDr7(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..3usize).prop_map(Step::Switch),
            (0..4usize, any::<u64>()).prop_map(|(n, value)| Step::Write(n, value)),
            (0..4u64).prop_map(Step::WriteDr7),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn each_of_several_that_take_turns_has_its_own_registers(steps in steps()) {
            let mut processor = [u64::MAX; 4];
            let mut guests = [const { OnDemand::<4>::new([0; 4]) }; 3];
            let (mut twins, mut dr7, mut me) = ([[0; 4]; 3], [0; 3], 0);
            for step in steps {
                if let Step::Switch(to) = step {
                    if guests[me].is_in() {
                        guests[me].unload(processor, dr7[me]);
                    }
                    me = to;
                    processor = guests[me].load().unwrap_or(processor);
                } else {
                    if guests[me].exits() {
                        processor = guests[me].demand().expect("they are kept");
                    }
                    prop_assert_eq!(processor, twins[me]);
                    match step {
                        Step::Write(n, value) => (processor[n], twins[me][n]) = (value, value),
                        Step::WriteDr7(value) => dr7[me] = value,
                        Step::Switch(_) => {}
                    }
                }
                prop_assert!(!is_armed(dr7[me]) || processor == twins[me]);
            }
        }
    }

    #[test]
    fn they_go_in_once_when_the_guest_needs_them() {
        let mut registers = OnDemand::new([1, 2]);
        assert!(registers.load().is_none() && registers.exits());
        assert_eq!((registers.demand(), registers.demand()), (Some([1, 2]), None));
        assert!(registers.is_in() && !registers.exits());
        registers.unload([3, 4], DR7_RESET);
        assert!(registers.load().is_none() && registers.exits());
    }

    #[test]
    fn with_a_breakpoint_on_they_go_in_at_once() {
        let mut registers = OnDemand::new([0]);
        registers.demand();
        registers.unload([5], DR7_RESET | 2);
        assert!(!registers.exits());
        assert_eq!(registers.load(), Some([5]));
    }

    #[test]
    fn only_a_breakpoint_that_is_on_is_reported() {
        assert_eq!(reported(DR6_RESET | 0x400f, DR7_RESET), DR6_RESET | 0x4000);
        assert_eq!(reported(0x200f, 0b10_00_00_01), 0x2009);
        assert_eq!(reported(0xf, 0xaa), 0xf);
    }
}
