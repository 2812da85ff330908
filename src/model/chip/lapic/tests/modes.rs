//! Off, software-disabled, INIT, and the pins.

use super::*;

#[test]
fn a_software_disabled_apic_drops_interrupts_and_keeps_its_lvt_masked() {
    let mut apic = lapic(0);
    assert_eq!(apic.accept(0x41, Trigger::Edge), Wakeup::None);
    assert_eq!(apic.highest_pending(), None);
    put(&mut apic, 0x320, 0x41);
    assert_eq!(get(&mut apic, 0x320), 0x10041);
    put(&mut apic, 0xf0, 0x1ff);
    put(&mut apic, 0x320, 0x41);
    assert_eq!(get(&mut apic, 0x320), 0x41);
    apic.accept(0x41, Trigger::Edge);
    put(&mut apic, 0xf0, 0xff);
    assert_eq!(get(&mut apic, 0x320), 0x10041);
    assert_eq!(apic.highest_pending(), Some(0x41), "what was pending stays");
}

#[test]
fn a_software_disabled_apic_still_takes_init_startup_and_nmi() {
    let mut apic = lapic(0);
    let message = |mode, vector| Message { mode, vector, trigger: Trigger::Edge };
    assert_eq!(apic.deliver(message(DeliveryMode::NMI, 0)), Wakeup::Nmi);
    assert_eq!(apic.deliver(message(DeliveryMode::INIT, 0)), Wakeup::Init);
    assert_eq!(apic.deliver(message(DeliveryMode::STARTUP, 0x9a)), Wakeup::Startup(0x9a));
    assert_eq!(apic.deliver(message(DeliveryMode::FIXED, 0x41)), Wakeup::None);
    assert_eq!(apic.deliver(message(DeliveryMode::EXT_INT, 0)), Wakeup::None);
}

#[test]
fn a_switched_off_apic_hears_only_its_pins() {
    let mut apic = enabled(0);
    apic.accept(0x41, Trigger::Edge);
    apic.set_apic_base(0xfee0_0000).expect("switching off is legal");
    assert_eq!(apic.highest_pending(), None);
    assert!(!apic.matches(Destination::Broadcast));
    let nmi = Message { mode: DeliveryMode::NMI, vector: 0, trigger: Trigger::Edge };
    assert_eq!(apic.deliver(nmi), Wakeup::None);
    assert_eq!(apic.raise(Lvt::Lint0), Wakeup::ExtInt);
    assert_eq!(apic.raise(Lvt::Lint1), Wakeup::Nmi);
    assert_eq!(apic.raise(Lvt::Error), Wakeup::None);
    assert_eq!(apic.read(0x20, 4, T0), u64::MAX);
    apic.set_apic_base(0xfee0_0800).expect("switching on is legal");
    assert_eq!((get(&mut apic, 0x220), get(&mut apic, 0xf0)), (0, 0xff), "all state is gone");
}

#[test]
fn init_keeps_the_mode_and_the_id() {
    let mut apic = enabled_x2(0x23);
    apic.accept(0x41, Trigger::Edge);
    apic.init();
    assert_eq!(apic.mode(), Mode::X2Apic);
    assert_eq!(apic.read_msr(0x802, T0), Ok(0x23));
    assert_eq!(apic.read_msr(0x80d, T0), Ok(0x2_0008));
    assert_eq!(apic.read_msr(0x822, T0), Ok(0));
    assert_eq!(apic.read_msr(0x80f, T0), Ok(0xff));
}

#[test]
fn lint_pins_deliver_what_their_entry_says() {
    let mut apic = enabled(0);
    assert_eq!(apic.raise(Lvt::Lint0), Wakeup::None, "masked");
    put(&mut apic, 0x350, 0x700);
    put(&mut apic, 0x360, 0x400);
    assert_eq!(apic.raise(Lvt::Lint0), Wakeup::ExtInt);
    assert_eq!(apic.raise(Lvt::Lint1), Wakeup::Nmi);
    put(&mut apic, 0x360, 0x500);
    assert_eq!(apic.raise(Lvt::Lint1), Wakeup::Init);
    put(&mut apic, 0x360, 0x33);
    assert_eq!(apic.raise(Lvt::Lint1), Wakeup::Interrupt);
    assert_eq!(apic.highest_pending(), Some(0x33));
}

#[test]
fn a_level_on_lint0_waits_for_its_eoi() {
    let mut apic = enabled(0);
    put(&mut apic, 0x350, 0x8033);
    assert_eq!(apic.raise(Lvt::Lint0), Wakeup::Interrupt);
    assert_eq!(get(&mut apic, 0x350), 0xc033);
    assert_eq!(apic.raise(Lvt::Lint0), Wakeup::None);
    apic.acknowledge(0x33);
    assert_eq!(apic.write(0xb0, 4, 0, T0), Effect::EoiBroadcast(0x33));
    assert_eq!(get(&mut apic, 0x350), 0x8033);
}
