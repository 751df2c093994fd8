//! What a session is worth after a kill, a reboot, a power cut, or when the broker has lost it.

use std::time::Duration;

use rumqttc::mqttbytes::v4::Packet;

use crate::config::Qos;
use crate::uplink::scripted::{Setup, config, ids, numbers, run, texts};

#[test]
pub(super) fn a_broker_that_lost_the_session_gets_the_window_anew() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut setup = Setup::new(config(qos, 4));
        setup.take_numbers(6);
        let mut first = Vec::new();
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            first = broker.readings(4).await;
        }))
        .expect_err("closed by the script");
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            let again = broker.behave(6).await;
            assert_eq!(texts(&again), numbers(6));
            assert!(again.iter().all(|message| !message.dup));
            assert!(ids(&again)[..4].iter().all(|id| !ids(&first).contains(id)), "fresh packet ids");
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!((setup.backlog(), setup.hub.counters("home").possible_duplicates.get()), (0, 4));
    }
}

#[test]
pub(super) fn what_was_in_flight_at_a_kill_is_sent_again_under_its_ids() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.take_numbers(8);
    let mut first = Vec::new();
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        first = broker.readings(4).await;
        broker.ack(first[1].pkid).await;
        first.extend(broker.readings(1).await);
    }))
    .expect_err("closed by the script");
    let mut setup = setup.killed();
    run(setup.connection(async |broker| {
        broker.connack(true).await;
        let again = broker.behave(7).await;
        assert_eq!(texts(&again), ["0", "2", "3", "4", "5", "6", "7"]);
        let expected: Vec<u16> = [0, 2, 3, 4].into_iter().map(|index: usize| first[index].pkid).collect();
        assert_eq!(ids(&again)[..4], expected);
        assert!(again[..4].iter().all(|message| message.dup));
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.backlog(), 0);
}

/// Runs a connection in which the first of two messages got as far as PUBREC, the second nowhere.
fn half_way(setup: &mut Setup) -> [u16; 2] {
    setup.take_numbers(2);
    let mut sent = [0; 2];
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        let found = broker.readings(2).await;
        sent = [found[0].pkid, found[1].pkid];
        broker.acknowledge(0x50, found[0].pkid).await;
        let Some(Packet::PubRel(release)) = broker.next().await else { panic!("no PUBREL") };
        assert_eq!(release.pkid, found[0].pkid);
    }))
    .expect_err("closed by the script");
    sent
}

fn goes_on_half_way(setup: &mut Setup, sent: [u16; 2]) {
    run(setup.connection(async |broker| {
        broker.connack(true).await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            match broker.next().await {
                Some(Packet::PubRel(release)) => seen.push((release.pkid, false)),
                Some(Packet::Publish(message)) if message.topic == "t" => seen.push((message.pkid, message.dup)),
                Some(Packet::Publish(state)) => broker.ack(state.pkid).await,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, [(sent[0], false), (sent[1], true)]);
        broker.acknowledge(0x70, sent[0]).await;
        broker.acknowledge(0x50, sent[1]).await;
        broker.behave(1).await;
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.backlog(), 0);
}

#[test]
pub(super) fn a_kill_half_way_through_qos_2_doubles_nothing() {
    let mut setup = Setup::new(config(Qos::ExactlyOnce, 4));
    let sent = half_way(&mut setup);
    goes_on_half_way(&mut setup.killed(), sent);
}

#[test]
pub(super) fn a_reboot_half_way_through_qos_2_doubles_nothing() {
    let mut setup = Setup::new(config(Qos::ExactlyOnce, 4));
    let sent = half_way(&mut setup);
    goes_on_half_way(&mut setup.rebooted(), sent);
}

#[test]
pub(super) fn after_a_power_cut_the_brokers_session_is_a_strangers() {
    let mut setup = Setup::new(config(Qos::ExactlyOnce, 4));
    half_way(&mut setup);
    setup.flush(Duration::from_secs(600));
    let mut setup = setup.power_cut();
    assert!(setup.feed.is_stranger(true) && !setup.feed.is_stranger(false));
    assert_eq!(setup.backlog(), 2);
    setup = setup.killed();
    assert!(setup.feed.is_stranger(true), "a kill in between does not make it known");
    setup.flush(Duration::ZERO);
    setup.feed.broker_forgot();
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        assert_eq!(texts(&broker.behave(2).await), numbers(2));
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.backlog(), 0);
    assert!(!setup.killed().feed.is_stranger(true));
}

#[test]
fn a_new_account_at_the_broker_is_a_strangers_too() {
    let mut setup = Setup::new(config(Qos::ExactlyOnce, 4));
    half_way(&mut setup);
    setup.config.client_id = "another".to_owned();
    assert!(setup.killed().feed.is_stranger(true));
}
