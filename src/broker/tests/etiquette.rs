//! What MQTT 5 wants of a broker's manners: shared subscriptions, a farewell with its reason, limits that are told; and
//! what the broker says about itself.

use std::collections::BTreeSet;

use super::raw::{Answer, Hello, Raw};
use super::*;

async fn connect(broker: &Broker, hello: &Hello<'_>) -> Raw<TcpStream> {
    Raw::connect(TcpStream::connect(broker.address()).await.unwrap(), hello).await.expect("it is let in")
}

#[tokio::test]
async fn of_a_group_one_member_gets_each_message_and_all_others_theirs() {
    for version in [4, 5] {
        let home = Home::new();
        let broker = home.start().await;
        let mut members = Vec::new();
        for id in ["one", "two"] {
            let mut member = connect(&broker, &Hello::new(version, id)).await;
            assert_eq!(member.subscribe(&["$share/group/a/#"]).await, [1]);
            members.push(member);
        }
        let mut other = connect(&broker, &Hello::new(version, "other")).await;
        assert_eq!(other.subscribe(&["a/+"]).await, [1]);
        let mut publisher = connect(&broker, &Hello::new(version, "publisher")).await;
        for number in 0..10 {
            assert_eq!(publisher.publish("a/b", &number.to_string()).await, Answer::Taken);
        }
        for number in 0..10 {
            assert_eq!(other.message().await, ("a/b".to_owned(), number.to_string()));
        }
        // They take turns, so that each has five, and together they have all.
        let mut seen = BTreeSet::new();
        for member in &mut members {
            for _ in 0..5 {
                seen.insert(member.message().await.1);
            }
        }
        assert_eq!(seen.len(), 10, "{seen:?}");
        broker.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_group_and_what_waits_for_it_outlive_a_restart() {
    let home = Home::new();
    let mut broker = home.start().await;
    let hello = Hello { clean: false, ..Hello::new(5, "member") };
    let mut member = connect(&broker, &hello).await;
    assert_eq!(member.subscribe(&["$share/group/a"]).await, [1]);
    drop(member);
    broker.restart().await.unwrap();
    let mut publisher = connect(&broker, &Hello::new(5, "publisher")).await;
    assert_eq!(publisher.publish("a", "while it was away").await, Answer::Taken);
    broker.restart().await.unwrap();
    let mut member = connect(&broker, &hello).await;
    assert_eq!(member.message().await.1, "while it was away");
    let mut publisher = connect(&broker, &Hello::new(5, "publisher")).await;
    let mut second = connect(&broker, &Hello::new(5, "second")).await;
    assert_eq!(second.subscribe(&["$share/group/a"]).await, [1]);
    for _ in 0..2 {
        assert_eq!(publisher.publish("a", "in turn").await, Answer::Taken);
    }
    assert_eq!((member.message().await.1.as_str(), second.message().await.1.as_str()), ("in turn", "in turn"));
}

#[tokio::test]
async fn rules_look_behind_the_group_and_a_group_has_a_name() {
    let mut home = Home::new();
    let rules = crate::config::BrokerRules { read: vec!["a/#".to_owned()], ..Default::default() };
    home.config.rules.insert("anonymous".to_owned(), rules);
    let broker = home.start().await;
    let mut client = connect(&broker, &Hello::new(5, "client")).await;
    let filters = ["$share/g/a/b", "$share/g/b", "$share//a", "$share/g+/a", "$share/g", "$SYS/#"];
    assert_eq!(client.subscribe(&filters).await, [1, 0x87, 0x8F, 0x8F, 0x8F, 0x87]);
}

/// The code of the DISCONNECT with which the connection ends.
async fn farewell(client: &mut Raw<TcpStream>) -> Option<u8> {
    let mut code = None;
    while let Some((first, body)) = client.next().await {
        if first == 0xE0 {
            code = body.first().copied();
        }
    }
    code
}

#[tokio::test]
async fn a_client_of_mqtt_5_hears_why_its_connection_ends() {
    let home = Home::new();
    let broker = home.start().await;
    // An alias above the maximum, and one that was never given a topic: PUBLISH with the property 0x23.
    for (topic, alias) in [("a", MAX_TOPIC_ALIASES + 1), ("", 1)] {
        let mut client = connect(&broker, &Hello::new(5, "alias")).await;
        let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        body.extend(topic.as_bytes());
        body.extend([0, 1, 3, 0x23]);
        body.extend(alias.to_be_bytes());
        client.send(&raw::packet(0x32, &body)).await;
        assert_eq!(farewell(&mut client).await, Some(0x94), "Topic Alias invalid");
    }
    // Another connection takes the identifier.
    let mut first = connect(&broker, &Hello::new(5, "same")).await;
    let _second = connect(&broker, &Hello::new(5, "same")).await;
    assert_eq!(farewell(&mut first).await, Some(0x8E), "Session taken over");
    // In 3.1.1 there is no such packet, and who goes is told nothing.
    let mut old = connect(&broker, &Hello::new(4, "old")).await;
    let _newer = connect(&broker, &Hello::new(4, "old")).await;
    assert_eq!(farewell(&mut old).await, None);
    let mut gone = connect(&broker, &Hello::new(5, "gone")).await;
    gone.send(&[0xE0, 0]).await;
    gone.stream.shutdown().await.unwrap();
    assert_eq!(farewell(&mut gone).await, None);
}

#[tokio::test]
async fn the_broker_says_how_it_is_to_who_asks_and_keeps_nothing_of_it() {
    let mut home = Home::new();
    home.config.sys_interval = Duration::from_millis(50);
    let broker = home.start().await;
    let mut everything = connect(&broker, &Hello::new(5, "everything")).await;
    assert_eq!(everything.subscribe(&["#"]).await, [1]);
    let mut client = connect(&broker, &Hello::new(4, "client")).await;
    assert_eq!(client.subscribe(&["$SYS/broker/version", "$SYS/broker/messages/received"]).await, [1, 1]);
    let version = format!("vigie version {}", env!("CARGO_PKG_VERSION"));
    let mut publisher = connect(&broker, &Hello::new(5, "publisher")).await;
    assert_eq!(publisher.publish("a", "1").await, Answer::Taken);
    let (mut seen, mut received) = (None, String::new());
    while received != "1" || seen.is_none() {
        match client.message().await {
            (topic, value) if topic.ends_with("/version") => seen = Some(value),
            (_, value) => received = value,
        }
    }
    assert_eq!(seen, Some(version));
    assert_eq!(everything.message().await, ("a".to_owned(), "1".to_owned()), "`#` does not match it");
    // Nobody may write there, and nothing of it is kept.
    assert_eq!(publisher.publish("$SYS/broker/version", "forged").await, Answer::Refused(0x87));
    assert_eq!(broker.stats().retained.messages, 0);
    assert_eq!(broker.stats().store.messages, 0);
}

#[tokio::test]
async fn where_the_interval_is_zero_nothing_is_said() {
    let mut home = Home::new();
    home.config.sys_interval = Duration::ZERO;
    let broker = home.start().await;
    let mut client = connect(&broker, &Hello::new(5, "client")).await;
    assert_eq!(client.subscribe(&["$SYS/#", "a"]).await, [1, 1]);
    let mut publisher = connect(&broker, &Hello::new(5, "publisher")).await;
    assert_eq!(publisher.publish("a", "the first that comes").await, Answer::Taken);
    assert_eq!(client.message().await.1, "the first that comes");
}

#[tokio::test]
async fn a_client_of_mqtt_5_is_told_what_it_may() {
    let mut home = Home::new();
    home.config.limits.keep_alive = NonZeroU16::new(60);
    let broker = home.start().await;
    for (version, is_told) in [(5, true), (4, false)] {
        let mut stream = TcpStream::connect(broker.address()).await.unwrap();
        // Its keep-alive is 0: it would be quiet for ever.
        stream.write_all(&Hello::new(version, "client").packet()).await.unwrap();
        let (first, body) = Raw { stream, version }.next().await.expect("a CONNACK");
        assert_eq!((first, body[1]), (0x20, 0));
        // Server Keep Alive, Receive Maximum; Shared Subscription Available is left out, which means that it is.
        let has = |property: &[u8]| body.windows(property.len()).any(|part| part == property);
        let most = RECEIVE_MAXIMUM.get().to_be_bytes();
        assert_eq!((has(&[0x13, 0, 60]), has(&[0x21, most[0], most[1]])), (is_told, is_told), "{body:?}");
        assert!(!has(&[0x2A, 0]), "{body:?}");
    }
}
