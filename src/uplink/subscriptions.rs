//! Commands from a broker: what is subscribed to, and which messages are accepted.
//!
//! A pure state machine, as the session is: packets and time go in; packets to write and verdicts come out.
//!
//! A command is carried out at most once, and never late. So all subscriptions are at QoS 0, which no broker keeps for a
//! client that is away, or so the specification hopes (MQTT 3.1.1, 4.1 leaves it to them); what a broker has kept comes
//! before the answer to the SUBSCRIBE of this connection, and is refused. A connection that has stalled is a queue, too:
//! what arrives at last may have been under way for long. Each PINGRESP shows that what comes after it was sent after
//! its PINGREQ, so that every message has an age that it cannot exceed; the broker is asked often enough that this is
//! below the limit as long as the connection works.
//!
//! Sparkplug B has its commands on topics of its own; see [`Use::max_qos`] for what is different there.
//!
//! Beside commands there is the birth message of a home automation (see [`Commands`] and
//! [`UplinkConfig::discovery`](crate::config::UplinkConfig)): after it, what is announced there is sent again. Where the
//! broker refuses that subscription nothing is lost, because announcements are retained.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clock::BootTime;
use crate::command::{MAX_BYTES, MAX_REFERENCE, Request};
use crate::config::{Commands, Deliver, Qos};

use super::Failure;
use super::packet::{Message, Reason, Retained, Wanted};
use super::sparkplug::Listens;

/// Topics in a SUBSCRIBE. AWS IoT takes no more than this.
const MAX_TOPICS: usize = 8;

/// A broker that has not answered a SUBSCRIBE after so long is reported.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A broker that closed so many connections in a row in place of an answer to SUBSCRIBE is not asked again for
/// [`REST`], so that readings get through.
const MAX_STRIKES: u8 = 3;

/// See [`MAX_STRIKES`].
const REST: Duration = Duration::from_secs(60 * 60);

/// The payload of Home Assistant's birth message, as it is by default
/// (www.home-assistant.io/integrations/mqtt/#birth-and-last-will-messages).
const BORN: &[u8] = b"online";

/// Pings whose answers may be waited for. Only a broker that does not answer gets there, and it is soon left.
const MAX_PINGS: usize = 16;

/// How far the subscription to a topic has come on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not asked for, or not answered.
    Open,
    Accepted,
    /// With this reason code; `None`: the answer had none for it.
    Refused(Option<u8>),
}

/// What a topic is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Use {
    /// Commands for this sensor.
    Commands(String),
    /// The birth message of a home automation.
    Birth,
    /// What a host of Sparkplug says to us or of itself; `retained`: also what it said before.
    Sparkplug { retained: bool },
    /// What a host of Sparkplug commands this sensor.
    Device(String),
    /// Messages for the clients of the embedded broker; these are not lost while we are away.
    Delivery,
}

impl Use {
    fn of(listens: Listens) -> Self {
        match listens {
            Listens::Host => Self::Sparkplug { retained: true },
            Listens::Node => Self::Sparkplug { retained: false },
            Listens::Device(sensor) => Self::Device(sensor),
        }
    }

    /// The sensor that it brings commands for.
    fn commanded(&self) -> Option<&str> {
        match self {
            Self::Commands(sensor) | Self::Device(sensor) => Some(sensor),
            Self::Birth | Self::Sparkplug { .. } | Self::Delivery => None,
        }
    }

    /// The highest quality at which a command may come. Sessions of Sparkplug are not kept, so that a broker has nothing of
    /// an earlier one; hosts publish at 0, and are told to be listened to at 1 (specification 3.0, 5.6,
    /// "device-dcmd-subscribe").
    fn max_qos(&self) -> Qos {
        if matches!(self, Self::Device(_)) { Qos::AtLeastOnce } else { Qos::AtMostOnce }
    }
}

#[derive(Debug)]
struct Topic {
    topic: String,
    of: Use,
    standing: Standing,
}

impl Topic {
    fn wanted(&self) -> Wanted<'_> {
        let (qos, retained) = match self.of {
            Use::Commands(_) | Use::Birth => (Qos::AtMostOnce, Retained::Never),
            // Specification 3.0, 5.4 ("ncmd-subscribe").
            Use::Sparkplug { retained: true } => (Qos::AtLeastOnce, Retained::Always),
            Use::Sparkplug { retained: false } | Use::Device(_) => (Qos::AtLeastOnce, Retained::Never),
            Use::Delivery => (Qos::AtLeastOnce, Retained::Once),
        };
        Wanted { topic: &self.topic, qos, retained }
    }
}

/// A SUBSCRIBE without an answer.
#[derive(Debug)]
struct Asked {
    id: u16,
    topics: Vec<String>,
    at: BootTime,
}

/// What somebody should know of the subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All are accepted.
    Accepted,
    /// Commands do not come, or not all of them, and why.
    Refused(String),
}

/// The subscriptions of one uplink.
#[derive(Debug)]
pub struct Subscriptions {
    /// Of commands; `None`: none are taken.
    max_age: Option<Duration>,
    /// Sorted by topic.
    topics: Vec<Topic>,
    /// Those of them that are still to be asked for on this connection.
    waiting: VecDeque<String>,
    asked: VecDeque<Asked>,
    /// Topics that are wanted no more, and of which the broker is still to be told.
    unwanted: Vec<String>,
    /// Packet ids of UNSUBSCRIBE that have no answer yet.
    leaving: Vec<u16>,
    /// When the pings were sent whose answers are still to come.
    pings: VecDeque<BootTime>,
    /// What comes now was sent by the broker after this time.
    sent_after: Option<BootTime>,
    strikes: u8,
    /// Until then nothing is asked for.
    rests_until: BootTime,
    /// The broker was reported for not answering.
    is_late: bool,
}

impl Subscriptions {
    /// Those of `commands`, that to a birth message, those of a [node](super::sparkplug::Node::topics), and what is
    /// delivered to LAN clients.
    #[must_use]
    pub fn new(
        commands: Option<&Commands>,
        birth: Option<String>,
        node: Vec<(String, Listens)>,
        deliver: &[Deliver],
    ) -> Self {
        let commands = commands.filter(|commands| !commands.topics.is_empty());
        let mut topics: Vec<Topic> = commands
            .iter()
            .flat_map(|commands| &commands.topics)
            .map(|(topic, sensor)| (topic.clone(), Use::Commands(sensor.clone())))
            .chain(birth.map(|topic| (topic, Use::Birth)))
            .chain(node.into_iter().map(|(topic, listens)| (topic, Use::of(listens))))
            .chain(deliver.iter().flat_map(|deliver| &deliver.topics).map(|topic| (topic.clone(), Use::Delivery)))
            .map(|(topic, of)| Topic { topic, of, standing: Standing::Open })
            .collect();
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        Self {
            max_age: commands.map(|commands| commands.max_age),
            topics,
            waiting: VecDeque::new(),
            asked: VecDeque::new(),
            unwanted: Vec::new(),
            leaving: Vec::new(),
            pings: VecDeque::new(),
            sent_after: None,
            strikes: 0,
            rests_until: BootTime(0),
            is_late: false,
        }
    }

    /// Is there anything to subscribe to?
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.topics.is_empty()
    }

    /// Are commands among it?
    #[must_use]
    pub fn has_commands(&self) -> bool {
        self.max_age.is_some()
    }

    /// A connection is up.
    pub fn connected(&mut self, now: BootTime) {
        for topic in &mut self.topics {
            topic.standing = Standing::Open;
        }
        let all = self.topics.iter().map(|topic| topic.topic.clone());
        self.waiting = if now < self.rests_until { VecDeque::new() } else { all.collect() };
        self.asked.clear();
        self.leaving.clear();
        self.pings.clear();
        self.sent_after = None;
        self.is_late = false;
    }

    /// The connection is gone. `closed`: the broker closed it without a reason. Says what is to be told.
    pub fn disconnected(&mut self, closed: bool, now: BootTime) -> Option<News> {
        if !closed || self.asked.is_empty() {
            return None;
        }
        self.strikes += 1;
        if self.strikes < MAX_STRIKES {
            return None;
        }
        self.strikes = 0;
        self.rests_until = now.after(REST);
        let (strikes, minutes) = (MAX_STRIKES, REST.as_secs() / 60);
        if !self.matters() {
            return None;
        }
        Some(News::Refused(format!(
            "the broker has closed {strikes} connections in place of an answer to SUBSCRIBE: it is asked again in \
             {minutes} minutes"
        )))
    }

    /// Is the broker still to answer a SUBSCRIBE?
    #[must_use]
    pub fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Is there more to ask for?
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Commands are taken for other sensors from now on. What else is subscribed to stays as it is, and so does what is the
    /// same; on a connection that is up the rest is asked for, or given up.
    pub fn renew(&mut self, commands: Option<&Commands>, now: BootTime) {
        let commands = commands.filter(|commands| !commands.topics.is_empty());
        self.max_age = commands.map(|commands| commands.max_age);
        let mut new: BTreeMap<&str, &str> = commands
            .iter()
            .flat_map(|it| &it.topics)
            .map(|(topic, sensor)| (topic.as_str(), sensor.as_str()))
            .collect();
        let mut unwanted = Vec::new();
        self.topics.retain_mut(|topic| {
            let Use::Commands(sensor) = &mut topic.of else { return true };
            let stays = new.remove(topic.topic.as_str());
            match stays {
                Some(now_of) => now_of.clone_into(sensor),
                None => unwanted.push(topic.topic.clone()),
            }
            stays.is_some()
        });
        self.waiting.retain(|topic| !unwanted.contains(topic));
        self.unwanted.retain(|topic| !new.contains_key(topic.as_str()));
        self.unwanted.append(&mut unwanted);
        for (topic, sensor) in new {
            let of = Use::Commands(sensor.to_owned());
            self.topics.push(Topic { topic: topic.to_owned(), of, standing: Standing::Open });
            if now >= self.rests_until {
                self.waiting.push_back(topic.to_owned());
            }
        }
        self.topics.sort_by(|a, b| a.topic.cmp(&b.topic));
    }

    /// Is the broker to be told of topics that are wanted no more?
    #[must_use]
    pub fn has_unwanted(&self) -> bool {
        !self.unwanted.is_empty()
    }

    /// The topics of the next UNSUBSCRIBE, which is sent now under this packet id.
    pub fn leave(&mut self, id: u16) -> Vec<String> {
        self.leaving.push(id);
        let count = self.unwanted.len().min(MAX_TOPICS);
        self.unwanted.drain(..count).collect()
    }

    /// UNSUBACK came. Whether there was such a subscription does not matter: now there is none.
    ///
    /// # Errors
    /// Nobody had asked for it.
    pub fn left(&mut self, id: u16) -> Result<(), Failure> {
        let index = self.leaving.iter().position(|leaving| *leaving == id).ok_or(Failure::OutOfPlace)?;
        self.leaving.remove(index);
        Ok(())
    }

    fn of(&mut self, topic: &str) -> Option<&mut Topic> {
        let index = self.topics.binary_search_by(|other| other.topic.as_str().cmp(topic)).ok()?;
        self.topics.get_mut(index)
    }

    /// The topics of the next SUBSCRIBE, which is sent now under this packet id.
    pub fn ask(&mut self, id: u16, now: BootTime) -> Vec<Wanted<'_>> {
        let count = self.waiting.len().min(MAX_TOPICS);
        let next: Vec<String> = self.waiting.drain(..count).collect();
        let asked: Vec<Wanted<'_>> =
            self.topics.iter().filter(|topic| next.contains(&topic.topic)).map(Topic::wanted).collect();
        // In the order of the packet, which is that of the answer.
        let topics = asked.iter().map(|wanted| wanted.topic.to_owned()).collect();
        self.asked.push_back(Asked { id, topics, at: now });
        asked
    }

    /// SUBACK came.
    ///
    /// # Errors
    /// Nobody had asked for it.
    pub fn answered(&mut self, id: u16, codes: &[u8]) -> Result<Option<News>, Failure> {
        let index = self.asked.iter().position(|asked| asked.id == id).ok_or(Failure::OutOfPlace)?;
        let asked = self.asked.remove(index).ok_or(Failure::OutOfPlace)?;
        for (place, topic) in asked.topics.iter().enumerate() {
            // One that is wanted no more is soon given up.
            let Some(topic) = self.of(topic) else { continue };
            topic.standing = match codes.get(place).copied() {
                Some(..0x80) => Standing::Accepted,
                code => Standing::Refused(code),
            };
        }
        self.strikes = 0;
        self.sent_after = self.sent_after.max(Some(asked.at));
        if !self.asked.is_empty() || !self.waiting.is_empty() {
            return Ok(None);
        }
        if !self.matters() {
            return Ok(None);
        }
        let others = self.topics.iter().filter(|topic| topic.of != Use::Birth);
        let mut refused = others.filter_map(|topic| match topic.standing {
            Standing::Refused(code) => Some((&topic.topic, code)),
            Standing::Open | Standing::Accepted => None,
        });
        let Some((first, code)) = refused.next() else { return Ok(Some(News::Accepted)) };
        let more = match refused.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        // 0x80 is all that MQTT 3.1.1 can say.
        let reason = code.filter(|code| *code > 0x80).map(|code| format!(": {}", Reason::new(code)));
        let reason = reason.unwrap_or_default();
        Ok(Some(News::Refused(format!("the broker refuses the subscription to {first}{more}{reason}"))))
    }

    /// Is the broker to be asked for a sign of life now? Then [`pinged`](Self::pinged) is to be called.
    #[must_use]
    pub fn wants_ping(&self, now: BootTime) -> bool {
        self.ping_due().is_some_and(|due| due <= now)
    }

    fn ping_due(&self) -> Option<BootTime> {
        let last = self.pings.back().copied().or(self.sent_after)?;
        let max_age = self.max_age?;
        (self.pings.len() < MAX_PINGS).then(|| last.after(max_age / 2))
    }

    /// PINGREQ is sent, for whatever reason.
    pub fn pinged(&mut self, now: BootTime) {
        if self.max_age.is_some() && self.pings.len() < MAX_PINGS {
            self.pings.push_back(now);
        }
    }

    /// PINGRESP came.
    pub fn ponged(&mut self) {
        if let Some(sent) = self.pings.pop_front() {
            self.sent_after = self.sent_after.max(Some(sent));
        }
    }

    /// The broker has not answered in time: told once a connection.
    pub fn late(&mut self, now: BootTime) -> Option<News> {
        if self.is_late || self.answer_due().is_none_or(|due| due > now) {
            return None;
        }
        self.is_late = true;
        let seconds = ANSWER_WITHIN.as_secs();
        Some(News::Refused(format!("the broker has not answered SUBSCRIBE for {seconds} s")))
    }

    /// Is something lost where the broker refuses them?
    fn matters(&self) -> bool {
        self.topics.iter().any(|topic| topic.of != Use::Birth)
    }

    fn answer_due(&self) -> Option<BootTime> {
        if !self.matters() {
            return None;
        }
        Some(self.asked.front()?.at.after(ANSWER_WITHIN))
    }

    /// When something is due although nothing comes.
    #[must_use]
    pub fn due(&self) -> Option<BootTime> {
        let answer = self.answer_due().filter(|_| !self.is_late);
        [self.ping_due(), answer].into_iter().flatten().min()
    }

    /// What is to become of a message; `None`: it is no command.
    #[must_use]
    pub fn request(&self, uplink: &str, message: &Message, now: BootTime) -> Option<Request> {
        let index = self.topics.binary_search_by(|topic| topic.topic.as_str().cmp(&message.topic)).ok()?;
        let topic = &self.topics[index];
        let (sensor, max_age) = (topic.of.commanded()?.to_owned(), self.max_age?);
        let fits = message.payload.len() <= MAX_BYTES;
        Some(Request {
            uplink: uplink.to_owned(),
            sensor,
            payload: if fits { message.payload.as_ref().into() } else { Box::default() },
            reference: message.correlation.as_deref().and_then(reference),
            time: message.time.clone(),
            at: now,
            max_age,
            refused: self.refusal(topic, max_age, message, now),
        })
    }

    /// Does the message say that a home automation has started?
    #[must_use]
    pub fn is_birth(&self, message: &Message) -> bool {
        let is_its_topic = |topic: &Topic| topic.of == Use::Birth && topic.topic == message.topic;
        // One that the broker has kept tells of a start long ago, and all is sent at each connect anyway.
        !message.retain && message.payload.as_ref() == BORN && self.topics.iter().any(is_its_topic)
    }

    fn refusal(&self, topic: &Topic, max_age: Duration, message: &Message, now: BootTime) -> Option<String> {
        let age = self.sent_after.map(|then| now.since(then));
        if message.retain {
            Some("it is retained: publish commands without the retain flag, and take the retained one back".to_owned())
        } else if message.qos > topic.of.max_qos() {
            // That is more than we subscribe with: it is of a session that another program had under our identifier.
            Some("it comes from an old session of the broker".to_owned())
        } else if topic.standing != Standing::Accepted {
            Some("it comes before the broker has accepted our subscription: it may have waited for us".to_owned())
        } else if age.is_none_or(|age| age > max_age) {
            let limit = max_age.as_secs_f64();
            Some(format!("the connection had stalled: it may be older than {limit} s (`command_max_age`)"))
        } else if message.payload.len() > MAX_BYTES {
            Some(format!("{} bytes are too many: a command has at most {MAX_BYTES}", message.payload.len()))
        } else {
            None
        }
    }
}

/// Correlation data that is a short text.
fn reference(data: &[u8]) -> Option<String> {
    std::str::from_utf8(data).ok().filter(|text| text.len() <= MAX_REFERENCE).map(str::to_owned)
}

#[cfg(test)]
mod tests;
