use std::time::UNIX_EPOCH;

use super::*;
use crate::clock::Clock;
use crate::config::Qos;
use crate::uplink::scripted::{Setup, config};

const SECOND: i64 = 1_000_000_000;
/// When these tests happen.
const NOON: i64 = 1_800_000_000 * SECOND;

fn setup() -> Setup {
    let setup = Setup::without_time(config(Qos::AtLeastOnce, 4));
    setup.clock.advance(Duration::from_secs(100));
    setup.hub.look_at_clock();
    setup
}

/// What is on the board below the gateway's topic.
fn state(hub: &Hub, leaf: &str) -> Option<serde_json::Value> {
    let (board, topic) = (hub.board.borrow(), hub.topic(leaf));
    let mut version = 0;
    while let Some((next, on, payload)) = board.next_after(version, "") {
        if on == topic {
            return Some(serde_json::from_slice(payload).expect("JSON"));
        }
        version = next;
    }
    None
}

fn source(hub: &Hub) -> Option<Source> {
    let status = hub.clock_status();
    assert_eq!(state(hub, "info").and_then(|info| Some(info["clock"].as_str()?.to_owned())), status.source.map(told));
    status.source
}

fn told(source: Source) -> String {
    source.as_str().to_owned()
}

#[test]
fn words_come_and_the_better_one_counts() {
    let Setup { hub, clock, .. } = &setup();
    assert_eq!((source(hub), hub.now()), (None, None));
    assert!(hub.clock_status().doubt.is_some_and(|doubt| doubt.contains("hardware clock")));

    // A fix of a second ago.
    hub.take_fix(BootTime(99 * 1_000_000_000), WallTime(NOON - SECOND));
    assert_eq!((source(hub), hub.now()), (Some(Source::Gps), Some(WallTime(NOON))));
    assert_eq!(*hub.offset().borrow(), Some(Offset(NOON - 100 * SECOND)));
    hub.set_clock(clock.boot(), WallTime(NOON + 5 * SECOND)).expect("nothing better is there");
    hub.take_fix(clock.boot(), WallTime(NOON));
    assert_eq!((source(hub), hub.now()), (Some(Source::ByHand), Some(WallTime(NOON + 5 * SECOND))));

    clock.set_wall(UNIX_EPOCH + Duration::from_nanos(NOON.unsigned_abs()));
    hub.look_at_clock();
    assert_eq!((source(hub), hub.now()), (Some(Source::Synchronised), Some(WallTime(NOON))));
    let refused = hub.set_clock(clock.boot(), WallTime(0)).expect_err("the kernel's word counts");
    assert!(refused.contains("follows a source of time"), "{refused}");

    // NTP has gone: nobody is to be believed more than what it said, but somebody who insists.
    clock.say(Err(Doubt::NotSynchronised));
    clock.step(-3_600 * SECOND);
    hub.look_at_clock();
    hub.take_fix(clock.boot(), WallTime(0));
    assert_eq!((source(hub), hub.now()), (Some(Source::Synchronised), Some(WallTime(NOON))));
    hub.set_clock(clock.boot(), WallTime(NOON + SECOND)).expect("somebody insists");
    assert_eq!((source(hub), hub.now()), (Some(Source::ByHand), Some(WallTime(NOON + SECOND))));
    assert!(hub.set_clock(clock.boot().after(Duration::from_secs(1)), WallTime(NOON)).is_err(), "not yet");
}

#[test]
fn a_step_is_told_if_it_is_worth_it() {
    let Setup { hub, clock, .. } = &setup();
    clock.set_wall(UNIX_EPOCH + Duration::from_nanos(NOON.unsigned_abs()));
    hub.look_at_clock();
    assert_eq!(state(hub, "clock"), None, "it is set, and has not stepped");
    clock.step(99_000_000);
    hub.look_at_clock();
    assert_eq!((state(hub, "clock"), hub.now()), (None, Some(WallTime(NOON + 99_000_000))));
    clock.step(-40 * SECOND);
    hub.look_at_clock();
    hub.look_at_clock();
    let told = state(hub, "clock").expect("it is told");
    let expected = serde_json::json!({
        "source": "synchronised", "steps": 1, "step": { "seconds": -40.0, "time": "2027-01-15T07:59:20.099Z" },
    });
    assert_eq!(told, expected);
    assert_eq!(hub.clock_status().step.map(|step| step.nanos), Some(-40 * SECOND));
    // A leap second that is inserted.
    clock.step(-SECOND);
    hub.look_at_clock();
    assert_eq!(state(hub, "clock").map(|told| told["steps"].clone()), Some(2.into()));
}

#[test]
fn a_hardware_clock_with_an_empty_battery_is_not_believed_but_ntp_is() {
    let setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.hub.remember_time();
    let known = setup.hub.now();
    let Setup { hub, clock, .. } = &setup.rebooted_without_time();
    clock.say(Ok(Source::Rtc));
    hub.look_at_clock();
    assert_eq!(source(hub), None);
    let doubt = hub.clock_status().doubt.expect("why");
    assert!(doubt.contains("shows 1970-01-01T00:00:00Z") && doubt.contains("was 2027-"), "{doubt}");
    clock.say(Ok(Source::Synchronised));
    hub.look_at_clock();
    assert_eq!((source(hub), hub.now()), (Some(Source::Synchronised), Some(WallTime(0))));
    assert_ne!(hub.now(), known);
}
