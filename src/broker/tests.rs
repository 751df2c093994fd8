//! The broker over real sockets, with clients of both protocol versions.

use std::collections::VecDeque;
use std::sync::Weak;

use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, Outgoing, Packet, QoS, v5};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

/// Long enough for a machine under load; only a failure ever waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

/// A broker's configuration and place, in a folder that is gone at the end.
struct Home {
    config: BrokerConfig,
    place: Place,
    _folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder: folder.path().join("broker"), tail: folder.path().join("tail") };
        let mut config = BrokerConfig::new(place.folder.clone());
        config.listeners[0].listen.set_port(0);
        Self { config, place, _folder: folder }
    }

    async fn start(&self) -> Broker {
        Broker::start(&self.config, &self.place, None).await.unwrap()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
}

/// What the broker counts it may count only after the client has seen the end.
async fn is_refused(broker: &Broker, refusal: Refusal, least: u64) {
    timeout(DEADLINE, async {
        while broker.refused(refusal) < least {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it is counted");
}

fn message(topic: &str, payload: &str, qos: u8, retain: bool) -> Message {
    Message { topic: topic.to_owned(), payload: payload.to_owned(), qos, retain }
}

/// What a client saw.
#[derive(Debug, PartialEq)]
enum Seen {
    Connected { session_present: bool },
    Subscribed,
    Acknowledged,
    Message(Message),
}

enum Handle {
    V4(AsyncClient),
    V5(v5::AsyncClient),
}

struct Client {
    handle: Handle,
    seen: UnboundedReceiver<Seen>,
    /// Messages that came while the answer to SUBSCRIBE was waited for.
    early: VecDeque<Message>,
    task: JoinHandle<()>,
}

/// Which protocol a client speaks, and how it presents itself.
#[derive(Clone)]
struct Options {
    version: u8,
    id: &'static str,
    clean: bool,
    will: Option<Message>,
}

impl Options {
    fn new(version: u8, id: &'static str) -> Self {
        Self { version, id, clean: true, will: None }
    }
}

fn qos(level: u8) -> QoS {
    rumqttc::qos(level).unwrap()
}

fn qos5(level: u8) -> v5::mqttbytes::QoS {
    v5::mqttbytes::qos(level).unwrap()
}

impl Client {
    async fn connect(address: SocketAddr, options: &Options) -> (Self, bool) {
        let (send, seen) = unbounded_channel();
        let (handle, task) = if options.version == 4 {
            let mut settings = MqttOptions::new(options.id, address.ip().to_string(), address.port());
            settings.set_clean_session(options.clean).set_inflight(1000);
            if let Some(will) = &options.will {
                settings.set_last_will(LastWill::new(&will.topic, will.payload.clone(), qos(will.qos), will.retain));
            }
            let (client, mut events) = AsyncClient::new(settings, 1000);
            let task = tokio::spawn(async move {
                while let Ok(event) = events.poll().await {
                    let seen = match event {
                        Event::Incoming(Packet::ConnAck(ack)) => {
                            Seen::Connected { session_present: ack.session_present }
                        }
                        Event::Incoming(Packet::SubAck(_)) => Seen::Subscribed,
                        Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => Seen::Acknowledged,
                        Event::Incoming(Packet::Publish(publish)) => Seen::Message(Message {
                            topic: publish.topic,
                            payload: String::from_utf8(publish.payload.to_vec()).unwrap(),
                            qos: publish.qos as u8,
                            retain: publish.retain,
                        }),
                        Event::Outgoing(Outgoing::Disconnect) => break,
                        _ => continue,
                    };
                    let _ = send.send(seen);
                }
            });
            (Handle::V4(client), task)
        } else {
            let mut settings = v5::MqttOptions::new(options.id, address.ip().to_string(), address.port());
            settings.set_clean_start(options.clean);
            if !options.clean {
                settings.set_session_expiry_interval(Some(60));
            }
            if let Some(will) = &options.will {
                let will = v5::mqttbytes::v5::LastWill::new(
                    &will.topic,
                    will.payload.clone(),
                    qos5(will.qos),
                    will.retain,
                    None,
                );
                settings.set_last_will(will);
            }
            let (client, mut events) = v5::AsyncClient::new(settings, 1000);
            let task = tokio::spawn(async move {
                use v5::Event;
                use v5::mqttbytes::v5::Packet;
                while let Ok(event) = events.poll().await {
                    let seen = match event {
                        Event::Incoming(Packet::ConnAck(ack)) => {
                            Seen::Connected { session_present: ack.session_present }
                        }
                        Event::Incoming(Packet::SubAck(_)) => Seen::Subscribed,
                        Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => Seen::Acknowledged,
                        Event::Incoming(Packet::Publish(publish)) => Seen::Message(Message {
                            topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
                            payload: String::from_utf8(publish.payload.to_vec()).unwrap(),
                            qos: publish.qos as u8,
                            retain: publish.retain,
                        }),
                        Event::Outgoing(Outgoing::Disconnect) => break,
                        _ => continue,
                    };
                    let _ = send.send(seen);
                }
            });
            (Handle::V5(client), task)
        };
        let mut client = Self { handle, seen, early: VecDeque::new(), task };
        match client.next().await {
            Some(Seen::Connected { session_present }) => (client, session_present),
            other => panic!("expected CONNACK, got {other:?}"),
        }
    }

    async fn new(address: SocketAddr, version: u8, id: &'static str) -> Self {
        Self::connect(address, &Options::new(version, id)).await.0
    }

    /// The next thing seen; `None`: the connection is closed.
    async fn next(&mut self) -> Option<Seen> {
        timeout(DEADLINE, self.seen.recv()).await.expect("the broker lets the client wait")
    }

    async fn message(&mut self) -> Message {
        if let Some(message) = self.early.pop_front() {
            return message;
        }
        match self.next().await {
            Some(Seen::Message(message)) => message,
            other => panic!("expected a message, got {other:?}"),
        }
    }

    async fn subscribe(&mut self, filter: &str, level: u8) {
        match &self.handle {
            Handle::V4(client) => client.subscribe(filter, qos(level)).await.unwrap(),
            Handle::V5(client) => client.subscribe(filter, qos5(level)).await.unwrap(),
        }
        loop {
            match self.next().await {
                Some(Seen::Subscribed) => break,
                Some(Seen::Message(message)) => self.early.push_back(message),
                other => panic!("expected SUBACK, got {other:?}"),
            }
        }
    }

    /// Publishes and, above QoS 0, waits for the end of the exchange.
    async fn publish(&mut self, message: &Message) {
        let Message { topic, payload, qos: level, retain } = message.clone();
        match &self.handle {
            Handle::V4(client) => client.publish(topic, qos(level), retain, payload).await.unwrap(),
            Handle::V5(client) => client.publish(topic, qos5(level), retain, payload).await.unwrap(),
        }
        if level > 0 {
            assert_eq!(self.next().await, Some(Seen::Acknowledged));
        }
    }

    /// Subscribes and expects just these retained messages. The broker sends them beside its answer, before or after it;
    /// what is published afterwards, with its answers, shows that nothing else is on its way.
    async fn expect_retained(&mut self, filter: &str, expected: &[Message]) {
        self.subscribe(filter, 1).await;
        let mut found = Vec::new();
        while found.len() < expected.len() {
            found.push(self.message().await);
        }
        self.subscribe("end", 1).await;
        for number in 0..3 {
            let end = message("end", &number.to_string(), 0, false);
            self.publish(&end).await;
            loop {
                match self.message().await {
                    message if message == end => break,
                    // A second copy comes where the filter matches the end too.
                    message if message.topic == "end" => {}
                    message => found.push(message),
                }
            }
        }
        found.sort();
        assert_eq!(found, expected, "{filter}");
    }

    /// Leaves without DISCONNECT.
    fn vanish(self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn every_quality_of_service_between_both_versions() {
    let home = Home::new();
    let broker = home.start().await;
    for (publisher, subscriber) in [(4, 4), (4, 5), (5, 4), (5, 5)] {
        let mut to = Client::new(broker.address(), subscriber, "subscriber").await;
        to.subscribe("maison/+/temperature", 2).await;
        let mut from = Client::new(broker.address(), publisher, "publisher").await;
        for level in 0..=2 {
            let sent = message("maison/salon/temperature", &format!("{publisher} {subscriber} {level}"), level, false);
            from.publish(&sent).await;
            assert_eq!(to.message().await, sent);
        }
    }
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_burst_of_qos_2_on_3_1_1_arrives_once_and_in_order() {
    const BURST: usize = 500;
    let home = Home::new();
    let broker = home.start().await;
    let mut to = Client::new(broker.address(), 4, "subscriber").await;
    to.subscribe("burst", 2).await;
    let mut from = Client::new(broker.address(), 4, "publisher").await;
    let Handle::V4(client) = &from.handle else { unreachable!("asked for 4") };
    for number in 0..BURST {
        client.publish("burst", QoS::ExactlyOnce, false, number.to_string()).await.unwrap();
    }
    for number in 0..BURST {
        assert_eq!(to.message().await, message("burst", &number.to_string(), 2, false));
    }
    for _ in 0..BURST {
        assert_eq!(from.next().await, Some(Seen::Acknowledged));
    }
    assert_eq!(broker.stats().dropped, 0);
}

#[tokio::test]
async fn retained_messages_are_set_replaced_cleared_and_found_by_wildcards() {
    let home = Home::new();
    let broker = home.start().await;
    for version in [4, 5] {
        let mut client = Client::new(broker.address(), version, "publisher").await;
        for (topic, payload) in [("a/b", "old"), ("a/b", "new"), ("a/c", "gone"), ("a", "top"), ("$x/b", "hidden")] {
            client.publish(&message(topic, payload, 1, true)).await;
        }
        client.publish(&message("a/c", "", 1, true)).await;
        client.publish(&message("a/d", "live", 1, false)).await;
        let new = message("a/b", "new", 1, true);
        let top = message("a", "top", 1, true);
        for (id, filter, expected) in [
            ("one", "a/b", vec![new.clone()]),
            ("two", "a/+", vec![new.clone()]),
            ("three", "a/#", vec![top.clone(), new.clone()]),
            ("four", "#", vec![top.clone(), new.clone()]),
            ("five", "+/b", vec![new.clone()]),
            ("six", "$x/#", vec![message("$x/b", "hidden", 1, true)]),
            ("seven", "a/c", vec![]),
        ] {
            let mut reader = Client::new(broker.address(), version, id).await;
            reader.expect_retained(filter, &expected).await;
        }
    }
    assert_eq!(broker.stats().retained.messages, 3);
}

#[tokio::test]
async fn a_subscriber_to_everything_gets_every_retained_message() {
    const TOPICS: usize = 3000;
    let home = Home::new();
    let broker = home.start().await;
    let mut client = Client::new(broker.address(), 4, "publisher").await;
    for number in 0..TOPICS {
        client.publish(&message(&format!("n/{number:04}"), "1", 1, true)).await;
    }
    let mut reader = Client::new(broker.address(), 4, "reader").await;
    reader.subscribe("#", 1).await;
    for number in 0..TOPICS {
        assert_eq!(reader.message().await, message(&format!("n/{number:04}"), "1", 1, true));
    }
    assert_eq!(broker.stats().dropped, 0);
}

#[tokio::test]
async fn the_last_will_is_published_when_a_client_vanishes_and_only_then() {
    let home = Home::new();
    let broker = home.start().await;
    for version in [4, 5] {
        let mut watcher = Client::new(broker.address(), version, "watcher").await;
        watcher.subscribe(&format!("{version}/#"), 1).await;
        let mut options = Options::new(version, "polite");
        options.will = Some(message(&format!("{version}/polite"), "offline", 1, false));
        let (polite, _) = Client::connect(broker.address(), &options).await;
        match &polite.handle {
            Handle::V4(client) => client.disconnect().await.unwrap(),
            Handle::V5(client) => client.disconnect().await.unwrap(),
        }
        timeout(DEADLINE, polite.task).await.unwrap().unwrap();
        options.id = "abrupt";
        options.will = Some(message(&format!("{version}/abrupt"), "offline", 1, true));
        let (abrupt, _) = Client::connect(broker.address(), &options).await;
        abrupt.vanish();
        assert_eq!(watcher.message().await, message(&format!("{version}/abrupt"), "offline", 1, false));
        let mut late = Client::new(broker.address(), version, "late").await;
        late.expect_retained(&format!("{version}/#"), &[message(&format!("{version}/abrupt"), "offline", 1, true)])
            .await;
    }
}

#[tokio::test]
async fn a_session_keeps_what_comes_while_its_client_is_away() {
    let home = Home::new();
    let broker = home.start().await;
    for version in [4, 5] {
        let options = Options { clean: false, ..Options::new(version, if version == 4 { "four" } else { "five" }) };
        let (mut client, present) = Client::connect(broker.address(), &options).await;
        assert!(!present);
        client.subscribe("kept/#", 1).await;
        client.vanish();
        let mut from = Client::new(broker.address(), version, "publisher").await;
        for number in 0..20 {
            from.publish(&message("kept/x", &number.to_string(), 1, false)).await;
        }
        let (mut client, present) = Client::connect(broker.address(), &options).await;
        assert!(present);
        for number in 0..20 {
            assert_eq!(client.message().await, message("kept/x", &number.to_string(), 1, false));
        }
    }
}

#[tokio::test]
async fn starts_and_stops_on_one_port_with_clients_attached() {
    let mut home = Home::new();
    for _ in 0..20 {
        let broker = home.start().await;
        let address = broker.address();
        home.config.listeners[0].listen = address;
        let mut subscriber = Client::new(address, 4, "subscriber").await;
        subscriber.subscribe("#", 1).await;
        let mut publisher = Client::new(address, 5, "publisher").await;
        publisher.publish(&message("x", "1", 1, true)).await;
        // One that says nothing, and one that is in the middle of its CONNECT.
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut halfway = TcpStream::connect(address).await.unwrap();
        halfway.write_all(&[0x10, 12, 0]).await.unwrap();
        let shared: Weak<Shared> = Arc::downgrade(&broker.shared);
        broker.stop().await.unwrap();
        assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        for stream in [&mut silent, &mut halfway] {
            let mut byte = [0];
            let end = timeout(DEADLINE, stream.read(&mut byte)).await.expect("the connection stays open");
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        }
        while subscriber.next().await.is_some() {}
        while publisher.next().await.is_some() {}
        assert!(shared.upgrade().is_none(), "a stopped broker is freed");
    }
}

#[tokio::test]
async fn retained_messages_outlive_a_restart_of_the_broker() {
    let home = Home::new();
    let mut broker = home.start().await;
    let address = broker.address();
    let mut client = Client::new(address, 4, "publisher").await;
    let sent = message("a", "1", 1, true);
    client.publish(&sent).await;
    broker.restart().await.unwrap();
    assert_eq!(broker.address(), address);
    while client.next().await.is_some() {}
    let mut client = Client::new(address, 4, "reader").await;
    client.expect_retained("a", &[sent]).await;
    broker.check().await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_told_with_its_owner() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut home = Home::new();
    home.config.listeners[0].listen = address;
    let error = Broker::start(&home.config, &home.place, None).await.unwrap_err();
    let owner = PortOwner::of(address);
    assert!(matches!(owner, PortOwner::Process { pid, .. } if pid == std::process::id()), "{owner:?}");
    let text = error.to_string();
    let expected = format!("the broker cannot listen on {address}: the port is in use by {owner}. ");
    assert!(text.starts_with(&expected), "{text}");
    assert!(text.contains(&format!("mqtt://{address}")), "{text}");
    let next = Broker::start_on_first_free(&home.config, &home.place, None).await.unwrap();
    assert!(next.address().port() > address.port());
    next.stop().await.unwrap();
}

#[tokio::test]
async fn an_address_that_comes_later_holds_up_nobody() {
    let mut home = Home::new();
    // An address for documentation, which no machine has (RFC 5737, RFC 3849).
    for listen in ["192.0.2.1:0", "[2001:db8::1]:0"] {
        home.config.listeners.push(BrokerListener { listen: listen.parse().unwrap(), tls: None, websocket: false });
    }
    let mut broker = home.start().await;
    let away = &broker.addresses()[1..];
    assert!(away.iter().all(|address| address.port() != 0), "their ports are taken: {away:?}");
    assert_eq!(broker.stats().away, away);
    let sent = message("a", "1", 1, false);
    let mut client = Client::new(broker.address(), 4, "client").await;
    client.subscribe("a", 1).await;
    client.publish(&sent).await;
    assert_eq!(client.message().await, sent);
    broker.check().await.expect("it is not the broker's fault");
    // A port is taken by one alone, also without its address.
    let mut other = Home::new();
    other.config.listeners[0].listen = away[0];
    let error = Broker::start(&other.config, &other.place, None).await.unwrap_err();
    assert!(error.to_string().contains("the port is in use by"), "{error}");
    broker.restart().await.unwrap();
    assert_eq!(broker.stats().away.len(), 2);
}

#[tokio::test]
async fn a_stopped_broker_does_not_answer_its_check_and_can_be_restarted() {
    let home = Home::new();
    let mut broker = home.start().await;
    broker.server.stop().await.unwrap();
    assert_eq!(broker.ended().await, "it was stopped");
    assert!(matches!(broker.check().await, Err(Silence::Connection(_))));
    broker.restart().await.unwrap();
    broker.check().await.unwrap();
}

#[tokio::test]
async fn malformed_packets_harm_nobody_else() {
    let home = Home::new();
    let broker = home.start().await;
    let mut subscriber = Client::new(broker.address(), 4, "subscriber").await;
    subscriber.subscribe("#", 1).await;
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff], &[0x10, 0], &[0; 8]]
    {
        let mut stream = TcpStream::connect(broker.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Closed with or without an answer, before or after it has read everything.
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the connection stays open");
    }
    let sent = message("still", "alive", 1, false);
    let mut publisher = Client::new(broker.address(), 5, "publisher").await;
    publisher.publish(&sent).await;
    assert_eq!(subscriber.message().await, sent);
}

#[tokio::test]
async fn stops_with_a_client_that_never_reads() {
    let home = Home::new();
    let broker = home.start().await;
    let mut deaf = TcpStream::connect(broker.address()).await.unwrap();
    let mut bytes = bytes::BytesMut::new();
    rumqttc::mqttbytes::v4::Connect::new("deaf").write(&mut bytes).unwrap();
    rumqttc::mqttbytes::v4::Subscribe::new("#", rumqttc::mqttbytes::QoS::AtMostOnce).write(&mut bytes).unwrap();
    deaf.write_all(&bytes).await.unwrap();
    let mut publisher = Client::new(broker.address(), 4, "publisher").await;
    let large = "x".repeat(9000);
    for _ in 0..1000 {
        publisher.publish(&message("large", &large, 1, false)).await;
    }
    broker.stop().await.expect("it stops within its deadline");
}

mod bounds;
mod etiquette;
mod packets;
mod raw;
mod rights;
mod survival;
mod watched;
