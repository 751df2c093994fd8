//! Clients that take too much, say nonsense, or say nothing: nobody else is harmed.

use super::raw::{Answer, Hello, Raw, publish};
use super::*;

async fn open(broker: &Broker) -> TcpStream {
    TcpStream::connect(broker.address()).await.unwrap()
}

async fn connect(broker: &Broker, hello: &Hello<'_>) -> Raw<TcpStream> {
    Raw::connect(open(broker).await, hello).await.unwrap_or_else(|code| panic!("{code:#x}"))
}

/// Two others can still talk.
async fn still_serves(broker: &Broker) {
    let mut reader = Client::new(broker.address(), 4, "still-reader").await;
    reader.subscribe("still", 1).await;
    let mut writer = Client::new(broker.address(), 5, "still-writer").await;
    let sent = message("still", "alive", 1, false);
    writer.publish(&sent).await;
    assert_eq!(reader.message().await, sent);
    broker.check().await.unwrap();
}

/// It is closed, with or without a last word.
async fn is_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("the connection stays open");
}

#[tokio::test]
async fn connections_that_say_nothing_or_little_are_closed_and_counted_out() {
    let mut home = Home::new();
    home.config.limits.connections = 20;
    let broker = home.start().await;
    let mut slow = Vec::new();
    for number in 0..20 {
        let mut stream = open(&broker).await;
        let hello = Hello::new(4, "slow").packet();
        stream.write_all(&hello[..number % hello.len()]).await.unwrap();
        slow.push(stream);
    }
    // All places are taken: the next one is closed at once, and when the slow ones are, there is room again.
    timeout(DEADLINE, async {
        while broker.refused(Refusal::Connections) == 0 {
            let _ = open(&broker).await.read_u8().await;
        }
    })
    .await
    .expect("the 21st is refused");
    for stream in &mut slow {
        is_closed(stream).await;
    }
    still_serves(&broker).await;
}

#[tokio::test]
async fn a_client_that_never_reads_has_bounded_messages_waiting_and_others_get_theirs() {
    let mut home = Home::new();
    home.config.limits.queue_bytes = 256 * 1024;
    home.config.limits.message_rate = 100_000;
    let broker = home.start().await;
    let mut deaf = connect(&broker, &Hello::new(4, "deaf")).await;
    deaf.subscribe(&["large"]).await;
    let mut other = Client::new(broker.address(), 5, "other").await;
    other.subscribe("large", 1).await;
    let mut publisher = Client::new(broker.address(), 4, "publisher").await;
    let large = "x".repeat(9000);
    for _ in 0..1000 {
        publisher.publish(&message("large", &large, 1, false)).await;
        assert_eq!(other.message().await.payload.len(), large.len());
    }
    assert!(broker.refused(Refusal::Queue) > 0);
    assert_eq!(broker.stats().dropped, broker.refused(Refusal::Queue));
    still_serves(&broker).await;
}

#[tokio::test]
async fn a_bomb_of_subscriptions_ends_at_the_limit() {
    let mut home = Home::new();
    home.config.limits.subscriptions = 50;
    let broker = home.start().await;
    for version in [4, 5] {
        let mut bomber = connect(&broker, &Hello::new(version, "bomber")).await;
        let filters: Vec<String> = (0..5000).map(|number| format!("bomb/{number}/+/#")).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let codes = bomber.subscribe(&filters).await;
        assert_eq!(codes.len(), 5000);
        assert!(codes[..50].iter().all(|code| *code == 1) && codes[50..].iter().all(|code| *code >= 0x80));
    }
    still_serves(&broker).await;
}

#[tokio::test]
async fn topics_that_are_too_long_or_too_deep_are_refused() {
    let broker_home = Home::new();
    let broker = broker_home.start().await;
    let (long, deep) = ("x".repeat(65_535), "x/".repeat(MAX_TOPIC_LEVELS));
    for topic in [&long, &deep] {
        for (version, expected) in [(4, Answer::Closed), (5, Answer::Refused(0x87))] {
            let mut client = connect(&broker, &Hello::new(version, "c")).await;
            assert_eq!(client.publish(topic, "x").await, expected);
        }
    }
    let mut client = connect(&broker, &Hello::new(5, "c")).await;
    assert!(client.subscribe(&[&deep]).await[0] >= 0x80);
    for (version, refused) in [(4, 0x80), (5, 0x8f)] {
        let mut client = connect(&broker, &Hello::new(version, "c")).await;
        assert_eq!(client.subscribe(&[&long, &"x".repeat(MAX_TOPIC_BYTES)]).await, [refused, 1]);
    }
    let mut client = connect(&broker, &Hello::new(5, "c")).await;
    // The longest that is allowed.
    assert_eq!(client.publish(&"x".repeat(MAX_TOPIC_BYTES), "x").await, Answer::Taken);
    assert_eq!(broker.refused(Refusal::Topic), 6);
    still_serves(&broker).await;
}

#[tokio::test]
async fn a_packet_that_is_too_large_closes_its_connection() {
    let mut home = Home::new();
    home.config.limits.packet = 10_000;
    let broker = home.start().await;
    let mut client = connect(&broker, &Hello::new(4, "c")).await;
    assert_eq!(client.publish("x", &"y".repeat(9_900)).await, Answer::Taken);
    assert_eq!(client.publish("x", &"y".repeat(20_000)).await, Answer::Closed);
    still_serves(&broker).await;
}

#[tokio::test]
async fn a_client_that_is_too_quick_is_slowed_down_and_loses_nothing() {
    const MESSAGES: usize = 30;
    let mut home = Home::new();
    home.config.limits.message_rate = 10;
    let broker = home.start().await;
    let mut reader = Client::new(broker.address(), 4, "reader").await;
    reader.subscribe("x", 1).await;
    let mut quick = connect(&broker, &Hello::new(4, "quick")).await;
    for number in 0..MESSAGES {
        quick.send(&publish(4, "x", &number.to_string(), 1, 1 + u16::try_from(number).unwrap())).await;
    }
    for number in 0..MESSAGES {
        assert_eq!(reader.message().await.payload, number.to_string());
    }
    assert!(broker.refused(Refusal::MessageRate) > 0);
}

#[tokio::test]
async fn both_versions_come_over_a_websocket_and_other_subprotocols_do_not() {
    let mut home = Home::new();
    let listen = "127.0.0.1:0".parse().unwrap();
    home.config.listeners.push(BrokerListener { listen, tls: None, websocket: true });
    let broker = home.start().await;
    let address = broker.addresses()[1];
    let mut plain = connect(&broker, &Hello::new(4, "plain")).await;
    plain.subscribe(&["over"]).await;
    for version in [4, 5] {
        let stream = TcpStream::connect(address).await.unwrap();
        let socket = websocket::connect(stream, address, "mqtt").await.unwrap();
        let mut client = Raw::connect(socket, &Hello::new(version, "ws")).await.unwrap_or_else(|_| panic!());
        assert_eq!(client.subscribe(&["back"]).await, [1]);
        // Nearly the largest packet, in one message.
        let large = "y".repeat(1_000_000);
        assert_eq!(client.publish("over", &large).await, Answer::Taken);
        assert_eq!(plain.message().await.1, large);
        assert_eq!(plain.publish("back", &large).await, Answer::Taken);
        assert_eq!(client.message().await.1, large);
    }
    let stream = TcpStream::connect(address).await.unwrap();
    assert!(websocket::connect(stream, address, "chat").await.is_err());
    let mut http = TcpStream::connect(address).await.unwrap();
    http.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    is_closed(&mut http).await;
    is_refused(&broker, Refusal::Handshake, 2).await;
}
