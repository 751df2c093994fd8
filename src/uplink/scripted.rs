//! A real outbox on one side, a broker that does as it is told on the other: what the tests of this module share.
//!
//! The broker speaks the version of MQTT that the test has chosen with [`speak`]. What comes in MQTT 5 is handed out
//! in the form of 3.1.1, so that one script does for both, and what more it says lies beside it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{Connect, Packet, Publish};
use rumqttc::mqttbytes::{Error, QoS};
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, PublishProperties};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

use crate::clock::{BootId, BootTime, Clock, ManualClock};
use crate::config::{self, Backlog, BrokerUrl, Gateway, MqttVersion, Payload, Qos, Selection, TlsConfig, UplinkConfig};
use crate::outbox::{Body, Outbox, Raw, Settings};
use crate::topic::Template;

use super::Hub;
use super::access;
use super::failure::Failure;
use super::feed::Feed;
use super::link::{Link, Manners, serve};
use super::packet::{ConnectSettings, Will};
use super::status::{Info, LOST};

mod version5;

/// Nothing in these tests waits for time to pass; who waits for so long waits for something that will not happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway with one uplink, which can be killed and started again.
pub(super) struct Setup {
    pub(super) hub: Rc<Hub>,
    pub(super) feed: Feed,
    pub(super) config: UplinkConfig,
    pub(super) clock: Arc<ManualClock>,
    pub(super) boot: BootId,
    dir: Rc<TempDir>,
}

thread_local! {
    /// The version of MQTT that both sides speak in the test of this thread.
    static VERSION: Cell<MqttVersion> = const { Cell::new(MqttVersion::V311) };
}

/// From now on, both sides speak this version in this test.
pub(super) fn speak(version: MqttVersion) {
    VERSION.set(version);
}

pub(super) fn config(qos: Qos, inflight: u16) -> UplinkConfig {
    UplinkConfig {
        name: "home".to_owned(),
        urls: vec![BrokerUrl::of(([127, 0, 0, 1], 1883).into())],
        failback: Duration::from_secs(180),
        connect: config::Connect::Always,
        interface: None,
        proxy: None,
        mqtt: VERSION.get(),
        client_id: "vigie-test".to_owned(),
        username: Some(config::Username::Text("pi".to_owned())),
        password: None,
        qos,
        retain: true,
        state: true,
        inflight,
        keep_alive: Duration::ZERO,
        clock_wait: Duration::ZERO,
        payload: Payload::default(),
        sparkplug: None,
        privacy: config::Privacy::default(),
        max_packet: 10_000,
        selection: Selection::default(),
        backlog: Backlog::default(),
        tls: TlsConfig::default(),
        commands: None,
        audit: false,
        discovery: None,
        token: None,
        preset: None,
        deliver: Vec::new(),
    }
}

pub(super) fn gateway() -> Gateway {
    Gateway {
        name: "atelier".to_owned(),
        id: "1".to_owned(),
        label: None,
        site: Some("maison".to_owned()),
        topic: Template::parse("{site}/{room}/{quantity}").expect("a template"),
        location: None,
    }
}

/// Writes to disk what is due, as the agent does.
pub(super) fn flush(hub: &Hub) {
    let now = hub.clock.boot();
    {
        let outbox = &mut *hub.outbox.borrow_mut();
        while let Some(job) = outbox.begin_flush(now) {
            let done = job.run();
            outbox.finish_flush(done, now);
        }
    }
    hub.flushed();
}

impl Setup {
    /// The clock is set.
    pub(super) fn new(config: UplinkConfig) -> Self {
        let clock = Arc::new(ManualClock::new());
        clock.set_wall(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        Self::open(config, clock, BootId([1; 16]), Rc::new(tempfile::tempdir().expect("a folder")))
    }

    /// The clock is not set.
    pub(super) fn without_time(config: UplinkConfig) -> Self {
        let dir = Rc::new(tempfile::tempdir().expect("a folder"));
        Self::open(config, Arc::new(ManualClock::new()), BootId([1; 16]), dir)
    }

    fn open(config: UplinkConfig, clock: Arc<ManualClock>, boot: BootId, dir: Rc<TempDir>) -> Self {
        let settings = Settings {
            dir: dir.path().join("outbox"),
            tail_dir: dir.path().join("tail"),
            flush: Duration::from_secs(1),
            max_bytes: 64 << 20,
            free_share: 50,
            full: crate::outbox::Full::DropOldest,
            memory_bytes: 8 << 20,
            persist: Duration::from_secs(300),
            key: None,
        };
        let (outbox, recovery) = Outbox::open(settings, boot, clock.boot()).expect("an outbox");
        let info = Info { version: "0", run: outbox.run(), ..Info::default() };
        let hub = Hub::new(outbox, clock.clone(), boot, gateway(), info, recovery.tail_found);
        hub.veil(std::slice::from_ref(&config));
        let feed = Feed::new(&config, &hub);
        Self { hub, feed, config, clock, boot, dir }
    }

    /// SIGKILL and a new start.
    pub(super) fn killed(self) -> Self {
        let Self { hub, feed, config, clock, boot, dir } = self;
        drop((hub, feed));
        Self::open(config, clock, boot, dir)
    }

    /// An orderly end, a reboot, and a new start.
    pub(super) fn rebooted(self) -> Self {
        let clock = self.clock.clone();
        self.rebooted_with(clock)
    }

    /// The same, and the new boot has no time.
    pub(super) fn rebooted_without_time(self) -> Self {
        self.rebooted_with(Arc::new(ManualClock::new()))
    }

    fn rebooted_with(mut self, new: Arc<ManualClock>) -> Self {
        self.feed.close(&mut self.hub.outbox.borrow_mut(), self.clock.boot());
        let Self { hub, feed, config, clock, dir, .. } = self;
        drop(feed);
        let hub = Rc::into_inner(hub).expect("nobody else has it");
        hub.outbox.into_inner().close(clock.boot()).expect("closed");
        Self::open(config, new, BootId([2; 16]), dir)
    }

    /// A power cut: only what is on disk is left.
    pub(super) fn power_cut(self) -> Self {
        let Self { hub, feed, config, clock, dir, .. } = self;
        drop((hub, feed));
        std::fs::remove_dir_all(dir.path().join("tail")).expect("a tail");
        Self::open(config, clock, BootId([2; 16]), dir)
    }

    /// Takes messages with these texts.
    pub(super) fn take<'t>(&self, texts: impl IntoIterator<Item = &'t str>) {
        for text in texts {
            let raw = Raw { topic: "t".into(), payload: text.as_bytes().into(), retain: false };
            let (now, time) = (self.clock.boot(), self.hub.now());
            self.hub.outbox.borrow_mut().append(now, time, Body::Raw(raw));
        }
        self.hub.outbox.borrow_mut().commit(self.clock.boot());
        self.hub.appended();
    }

    /// Takes `count` messages with the texts 0, 1, …
    pub(super) fn take_numbers(&self, count: usize) {
        let texts: Vec<String> = numbers(count);
        self.take(texts.iter().map(String::as_str));
    }

    pub(super) fn backlog(&self) -> u64 {
        let outbox = &mut *self.hub.outbox.borrow_mut();
        let cursor = outbox.cursor(&self.config.name);
        outbox.backlog(cursor)
    }

    /// Writes everything to disk, as the agent does when it is due.
    pub(super) fn flush(&self, later: Duration) {
        self.clock.advance(later);
        flush(&self.hub);
    }

    /// One connection, from CONNECT to its end, with a broker that follows the script. When the script ends, it
    /// closes the connection.
    pub(super) async fn connection(
        &mut self,
        script: impl AsyncFnOnce(&mut Peer<DuplexStream>),
    ) -> Result<(), Failure> {
        let (_keep, stop) = watch::channel(None);
        self.connection_until(stop, 16 * 1_024, script).await
    }

    pub(super) async fn connection_until(
        &mut self,
        mut stop: watch::Receiver<Option<BootTime>>,
        pipe: usize,
        script: impl AsyncFnOnce(&mut Peer<DuplexStream>),
    ) -> Result<(), Failure> {
        let (ours, theirs) = tokio::io::duplex(pipe);
        let broker = async {
            let mut peer = Peer::new(theirs);
            script(&mut peer).await;
        };
        let client = async {
            let mut link = Link::new(ours, "broker", self.config.mqtt, self.config.max_packet);
            let access = access::read(&Arc::new(self.config.clone()), false, self.hub.certificate_time()).await?;
            let settings = ConnectSettings {
                version: self.config.mqtt,
                client_id: &self.config.client_id,
                username: access.login(&self.config),
                password: None,
                keep_alive: self.config.keep_alive,
                clean_session: false,
                max_packet: self.config.max_packet,
                will: Some(Will {
                    topic: "maison/atelier/availability",
                    payload: LOST.as_bytes(),
                    qos: Qos::AtLeastOnce,
                    retain: true,
                }),
            };
            let accepted = link.connect(&settings).await?;
            self.feed.connected(&accepted, self.hub.live_from(), self.clock.boot());
            let manners = Manners {
                keep_alive: self.config.keep_alive,
                clock_wait: self.config.clock_wait,
                availability_topic: self.hub.topic_of("home", "availability"),
                awake: None,
            };
            let leave = std::future::pending();
            let ended = serve(link, &mut self.feed, &self.hub, &manners, &mut stop, leave).await;
            self.feed.disconnected(&self.hub, ended.as_ref().is_err_and(Failure::may_be_a_message));
            self.hub.put_aside(self.feed.take_refused());
            self.hub.all_put_aside().await;
            ended.map(|_| ())
        };
        let both = async { tokio::join!(client, broker).0 };
        tokio::time::timeout(PATIENCE, both).await.expect("something that was waited for did not happen")
    }
}

pub(super) fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}

/// The broker's end of a connection.
pub(super) struct Peer<S> {
    stream: S,
    buffer: BytesMut,
    /// Messages about the gateway's state that have come.
    states: usize,
    /// What the last packet said beyond MQTT 3.1.1.
    pub(super) said: Said,
    /// Topics by their alias, as far as [`Peer::allow_aliases`] lets the agent have them.
    aliases: Vec<Option<String>>,
    /// How many messages may wait for their acknowledgement, and which do.
    receive_maximum: usize,
    outstanding: BTreeSet<u16>,
}

/// What only MQTT 5 says.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) connect: Option<ConnectProperties>,
    pub(super) publish: Option<PublishProperties>,
    /// Was the topic left out?
    pub(super) aliased: bool,
    pub(super) disconnect: Option<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            states: 0,
            said: Said::default(),
            aliases: Vec::new(),
            receive_maximum: usize::MAX,
            outstanding: BTreeSet::new(),
        }
    }

    /// More messages than this without an acknowledgement fail the test.
    pub(super) fn receive_maximum(&mut self, count: usize) {
        self.receive_maximum = count;
    }

    /// The agent may use the aliases from 1 to `count`; any other one fails the test.
    pub(super) fn allow_aliases(&mut self, count: usize) {
        self.aliases = vec![None; count];
    }

    /// The next packet; `None` when the agent has closed the connection.
    pub(super) async fn next(&mut self) -> Option<Packet> {
        loop {
            let read = match VERSION.get() {
                MqttVersion::V311 => Packet::read(&mut self.buffer, 1_000_000),
                MqttVersion::V5 => version5::read(&mut self.buffer, &mut self.said, &mut self.aliases),
            };
            match read {
                Ok(packet) => {
                    if let Packet::Publish(message) = &packet
                        && message.qos != QoS::AtMostOnce
                    {
                        self.outstanding.insert(message.pkid);
                        assert!(self.outstanding.len() <= self.receive_maximum, "more than the broker takes");
                    }
                    self.states += usize::from(
                        matches!(&packet, Packet::Publish(message) if message.topic.starts_with("maison/atelier/")),
                    );
                    return Some(packet);
                }
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("the agent sent nonsense: {error}"),
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        // The agent may have gone already; the script sees that at its next packet.
        let _ = self.stream.write_all(bytes).await;
    }

    pub(super) async fn connack(&mut self, session_present: bool) -> Connect {
        self.connack_with(session_present, &[]).await
    }

    /// CONNACK with these properties, as bytes without their length.
    pub(super) async fn connack_with(&mut self, session_present: bool, properties: &[u8]) -> Connect {
        let Some(Packet::Connect(connect)) = self.next().await else { panic!("no CONNECT") };
        let length = u8::try_from(properties.len()).expect("few");
        let flags = u8::from(session_present);
        match VERSION.get() {
            MqttVersion::V311 => self.send(&[0x20, 2, flags, 0]).await,
            MqttVersion::V5 => self.send(&[&[0x20, 3 + length, flags, 0, length], properties].concat()).await,
        }
        connect
    }

    /// An acknowledgement with a reason.
    pub(super) async fn answer(&mut self, kind: u8, id: u16, reason: u8) {
        if kind != 0x50 || reason >= 0x80 {
            self.outstanding.remove(&id);
        }
        let [high, low] = id.to_be_bytes();
        self.send(&[kind, 3, high, low, reason]).await;
    }

    pub(super) async fn ack(&mut self, id: u16) {
        self.acknowledge(0x40, id).await;
    }

    pub(super) async fn acknowledge(&mut self, kind: u8, id: u16) {
        if kind != 0x50 {
            self.outstanding.remove(&id);
        }
        let [high, low] = id.to_be_bytes();
        self.send(&[kind, 2, high, low]).await;
    }

    /// The first acknowledgement of a message.
    pub(super) async fn complete(&mut self, message: &Publish) {
        let kind = if message.qos == QoS::ExactlyOnce { 0x50 } else { 0x40 };
        self.acknowledge(kind, message.pkid).await;
    }

    /// The next message that is a reading; state before it is acknowledged.
    pub(super) async fn reading(&mut self) -> Publish {
        loop {
            match self.next().await {
                Some(Packet::Publish(message)) if is_reading(&message) => {
                    return message;
                }
                Some(Packet::Publish(state)) => self.ack(state.pkid).await,
                other => panic!("instead of a reading: {other:?}"),
            }
        }
    }

    pub(super) async fn readings(&mut self, count: usize) -> Vec<Publish> {
        let mut found = Vec::new();
        for _ in 0..count {
            found.push(self.reading().await);
        }
        found
    }

    /// Acknowledges everything as the specification says, until `count` readings have been completed.
    pub(super) async fn behave(&mut self, count: usize) -> Vec<Publish> {
        let (mut found, mut complete) = (Vec::new(), 0);
        while complete < count {
            match self.next().await {
                Some(Packet::Publish(message)) if is_reading(&message) => {
                    match message.qos {
                        QoS::AtMostOnce => complete += 1,
                        QoS::AtLeastOnce => {
                            self.ack(message.pkid).await;
                            complete += 1;
                        }
                        QoS::ExactlyOnce => self.acknowledge(0x50, message.pkid).await,
                    }
                    found.push(message);
                }
                Some(Packet::Publish(state)) => self.ack(state.pkid).await,
                Some(Packet::PubRel(release)) => {
                    self.acknowledge(0x70, release.pkid).await;
                    complete += 1;
                }
                Some(Packet::PingReq) => self.send(&[0xd0, 0]).await,
                other => panic!("{other:?}"),
            }
        }
        found
    }

    /// Makes sure that the agent has taken everything that was sent to it, and has sent its state: it answers this
    /// message.
    pub(super) async fn sync(&mut self) {
        match VERSION.get() {
            MqttVersion::V311 => self.send(&[0x32, 6, 0, 1, b's', 0, 9, b'!']).await,
            MqttVersion::V5 => self.send(&[0x32, 7, 0, 1, b's', 0, 9, 0, b'!']).await,
        }
        let mut answered = false;
        while !answered || self.states < 2 {
            match self.next().await {
                Some(Packet::PubAck(ack)) if ack.pkid == 9 => answered = true,
                Some(Packet::Publish(message)) if is_reading(&message) => {}
                Some(Packet::Publish(state)) => self.ack(state.pkid).await,
                other => panic!("{other:?}"),
            }
        }
    }
}

fn is_reading(message: &Publish) -> bool {
    !message.topic.starts_with("maison/atelier/") && !message.topic.ends_with("/availability")
}

pub(super) fn texts(messages: &[Publish]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
}

pub(super) fn ids(messages: &[Publish]) -> Vec<u16> {
    messages.iter().map(|message| message.pkid).collect()
}

pub(super) fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}
