//! One connection: bytes in and out, and what is due when.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use crate::clock::BootTime;
use crate::config::MqttVersion;
use crate::outbox::Outbox;

use super::feed::{Feed, Fill, Output};
use super::keepalive::{Due, KeepAlive};
use super::packet::{self, Accepted, ConnectSettings, Incoming, Malformed, Reason, UserName};
use super::{Failure, Hub, status, tls};

/// Bytes for which there is room at each read.
const READ_SIZE: usize = 8 * 1_024;

/// Nothing is read while so many bytes wait to be written. Only a broker that floods us with messages gets there.
const READ_PAUSE: usize = 1_024 * 1_024;

/// How long an orderly end may take that is not the agent's.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// How long the last packet of a connection may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// A stream with its buffers.
#[derive(Debug)]
pub struct Link<S> {
    stream: S,
    /// TLS may hold back what was written until it is flushed.
    unflushed: bool,
    input: BytesMut,
    output: Output,
    /// For messages about TLS.
    host: String,
    version: MqttVersion,
    max_packet: u32,
    /// So many bytes that come are of a message that is larger than we accept.
    skip: usize,
    /// The broker's keep-alive, which takes the place of ours.
    keep_alive: Option<Duration>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Takes over a connected stream. `max_packet` is the largest packet that is accepted.
    pub fn new(stream: S, host: &str, version: MqttVersion, max_packet: u32) -> Self {
        let (input, output) = (BytesMut::new(), Output::default());
        let host = host.to_owned();
        Self { stream, unflushed: false, input, output, host, version, max_packet, skip: 0, keep_alive: None }
    }

    /// Sends CONNECT and waits for the answer.
    ///
    /// # Errors
    /// The broker refuses, says something else, or the connection is lost.
    pub async fn connect(&mut self, settings: &ConnectSettings<'_>) -> Result<Accepted, Failure> {
        packet::put_connect(&mut self.output.buffer, settings).map_err(Failure::Settings)?;
        loop {
            match packet::read(&mut self.input, self.version, self.max_packet)? {
                None => {}
                Some(Incoming::ConnAck(answer)) => {
                    let accepted = answer.map_err(|reason| Failure::Refused {
                        reason,
                        version: self.version,
                        client_id: settings.client_id.to_owned(),
                        username: settings.username.map_or("(none)", UserName::shown).to_owned(),
                    })?;
                    self.keep_alive = accepted.limits.keep_alive;
                    return Ok(accepted);
                }
                Some(Incoming::Disconnect(reason)) => return Err(Failure::Disconnected(reason)),
                Some(_) => return Err(Failure::OutOfPlace),
            }
            let (_, wrote) = poll_fn(|context| self.poll_transfer(context)).await.map_err(|failure| {
                // Old brokers leave without a word when they see a version that they do not know.
                let unanswered = matches!(failure, Failure::Closed) && self.version == MqttVersion::V5;
                if unanswered { Failure::NoAnswer } else { failure }
            })?;
            self.output.wrote(wrote);
        }
    }

    /// Ends the connection in order: the broker discards the will.
    pub async fn disconnect(mut self) {
        packet::put_disconnect(&mut self.output.buffer);
        self.close().await;
    }

    /// Ends the connection in order: the broker publishes the will, if MQTT can say that.
    async fn leave_with_will(mut self) {
        if self.version == MqttVersion::V5 {
            packet::put_disconnect_because(&mut self.output.buffer, &Reason::DISCONNECT_WITH_WILL);
            return self.close().await;
        }
        self.disconnect().await;
    }

    /// Writes what is left and closes.
    async fn close(mut self) {
        // Whatever happens now, the connection is at its end.
        let _ = tokio::time::timeout(GOODBYE, async {
            self.stream.write_all(&self.output.buffer).await?;
            self.stream.shutdown().await
        })
        .await;
    }

    /// Hands every whole packet that has come to the feed.
    fn take_packets(&mut self, feed: &mut Feed, outbox: &mut Outbox, now: BootTime) -> Result<(), Failure> {
        loop {
            let skipped = self.skip.min(self.input.len());
            self.input.advance(skipped);
            self.skip -= skipped;
            match packet::read(&mut self.input, self.version, self.max_packet) {
                _ if self.skip > 0 => return Ok(()),
                Ok(Some(packet)) => feed.received(outbox, &mut self.output, packet, now)?,
                Ok(None) => return Ok(()),
                // Anybody who may send a command may send a large one, and the broker may retain that: it must not end
                // each connection anew.
                Err(Malformed::TooLarge { .. }) if feed.takes_commands() && packet::is_at_qos_0(&self.input) => {
                    self.skip = packet::announced(&self.input);
                    feed.skipped();
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes and reads what is possible without waiting. Ready with the bytes read and written if there were any; the written
    /// ones are still in the buffer.
    fn poll_transfer(&mut self, context: &mut Context<'_>) -> Poll<Result<(usize, usize), Failure>> {
        let (mut wrote, mut failed) = (0, None);
        while wrote < self.output.buffer.len() {
            match Pin::new(&mut self.stream).poll_write(context, &self.output.buffer[wrote..]) {
                Poll::Ready(Ok(0)) => failed = Some(Failure::Closed),
                Poll::Ready(Ok(bytes)) => {
                    wrote += bytes;
                    self.unflushed = true;
                    continue;
                }
                Poll::Ready(Err(error)) => failed = Some(Failure::io(&error, &self.host)),
                Poll::Pending => {}
            }
            break;
        }
        if self.unflushed && failed.is_none() {
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => failed = Some(Failure::io(&error, &self.host)),
                Poll::Pending => {}
            }
        }
        // What the broker still said before it closed is read first: each acknowledgement spares a duplicate.
        let mut read = 0;
        if self.output.buffer.len() < READ_PAUSE {
            self.input.reserve(READ_SIZE);
            match pin!(self.stream.read_buf(&mut self.input)).poll(context) {
                Poll::Ready(Ok(0)) => failed = failed.or(Some(Failure::Closed)),
                Poll::Ready(Ok(bytes)) => read = bytes,
                Poll::Ready(Err(error)) => failed = failed.or_else(|| Some(Failure::io(&error, &self.host))),
                Poll::Pending => {}
            }
        }
        if let Some(failure) = failed.filter(|_| read == 0) {
            return Poll::Ready(Err(failure));
        }
        if read + wrote > 0 { Poll::Ready(Ok((read, wrote))) } else { Poll::Pending }
    }
}

/// What an established connection has to observe.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Interval of the keep-alive; zero: none.
    pub keep_alive: Duration,
    /// How long readings without a date are held back.
    pub clock_wait: Duration,
    /// Where the farewell is published.
    pub availability_topic: String,
    /// The connection ends when what waited at its start is acknowledged, and at this time at the latest; `None`: it
    /// stays.
    pub awake: Option<BootTime>,
}

/// Why a connection ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The agent ends.
    Shutdown,
    /// It is made anew, with other files.
    Renew,
    /// The first broker of the list is there again.
    Failback,
    /// Everything is sent, or the time for it is over.
    Asleep,
}

impl Leave {
    fn farewell(self) -> &'static str {
        match self {
            Self::Shutdown => status::SHUTDOWN,
            Self::Renew | Self::Failback => status::RECONNECTING,
            Self::Asleep => status::ASLEEP,
        }
    }
}

/// An orderly end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exit {
    why: Leave,
    /// Until then the acknowledgements of what is in flight are waited for.
    drain: BootTime,
    /// Until then that of the farewell.
    end: BootTime,
}

impl Exit {
    fn new(why: Leave, now: BootTime, deadline: BootTime) -> Self {
        // A quarter of the time is left for the farewell.
        let left = deadline.since(now);
        Self { why, drain: now.after(left - left / 4), end: deadline }
    }
}

/// How far an orderly end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Nothing new is sent any more; acknowledgements are waited for.
    Draining(Exit),
    /// The farewell is sent; its acknowledgement is waited for.
    Leaving(Exit),
}

impl Phase {
    /// The agent ends: that is a reason to leave of its own, and leaves less time than any other.
    fn told(self, stop: Option<BootTime>, now: BootTime) -> Self {
        match (self, stop) {
            (Self::Running, Some(deadline)) => Self::Draining(Exit::new(Leave::Shutdown, now, deadline)),
            (Self::Draining(exit), Some(deadline)) if exit.why != Leave::Shutdown => {
                Self::Draining(Exit::new(Leave::Shutdown, now, deadline.min(exit.end)))
            }
            (Self::Leaving(exit), Some(deadline)) if exit.why != Leave::Shutdown => {
                Self::Leaving(Exit { why: Leave::Shutdown, end: deadline.min(exit.end), ..exit })
            }
            _ => self,
        }
    }

    fn due(self) -> Option<BootTime> {
        match self {
            Self::Running => None,
            Self::Draining(exit) => Some(exit.drain),
            Self::Leaving(exit) => Some(exit.end),
        }
    }

    fn is_told(self) -> bool {
        matches!(self, Self::Draining(exit) | Self::Leaving(exit) if exit.why == Leave::Shutdown)
    }
}

/// A timer that is only set anew when it must fire earlier, or has fired.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    set_to: Option<BootTime>,
}

impl Timer {
    fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), set_to: None }
    }

    fn set(&mut self, due: Option<BootTime>, now: BootTime) {
        if let Some(due) = due
            && self.set_to.is_none_or(|set_to| due < set_to)
        {
            self.sleep.as_mut().reset(Instant::now() + due.since(now));
            self.set_to = Some(due);
        }
    }

    async fn wait(&mut self) {
        if self.set_to.is_none() {
            return std::future::pending().await;
        }
        self.sleep.as_mut().await;
        self.set_to = None;
    }
}

/// Serves an established connection until it fails or has ended in order: told by `stop` (a deadline), because `leave`
/// gave a reason, or because there is nothing left to do.
///
/// # Errors
/// Why the connection is of no more use.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut link: Link<S>,
    feed: &mut Feed,
    hub: &Rc<Hub>,
    manners: &Manners,
    stop: &mut watch::Receiver<Option<BootTime>>,
    leave: impl Future<Output = Leave>,
) -> Result<Leave, Failure> {
    let ended = converse(&mut link, feed, hub, manners, stop, leave).await;
    match &ended {
        Ok(_) if feed.leaves_with_will() => link.leave_with_will().await,
        Ok(_) => link.disconnect().await,
        Err(failure) => {
            if let Some(reason) = failure.blame().filter(|_| link.version == MqttVersion::V5) {
                // What is in the output may leave only when it is safe.
                feed.commit(&mut hub.outbox.borrow_mut(), hub.clock.boot());
                packet::put_disconnect_because(&mut link.output.buffer, &reason);
                link.close().await;
            }
        }
    }
    ended
}

/// Sends and receives until the connection fails, or is at its orderly end.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    feed: &mut Feed,
    hub: &Rc<Hub>,
    manners: &Manners,
    stop: &mut watch::Receiver<Option<BootTime>>,
    leave: impl Future<Output = Leave>,
) -> Result<Leave, Failure> {
    let mut leave = pin!(leave);
    let waiting = hub.outbox.borrow().end();
    let mut work = hub.work.subscribe();
    let up = hub.clock.boot();
    let hold_until = up.after(manners.clock_wait);
    let interval = link.keep_alive.unwrap_or(manners.keep_alive);
    let mut keep_alive = KeepAlive::new(interval, up);
    let mut timer = Timer::new();
    let mut phase = Phase::Running;
    // What came together with CONNACK.
    link.take_packets(feed, &mut hub.outbox.borrow_mut(), up)?;
    loop {
        let now = hub.clock.boot();
        let mut due = match keep_alive.check(now) {
            Due::Dead => return Err(Failure::Silent(interval + interval / 2)),
            Due::Ping => {
                packet::put_pingreq(&mut link.output.buffer);
                feed.pinged(now);
                keep_alive.sent(now);
                Some(now)
            }
            Due::Wait(until) => until,
        };
        let ack_due = feed.session().ack_due();
        if ack_due.is_some_and(|deadline| deadline <= now) {
            return Err(Failure::Hung);
        }
        // Nobody waits for others any more before an end, or where the connection is to be short.
        let at_once = stop.borrow().is_some() || manners.awake.is_some();
        let fill = Fill { now, readings: phase == Phase::Running, at_once, hold_until };
        let again = feed.fill(hub, &mut link.output, fill);
        phase = phase.told(*stop.borrow_and_update(), now);
        if let Some(until) = manners.awake.filter(|_| phase == Phase::Running)
            && (now >= until || feed.is_drained(hub, waiting))
        {
            phase = Phase::Draining(Exit::new(Leave::Asleep, now, now.after(LEAVE_WITHIN)));
        }
        if let Phase::Draining(exit) = phase
            && (now >= exit.drain || !feed.session().is_waiting())
        {
            feed.farewell(&manners.availability_topic, exit.why.farewell(), &mut link.output, now);
            phase = Phase::Leaving(exit);
        }
        feed.commit(&mut hub.outbox.borrow_mut(), now);
        hub.acknowledged();
        hub.put_aside(feed.take_refused());
        feed.hand_on_requests(hub);
        if let Phase::Leaving(exit) = phase
            && (now >= exit.end || (link.output.buffer.is_empty() && !feed.session().is_status_waiting()))
        {
            return Ok(exit.why);
        }

        due = [due, ack_due, again, phase.due().or(manners.awake)].into_iter().flatten().min();
        timer.set(due, now);
        tokio::select! {
            biased;
            moved = poll_fn(|context| link.poll_transfer(context)) => {
                let (read, wrote) = moved?;
                let now = hub.clock.boot();
                let outbox = &mut *hub.outbox.borrow_mut();
                if wrote > 0 {
                    keep_alive.sent(now);
                    feed.wrote(outbox, &mut link.output, wrote);
                }
                if read > 0 {
                    keep_alive.received(now);
                    link.take_packets(feed, outbox, now)?;
                }
            }
            // The sender lives in the hub.
            _ = work.changed(), if phase == Phase::Running && feed.has_room(&link.output) => {}
            () = timer.wait() => {}
            why = &mut leave, if phase == Phase::Running => {
                let now = hub.clock.boot();
                phase = Phase::Draining(Exit::new(why, now, now.after(LEAVE_WITHIN)));
            }
            told = stop.changed(), if !phase.is_told() => {
                // Nobody is left who could set a deadline: then it is now.
                if told.is_err() {
                    phase = phase.told(Some(now), now);
                }
            }
        }
    }
}

impl Failure {
    pub(super) fn io(error: &std::io::Error, host: &str) -> Self {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        if let Some(explained) = tls::explain(error, host) {
            return Self::Tls(tls::TlsError::Handshake(explained));
        }
        match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Self::Closed,
            _ => Self::Lost(error.to_string()),
        }
    }
}
