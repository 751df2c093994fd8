//! Connects again and again: along the list of URLs, back to the first, after pauses, on a schedule.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::BootTime;
use crate::config::{BrokerUrl, Connect, Format, UplinkConfig};
use crate::logging::AUDIT;

use super::access::{self, Access, Seen};
use super::backoff::{self, Backoff};
use super::certificates::Certificates;
use super::dial::{self, Stream};
use super::feed::Feed;
use super::link::{self, Leave, Link, Manners};
use super::packet::{Accepted, ConnectSettings, Will};
use super::terms::WillForm;
use super::{Failure, Hub, schedule};

/// So many different causes of failure are remembered, so that each is logged once until a connection
/// has been stable.
const MAX_CAUSES: usize = 16;

/// A first broker that answers and then does not stay is tried seldomer and seldomer, up to this.
const FAILBACK_MOST: Duration = Duration::from_secs(60 * 60);

/// Keeps one uplink connected.
pub struct Keeper {
    config: Arc<UplinkConfig>,
    hub: Rc<Hub>,
    /// Gives the deadline for an orderly end.
    stop: watch::Receiver<Option<BootTime>>,
    certificates: Certificates,
    backoff: Backoff,
    /// What has failed since the last stable connection.
    causes: Vec<String>,
    /// How often a broker was left for the first one that then did not stay.
    vain: u32,
    /// The files as they were before the last attempt.
    seen: Seen,
    /// With `connect = "every …"`: until when it may be tried to get rid of what waits.
    awake: Option<BootTime>,
    /// How each of the brokers wants the will, as far as it said so.
    wills: Vec<WillForm>,
}

/// How an attempt ended.
enum End {
    /// In order, and why.
    Left(Leave),
    /// It failed before or after it was up; `stable`: it was up long enough to count as good.
    Failed { failure: Failure, stable: bool },
}

impl Keeper {
    /// For an uplink that is not connected yet.
    #[must_use]
    pub fn new(config: UplinkConfig, hub: Rc<Hub>, stop: watch::Receiver<Option<BootTime>>) -> Self {
        Self {
            wills: vec![WillForm::default(); config.urls.len()],
            config: Arc::new(config),
            hub,
            stop,
            certificates: Certificates::default(),
            backoff: Backoff::default(),
            causes: Vec::new(),
            vain: 0,
            seen: Seen::new(),
            awake: None,
        }
    }

    /// Connects again and again, until it is told to stop.
    pub async fn keep_connected(&mut self, feed: &mut Feed) {
        let mut at = 0;
        self.wake();
        loop {
            let paused = match self.attempt(at, feed).await {
                End::Left(Leave::Shutdown) => return,
                End::Left(Leave::Renew) => continue,
                End::Left(Leave::Failback) => {
                    at = 0;
                    continue;
                }
                End::Left(Leave::Asleep) => {
                    let presence = &self.hub.counters(&self.config.name).presence;
                    presence.went(self.hub.clock.boot(), "it connects now and then, as `connect` says");
                    self.sleep().await
                }
                End::Failed { failure, stable } => {
                    let next = if stable { 0 } else { (at + 1) % self.config.urls.len() };
                    let wait = (next == 0).then(|| self.backoff.failed(random()));
                    self.failed(at, &failure, wait);
                    at = next;
                    let for_clock = matches!(failure, Failure::ClockUnset);
                    match wait {
                        None => continue,
                        Some(_) if self.is_overdue() => self.sleep().await,
                        Some(wait) => self.pause(wait, for_clock).await,
                    }
                }
            };
            if !paused {
                return;
            }
            at = 0;
        }
    }

    /// One connection to the URL with this index, from the first byte to its end.
    async fn attempt(&mut self, at: usize, feed: &mut Feed) -> End {
        let mut stop = self.stop.clone();
        let opened = tokio::select! {
            biased;
            () = told_to_stop(&mut stop) => return End::Left(Leave::Shutdown),
            opened = tokio::time::timeout(dial::DEADLINE, self.open(at, feed)) => opened,
        };
        match opened.unwrap_or(Err(Failure::Deadline)) {
            Err(failure) => End::Failed { failure, stable: false },
            Ok(link) => {
                let up = self.hub.clock.boot();
                let ended = self.serve(link, at, feed).await;
                feed.disconnected(&self.hub, ended.as_ref().is_err_and(Failure::may_be_a_message));
                let lasted = self.hub.clock.boot().since(up);
                let stable = lasted >= backoff::STABLE;
                self.backoff.was_up(lasted);
                if stable {
                    self.causes.clear();
                    if at == 0 {
                        self.vain = 0;
                    }
                }
                match ended {
                    Ok(leave) => End::Left(leave),
                    Err(failure) => End::Failed { failure, stable },
                }
            }
        }
    }

    /// Connects, and sees to it that the broker has no session that is not ours.
    async fn open(&mut self, at: usize, feed: &mut Feed) -> Result<Link<Box<dyn Stream>>, Failure> {
        let config = self.config.clone();
        let url = &config.urls[at];
        let (mut link, mut accepted) = self.connect(at, false, feed).await?;
        feed.dialled(url);
        if feed.is_stranger(accepted.session_present) {
            tracing::info!(
                uplink = config.name,
                "the broker has a session that this outbox does not know: it is discarded"
            );
            link.disconnect().await;
            let (clean, _) = self.connect(at, true, feed).await?;
            clean.disconnect().await;
            feed.broker_forgot();
            (link, accepted) = self.connect(at, false, feed).await?;
        }
        let session_present = accepted.session_present;
        tracing::info!(uplink = config.name, broker = %url, session_present, "connected");
        self.hub.counters(&config.name).presence.came(self.hub.clock.boot());
        self.hub.update_info(|info| drop(info.brokers.insert(config.name.clone(), url.to_string())));
        feed.connected(&accepted, self.hub.live_from(), self.hub.clock.boot());
        Ok(link)
    }

    async fn connect(
        &mut self,
        at: usize,
        clean_session: bool,
        feed: &mut Feed,
    ) -> Result<(Link<Box<dyn Stream>>, Accepted), Failure> {
        let config = self.config.clone();
        let (config, url) = (&*config, &config.urls[at]);
        let access = self.access(url).await?;
        let (stream, expiries) = dial::dial(url, config, &access).await?;
        self.certificates.set(expiries);
        let mut link = Link::new(stream, dial::name(url, config), config.mqtt, config.max_packet);
        let will = feed.last_word(&self.hub);
        let settings = ConnectSettings {
            version: config.mqtt,
            client_id: &config.client_id,
            username: access.login(config),
            password: access.password.as_ref(),
            keep_alive: config.keep_alive,
            clean_session: clean_session || starts_anew(config),
            max_packet: config.max_packet,
            will: will.as_ref().map(|will| Will {
                topic: &will.topic,
                payload: &will.payload,
                qos: self.wills[at].qos,
                retain: will.retain && self.wills[at].retain,
            }),
        };
        let accepted = link.connect(&settings).await.inspect_err(|failure| self.wills[at].learn(failure))?;
        Ok((link, accepted))
    }

    async fn access(&mut self, url: &BrokerUrl) -> Result<Access, Failure> {
        // They are noted even if they cannot be read: then it is tried again as soon as they change.
        self.seen = access::seen_now(&self.config).await.unwrap_or_default();
        access::read(&self.config, url.tls, self.hub.certificate_time()).await
    }

    async fn serve(&mut self, link: Link<Box<dyn Stream>>, at: usize, feed: &mut Feed) -> Result<Leave, Failure> {
        let config = self.config.clone();
        let hub = self.hub.clone();
        let manners = Manners {
            keep_alive: config.keep_alive,
            clock_wait: config.clock_wait,
            availability_topic: hub.topic_of(&config.name, "availability"),
            awake: self.awake,
        };
        let url = &config.urls[at];
        let failback = self.failback_interval();
        let leave = async {
            tokio::select! {
                () = access::changed(&config, url.tls, &self.seen, || hub.certificate_time()) => {
                    tracing::info!(
                        target: AUDIT,
                        audit = "credentials",
                        uplink = config.name,
                        "files for the connection have changed: it is made anew"
                    );
                    Leave::Renew
                }
                () = access::expires(&config) => {
                    tracing::debug!(uplink = config.name, "the password expires: the connection is made anew");
                    Leave::Renew
                }
                () = first_answers(&config, &hub, failback), if at > 0 => {
                    let first = &config.urls[0];
                    tracing::info!(uplink = config.name, broker = %first, "the first broker answers: back to it");
                    Leave::Failback
                }
            }
        };
        let ended = tokio::select! {
            biased;
            ended = link::serve(link, feed, &hub, &manners, &mut self.stop, leave) => ended,
            () = self.certificates.watch(&config.name, &hub) => unreachable!("it watches for ever"),
        };
        if matches!(ended, Ok(Leave::Failback)) {
            self.vain = self.vain.saturating_add(1);
        }
        ended
    }

    /// How long to stay with a later broker before the first is looked for.
    fn failback_interval(&self) -> Duration {
        let base = self.config.failback;
        base.saturating_mul(1_u32.checked_shl(self.vain).unwrap_or(u32::MAX)).min(FAILBACK_MOST.max(base))
    }

    /// Waits before the next round, with `for_clock` no longer than until the clock is set; `false`: told to stop.
    async fn pause(&mut self, wait: Duration, for_clock: bool) -> bool {
        tokio::select! {
            biased;
            () = told_to_stop(&mut self.stop) => false,
            // Whatever somebody has mended, it need not wait.
            () = access::touched(&self.config, &self.seen) => true,
            () = clock_is_set(&self.hub), if for_clock => true,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// With `connect = "every …"`: waits until it is time again; `false`: told to stop.
    async fn sleep(&mut self) -> bool {
        if let Connect::Every(every) = self.config.connect {
            let now = self.hub.clock.boot();
            let wait = schedule::next(now, every, random()).since(now);
            tracing::debug!(uplink = self.config.name, "asleep for {} s", wait.as_secs());
            tokio::select! {
                biased;
                () = told_to_stop(&mut self.stop) => return false,
                () = tokio::time::sleep(wait) => {}
            }
            self.wake();
        }
        true
    }

    fn wake(&mut self) {
        self.awake = match self.config.connect {
            Connect::Always => None,
            Connect::Every(every) => Some(schedule::awake_until(self.hub.clock.boot(), every)),
        };
    }

    /// Is there no point in trying on before the next time?
    fn is_overdue(&self) -> bool {
        self.awake.is_some_and(|until| until <= self.hub.clock.boot())
    }

    /// Logs a cause once, until a connection has been stable.
    fn failed(&mut self, at: usize, failure: &Failure, wait: Option<Duration>) {
        let (uplink, url) = (&self.config.name, &self.config.urls[at]);
        let cause = failure.to_string();
        let counters = self.hub.counters(uplink);
        counters.failures.add(1);
        counters.presence.went(self.hub.clock.boot(), &cause);
        // The same words about another broker are another cause.
        let known = format!("{url} {cause}");
        if self.causes.contains(&known) {
            let wait = wait.unwrap_or_default().as_millis();
            tracing::debug!(uplink, broker = %url, "{cause}; next attempt in {wait} ms");
            return;
        }
        let then = match wait {
            Some(_) => "readings wait in the outbox, and it is tried again",
            None => "readings wait in the outbox, and the next broker is tried",
        };
        tracing::warn!(uplink, broker = %url, "{cause} ({then})");
        if self.causes.len() == MAX_CAUSES {
            self.causes.remove(0);
        }
        self.causes.push(known);
    }
}

/// Returns when it is known what time it is.
async fn clock_is_set(hub: &Hub) {
    // It ends with the hub, which lives longer.
    let _ = hub.offset().wait_for(Option::is_some).await;
}

/// Returns when the first broker of the list answers, looking for it once in every interval.
async fn first_answers(config: &Arc<UplinkConfig>, hub: &Hub, interval: Duration) {
    let first = &config.urls[0];
    loop {
        tokio::time::sleep(interval).await;
        let probed = async {
            let access = access::read(config, first.tls, hub.certificate_time()).await?;
            dial::probe(first, config, &access).await
        };
        match tokio::time::timeout(dial::DEADLINE, probed).await {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => tracing::debug!(uplink = config.name, broker = %first, "not yet: {failure}"),
            Err(_) => tracing::debug!(uplink = config.name, broker = %first, "not yet: {}", Failure::Deadline),
        }
    }
}

/// Returns when there is a deadline, or nobody left to set one.
async fn told_to_stop(stop: &mut watch::Receiver<Option<BootTime>>) {
    let _ = stop.wait_for(Option::is_some).await;
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Is each session a new one? A host of Sparkplug takes each connection for that (specification 3.0, 5.4), and ThingSpeak
/// keeps none ("Publish to a Channel Feed": CleanSession 1).
fn starts_anew(config: &UplinkConfig) -> bool {
    config.sparkplug.is_some() || config.payload.format == Format::Thingspeak
}

#[cfg(test)]
mod tests;
