//! The rules of event channels, one by one.

use super::fake::Fake;
use super::*;

const TIMER: u32 = 0;
const CONSOLE: u32 = 2;
const V0: VcpuId = VcpuId(0);
const V1: VcpuId = VcpuId(1);

fn table(id: u16) -> Channels {
    Channels::new(DomId(id), 4, NR_PORTS).expect("four virtual CPUs are allowed")
}

fn up(vcpu: VcpuId) -> Wake {
    Wake { upcall: Some(vcpu), ..Wake::NONE }
}

/// Two domains connected: the tables, the port in each, and each one's words with the first news taken.
fn connected() -> (Channels, EvtchnPort, Fake, Channels, EvtchnPort, Fake) {
    let (mut a, mut b, bits_a, bits_b) = (table(1), table(2), Fake::default(), Fake::default());
    let offered = b.alloc_unbound(DomId(1)).expect("an empty table has ports");
    let (bound, _) = bind_interdomain(&mut a, &mut b, offered, &bits_a).expect("the port waits for domain 1");
    bits_a.take_upcall(0);
    (a, bound, bits_a, b, offered, bits_b)
}

fn send_across(from: &mut Channels, port: EvtchnPort, to: &mut Channels, bits: &Fake) -> Wake {
    match from.send(port, &Fake::default()) {
        Ok(Sent::There { peer, from }) => to.deliver(peer, from, bits),
        other => panic!("not sent to a peer: {other:?}"),
    }
}

#[test]
fn ports_are_given_out_from_one_up_and_the_lowest_free_first() {
    let (mut t, bits) = (table(1), Fake::default());
    let ports: Vec<u32> = (0..3).map(|_| t.alloc_unbound(DomId(0)).unwrap().raw()).collect();
    assert_eq!(ports, [1, 2, 3]);
    assert_eq!(t.close(EvtchnPort::new(2), &bits), Ok(Closed::Alone));
    assert_eq!(t.bind_ipi(V0).unwrap().raw(), 2);
}

#[test]
fn a_full_table_has_no_space_and_a_dying_domain_gets_nothing() {
    let mut t = Channels::new(DomId(1), 1, 2).unwrap();
    assert!(t.bind_ipi(V0).is_ok() && t.bind_ipi(V0).is_ok());
    assert_eq!(t.bind_ipi(V0), Err(Error::Full));
    let mut t = table(1);
    t.set_dying();
    assert_eq!(t.alloc_unbound(DomId(0)), Err(Error::Dying));
}

#[test]
fn all_4095_ports_can_be_in_use() {
    let mut t = table(1);
    let got = core::iter::from_fn(|| t.bind_ipi(V0).ok()).count();
    assert_eq!(got, 4095);
    assert_eq!(t.bind_ipi(V0), Err(Error::Full));
}

#[test]
fn a_port_wakes_its_virtual_cpu_once_until_the_guest_takes_it() {
    let (mut t, bits) = (table(1), Fake::default());
    let port = t.bind_ipi(V1).unwrap();
    assert_eq!(t.send(port, &bits), Ok(Sent::Here(up(V1))));
    assert_eq!(t.send(port, &bits), Ok(Sent::Here(Wake::NONE)));
    assert_eq!(bits.take_upcall(1), [port.raw()]);
    assert_eq!(t.send(port, &bits), Ok(Sent::Here(up(V1))));
}

#[test]
fn a_second_port_of_the_same_virtual_cpu_pends_without_a_second_upcall() {
    let (mut t, bits) = (table(1), Fake::default());
    let ports: Vec<EvtchnPort> = (0..70).map(|_| t.bind_ipi(V0).unwrap()).collect();
    assert_eq!(t.send(ports[0], &bits), Ok(Sent::Here(up(V0))));
    assert_eq!(t.send(ports[69], &bits), Ok(Sent::Here(Wake::NONE)));
    assert_eq!(bits.take_upcall(0), [ports[0].raw(), ports[69].raw()]);
}

#[test]
fn a_masked_port_pends_but_wakes_nobody() {
    let (mut t, bits) = (table(1), Fake::default());
    let port = t.bind_ipi(V0).unwrap();
    bits.mask(port);
    assert_eq!(t.send(port, &bits), Ok(Sent::Here(Wake::NONE)));
    assert!(bits.is_pending(port));
    assert!(bits.take_upcall(0).is_empty());
}

#[test]
fn unmasking_announces_what_was_pending() {
    let (mut t, bits) = (table(1), Fake::default());
    let port = t.bind_ipi(V1).unwrap();
    bits.mask(port);
    let _ = t.send(port, &bits);
    assert_eq!(t.unmask(port, &bits), Ok(up(V1)));
    assert_eq!(bits.take_upcall(1), [port.raw()]);
    bits.mask(port);
    assert_eq!(t.unmask(port, &bits), Ok(Wake::NONE));
    assert_eq!(t.unmask(EvtchnPort::new(4000), &bits), Err(Error::BadPort));
}

#[test]
fn an_unmask_of_a_port_that_is_not_masked_announces_nothing() {
    let (mut t, bits) = (table(1), Fake::default());
    let port = t.bind_ipi(V0).unwrap();
    bits.set_pending(port);
    assert_eq!(t.unmask(port, &bits), Ok(Wake::NONE));
}

#[test]
fn sending_needs_an_end_that_can_send() {
    let (mut t, bits) = (table(1), Fake::default());
    let virq = t.bind_virq(TIMER, V0).unwrap();
    assert_eq!(t.send(virq, &bits), Err(Error::BadState));
    assert_eq!(t.send(EvtchnPort::new(0), &bits), Err(Error::BadState));
    assert_eq!(t.send(EvtchnPort::new(9), &bits), Err(Error::BadState));
    assert_eq!(t.send(EvtchnPort::new(64), &bits), Err(Error::BadPort));
    assert_eq!(t.send(EvtchnPort::new(u32::MAX), &bits), Err(Error::BadPort));
}

#[test]
fn an_event_to_an_unbound_port_is_dropped() {
    let (mut t, bits) = (table(1), Fake::default());
    let port = t.alloc_unbound(DomId(2)).unwrap();
    assert_eq!(t.send(port, &bits), Ok(Sent::Here(Wake::NONE)));
    assert!(!bits.is_pending(port));
}

#[test]
fn only_the_domain_that_a_port_waits_for_can_bind_it() {
    let (mut a, mut b, bits) = (table(1), table(2), Fake::default());
    let offered = b.alloc_unbound(DomId(3)).unwrap();
    assert_eq!(bind_interdomain(&mut a, &mut b, offered, &bits), Err(Error::BadPeer));
    assert_eq!(bind_interdomain(&mut a, &mut b, EvtchnPort::new(0), &bits), Err(Error::BadPeer));
    assert_eq!(bind_interdomain(&mut a, &mut b, EvtchnPort::new(70), &bits), Err(Error::BadPort));
    assert_eq!(a.open_ports().count(), 0);
}

#[test]
fn a_bound_port_is_pending_at_once_at_the_binders_end_only() {
    let (mut a, mut b, bits) = (table(1), table(2), Fake::default());
    let offered = b.alloc_unbound(DomId(1)).unwrap();
    let (bound, wake) = bind_interdomain(&mut a, &mut b, offered, &bits).unwrap();
    assert_eq!(wake, up(V0));
    assert_eq!(bits.take_upcall(0), [bound.raw()]);
    assert_eq!(a.status(bound), Ok((Status::Interdomain { domain: DomId(2), port: offered }, V0)));
    assert_eq!(b.status(offered), Ok((Status::Interdomain { domain: DomId(1), port: bound }, V0)));
    assert_eq!(bind_interdomain(&mut a, &mut b, offered, &bits), Err(Error::BadPeer));
}

#[test]
fn events_travel_both_ways_between_connected_ports() {
    let (mut a, bound, bits_a, mut b, offered, bits_b) = connected();
    assert_eq!(send_across(&mut a, bound, &mut b, &bits_b), up(V0));
    assert_eq!(bits_b.take_upcall(0), [offered.raw()]);
    assert_eq!(send_across(&mut b, offered, &mut a, &bits_a), up(V0));
    assert_eq!(bits_a.take_upcall(0), [bound.raw()]);
}

#[test]
fn a_domain_can_connect_to_itself() {
    let (mut t, bits) = (table(1), Fake::default());
    let offered = t.alloc_unbound(DomId(1)).unwrap();
    let (bound, _) = bind_loopback(&mut t, offered, &bits).unwrap();
    bits.take_upcall(0);
    let Ok(Sent::There { peer, from }) = t.send(bound, &bits) else { panic!("not connected") };
    assert_eq!(peer.port, offered);
    assert_eq!(t.deliver(peer, from, &bits), up(V0));
    assert_eq!(bits.take_upcall(0), [offered.raw()]);
}

#[test]
fn closing_one_end_leaves_the_other_waiting_for_the_same_domain() {
    let (mut a, bound, bits_a, mut b, offered, _) = connected();
    let Ok(Closed::Peer { peer, from }) = a.close(bound, &bits_a) else { panic!("not connected") };
    b.peer_closed(peer, from);
    assert_eq!(b.status(offered).unwrap().0, Status::Unbound { domain: DomId(1) });
    assert_eq!(a.status(bound).unwrap().0, Status::Closed);
    assert!(bind_interdomain(&mut a, &mut b, offered, &bits_a).is_ok());
}

#[test]
fn a_message_that_was_under_way_does_not_reach_a_later_connection() {
    let (mut a, bound, bits_a, mut b, offered, bits_b) = connected();
    let Ok(Sent::There { peer, from }) = a.send(bound, &bits_a) else { panic!("not connected") };
    let Ok(Closed::Peer { peer: end, from: gone }) = a.close(bound, &bits_a) else { panic!("not connected") };
    b.peer_closed(end, gone);
    assert_eq!(bind_interdomain(&mut a, &mut b, offered, &bits_a).unwrap().0, bound);
    assert_eq!(b.deliver(peer, from, &bits_b), Wake::NONE);
    b.peer_closed(end, gone);
    assert!(matches!(b.status(offered), Ok((Status::Interdomain { .. }, _))));
}

#[test]
fn closing_clears_the_pending_bit_and_the_choice_of_virtual_cpu() {
    let (mut t, bits) = (table(1), Fake::default());
    let port = t.alloc_unbound(DomId(2)).unwrap();
    assert_eq!(t.bind_vcpu(port, V1), Ok(()));
    bits.set_pending(port);
    assert_eq!(t.close(port, &bits), Ok(Closed::Alone));
    assert!(!bits.is_pending(port));
    assert_eq!(t.status(port), Ok((Status::Closed, V0)));
    assert_eq!(t.close(port, &bits), Err(Error::BadState));
    assert_eq!(t.close(EvtchnPort::new(0), &bits), Err(Error::BadState));
    assert_eq!(t.close(EvtchnPort::new(5000), &bits), Err(Error::BadPort));
}

#[test]
fn a_virtual_cpus_own_virq_is_bound_once_on_each() {
    let (mut t, bits) = (table(1), Fake::default());
    let p0 = t.bind_virq(TIMER, V0).unwrap();
    let p1 = t.bind_virq(TIMER, V1).unwrap();
    assert_eq!(t.bind_virq(TIMER, V0), Err(Error::VirqBound));
    assert_eq!(t.raise_virq(V1, TIMER, &bits), up(V1));
    assert!(bits.is_pending(p1) && !bits.is_pending(p0));
    assert_eq!(t.close(p0, &bits), Ok(Closed::Alone));
    assert!(t.bind_virq(TIMER, V0).is_ok());
}

#[test]
fn a_global_virq_is_bound_on_virtual_cpu_0_and_can_move() {
    let (mut t, bits) = (table(1), Fake::default());
    assert_eq!(t.bind_virq(CONSOLE, V1), Err(Error::BadVirq));
    let port = t.bind_virq(CONSOLE, V0).unwrap();
    assert_eq!(t.bind_vcpu(port, V1), Ok(()));
    assert_eq!(t.raise_virq(VcpuId(3), CONSOLE, &bits), up(V1));
}

#[test]
fn a_virq_that_is_unknown_or_for_no_virtual_cpu_is_refused() {
    let (mut t, bits) = (table(1), Fake::default());
    assert_eq!(t.bind_virq(NR_VIRQS, V0), Err(Error::BadVirq));
    assert_eq!(t.bind_virq(TIMER, VcpuId(4)), Err(Error::NoVcpu));
    assert_eq!(t.bind_ipi(VcpuId(4)), Err(Error::NoVcpu));
    assert_eq!(t.raise_virq(V0, NR_VIRQS, &bits), Wake::NONE);
    assert_eq!(t.raise_virq(VcpuId(9), TIMER, &bits), Wake::NONE);
}

#[test]
fn ports_tied_to_a_virtual_cpu_do_not_move() {
    let mut t = table(1);
    let (virq, ipi) = (t.bind_virq(TIMER, V0).unwrap(), t.bind_ipi(V0).unwrap());
    assert_eq!(t.bind_vcpu(virq, V1), Err(Error::BadState));
    assert_eq!(t.bind_vcpu(ipi, V1), Err(Error::BadState));
    assert_eq!(t.bind_vcpu(EvtchnPort::new(9), V1), Err(Error::BadState));
    assert_eq!(t.bind_vcpu(EvtchnPort::new(999), V1), Err(Error::BadPort));
    assert_eq!(t.bind_vcpu(EvtchnPort::new(999), VcpuId(4)), Err(Error::NoVcpu));
}

#[test]
fn a_service_hears_the_guest_and_the_guest_hears_the_service() {
    let (mut t, bits) = (table(1), Fake::default());
    let port = t.bind_service(7).unwrap();
    assert_eq!(t.send(port, &bits), Ok(Sent::Here(Wake { service: Some(7), ..Wake::NONE })));
    assert!(!bits.is_pending(port));
    assert_eq!(t.raise_service(port, &bits), up(V0));
    assert_eq!(bits.take_upcall(0), [port.raw()]);
    assert!(matches!(t.status(port), Ok((Status::Interdomain { domain: SERVICE_DOMAIN, .. }, _))));
    assert_eq!(t.close(port, &bits), Ok(Closed::Service(7)));
    assert_eq!(t.raise_service(port, &bits), Wake::NONE);
}

#[test]
fn a_reset_closes_every_port_and_tells_what_is_left_to_do() {
    let (mut a, bound, bits_a, _b, _, _) = connected();
    let _ = a.bind_virq(TIMER, V0).unwrap();
    let _ = a.bind_service(1).unwrap();
    let (mut from, mut peers, mut services) = (0, 0, 0);
    while let Some((next, closed)) = a.close_next(from, &bits_a) {
        from = next;
        match closed {
            Closed::Peer { from, .. } => peers += u32::from(from.port == bound),
            Closed::Service(1) => services += 1,
            _ => {}
        }
    }
    assert_eq!((peers, services, a.open_ports().count()), (1, 1, 0));
    assert!(a.bind_virq(TIMER, V0).is_ok());
}

#[test]
fn a_moved_vcpu_info_is_told_of_every_word() {
    let (t, bits) = (table(1), Fake::default());
    assert_eq!(t.announce_all(V1, &bits), up(V1));
    assert_eq!(bits.0.borrow().selected.len(), 64);
}

#[test]
fn a_masked_port_wakes_the_one_who_polls_it() {
    let (mut t, bits) = (table(1), Fake::default());
    let (port, other) = (t.bind_ipi(V1).unwrap(), t.bind_ipi(V1).unwrap());
    bits.mask(port);
    assert_eq!(t.poll(V1, &[port], &bits), Ok(true));
    let Ok(Sent::Here(wake)) = t.send(other, &bits) else { panic!("an IPI goes nowhere else") };
    assert!(wake.pollers.is_empty());
    let Ok(Sent::Here(wake)) = t.send(port, &bits) else { panic!("an IPI goes nowhere else") };
    assert_eq!((wake.upcall, wake.pollers.iter().collect::<Vec<_>>()), (None, vec![V1]));
    assert!(!t.stop_polling(V1));
}

#[test]
fn one_who_polls_several_ports_wakes_for_any() {
    let (mut t, bits) = (table(1), Fake::default());
    let ports = [t.bind_ipi(V0).unwrap(), t.bind_ipi(V0).unwrap()];
    assert_eq!(t.poll(V1, &ports, &bits), Ok(true));
    let Ok(Sent::Here(wake)) = t.send(ports[1], &bits) else { panic!("an IPI goes nowhere else") };
    assert!(wake.pollers.contains(V1));
}

#[test]
fn a_poll_of_what_is_pending_does_not_sleep() {
    let (mut t, bits) = (table(1), Fake::default());
    let port = t.bind_ipi(V0).unwrap();
    bits.set_pending(port);
    assert_eq!(t.poll(V0, &[port], &bits), Ok(false));
    assert_eq!(t.poll(V0, &[EvtchnPort::new(64)], &bits), Err(Error::BadPort));
    assert_eq!(t.poll(V0, &[port; 129], &bits), Err(Error::TooMany));
    assert!(!t.stop_polling(V0));
}

#[test]
fn fifo_event_channels_are_not_built() {
    assert_eq!(table(1).init_control(), Err(Error::Unsupported));
}

#[test]
fn an_ipi_says_whom_it_calls_up_unless_somebody_polls() {
    let (mut t, bits) = (table(1), Fake::default());
    let (port, unbound) = (t.bind_ipi(V1).unwrap(), t.alloc_unbound(DomId(0)).unwrap());
    for other in [unbound, EvtchnPort::new(0), EvtchnPort::new(77)] {
        assert_eq!(t.send_ipi(other, &bits), None, "{other:?}");
        assert!(!bits.is_pending(other));
    }
    assert_eq!(t.send_ipi(port, &bits), Some(Some(V1)));
    assert_eq!(t.send_ipi(port, &bits), Some(None));
    assert_eq!(bits.take_upcall(V1.0), [port.raw()]);
    bits.mask(port);
    assert_eq!(t.send_ipi(port, &bits), Some(None));
    bits.clear_pending(port);
    assert_eq!(t.poll(V0, &[port], &bits), Ok(true));
    assert_eq!(t.send_ipi(port, &bits), None);
    assert!(!bits.is_pending(port));
}
