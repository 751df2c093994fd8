//! Which messages are commands, whatever a broker does.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const MAX_AGE: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> BootTime {
    BootTime(0).after(Duration::from_secs(seconds))
}

fn with(count: usize) -> Subscriptions {
    let topics = (0..count).map(|n| (format!("maison/relais{n}/set"), format!("relais{n}"))).collect();
    Subscriptions::new(Some(&Commands { max_age: MAX_AGE, topics }), None, Vec::new(), &[])
}

/// A connection on which everything was accepted at this time.
fn accepted(now: BootTime) -> Subscriptions {
    let mut subscriptions = with(1);
    subscriptions.connected(now);
    assert_eq!(subscriptions.ask(7, now).iter().map(|wanted| wanted.topic).collect::<Vec<_>>(), ["maison/relais0/set"]);
    assert_eq!(subscriptions.answered(7, &[0]).ok(), Some(Some(News::Accepted)));
    subscriptions
}

fn message(topic: &str, payload: &[u8]) -> Message {
    Message {
        qos: Qos::AtMostOnce,
        id: 0,
        retain: false,
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(payload),
        time: None,
        correlation: None,
    }
}

fn command() -> Message {
    message("maison/relais0/set", b"{}")
}

/// Why a message is refused; `Ok`: it is not.
fn verdict(subscriptions: &Subscriptions, message: &Message, now: BootTime) -> Result<(), String> {
    subscriptions.request("home", message, now).expect("a command").refused.map_or(Ok(()), Err)
}

#[test]
fn a_fresh_message_on_an_accepted_topic_is_a_command() {
    let subscriptions = accepted(at(100));
    let message = Message {
        time: Some("2026-11-21T10:00:00Z".to_owned()),
        correlation: Some(Bytes::from_static(b"a-1")),
        ..message("maison/relais0/set", b"on")
    };
    let request = subscriptions.request("home", &message, at(101)).expect("a command");
    assert_eq!((request.uplink.as_str(), request.sensor.as_str(), &*request.payload), ("home", "relais0", &b"on"[..]));
    assert_eq!((request.reference.as_deref(), request.time.as_deref()), (Some("a-1"), Some("2026-11-21T10:00:00Z")));
    assert_eq!((request.at, request.max_age, request.refused), (at(101), MAX_AGE, None));
    assert_eq!(subscriptions.request("home", &self::message("maison/relais1/set", b""), at(101)), None, "not ours");
    assert_eq!(Subscriptions::new(None, None, Vec::new(), &[]).request("home", &message, at(101)), None);
}

#[test]
fn hosts_of_sparkplug_may_command_at_qos_1_and_else_as_anybody() {
    let (set, dcmd) = ("maison/relais/set", "spBv1.0/maison/DCMD/pi/relais");
    let node = vec![(dcmd.to_owned(), Listens::Device("relais".to_owned()))];
    let commands = Commands { max_age: MAX_AGE, topics: vec![(set.to_owned(), "relais".to_owned())] };
    let mut both = Subscriptions::new(Some(&commands), None, node.clone(), &[]);
    both.connected(at(100));
    let asked: Vec<(String, Qos)> =
        both.ask(7, at(100)).iter().map(|topic| (topic.topic.to_owned(), topic.qos)).collect();
    assert_eq!(asked, [(set.to_owned(), Qos::AtMostOnce), (dcmd.to_owned(), Qos::AtLeastOnce)]);
    let early = message(dcmd, b"x");
    assert!(verdict(&both, &early, at(100)).is_err_and(|why| why.contains("before the broker has accepted")));
    both.answered(7, &[0, 1]).expect("asked for");
    assert_eq!(verdict(&both, &Message { qos: Qos::AtLeastOnce, ..message(dcmd, b"x") }, at(101)), Ok(()));
    assert!(verdict(&both, &Message { qos: Qos::ExactlyOnce, ..message(dcmd, b"x") }, at(101)).is_err());
    assert!(verdict(&both, &Message { retain: true, ..message(dcmd, b"x") }, at(101)).is_err());
    assert!(verdict(&both, &message(dcmd, b"x"), at(200)).is_err_and(|why| why.contains("stalled")));
    assert_eq!(
        both.request("home", &message(dcmd, b"x"), at(101)).map(|request| request.sensor),
        Some("relais".to_owned())
    );
    // Without `commands = true` nobody commands.
    let none = Subscriptions::new(None, None, node, &[]);
    assert_eq!(none.request("home", &message(dcmd, b"x"), at(101)), None);
}

#[test]
fn what_may_have_waited_is_refused() {
    let subscriptions = accepted(at(100));
    let retained = Message { retain: true, ..command() };
    assert!(verdict(&subscriptions, &retained, at(100)).is_err_and(|why| why.contains("retained")));
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let old = Message { qos, id: 9, ..command() };
        assert!(verdict(&subscriptions, &old, at(100)).is_err_and(|why| why.contains("old session")));
    }
    let mut early = with(1);
    early.connected(at(100));
    assert!(verdict(&early, &command(), at(100)).is_err_and(|why| why.contains("before the broker has accepted")));
    early.ask(1, at(100));
    assert!(verdict(&early, &command(), at(100)).is_err());
    // What the last connection had accepted means nothing on the next one.
    let mut again = accepted(at(100));
    again.disconnected(true, at(101));
    again.connected(at(102));
    assert!(verdict(&again, &command(), at(102)).is_err());
}

#[test]
fn a_large_message_is_refused_and_not_kept() {
    let subscriptions = accepted(at(100));
    let large = message("maison/relais0/set", &[b'x'; MAX_BYTES + 1]);
    let request = subscriptions.request("home", &large, at(100)).expect("a command");
    assert!(request.payload.is_empty() && request.refused.is_some_and(|why| why.contains("1025 bytes")));
    assert_eq!(verdict(&subscriptions, &message("maison/relais0/set", &[b'x'; MAX_BYTES]), at(100)), Ok(()));
}

#[test]
fn after_a_stall_nothing_is_accepted_before_a_sign_of_life() {
    let mut subscriptions = accepted(at(100));
    assert_eq!(subscriptions.due(), Some(at(115)));
    assert!(!subscriptions.wants_ping(at(114)) && subscriptions.wants_ping(at(115)));
    subscriptions.pinged(at(115));
    assert!(!subscriptions.wants_ping(at(116)));
    assert_eq!(verdict(&subscriptions, &command(), at(130)), Ok(()));
    // The answer has not come: this may have been sent at 100.
    assert!(verdict(&subscriptions, &command(), at(131)).is_err_and(|why| why.contains("stalled")));
    subscriptions.ponged();
    assert_eq!(verdict(&subscriptions, &command(), at(145)), Ok(()));
    assert!(verdict(&subscriptions, &command(), at(146)).is_err());
    // An hour without a turn of the loop: whatever is in the socket's buffer is old.
    assert!(subscriptions.wants_ping(at(3_700)));
    assert!(verdict(&subscriptions, &command(), at(3_700)).is_err());
    subscriptions.pinged(at(3_700));
    subscriptions.ponged();
    assert_eq!(verdict(&subscriptions, &command(), at(3_701)), Ok(()));
    // Answers that nobody asked for prove nothing.
    subscriptions.ponged();
    assert!(verdict(&subscriptions, &command(), at(3_731)).is_err());
}

#[test]
fn many_topics_are_asked_for_in_parts() {
    let mut subscriptions = with(MAX_TOPICS + 2);
    subscriptions.connected(at(0));
    assert_eq!(subscriptions.ask(1, at(0)).len(), MAX_TOPICS);
    assert!(subscriptions.has_more());
    assert_eq!(subscriptions.ask(2, at(0)).len(), 2);
    assert!(!subscriptions.has_more());
    assert!(subscriptions.answered(3, &[0]).is_err(), "nobody had asked");
    assert_eq!(subscriptions.answered(2, &[0, 0]).ok(), Some(None));
    assert_eq!(subscriptions.answered(1, &[0; MAX_TOPICS]).ok(), Some(Some(News::Accepted)));
    assert!(subscriptions.answered(1, &[0]).is_err(), "answered already");
}

#[test]
fn a_refusal_names_the_topic_and_the_others_work() {
    let mut subscriptions = with(3);
    subscriptions.connected(at(0));
    subscriptions.ask(1, at(0));
    let Ok(Some(News::Refused(why))) = subscriptions.answered(1, &[0, 0x87]) else { panic!("refused") };
    assert!(why.contains("maison/relais1/set and 1 more: not authorized"), "{why}");
    let to = |n: usize| message(&format!("maison/relais{n}/set"), b"{}");
    assert_eq!(verdict(&subscriptions, &to(0), at(1)), Ok(()));
    for n in [1, 2] {
        assert!(verdict(&subscriptions, &to(n), at(1)).is_err());
    }
}

#[test]
fn a_broker_that_does_not_answer_is_told_of_once_a_connection() {
    let mut subscriptions = with(1);
    subscriptions.connected(at(0));
    subscriptions.ask(1, at(0));
    assert_eq!((subscriptions.late(at(29)), subscriptions.due()), (None, Some(at(30))));
    assert!(matches!(subscriptions.late(at(30)), Some(News::Refused(why)) if why.contains("not answered")));
    assert_eq!((subscriptions.late(at(31)), subscriptions.due()), (None, None));
    // Late is better than never.
    assert_eq!(subscriptions.answered(1, &[0]).ok(), Some(Some(News::Accepted)));
}

#[test]
fn a_broker_that_closes_over_a_subscription_is_left_alone() {
    let mut subscriptions = with(1);
    for attempt in 1..=MAX_STRIKES {
        subscriptions.connected(at(0));
        assert!(subscriptions.has_more());
        subscriptions.ask(1, at(0));
        let news = subscriptions.disconnected(true, at(1));
        assert_eq!(news.is_some(), attempt == MAX_STRIKES);
    }
    subscriptions.connected(at(2));
    assert!(!subscriptions.has_more(), "readings get through");
    subscriptions.disconnected(true, at(3));
    subscriptions.connected(at(3_602));
    assert!(subscriptions.has_more(), "an hour later");
    // Another end of the connection is not about the subscription.
    for _ in 0..10 {
        subscriptions.ask(1, at(3_602));
        assert_eq!(subscriptions.disconnected(false, at(3_602)), None);
        subscriptions.connected(at(3_603));
    }
    assert!(subscriptions.has_more());
}

/// What can happen on a connection.
#[derive(Clone, Debug)]
enum Step {
    Connected,
    Asked(u16),
    Answered(u16, Vec<u8>),
    Pinged,
    Ponged,
    Passes(u8),
    Sent,
    Arrives(usize),
    Lost(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Connected),
        2 => (1..4_u16).prop_map(Step::Asked),
        2 => (1..4_u16, prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..4))
            .prop_map(|(id, codes)| Step::Answered(id, codes)),
        2 => Just(Step::Pinged),
        2 => Just(Step::Ponged),
        3 => (0..20_u8).prop_map(Step::Passes),
        3 => Just(Step::Sent),
        4 => (0..8_usize).prop_map(Step::Arrives),
        1 => any::<bool>().prop_map(Step::Lost),
    ]
}

proptest! {
    /// A broker that answers in order and whose bytes may lie on the way for any time: nothing that is accepted is older
    /// than the limit.
    #[test]
    fn nothing_old_is_ever_accepted(waits in prop::collection::vec((0..4_u8, 0..25_u64), 1..200)) {
        let mut now = at(1_000);
        let mut subscriptions = accepted(now);
        // What the broker has sent and we have not read: a command with the time of its sending, or a PINGRESP.
        let mut on_the_way: VecDeque<Option<BootTime>> = VecDeque::new();
        for (what, seconds) in waits {
            now = now.after(Duration::from_secs(seconds));
            match what {
                0 => on_the_way.push_back(Some(now)),
                1 if subscriptions.wants_ping(now) => {
                    subscriptions.pinged(now);
                    on_the_way.push_back(None);
                }
                _ => match on_the_way.pop_front() {
                    Some(None) => subscriptions.ponged(),
                    Some(Some(sent)) if verdict(&subscriptions, &command(), now).is_ok() => {
                        prop_assert!(now.since(sent) <= MAX_AGE);
                    }
                    _ => {}
                },
            }
        }
    }

    /// Whatever comes in whatever order: nothing panics, and nothing is accepted that was not subscribed to.
    #[test]
    fn no_order_of_events_breaks_it(steps in prop::collection::vec(step(), 0..100)) {
        let mut subscriptions = with(3);
        let mut now = at(0);
        for step in steps {
            match step {
                Step::Connected => subscriptions.connected(now),
                Step::Asked(id) => drop(subscriptions.ask(id, now)),
                Step::Answered(id, codes) => drop(subscriptions.answered(id, &codes)),
                Step::Pinged => subscriptions.pinged(now),
                Step::Ponged => subscriptions.ponged(),
                Step::Passes(seconds) => now = now.after(Duration::from_secs(seconds.into())),
                Step::Sent => drop((subscriptions.late(now), subscriptions.wants_ping(now), subscriptions.due())),
                Step::Lost(closed) => drop(subscriptions.disconnected(closed, now)),
                Step::Arrives(which) => {
                    let request = subscriptions.request("home", &message(&format!("maison/relais{which}/set"), b""), now);
                    prop_assert_eq!(request.is_some(), which < 3);
                    let standing = subscriptions.topics.get(which).map(|topic| topic.standing);
                    if request.is_some_and(|request| request.refused.is_none()) {
                        prop_assert_eq!(standing, Some(Standing::Accepted));
                    }
                }
            }
        }
    }
}

#[test]
fn on_a_connection_that_is_up_only_what_is_new_is_asked_for_and_what_is_gone_is_given_up() {
    let commands = |sensors: &[&str]| Commands {
        max_age: MAX_AGE,
        topics: sensors.iter().map(|sensor| (format!("maison/{sensor}/set"), (*sensor).to_owned())).collect(),
    };
    let mut subscriptions = accepted(at(100));
    subscriptions.renew(Some(&commands(&["a", "relais0"])), at(101));
    assert_eq!(verdict(&subscriptions, &command(), at(102)), Ok(()), "it goes on");
    let early = verdict(&subscriptions, &message("maison/a/set", b"{}"), at(102));
    assert!(early.is_err_and(|why| why.contains("before the broker has accepted")));
    assert_eq!(subscriptions.ask(8, at(102)).iter().map(|wanted| wanted.topic).collect::<Vec<_>>(), ["maison/a/set"]);
    // It is changed again before that is answered.
    subscriptions.renew(Some(&commands(&["b"])), at(103));
    assert_eq!(subscriptions.request("home", &message("maison/a/set", b"{}"), at(103)), None);
    assert!(subscriptions.answered(8, &[0]).is_ok());
    assert!(subscriptions.has_unwanted());
    assert_eq!(subscriptions.leave(9), ["maison/a/set", "maison/relais0/set"]);
    assert!(!subscriptions.has_unwanted());
    assert!(subscriptions.left(10).is_err(), "nobody had asked");
    assert!(subscriptions.left(9).is_ok());
    assert_eq!(subscriptions.ask(10, at(104)).iter().map(|wanted| wanted.topic).collect::<Vec<_>>(), ["maison/b/set"]);
    assert_eq!(subscriptions.answered(10, &[0]).ok(), Some(Some(News::Accepted)));
    assert_eq!(verdict(&subscriptions, &message("maison/b/set", b"{}"), at(105)), Ok(()));
    // The next connection has what holds now.
    subscriptions.connected(at(110));
    assert_eq!(subscriptions.ask(1, at(110)).len(), 1);
    subscriptions.renew(None, at(111));
    assert!(!subscriptions.is_on() && !subscriptions.has_commands() && subscriptions.has_unwanted());
}
