//! The embedded broker beside the stages: started before the uplinks, stopped after them, restarted alone.

#[cfg(feature = "broker")]
pub(super) use with_broker::Embedded;
#[cfg(not(feature = "broker"))]
pub(super) use without_broker::Embedded;

#[cfg(feature = "broker")]
mod with_broker {
    use std::cell::{Cell, RefCell};
    use std::path::Path;
    use std::pin::pin;
    use std::rc::Rc;
    use std::time::{Duration, Instant};

    use anyhow::Context as _;
    use tokio::sync::mpsc;
    use tracing::{error, info, warn};

    use super::super::Extras;
    use super::super::lan::Lan;
    use crate::broker::{Broker, BrokerError, Event, Notice, Place};
    use crate::config::Config;
    use crate::control::status::{AskBroker, BrokerStatus};
    use crate::offer::Offer;
    use crate::uplink::Hub;

    /// Looks in a row that must fail before the broker is restarted: a burst of clients may hold one of them up.
    const FAILED_LOOKS: u32 = 3;

    /// How long the parts of the watch wait.
    #[derive(Clone, Copy, Debug)]
    struct Pace {
        /// Between two looks whether the broker still answers.
        check: Duration,
        /// Before a look is repeated that has failed.
        again: Duration,
        /// Before the second of two restarts; each further one waits twice as long...
        first: Duration,
        /// ...up to this.
        longest: Duration,
        /// A broker that ran for so long is restarted at once.
        steady: Duration,
    }

    const PACE: Pace = Pace {
        check: Duration::from_secs(60),
        again: Duration::from_secs(1),
        first: Duration::from_secs(1),
        longest: Duration::from_secs(60),
        steady: Duration::from_secs(600),
    };

    /// Restarts that its own thread has prevented, until it is given up: only the end of the process ends that thread.
    const STUCK_RESTARTS: u32 = 3;

    /// The broker, if the configuration has one, and what its watch has to say of it.
    pub(in super::super) struct Embedded(Option<(Broker, Rc<Seen>)>);

    /// What the watch has seen.
    #[derive(Debug, Default)]
    struct Seen {
        restarts: Cell<u64>,
        /// `None`: it answered when it was looked at last.
        trouble: RefCell<Option<String>>,
    }

    impl Seen {
        fn trouble(&self, why: impl Into<Option<String>>) {
            *self.trouble.borrow_mut() = why.into();
        }
    }

    impl Embedded {
        /// `tail` is the folder in memory where the outbox has its tail, too. Messages that are to go up are sent to
        /// `offers`.
        pub(in super::super) async fn start(
            config: &mut Config,
            extras: &Extras,
            tail: &Path,
            offers: mpsc::Sender<Offer>,
        ) -> anyhow::Result<Self> {
            let Some(settings) = &config.broker else { return Ok(Self(None)) };
            let place = Place { folder: settings.path.clone(), tail: tail.to_owned() };
            let started = if extras.any_port {
                Broker::start_on_first_free(settings, &place, Some(offers)).await
            } else {
                Broker::start(settings, &place, Some(offers)).await
            };
            let broker = started.context("[broker]")?;
            let away = broker.stats().away;
            let here =
                broker.addresses().iter().zip(&settings.listeners).filter(|(address, _)| !away.contains(address));
            for (address, listener) in here {
                let scheme = match (listener.tls.is_some(), listener.websocket) {
                    (false, false) => "mqtt",
                    (true, false) => "mqtts",
                    (false, true) => "ws",
                    (true, true) => "wss",
                };
                info!("the embedded broker listens on {scheme}://{address}");
                for reachable in Broker::reachable(*address).into_iter().filter(|reachable| reachable != address) {
                    info!("clients reach it at {scheme}://{reachable}");
                }
            }
            let credentials = broker.credentials();
            config.reach_broker(broker.entrance(), credentials.username(), credentials.secret());
            if let Some(tell) = &extras.on_broker {
                tell(broker.address());
            }
            Ok(Self(Some((broker, Rc::default()))))
        }

        /// How to ask how it is.
        pub(in super::super) fn ask(&self) -> Option<AskBroker> {
            let (broker, seen) = self.0.as_ref()?;
            let (gauge, seen) = (broker.gauge(), Rc::clone(seen));
            let listens: Vec<String> = broker.addresses().iter().map(ToString::to_string).collect();
            Some(AskBroker(Rc::new(move || {
                let stats = gauge.stats();
                let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
                BrokerStatus {
                    listens: listens.clone(),
                    away: stats.away.iter().map(ToString::to_string).collect(),
                    restarts: seen.restarts.get(),
                    trouble: seen.trouble.borrow().clone(),
                    connected: count(stats.connected),
                    sessions: count(stats.sessions),
                    retained: count(stats.retained.messages),
                    waiting: count(stats.store.messages),
                    received: stats.received,
                    delivered: stats.delivered,
                    ingested: stats.ingested,
                    refused: stats.refused.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect(),
                    put_aside: stats.store.put_aside,
                }
            })))
        }

        /// Watches over the broker: one that ended or is silent is restarted, which the sensors do not notice; and what it
        /// has to tell is published. Gives why it cannot be restarted within this process, if it comes to that.
        pub(in super::super) async fn watch(&mut self, hub: &Hub) -> String {
            let Some((broker, seen)) = &mut self.0 else { return std::future::pending().await };
            let mut lan = Lan::new(hub);
            watch(broker, seen, PACE, |notice| lan.tell(hub, notice, seen.restarts.get())).await
        }

        pub(in super::super) async fn stop(self) {
            let Some((broker, _)) = self.0 else { return };
            if let Err(why) = broker.stop().await {
                warn!("{why}");
            }
        }
    }

    /// See [`Embedded::watch`]. `tell` gets each notice.
    async fn watch(broker: &mut Broker, seen: &Seen, pace: Pace, mut tell: impl FnMut(Notice)) -> String {
        let mut pause = Duration::ZERO;
        loop {
            let since = Instant::now();
            let why = {
                let broker = &*broker;
                let mut failed = pin!(failed(broker, seen, pace));
                loop {
                    tokio::select! {
                        why = &mut failed => break why,
                        notice = broker.notice() => tell(notice),
                    }
                }
            };
            pause = if since.elapsed() >= pace.steady { Duration::ZERO } else { pause };
            seen.trouble(why.clone());
            let mut stuck = 0;
            loop {
                warn!(restarts = seen.restarts.get(), "the embedded broker is restarted: {why}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).clamp(pace.first, pace.longest);
                match broker.restart().await {
                    Ok(()) => break,
                    Err(why) => {
                        error!("the embedded broker does not start again: {why}");
                        seen.trouble(why.to_string());
                        stuck += u32::from(matches!(why, BrokerError::Stuck));
                        if stuck == STUCK_RESTARTS {
                            return why.to_string();
                        }
                    }
                }
            }
            seen.trouble(None);
            seen.restarts.set(seen.restarts.get() + 1);
            tell(Notice { event: Event::Restarted, client: None, topic: None, detail: why });
        }
    }

    /// Waits until the broker ends, or has not answered some times in a row when it was looked at; gives why.
    async fn failed(broker: &Broker, seen: &Seen, pace: Pace) -> String {
        let silent = async {
            let mut failed = 0;
            loop {
                tokio::time::sleep(if failed == 0 { pace.check } else { pace.again }).await;
                match broker.check().await {
                    Ok(()) => {
                        failed = 0;
                        seen.trouble(None);
                    }
                    Err(silence) => {
                        failed += 1;
                        seen.trouble(silence.to_string());
                        if failed == FAILED_LOOKS {
                            return silence.to_string();
                        }
                    }
                }
            }
        };
        tokio::select! {
            why = broker.ended() => why,
            why = silent => why,
        }
    }

    #[cfg(test)]
    mod tests {
        use tokio::net::TcpStream;

        use super::*;
        use crate::broker::faults::Fault;
        use crate::config::BrokerConfig;

        const QUICK: Pace = Pace {
            check: Duration::from_millis(20),
            again: Duration::from_millis(10),
            first: Duration::from_millis(10),
            longest: Duration::from_millis(50),
            steady: Duration::from_secs(600),
        };
        /// Only a failure waits for it.
        const DEADLINE: Duration = Duration::from_secs(60);

        async fn started() -> (Broker, tempfile::TempDir) {
            let folder = tempfile::tempdir().unwrap();
            let place = Place { folder: folder.path().join("broker"), tail: folder.path().join("tail") };
            let mut config = BrokerConfig::new(place.folder.clone());
            config.listeners[0].listen.set_port(0);
            (Broker::start(&config, &place, None).await.unwrap(), folder)
        }

        /// Watches until the broker was restarted so often; gives why.
        async fn restarts(broker: &mut Broker, count: u64) -> Vec<String> {
            let mut why = Vec::new();
            let (done, mut told) = tokio::sync::watch::channel(0);
            let seen = Seen::default();
            let watched = watch(broker, &seen, QUICK, |notice| {
                assert_eq!((notice.event, seen.trouble.borrow().as_deref()), (Event::Restarted, None));
                why.push(notice.detail);
                done.send_replace(seen.restarts.get());
            });
            tokio::select! {
                why = watched => panic!("it is given up: {why}"),
                end = tokio::time::timeout(DEADLINE, told.wait_for(|restarts| *restarts == count)) => {
                    end.expect("it is not restarted").expect("the sender is there");
                }
            }
            why
        }

        #[tokio::test]
        async fn whatever_of_the_broker_fails_it_is_restarted_on_its_ports_and_that_is_told() {
            for (fault, expected) in [
                (Fault::ListenerEnds, "a listener ended"),
                (Fault::ListenersHang, "accepts no connection"),
                (Fault::Panics, "it panicked"),
            ] {
                let (mut broker, _folder) = started().await;
                let (address, entrance) = (broker.address(), broker.entrance());
                broker.inject(fault);
                let why = restarts(&mut broker, 1).await;
                assert!(why[0].contains(expected), "{fault:?}: {why:?}");
                assert_eq!((broker.address(), broker.entrance()), (address, entrance));
                broker.check().await.unwrap();
                TcpStream::connect(address).await.unwrap();
            }
        }

        /// Nothing within the process can end a thread that waits for itself.
        #[tokio::test]
        async fn a_thread_that_blocks_is_given_up() {
            let (mut broker, _folder) = started().await;
            broker.inject(Fault::Blocks);
            let seen = Seen::default();
            let watched = watch(&mut broker, &seen, QUICK, |notice| panic!("{notice:?}"));
            let why = tokio::time::timeout(DEADLINE, watched).await.expect("it is given up");
            assert_eq!(Some(why.as_str()), seen.trouble.borrow().as_deref());
            assert!(why.contains("until the process ends") && seen.restarts.get() == 0, "{why}");
        }

        #[tokio::test]
        async fn a_start_that_hangs_is_given_up_and_tried_again() {
            let (mut broker, _folder) = started().await;
            broker.inject(Fault::StartHangs);
            let late = broker.restart().await.unwrap_err();
            assert!(matches!(late, crate::broker::BrokerError::Late), "{late}");
            restarts(&mut broker, 1).await;
            broker.check().await.unwrap();
        }

        #[tokio::test]
        async fn it_is_restarted_as_often_as_it_fails() {
            let (mut broker, _folder) = started().await;
            for _ in 0..3 {
                broker.inject(Fault::Panics);
                restarts(&mut broker, 1).await;
            }
            broker.check().await.unwrap();
        }
    }
}

#[cfg(not(feature = "broker"))]
mod without_broker {
    use std::path::Path;

    use tokio::sync::mpsc;

    use super::super::Extras;
    use crate::config::Config;
    use crate::control::status::AskBroker;
    use crate::offer::Offer;
    use crate::uplink::Hub;

    /// This build has no broker; the configuration refuses `[broker]`.
    pub(in super::super) struct Embedded;

    impl Embedded {
        #[expect(clippy::unused_async, reason = "the same face as with the broker")]
        pub(in super::super) async fn start(
            _: &mut Config,
            _: &Extras,
            _: &Path,
            _: mpsc::Sender<Offer>,
        ) -> anyhow::Result<Self> {
            Ok(Self)
        }

        #[expect(clippy::unused_self, reason = "the same face as with the broker")]
        pub(in super::super) fn ask(&self) -> Option<AskBroker> {
            None
        }

        pub(in super::super) async fn watch(&mut self, _: &Hub) -> String {
            std::future::pending().await
        }

        #[expect(clippy::unused_async, reason = "the same face as with the broker")]
        pub(in super::super) async fn stop(self) {}
    }
}
