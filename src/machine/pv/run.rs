//! One stay in the guest, and why it ended.

use core::arch::asm;

use model::pv::frame::PvRegs;
use model::regs::{Regs, vector};

use super::{Vcpu, entry};
use crate::cpu::trap;
use crate::exit::Exit;
use crate::{irq, panic};

/// Vectors below 32 with an error code (SDM 3A table 6-1; APM 2 table 8-1).
const WITH_ERROR: u32 = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 3 << 29;

/// Does what it can for a guest between two entries. While it answers `None` the guest goes on.
pub trait Attendant {
    /// What follows when the guest does not go on.
    type Then;
    /// The guest is about to be entered.
    fn before(&mut self, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>) -> Option<Self::Then>;
    /// The guest has left.
    fn left(&mut self, vcpu: &mut Vcpu, regs: PvRegs<'_>) -> Option<Self::Then>;
}

impl Vcpu {
    /// [`crate::virt::Virt::run`].
    #[inline]
    pub(super) fn run_here(&mut self, regs: &mut Regs) -> Exit {
        if core::ptr::from_mut(regs) as u64 != self.ready {
            return self.run_slowly(regs);
        }
        self.enter(&mut PvRegs::new(regs));
        self.decode(regs)
    }

    /// Runs the guest until `attendant` says what follows. What it left for is in [`Regs::vector`]: the vector of an exception
    /// or interrupt, or one of [`super::cause`]; [`Vcpu::exit`] tells it. `Err` if that has been told already.
    #[inline(always)]
    pub fn run_with<A: Attendant>(&mut self, regs: &mut Regs, mut attendant: A) -> Result<A::Then, Exit> {
        if core::ptr::from_mut(regs) as u64 != self.ready {
            return self.run_with_slowly(regs, attendant);
        }
        let mut regs = PvRegs::new(regs);
        loop {
            if let Some(then) = attendant.before(self, &mut regs) {
                return Ok(then);
            }
            self.enter(&mut regs);
            if let Some(then) = attendant.left(self, regs.reborrow()) {
                return Ok(then);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn run_with_slowly<A: Attendant>(&mut self, regs: &mut Regs, mut attendant: A) -> Result<A::Then, Exit> {
        match attendant.before(self, &mut PvRegs::new(regs)) {
            Some(then) => Ok(then),
            None => Err(self.run_slowly(regs)),
        }
    }

    /// What the guest left for, after [`Vcpu::run_with`]; asked for once.
    #[inline]
    pub fn exit(&mut self, regs: &Regs) -> Exit {
        self.decode(regs)
    }

    /// The address of the page fault for which the guest left, before any other can have come.
    #[inline]
    pub fn fault_address(&mut self) -> u64 {
        // SAFETY: reading CR2 changes nothing; no fault of the hypervisor's has come since.
        unsafe { asm!("mov {0}, cr2", out(reg) self.state.cr2, options(nomem, nostack, preserves_flags)) };
        self.state.cr2
    }

    /// Puts it back, after a fault of the hypervisor's own.
    #[cold]
    pub fn put_fault_address_back(&self) {
        // SAFETY: CR2 steers nothing.
        unsafe { asm!("mov cr2, {0}", in(reg) self.state.cr2, options(nomem, nostack, preserves_flags)) };
    }

    /// The guest runs, and leaves.
    #[inline(always)]
    fn enter(&self, regs: &mut PvRegs<'_>) {
        // SAFETY: the callers have seen that the virtual CPU is live, and that these are its registers; their type says that
        // a guest may run with them.
        unsafe {
            if self.enters_by_frame {
                entry::enter_by_frame(regs.as_mut_ptr(), self.frame);
            } else {
                entry::enter(regs.as_mut_ptr(), self.frame);
            }
        }
    }

    /// With breakpoints, or not at all.
    #[cold]
    #[inline(never)]
    fn run_slowly(&mut self, regs: &mut Regs) -> Exit {
        assert!(self.loaded.is_some(), "the virtual CPU is not loaded");
        if !self.is_live {
            return Exit::EntryFailed { code: 0, info: 0 };
        }
        assert!(
            core::ptr::from_mut(regs) as u64 == self.regs,
            "a virtual CPU runs with the registers that it was made with"
        );
        self.arm();
        self.enter(&mut PvRegs::new(regs));
        self.disarm();
        self.decode(regs)
    }

    /// What the guest left for.
    #[inline(always)]
    fn decode(&mut self, regs: &Regs) -> Exit {
        match regs.vector {
            entry::SYSCALL if self.is_kernel => Exit::Hypercall { len: Some(0) },
            entry::SYSCALL => Exit::UserSyscall { is_compat: false },
            other => self.decode_other(other, regs.error as u32),
        }
    }

    fn decode_other(&mut self, cause: u64, error: u32) -> Exit {
        let number = cause as u8;
        match cause {
            entry::SYSCALL_COMPAT => Exit::UserSyscall { is_compat: true },
            entry::SYSENTER => Exit::Sysenter,
            _ if cause & trap::IRET_FAULT != 0 => {
                self.note_fault(number);
                Exit::IretFault { vector: number, error }
            }
            _ => match number {
                vector::NMI => {
                    panic::on_nmi();
                    entry::end_nmi();
                    Exit::Host
                }
                vector::MC => panic!("a machine check while a guest ran"),
                trap::SOFT_INTERRUPT => Exit::SoftInterrupt(number),
                0..=31 => {
                    self.note_fault(number);
                    let has_error = WITH_ERROR >> number & 1 != 0;
                    Exit::Exception { vector: number, error: has_error.then_some(error) }
                }
                _ => {
                    irq::dispatch(number);
                    Exit::Host
                }
            },
        }
    }

    /// Keeps what an exception leaves in other registers.
    fn note_fault(&mut self, number: u8) {
        match number {
            vector::PF => {
                self.fault_address();
            }
            vector::DB => self.state.take_dr6(),
            _ => {}
        }
    }
}
