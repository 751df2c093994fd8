//! The two streams, what an uplink selects, and what a broker refuses.

use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish};

use super::unsure::AT_LEAST;
use crate::config::{BacklogPolicy, BacklogTopic, Qos};
use crate::outbox::Body;
use crate::reading::{Descriptor, Finite, Kind, Quantity, Value};
use crate::uplink::refused::{FOLDER, QUARANTINE};
use crate::uplink::scripted::{Peer, Setup, config, flush, run};
use crate::uplink::{Hub, LIVE_WITHIN};

/// Takes a temperature.
fn take(setup: &Setup, room: &str, sensor: &str, value: u32) {
    take_at(&setup.hub, room, sensor, value);
}

fn take_at(hub: &Hub, room: &str, sensor: &str, value: u32) {
    let quantity = Quantity::new(sensor, None, Kind::Number);
    let descriptor = Descriptor {
        gateway: "atelier".into(),
        site: Some("maison".into()),
        room: Some(room.into()),
        sensor: sensor.into(),
        quantities: vec![quantity],
        ..Descriptor::default()
    };
    let values = vec![(0, Value::Number(Finite::new(f64::from(value)).expect("finite")))];
    let outbox = &mut *hub.outbox.borrow_mut();
    outbox.append(hub.clock.boot(), hub.now(), Body::Reading { descriptor: descriptor.into(), values });
    outbox.commit(hub.clock.boot());
}

/// Takes temperatures of a sensor in the room `salon`, and lets them become backlog.
fn take_backlog(setup: &Setup, values: std::ops::Range<u32>) {
    for value in values {
        take(setup, "salon", "meteo", value);
    }
    setup.hub.appended();
    setup.clock.advance(LIVE_WITHIN);
}

fn take_live(setup: &Setup, value: u32) {
    take(setup, "salon", "meteo", value);
    setup.hub.appended();
}

/// Its value, and whether it says that it is backlog.
fn read(message: &Publish) -> (u64, bool) {
    let json: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
    (json["value"].as_u64().expect("a number"), json["backlog"].as_bool().unwrap_or_default())
}

fn values(messages: &[Publish]) -> Vec<u64> {
    messages.iter().map(|message| read(message).0).collect()
}

#[test]
fn a_live_reading_goes_before_the_backlog() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut setup = Setup::new(config(qos, 8));
        take_backlog(&setup, 0..50);
        let hub = setup.hub.clone();
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            let first = broker.reading().await;
            assert_eq!(read(&first), (0, true), "nothing else is there");
            assert!(!first.retain);
            broker.sync().await;
            take_at(&hub, "salon", "meteo", 100);
            hub.appended();
            let live = broker.reading().await;
            assert_eq!(read(&live), (100, false));
            assert!(live.retain);
            broker.complete(&first).await;
            broker.complete(&live).await;
            // At QoS 2 the first two are complete only now.
            let rest = broker.behave(if qos == Qos::ExactlyOnce { 51 } else { 49 }).await;
            assert_eq!(values(&rest), (1..50).collect::<Vec<u64>>());
            assert!(rest.iter().all(|message| read(message).1 && !message.retain));
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 0);
    }
}

#[test]
fn a_quarter_of_the_window_is_kept_for_live_readings() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 8));
    take_backlog(&setup, 0..100);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        // Each acknowledgement lets the window grow, until the backlog has its share of it.
        let mut found = broker.behave(40).await;
        found.extend(broker.readings(6).await);
        broker.sync().await;
        assert_eq!(values(&found), (0..46).collect::<Vec<u64>>());
    }))
    .expect_err("closed by the script");
    assert_eq!((setup.backlog(), setup.hub.counters("home").sent.get()), (60, 46));
}

/// An uplink with this window, and a backlog on disk.
fn with_backlog_on_disk(window: u16) -> Setup {
    let setup = Setup::new(config(Qos::AtLeastOnce, window));
    take_backlog(&setup, 0..2_000);
    setup.flush(Duration::from_secs(2));
    setup
}

#[test]
fn sending_waits_for_the_disk_before_a_power_cut_could_double_more_than_the_window() {
    for window in [4, 100, 400] {
        let mut setup = with_backlog_on_disk(window);
        let (hub, window) = (setup.hub.clone(), usize::from(window));
        // As ever, a quarter of the window is kept for live readings.
        let most = AT_LEAST.max(window) - window / 4;
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            broker.behave(most).await;
            broker.sync().await;
            assert_eq!(hub.counters("home").sent.get(), most as u64, "nothing has been flushed");
            flush(&hub);
            broker.behave(most).await;
            broker.sync().await;
            assert_eq!(hub.counters("home").sent.get(), 2 * most as u64);
        }))
        .expect_err("closed by the script");
        drop(hub);
        let mut setup = setup.power_cut();
        assert_eq!(setup.backlog(), 2_000 - most as u64, "of the later ones nothing is known");
        setup.flush(Duration::ZERO);
        setup.feed.broker_forgot();
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            assert_eq!(read(&broker.reading().await), (most as u64, true));
        }))
        .expect_err("closed by the script");
    }
}

#[test]
fn after_a_kill_nothing_is_sent_before_the_disk_knows_what_the_tail_does() {
    let mut setup = with_backlog_on_disk(100);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        // Until nothing is in flight, and nothing more may follow.
        broker.behave(75).await;
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    let mut setup = setup.killed();
    let hub = setup.hub.clone();
    run(setup.connection(async |broker| {
        broker.connack(true).await;
        broker.sync().await;
        assert_eq!(hub.counters("home").sent.get(), 0);
        assert!(hub.outbox.borrow().flush_due().is_some_and(|due| due <= hub.clock.boot()), "at once");
        flush(&hub);
        broker.reading().await;
    }))
    .expect_err("closed by the script");
}

#[test]
fn a_disk_that_fails_holds_up_no_message() {
    let mut setup = with_backlog_on_disk(100);
    let folder = setup.hub.outbox.borrow().folder().to_owned();
    std::fs::remove_dir_all(folder).expect("removed");
    let hub = setup.hub.clone();
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        broker.behave(75).await;
        flush(&hub);
        broker.behave(500).await;
    }))
    .expect_err("closed by the script");
}

#[test]
fn what_was_live_and_did_not_get_through_is_backlog_the_next_time() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 2));
    take_backlog(&setup, 0..3);
    take_live(&setup, 3);
    take_live(&setup, 4);
    take_live(&setup, 5);
    let mut first = Vec::new();
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        first = broker.readings(2).await;
        assert_eq!(values(&first), [3, 4], "live ones fill the window");
        broker.ack(first[1].pkid).await;
        assert_eq!(values(&broker.readings(1).await), [5]);
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    setup.clock.advance(LIVE_WITHIN);
    take_live(&setup, 6);
    run(setup.connection(async |broker| {
        broker.connack(true).await;
        let again = broker.behave(6).await;
        let seen: Vec<(u64, bool)> = again.iter().map(read).collect();
        // What a broker may know under its packet id comes again as it was.
        assert_eq!(seen, [(3, false), (5, false), (6, false), (0, true), (1, true), (2, true)]);
        assert_eq!(again.iter().filter(|message| message.dup).count(), 2);
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.backlog(), 0);
}

#[test]
fn in_total_order_live_readings_wait_for_the_backlog() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.config.backlog.live_first = false;
    let mut setup = setup.killed();
    take_backlog(&setup, 0..10);
    take_live(&setup, 10);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        let found = broker.behave(11).await;
        assert_eq!(values(&found), (0..11).collect::<Vec<u64>>());
        assert_eq!(read(&found[10]), (10, false));
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.backlog(), 0);
}

#[test]
fn only_the_latest_of_each_topic_where_that_is_wanted() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.config.backlog.policy = BacklogPolicy::Latest;
    let mut setup = setup.killed();
    for value in 0..2_000 {
        take(&setup, "salon", "a", value);
        take(&setup, "salon", "b", value);
    }
    take_backlog(&setup, 0..1);
    take_live(&setup, 7);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        let found = broker.behave(4).await;
        let seen: Vec<(&str, (u64, bool))> = found.iter().map(|m| (m.topic.as_str(), read(m))).collect();
        let expected = [
            ("maison/salon/a", (1_999, true)),
            ("maison/salon/b", (1_999, true)),
            ("maison/salon/meteo", (0, true)),
            ("maison/salon/meteo", (7, false)),
        ];
        assert_eq!(seen, expected);
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!((setup.backlog(), setup.hub.counters("home").superseded.get()), (0, 3_998));
}

/// A topic that the sensors share does not make the readings of one supersede those of another.
#[test]
fn the_latest_is_of_each_sensor_where_the_topic_is_shared() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.config.backlog.policy = BacklogPolicy::Latest;
    setup.config.payload.topic = Some(crate::topic::Template::parse("all").expect("a template"));
    let mut setup = setup.killed();
    for value in 0..3 {
        take(&setup, "salon", "a", value);
        take(&setup, "salon", "b", 10 + value);
    }
    take_backlog(&setup, 0..1);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        let found = broker.behave(3).await;
        assert!(found.iter().all(|message| message.topic == "all"));
        assert_eq!(values(&found), [2, 12, 0]);
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!((setup.backlog(), setup.hub.counters("home").superseded.get()), (0, 4));
}

/// Where everything goes to one topic, a message that makes the broker close is refused by itself.
#[test]
fn a_shared_topic_is_not_put_in_quarantine() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.config.payload.topic = Some(crate::topic::Template::parse("all").expect("a template"));
    let mut setup = setup.killed();
    for value in [0, 66, 1, 2] {
        take(&setup, "salon", "a", value);
    }
    setup.hub.appended();
    let (mut connections, mut taken) = (0, Vec::new());
    while setup.backlog() > 0 {
        connections += 1;
        assert!(connections < 10, "{taken:?}");
        let present = connections > 1;
        run(setup.connection(async |broker| {
            broker.connack(present).await;
            loop {
                let Some(Packet::Publish(message)) = broker.next().await else { return };
                if message.topic == "all" {
                    match read(&message).0 {
                        66 => return,
                        value => taken.push(value),
                    }
                }
                broker.ack(message.pkid).await;
                if taken.contains(&2) {
                    return broker.sync().await;
                }
            }
        }))
        .expect_err("closed by the script");
    }
    taken.sort_unstable();
    taken.dedup();
    assert_eq!((taken, setup.hub.counters("home").refused.get()), (vec![0, 1, 2], 1));
}

#[test]
fn the_backlog_can_have_topics_of_its_own() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.config.backlog.topic = Some(BacklogTopic { before: "maison/salon/late/".to_owned(), after: String::new() });
    let mut setup = setup.killed();
    take_backlog(&setup, 0..1);
    take_live(&setup, 1);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        let found = broker.behave(2).await;
        let topics: Vec<&str> = found.iter().map(|message| message.topic.as_str()).collect();
        assert_eq!(topics, ["maison/salon/meteo", "maison/salon/late/maison/salon/meteo"]);
        broker.sync().await;
    }))
    .expect_err("closed by the script");
}

#[test]
fn the_backlog_keeps_to_its_rate() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.config.backlog.rate = Some(0.5);
    let mut setup = setup.killed();
    take_backlog(&setup, 0..4);
    let clock = setup.clock.clone();
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        for value in 0..4 {
            let found = broker.behave(1).await;
            assert_eq!(values(&found), [value]);
            for _ in 0..3 {
                clock.advance(Duration::from_millis(500));
                broker.sync().await;
            }
            clock.advance(Duration::from_millis(500));
            broker.send(&[0xd0, 0]).await;
        }
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.backlog(), 0);
}

#[test]
fn an_uplink_sends_what_it_is_to_send() {
    for (rooms, sensors, expected) in [
        (vec![], vec![], vec![1, 2, 3]),
        (vec!["salon"], vec![], vec![1, 2]),
        (vec![], vec!["c"], vec![3]),
        (vec!["cuisine"], vec!["a"], vec![1, 3]),
        (vec!["cave"], vec![], vec![]),
    ] {
        let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
        let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        (setup.config.selection.rooms, setup.config.selection.sensors) = (names(rooms), names(sensors));
        let mut setup = setup.killed();
        take(&setup, "salon", "a", 1);
        take(&setup, "salon", "b", 2);
        take(&setup, "cuisine", "c", 3);
        setup.hub.appended();
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            assert_eq!(values(&broker.behave(expected.len()).await), expected);
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 0, "what is not sent does not wait");
    }
}

#[test]
fn what_is_too_old_is_dropped_and_counted() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.config.selection.max_age = Some(Duration::from_secs(60));
    let mut setup = setup.killed();
    take_backlog(&setup, 0..5);
    setup.clock.advance(Duration::from_secs(30));
    take_backlog(&setup, 5..7);
    setup.clock.advance(Duration::from_secs(25));
    take_live(&setup, 7);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        assert_eq!(values(&broker.behave(3).await), [7, 5, 6]);
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!((setup.backlog(), setup.hub.counters("home").expired.get()), (0, 5));
    let dropped = setup.hub.outbox.borrow_mut().take_drops();
    let seen: Vec<(&str, Option<&str>, u64)> =
        dropped.iter().map(|it| (it.reason.as_str(), it.sensor.as_deref(), it.count)).collect();
    assert_eq!(seen, [("expired", Some("meteo"), 5)]);
}

/// Acknowledges everything up to the value 99, but closes the connection over a message on `topic`. Gives the values.
async fn close_on(broker: &mut Peer<tokio::io::DuplexStream>, topic: &str) -> Vec<u64> {
    let (mut taken, mut last) = (Vec::new(), None);
    loop {
        let done = match broker.next().await.expect("the agent stays") {
            Packet::Publish(message) if message.topic == topic => return taken,
            Packet::Publish(message) => {
                broker.complete(&message).await;
                if message.topic.contains("/salon/") {
                    taken.push(read(&message).0);
                    last = (taken.last() == Some(&99)).then_some(message.pkid);
                }
                last.is_some() && message.qos == QoS::AtLeastOnce
            }
            Packet::PubRel(release) => {
                broker.acknowledge(0x70, release.pkid).await;
                last == Some(release.pkid)
            }
            other => panic!("{other:?}"),
        };
        if done {
            broker.sync().await;
            return taken;
        }
    }
}

#[test]
fn a_message_that_makes_the_broker_close_is_put_aside_and_the_others_arrive() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut setup = Setup::new(config(qos, 4));
        take(&setup, "salon", "good", 0);
        take(&setup, "salon", "poison", 1);
        take(&setup, "salon", "good", 2);
        take(&setup, "salon", "poison", 3);
        take(&setup, "salon", "good", 99);
        setup.hub.appended();
        let (mut connections, mut taken) = (0, Vec::new());
        while setup.backlog() > 0 {
            connections += 1;
            assert!(connections < 10, "{qos:?}: {taken:?}");
            let present = connections > 1;
            run(setup.connection(async |broker| {
                broker.connack(present).await;
                taken.extend(close_on(broker, "maison/salon/poison").await);
            }))
            .expect_err("closed by the script");
        }
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken, [0, 2, 99], "{qos:?}");
        assert_eq!(connections, 5, "three closed, one to find the message, one for the rest");
        assert_eq!(setup.hub.counters("home").refused.get(), 2, "the second by its topic alone");
        let folder = setup.hub.outbox.borrow().folder().join(FOLDER);
        assert_eq!(std::fs::read_dir(&folder).expect("the folder").count(), 2);

        // Later the topic has another chance.
        setup.clock.advance(QUARANTINE);
        take(&setup, "salon", "poison", 5);
        setup.hub.appended();
        run(setup.connection(async |broker| {
            broker.connack(true).await;
            assert_eq!(values(&broker.behave(1).await), [5]);
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 0);
    }
}

#[test]
fn a_broker_that_takes_nothing_keeps_its_messages_waiting() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    take_backlog(&setup, 0..4);
    for _ in 0..12 {
        run(setup.connection(async |broker| {
            broker.connack(true).await;
            broker.next().await;
        }))
        .expect_err("closed by the script");
    }
    assert_eq!((setup.backlog(), setup.hub.counters("home").refused.get()), (4, 0));
}
