//! A subscriber that receives exactly once, which `mosquitto_sub` does not: version 2.0.11 of its library keeps a
//! second entry for a QoS 2 message that the broker sends again after a lost connection, and so hands one message on
//! twice and another one never. What is to be said about the agent must not depend on that.
//!
//! A QoS 2 message counts when its packet id is new (MQTT 3.1.1, 4.3.3, method A); the ids outlive the connection, as
//! the broker's session does.
//!
//! One more fault of Mosquitto 2.0.11 is seen through: stopped between PUBREL and PUBCOMP, it may after its restart send
//! the released message again, as a duplicate under the same packet id. What the agent had sent twice would come as two
//! messages of the broker's own, with packet ids of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, Packet, PubAck, PubComp, PubRec, Publish, Subscribe};

use super::{Message, Mosquitto, POLL, wait_until};

/// More than any packet of these tests.
const MAX_PACKET: usize = 1 << 20;

/// Receives everything, with a persistent session. Ends when dropped.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    messages: Mutex<Vec<Message>>,
    subscribed: AtomicBool,
    stop: AtomicBool,
}

impl Receiver {
    /// Subscribes to everything at QoS 2; returns when the broker has accepted that.
    pub(crate) fn start(broker: &Mosquitto) -> Self {
        let shared = Arc::<Shared>::default();
        let (port, also_shared) = (broker.port(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            let mut held = Held::default();
            while !also_shared.stop.load(Ordering::Relaxed) {
                // Whatever ended the connection: the broker is away, and will be back.
                let _ = receive(port, &also_shared, &mut held);
                std::thread::sleep(POLL);
            }
        });
        let receiver = Self { shared, thread: Some(thread) };
        wait_until("the subscription", || receiver.shared.subscribed.load(Ordering::Relaxed));
        receiver
    }

    /// Hands over what was received since the last call.
    pub(crate) fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *self.shared.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was received on a topic.
    pub(crate) fn on(&self, topic: &str) -> Vec<Message> {
        let messages = self.shared.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.iter().filter(|message| message.topic == topic).cloned().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What the receiver's end of the session remembers.
#[derive(Default)]
struct Held {
    /// Packet ids of QoS 2 messages that were received and not yet released.
    ids: BTreeSet<u16>,
    /// The last message under each packet id.
    last: BTreeMap<u16, Bytes>,
}

impl Held {
    /// Is it a message that was not received before?
    fn is_new(&mut self, publish: &Publish) -> bool {
        let new_id = self.ids.insert(publish.pkid);
        let before = self.last.insert(publish.pkid, publish.payload.clone());
        new_id && !(publish.dup && before.as_ref() == Some(&publish.payload))
    }
}

/// Serves one connection.
fn receive(port: u16, shared: &Shared, held: &mut Held) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    // So that the end of the test is noticed.
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut connect = Connect::new("server");
    (connect.clean_session, connect.keep_alive) = (false, 0);
    let mut output = BytesMut::new();
    put(&Packet::Connect(connect), &mut output);
    let (mut input, mut chunk) = (BytesMut::new(), [0; 8192]);
    loop {
        stream.write_all(&output)?;
        output.clear();
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => input.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if shared.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        // An error means that a packet is not whole yet: more must be read.
        while let Ok(packet) = Packet::read(&mut input, MAX_PACKET) {
            take(packet, shared, held, &mut output);
        }
    }
}

fn take(packet: Packet, shared: &Shared, held: &mut Held, output: &mut BytesMut) {
    match packet {
        Packet::ConnAck(answer) if !answer.session_present => {
            *held = Held::default();
            let mut subscribe = Subscribe::new("#", QoS::ExactlyOnce);
            subscribe.pkid = 1;
            put(&Packet::Subscribe(subscribe), output);
        }
        Packet::SubAck(_) => shared.subscribed.store(true, Ordering::Relaxed),
        Packet::Publish(publish) => {
            if publish.qos != QoS::ExactlyOnce || held.is_new(&publish) {
                let payload = String::from_utf8_lossy(&publish.payload).into_owned();
                let message = Message { retained: publish.retain, topic: publish.topic.clone(), payload };
                shared.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            }
            match publish.qos {
                QoS::AtMostOnce => {}
                QoS::AtLeastOnce => put(&Packet::PubAck(PubAck::new(publish.pkid)), output),
                QoS::ExactlyOnce => put(&Packet::PubRec(PubRec::new(publish.pkid)), output),
            }
        }
        Packet::PubRel(release) => {
            held.ids.remove(&release.pkid);
            put(&Packet::PubComp(PubComp::new(release.pkid)), output);
        }
        _ => {}
    }
}

fn put(packet: &Packet, output: &mut BytesMut) {
    packet.write(output, MAX_PACKET).expect("a packet of ours fits");
}
