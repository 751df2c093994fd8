//! What outlives the process: retained messages, sessions, and what waits for them.

use super::raw::{Answer, Hello, Raw};
use super::*;

impl Home {
    /// As after SIGKILL: the broker's files are as they are now, and another process opens them.
    async fn kill(&self, broker: Broker) -> Broker {
        let copy = self.place.folder.with_file_name("copy");
        let _ = std::fs::remove_dir_all(&copy);
        std::fs::create_dir(&copy).unwrap();
        // What the end of this one writes, it writes to files that nobody will look at.
        let kept = Place { folder: copy.join("broker"), tail: copy.join("tail") };
        for (from, to) in [(&self.place.folder, &kept.folder), (&self.place.tail, &kept.tail)] {
            std::fs::create_dir(to).unwrap();
            for entry in std::fs::read_dir(from).unwrap().flatten() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        broker.stop().await.unwrap();
        for (from, to) in [(&kept.folder, &self.place.folder), (&kept.tail, &self.place.tail)] {
            std::fs::remove_dir_all(to).unwrap();
            std::fs::rename(from, to).unwrap();
        }
        self.start().await
    }

    /// As after a power cut: what was in memory is gone.
    async fn cut_power(&self, broker: Broker) -> Broker {
        broker.stop().await.unwrap();
        std::fs::remove_dir_all(&self.place.tail).unwrap();
        self.start().await
    }
}

fn kept(version: u8, id: &str) -> Hello<'_> {
    Hello { clean: false, ..Hello::new(version, id) }
}

async fn connect(address: SocketAddr, hello: &Hello<'_>) -> Raw<TcpStream> {
    Raw::connect(TcpStream::connect(address).await.unwrap(), hello).await.unwrap_or_else(|code| panic!("{code:#x}"))
}

/// Publishes with QoS 1 and waits for the acknowledgement.
async fn publish(broker: &Broker, topic: &str, payload: &str) {
    let mut client = connect(broker.address(), &Hello::new(4, "publisher")).await;
    assert_eq!(client.publish(topic, payload).await, Answer::Taken);
}

#[tokio::test]
async fn a_killed_broker_has_everything_that_it_acknowledged() {
    let home = Home::new();
    let mut broker = home.start().await;
    for version in [4, 5] {
        let name = format!("reader{version}");
        let mut reader = connect(broker.address(), &kept(version, &name)).await;
        reader.subscribe(&[&format!("kept{version}/#")]).await;
        // This one is on its way to the client, which does not acknowledge it.
        publish(&broker, &format!("kept{version}/x"), "first").await;
        assert_eq!(reader.message().await.1, "first");
        drop(reader);
        for number in 0..20 {
            publish(&broker, &format!("kept{version}/x"), &number.to_string()).await;
        }
    }
    let mut client = Client::new(broker.address(), 4, "publisher").await;
    client.publish(&message("state/a", "on", 1, true)).await;
    client.publish(&message("state/b", "on", 1, true)).await;
    client.publish(&message("state/b", "", 1, true)).await;
    broker = home.kill(broker).await;
    assert_eq!(broker.stats().store.sessions, 2);
    assert_eq!(broker.stats().retained.messages, 1);
    // Once more, with nothing new.
    broker = home.kill(broker).await;
    for version in [4, 5] {
        let name = format!("reader{version}");
        let mut reader = connect(broker.address(), &kept(version, &name)).await;
        let expected = std::iter::once("first".to_owned()).chain((0..20).map(|number| number.to_string()));
        for payload in expected {
            assert_eq!(reader.message().await, (format!("kept{version}/x"), payload));
        }
        // The subscription is there as well.
        publish(&broker, &format!("kept{version}/y"), "new").await;
        assert_eq!(reader.message().await.1, "new");
    }
    let mut reader = Client::new(broker.address(), 4, "late").await;
    reader.expect_retained("state/#", &[message("state/a", "on", 1, true)]).await;
}

#[tokio::test]
async fn an_orderly_stop_leaves_nothing_that_only_memory_has() {
    let home = Home::new();
    let mut broker = home.start().await;
    let mut reader = connect(broker.address(), &kept(4, "reader")).await;
    reader.subscribe(&["x"]).await;
    drop(reader);
    publish(&broker, "x", "waits").await;
    let mut client = Client::new(broker.address(), 5, "publisher").await;
    client.publish(&message("state", "on", 1, true)).await;
    broker = home.cut_power(broker).await;
    let mut reader = connect(broker.address(), &kept(4, "reader")).await;
    assert_eq!(reader.message().await.1, "waits");
    let mut late = Client::new(broker.address(), 4, "late").await;
    late.expect_retained("#", &[message("state", "on", 1, true)]).await;
}

#[tokio::test]
async fn what_was_acknowledged_or_given_up_does_not_come_back() {
    let home = Home::new();
    let mut broker = home.start().await;
    let options = Options { clean: false, ..Options::new(4, "reader") };
    let (mut reader, _) = Client::connect(broker.address(), &options).await;
    reader.subscribe("x", 1).await;
    let mut gone = connect(broker.address(), &kept(5, "gone")).await;
    gone.subscribe(&["x"]).await;
    drop(gone);
    publish(&broker, "x", "1").await;
    assert_eq!(reader.message().await.payload, "1");
    // A clean start ends the session, and with it what waits.
    drop(connect(broker.address(), &Hello::new(5, "gone")).await);
    timeout(DEADLINE, async {
        while broker.stats().store.messages > 0 || broker.stats().store.sessions > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("nothing waits any more");
    broker = home.kill(broker).await;
    assert_eq!((broker.stats().store.sessions, broker.stats().store.messages), (1, 0));
}

#[tokio::test]
async fn a_damaged_store_is_no_reason_not_to_start() {
    let home = Home::new();
    let broker = home.start().await;
    let mut client = Client::new(broker.address(), 5, "publisher").await;
    for topic in ["a", "b", "c"] {
        client.publish(&message(topic, "1", 1, true)).await;
    }
    broker.stop().await.unwrap();
    let path = home.place.folder.join("store");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let broker = home.start().await;
    assert_eq!((broker.stats().retained.messages, broker.stats().store.put_aside), (2, 1));
}

#[tokio::test]
async fn a_session_ends_when_nobody_can_log_in_to_it_any_more() {
    let mut home = Home::new();
    let broker = home.start().await;
    drop(connect(broker.address(), &kept(4, "meter")).await);
    broker.stop().await.unwrap();
    let users = home.place.folder.with_file_name("users");
    crate::broker::users::set_password(&users, "anna", b"one").unwrap();
    home.config.users = Some(users);
    home.config.anonymous = false;
    let broker = home.start().await;
    assert_eq!(broker.stats().store.sessions, 0);
    connect(broker.address(), &kept(4, "meter").user("anna", "one")).await;
}
