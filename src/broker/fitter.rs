//! What is agreed with each client when it connects.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use rmqtt::codec::types::{MQTT_LEVEL_5, Publish};
use rmqtt::fitter::{DefaultFitter, Fitter, FitterManager};
use rmqtt::types::{ConnectInfo, Disconnect, FitterType, Id, ListenerConfig};

use super::RECEIVE_MAXIMUM;

/// Makes [`Terms`] for each connection.
pub(super) struct Fitters {
    /// The longest keep-alive of MQTT 5, in seconds.
    pub(super) keep_alive: Option<NonZeroU16>,
}

impl FitterManager for Fitters {
    fn create(&self, connect: Arc<ConnectInfo>, id: Id, settings: ListenerConfig) -> FitterType {
        let is_v5 = connect.proto_ver() == MQTT_LEVEL_5;
        let keep_alive = self.keep_alive.filter(|_| is_v5);
        Arc::new(Terms { inner: DefaultFitter::new(connect, id, settings), keep_alive })
    }
}

/// The crate's own terms, but for how many messages may be in flight to a client, and for what only one of MQTT 5 can be told:
/// how many from it, and how long it may be quiet. One of 3.1.1 may have as many as there are packet identifiers, and be
/// quiet for as long as it says.
struct Terms {
    inner: DefaultFitter,
    keep_alive: Option<NonZeroU16>,
}

impl Fitter for Terms {
    fn keep_alive(&self, keep_alive: &mut u16) -> rmqtt::Result<u16> {
        if let Some(longest) = self.keep_alive
            && (*keep_alive == 0 || *keep_alive > longest.get())
        {
            // It is told so in the CONNACK (3.2.2.3.14).
            *keep_alive = longest.get();
        }
        self.inner.keep_alive(keep_alive)
    }

    fn max_mqueue_len(&self) -> usize {
        self.inner.max_mqueue_len()
    }

    fn mqueue_rate_limit(&self) -> (NonZeroU32, Duration) {
        self.inner.mqueue_rate_limit()
    }

    fn max_inflight(&self) -> NonZeroU16 {
        // Towards every client: a session takes as many acknowledgements in as messages out at best, so that without a bound
        // those of a client that gets messages without a break would wait, and its queue fill up.
        self.inner.max_inflight().min(RECEIVE_MAXIMUM)
    }

    fn session_expiry_interval(&self, disconnect: Option<&Disconnect>) -> Duration {
        self.inner.session_expiry_interval(disconnect)
    }

    fn message_expiry_interval(&self, publish: &Publish) -> Duration {
        self.inner.message_expiry_interval(publish)
    }

    fn max_client_topic_aliases(&self) -> u16 {
        self.inner.max_client_topic_aliases()
    }

    fn max_server_topic_aliases(&self) -> u16 {
        self.inner.max_server_topic_aliases()
    }
}
