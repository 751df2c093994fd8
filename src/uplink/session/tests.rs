//! The session step by step.

use super::*;

const NOW: BootTime = BootTime(0);

fn publish(session: &mut Session, seq: Seq, qos: Qos) -> u16 {
    let id = session.next_id();
    session.sent(seq..seq + 1, PayloadShape::Quantity, qos, false, NOW);
    id
}

fn resends(session: &mut Session) -> Vec<Resend> {
    std::iter::from_fn(|| session.next_resend().inspect(|_| session.resent())).collect()
}

#[test]
fn a_puback_frees_its_place() {
    let mut session = Session::new(2);
    let first = publish(&mut session, 10, Qos::AtLeastOnce);
    let second = publish(&mut session, 11, Qos::AtLeastOnce);
    assert_eq!((first, second, session.free()), (1, 2, 0));
    assert_eq!(session.handle(Incoming::PubAck(2, Reason::SUCCESS), NOW), Outcome::Acked(11..12));
    assert_eq!((session.free(), session.spans(0)[1].clone()), (1, 10..11));
    assert_eq!(session.handle(Incoming::PubAck(2, Reason::SUCCESS), NOW), Outcome::Ignored, "the second of two");
    assert_eq!(session.handle(Incoming::PubAck(9, Reason::SUCCESS), NOW), Outcome::Ignored, "an unknown one");
    assert_eq!(session.handle(Incoming::PubAck(0, Reason::SUCCESS), NOW), Outcome::Ignored, "no id at all");
    assert_eq!(session.handle(Incoming::PubAck(1, Reason::SUCCESS), NOW), Outcome::Acked(10..11));
    assert!(!session.is_waiting());
    assert_eq!(session.next_id(), 3, "an id is not used again at once");
}

#[test]
fn qos_2_takes_three_steps() {
    let mut session = Session::new(2);
    let id = publish(&mut session, 10, Qos::ExactlyOnce);
    assert_eq!(session.handle(Incoming::PubAck(id, Reason::SUCCESS), NOW), Outcome::Ignored);
    assert_eq!(session.handle(Incoming::PubComp(id, Reason::SUCCESS), NOW), Outcome::Ignored);
    assert_eq!(session.handle(Incoming::PubRec(id, Reason::SUCCESS), NOW), Outcome::Release(id));
    assert_eq!(session.handle(Incoming::PubRec(id, Reason::SUCCESS), NOW), Outcome::Release(id), "PUBREC twice");
    assert_eq!(session.disconnected(false), None);
    session.connected(true, 0, NOW);
    assert_eq!(resends(&mut session), [Resend::Release(id)]);
    assert_eq!(session.handle(Incoming::PubComp(id, Reason::SUCCESS), NOW), Outcome::Acked(10..11));
    assert_eq!(session.handle(Incoming::PubComp(id, Reason::SUCCESS), NOW), Outcome::Ignored);
}

#[test]
fn a_kept_session_gets_the_same_ids_in_order() {
    let mut session = Session::new(4);
    for seq in 10..13 {
        publish(&mut session, seq, Qos::AtLeastOnce);
    }
    session.handle(Incoming::PubAck(2, Reason::SUCCESS), NOW);
    assert_eq!(session.disconnected(false), None);
    assert_eq!(session.connected(true, 0, NOW), 0);
    assert_eq!((session.free(), session.free_status()), (0, 0), "the old comes first");
    let again = |id, seq| Resend::Publish {
        message: InFlight {
            id,
            seqs: seq..seq + 1,
            shape: PayloadShape::Quantity,
            qos: Qos::AtLeastOnce,
            backlog: false,
        },
        dup: true,
    };
    assert_eq!(resends(&mut session), [again(1, 10), again(3, 12)]);
    assert_eq!(session.free(), 2);
}

#[test]
fn a_lost_session_gets_the_window_under_fresh_ids() {
    let mut session = Session::new(4);
    let old: Vec<u16> = (10..13).map(|seq| publish(&mut session, seq, Qos::ExactlyOnce)).collect();
    session.handle(Incoming::PubRec(old[0], Reason::SUCCESS), NOW);
    assert_eq!(session.disconnected(false), None);
    assert_eq!(session.connected(false, 0, NOW), 3);
    let again = resends(&mut session);
    assert_eq!(again.len(), 3);
    for (resend, seq) in again.iter().zip(10..) {
        let Resend::Publish { message, dup } = resend else { panic!("{resend:?}") };
        assert!(!old.contains(&message.id) && message.seqs == (seq..seq + 1) && !dup, "{resend:?}");
    }
}

#[test]
fn state_messages_have_their_own_window_and_are_not_repeated() {
    let mut session = Session::new(1);
    session.sent_status(NOW);
    publish(&mut session, 10, Qos::AtLeastOnce);
    assert_eq!((session.free(), session.free_status()), (0, STATUS_WINDOW - 1));
    assert_eq!(session.disconnected(false), None);
    session.connected(true, 0, NOW);
    assert_eq!(resends(&mut session).len(), 1);
    assert_eq!(session.free_status(), STATUS_WINDOW);
    assert_eq!(session.handle(Incoming::PubAck(1, Reason::SUCCESS), NOW), Outcome::Ignored);
    assert_eq!(session.handle(Incoming::PubAck(2, Reason::SUCCESS), NOW), Outcome::Acked(10..11));
}

#[test]
fn at_qos_0_written_is_acknowledged() {
    let mut session = Session::new(1);
    session.queued(10..12, 5_000);
    session.queued(12..13, 6_000);
    session.queued(20..21, 12_000);
    assert!(session.is_waiting());
    assert_eq!(session.spans(0)[1], 10..21);
    assert_eq!(session.written(5_999), None);
    assert_eq!(session.written(6_000), Some(10..13));
    assert_eq!(session.written(6_000), None);
    assert_eq!(session.disconnected(false), None);
    assert_eq!(session.written(12_000), None, "what did not leave is not acknowledged");
}

#[test]
fn a_message_that_never_gets_its_ack_does_not_stop_the_ids_from_going_round() {
    let mut session = Session::new(2);
    publish(&mut session, 0, Qos::AtLeastOnce);
    let mut sent = 0;
    while session.free() > 0 {
        let id = publish(&mut session, 1, Qos::AtLeastOnce);
        assert_ne!(id, 1, "the id of the first is in use");
        session.handle(Incoming::PubAck(id, Reason::SUCCESS), NOW);
        sent += 1;
    }
    assert!(sent > 60_000);
    assert!(session.free_status() > 0);
    assert_eq!(session.ack_due(), Some(NOW.after(ACK_DEADLINE)), "it counts as hung");
    session.handle(Incoming::PubAck(1, Reason::SUCCESS), BootTime(5));
    assert_eq!((session.free(), session.ack_due()), (2, None));
}

#[test]
fn ids_go_round_without_zero() {
    assert_eq!((id_after(65_535, 1), id_after(1, 65_535), id_after(65_000, 536)), (1, 1, 1));
}

#[test]
fn what_the_outbox_lost_is_released_at_qos_2() {
    let mut session = Session::new(3);
    let first = publish(&mut session, 10, Qos::ExactlyOnce);
    let second = publish(&mut session, 11, Qos::AtLeastOnce);
    assert_eq!(session.disconnected(false), None);
    session.connected(true, 0, NOW);
    assert_eq!(session.gone(first, NOW), Outcome::Release(first));
    assert_eq!(session.gone(second, NOW), Outcome::Acked(11..12));
    assert_eq!(session.handle(Incoming::PubComp(first, Reason::SUCCESS), NOW), Outcome::Acked(10..11));
}

#[test]
fn the_message_that_makes_the_broker_close_is_found() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut session = Session::new(4);
        for seq in 10..13 {
            publish(&mut session, seq, qos);
        }
        for _ in 0..MAX_STRIKES {
            assert!(!session.is_alone());
            resends(&mut session);
            assert_eq!(session.disconnected(true), None, "all three are suspected");
            session.connected(true, 0, NOW);
        }
        assert!(session.is_alone());
        assert_eq!(session.next_resend(), None, "first it is to be seen whether the broker takes anything");
        let status = session.next_id();
        session.sent_status(NOW);
        assert_eq!(session.handle(Incoming::PubAck(status, Reason::SUCCESS), NOW), Outcome::StatusAcked);
        let sent = resends(&mut session);
        assert_eq!(sent.len(), 1, "{sent:?}");
        let Resend::Publish { message, .. } = &sent[0] else { panic!("{sent:?}") };
        assert_eq!(session.disconnected(true).as_ref(), Some(message));
        assert_eq!(message.seqs, 10..11);
    }
}

#[test]
fn a_broker_that_takes_nothing_at_all_makes_no_message_a_culprit() {
    let mut session = Session::new(4);
    publish(&mut session, 10, Qos::AtLeastOnce);
    for _ in 0..10 {
        assert_eq!(session.disconnected(true), None);
        session.connected(true, 0, NOW);
        resends(&mut session);
    }
    for _ in 0..10 {
        assert_eq!(session.disconnected(false), None, "the network does not count");
        session.connected(true, 0, NOW);
    }
}

#[test]
fn the_suspected_go_one_after_the_other_and_then_all_is_as_before() {
    let mut session = Session::new(4);
    for seq in 10..13 {
        publish(&mut session, seq, Qos::AtLeastOnce);
    }
    for _ in 0..MAX_STRIKES {
        resends(&mut session);
        session.disconnected(true);
        session.connected(true, 0, NOW);
    }
    let status = session.next_id();
    session.sent_status(NOW);
    session.handle(Incoming::PubAck(status, Reason::SUCCESS), NOW);
    for id in 1..=3 {
        assert_eq!(session.free(), 0);
        assert_eq!(resends(&mut session).len(), 1);
        assert_eq!(
            session.handle(Incoming::PubAck(id, Reason::SUCCESS), NOW),
            Outcome::Acked(9 + u64::from(id)..10 + u64::from(id))
        );
    }
    assert!(session.next_resend().is_none() && !session.is_alone());
    assert_eq!(session.free(), 4);
}

#[test]
fn what_a_forgetful_broker_gets_anew_is_backlog_by_then() {
    let mut session = Session::new(4);
    for seq in 10..13 {
        publish(&mut session, seq, Qos::AtLeastOnce);
    }
    session.disconnected(false);
    session.connected(true, 100, NOW);
    assert_eq!(session.backlogged(), 0, "the same packets as before");
    session.disconnected(false);
    session.connected(false, 12, NOW);
    let marks: Vec<bool> = resends(&mut session)
        .iter()
        .map(|resend| matches!(resend, Resend::Publish { message, .. } if message.backlog))
        .collect();
    assert_eq!((marks, session.backlogged()), (vec![true, true, false], 2));
    assert_eq!(session.spans(12), [10..12, 12..13]);
}

#[test]
fn an_acknowledgement_of_what_is_not_yet_sent_again_frees_no_place() {
    let mut session = Session::new(10);
    for seq in 0..6 {
        publish(&mut session, seq, Qos::AtLeastOnce);
    }
    assert_eq!(session.disconnected(false), None);
    session.set_limits(10, &Limits { receive_maximum: 2, ..Limits::default() });
    session.connected(true, 0, NOW);
    assert_eq!(resends(&mut session).len(), 2, "more than that, the broker does not take");
    assert!(matches!(session.handle(Incoming::PubAck(6, Reason::SUCCESS), NOW), Outcome::Acked(_)));
    assert_eq!(resends(&mut session).len(), 0, "the broker still has two");
    assert!(matches!(session.handle(Incoming::PubAck(1, Reason::SUCCESS), NOW), Outcome::Acked(_)));
    assert_eq!((resends(&mut session).len(), session.free(), session.limit()), (1, 0, 2));
}

#[test]
fn a_refusal_frees_the_packet_id() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut session = Session::new(1);
        let id = publish(&mut session, 10, qos);
        let no = Reason::NOT_AUTHORIZED;
        let packet = match qos {
            Qos::ExactlyOnce => Incoming::PubRec(id, no.clone()),
            _ => Incoming::PubAck(id, no.clone()),
        };
        let Outcome::Refused(message, reason) = session.handle(packet, NOW) else { panic!("taken") };
        assert_eq!((message.id, message.seqs, message.qos, reason), (id, 10..11, qos, no));
        assert_eq!((session.free(), session.is_waiting()), (1, false));
    }
}
