//! `mosquitto_sub` with a persistent session: what a user's server sees.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{Lines, Mosquitto, wait_until};

/// A message as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// It was kept by the broker before we subscribed.
    pub(crate) retained: bool,
    pub(crate) topic: String,
    pub(crate) payload: String,
}

impl Message {
    /// The payload as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.payload)
            .unwrap_or_else(|error| panic!("{}: {error} in {:?}", self.topic, self.payload))
    }
}

/// A subscriber that outlives the broker's restarts. Killed when dropped.
pub(crate) struct Subscriber {
    child: Child,
    lines: Lines,
}

impl Subscriber {
    /// Subscribes to everything; returns when the broker has accepted the subscription.
    pub(crate) fn start(broker: &Mosquitto, id: &str, qos: u8) -> Self {
        Self::with(broker, id, qos, &[])
    }

    /// The same, with further arguments for `mosquitto_sub` and `mosquitto_pub`.
    pub(crate) fn with(broker: &Mosquitto, id: &str, qos: u8, args: &[&str]) -> Self {
        Self::showing(broker, id, qos, args, "%p")
    }

    /// The same, with the payload in a form of `mosquitto_sub`'s option `-F`.
    pub(crate) fn showing(broker: &Mosquitto, id: &str, qos: u8, args: &[&str], form: &str) -> Self {
        let mut child = Command::new("mosquitto_sub")
            .args(["-h", "localhost", "-p", &broker.port().to_string(), "-c", "-i", id, "-q", &qos.to_string()])
            .args(["-t", "#", "-F", &format!("%r %t {form}")])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub starts; are mosquitto-clients installed?");
        let lines = Lines::default();
        lines.collect(child.stdout.take().expect("a pipe was asked for"));
        let subscriber = Self { child, lines };
        let session = format!("as {id} (");
        broker.wait_log(&session, 1);
        // The SUBSCRIBE follows the CONNECT; it is done when a message of our own comes back.
        wait_until("the subscription", || {
            let probe = Command::new("mosquitto_pub")
                .args([
                    "-h",
                    "localhost",
                    "-p",
                    &broker.port().to_string(),
                    "-q",
                    &qos.min(1).to_string(),
                    "-t",
                    "probe",
                    "-m",
                    "ping",
                ])
                .args(args)
                .status();
            assert!(probe.is_ok_and(|status| status.success()), "mosquitto_pub reaches the broker");
            subscriber
                .lines
                .all()
                .iter()
                .any(|line| line.contains(" probe ") && (line.ends_with("ping") || line.ends_with("70696e67")))
        });
        subscriber
    }

    /// Everything received, but the probes of [`Self::start`].
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.lines.all().iter().filter_map(|line| parse(line)).filter(|message| message.topic != "probe").collect()
    }

    /// What was received on a topic.
    pub(crate) fn on(&self, topic: &str) -> Vec<Message> {
        self.messages().into_iter().filter(|message| message.topic == topic).collect()
    }

    /// The first lines and the last, for messages.
    pub(crate) fn excerpt(&self) -> String {
        let lines = self.lines.all();
        let (head, tail) = (lines.iter().take(10), lines.iter().skip(10.max(lines.len().saturating_sub(10))));
        head.chain(tail).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Waits until a message on `topic` satisfies `condition`, and gives it.
    #[track_caller]
    pub(crate) fn wait(&self, topic: &str, condition: impl Fn(&Message) -> bool) -> Message {
        let start = std::time::Instant::now();
        loop {
            if let Some(message) = self.on(topic).into_iter().find(&condition) {
                return message;
            }
            assert!(start.elapsed() < super::DEADLINE, "no such message on {topic}; received:\n{}", self.excerpt());
            std::thread::sleep(super::POLL);
        }
    }
}

fn parse(line: &str) -> Option<Message> {
    let mut parts = line.splitn(3, ' ');
    let (retained, topic, payload) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Message { retained: retained == "1", topic: topic.to_owned(), payload: payload.to_owned() })
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
