//! The embedded broker beside the stages: started before the uplinks, stopped after them, restarted alone.

#[cfg(feature = "broker")]
pub(super) use with_broker::Embedded;
#[cfg(not(feature = "broker"))]
pub(super) use without_broker::Embedded;

#[cfg(feature = "broker")]
mod with_broker {
    use std::path::Path;
    use std::time::Duration;

    use anyhow::Context as _;
    use tokio::sync::mpsc;
    use tracing::{error, info, warn};

    use super::super::Extras;
    use crate::broker::{Broker, Place};
    use crate::config::Config;
    use crate::offer::Offer;

    /// Between two looks whether the broker still answers.
    const CHECK_EVERY: Duration = Duration::from_secs(30);
    /// Between two attempts to start it again.
    const RETRY: Duration = Duration::from_secs(5);

    /// The broker, if the configuration has one.
    pub(in super::super) struct Embedded(Option<Broker>);

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
            for (address, listener) in broker.addresses().iter().zip(&settings.listeners) {
                let scheme = match (listener.tls.is_some(), listener.websocket) {
                    (false, false) => "mqtt",
                    (true, false) => "mqtts",
                    (false, true) => "ws",
                    (true, true) => "wss",
                };
                info!("the embedded broker listens on {scheme}://{address}");
            }
            let credentials = broker.credentials();
            config.reach_broker(broker.entrance(), credentials.username(), credentials.secret());
            if let Some(tell) = &extras.on_broker {
                tell(broker.address());
            }
            Ok(Self(Some(broker)))
        }

        /// Watches over the broker for ever: one that ended or is silent is restarted; the sensors do not notice.
        pub(in super::super) async fn watch(&mut self) {
            let Some(broker) = &mut self.0 else { return std::future::pending().await };
            loop {
                let why = tokio::select! {
                    why = broker.ended() => why,
                    () = tokio::time::sleep(CHECK_EVERY) => match broker.check().await {
                        Ok(()) => continue,
                        Err(silence) => silence.to_string(),
                    },
                };
                warn!("the embedded broker is restarted: {why}");
                while let Err(why) = broker.restart().await {
                    error!("the embedded broker does not start again: {why}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }

        pub(in super::super) async fn stop(self) {
            let Some(broker) = self.0 else { return };
            if let Err(why) = broker.stop().await {
                warn!("{why}");
            }
        }
    }
}

#[cfg(not(feature = "broker"))]
mod without_broker {
    use std::path::Path;

    use tokio::sync::mpsc;

    use super::super::Extras;
    use crate::config::Config;
    use crate::offer::Offer;

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

        pub(in super::super) async fn watch(&mut self) {
            std::future::pending::<()>().await;
        }

        #[expect(clippy::unused_async, reason = "the same face as with the broker")]
        pub(in super::super) async fn stop(self) {}
    }
}
