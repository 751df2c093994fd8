//! What happens on the LAN of the embedded broker, for whoever looks after it.
//!
//! `…/broker`, retained, gives how often the broker was restarted, how often each event happened since the start, and the
//! last of them, the newest at the end: `{"restarts":0,"events":{"silent":1},"last":[{"event":"silent","client":"esp",
//! "detail":"…","time":"…"}]}`. It is state: who was away has the last [`MAX_LAST`] of them at once.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;
use tracing::warn;

use super::when::When;
use crate::broker::{Event, Notice};
use crate::clock::BootTime;
use crate::outbox::Moment;
use crate::uplink::Hub;
use crate::uplink::dating::Dating;
use crate::uplink::veil::Veil;

/// The topic below the gateway's.
const LEAF: &str = "broker";
/// Events that are told in full.
const MAX_LAST: usize = 16;
/// Bytes of a client's name, or of a topic, that are told.
const MAX_TEXT: usize = 200;
/// Events of one kind are logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct ToldEvent<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    detail: &'a str,
    #[serde(flatten)]
    when: When,
}

impl<'a> ToldEvent<'a> {
    fn of(notice: &'a Notice, when: When) -> Self {
        Self {
            event: notice.event.as_str(),
            client: notice.client.as_deref(),
            topic: notice.topic.as_deref(),
            detail: &notice.detail,
            when,
        }
    }
}

#[derive(Serialize)]
struct Payload<'a> {
    restarts: u64,
    events: BTreeMap<&'static str, u64>,
    last: Vec<ToldEvent<'a>>,
}

/// What there was since the start.
#[derive(Debug, Default)]
pub(super) struct Lan {
    restarts: u64,
    counts: BTreeMap<Event, u64>,
    last: VecDeque<(Notice, Moment)>,
    logged: BTreeMap<Event, (BootTime, u64)>,
}

impl Lan {
    /// Publishes that there was nothing yet.
    pub(super) fn new(hub: &Hub) -> Self {
        let lan = Self::default();
        lan.publish(hub);
        lan
    }

    /// Something has happened; the broker was restarted so often.
    pub(super) fn tell(&mut self, hub: &Hub, notice: Notice, restarts: u64) {
        let now = hub.clock.boot();
        self.take(notice, Moment { boot: hub.boot, at: now, time: None }, restarts);
        self.publish(hub);
    }

    fn take(&mut self, mut notice: Notice, moment: Moment, restarts: u64) {
        for text in [&mut notice.client, &mut notice.topic].into_iter().flatten() {
            *text = shortened(text).into();
        }
        self.log(&notice, moment.at);
        self.restarts = restarts;
        *self.counts.entry(notice.event).or_default() += 1;
        if self.last.len() >= MAX_LAST {
            self.last.pop_front();
        }
        self.last.push_back((notice, moment));
    }

    /// Says it in the log, unless there was one of its kind a moment ago. Gives whether it did.
    fn log(&mut self, notice: &Notice, now: BootTime) -> bool {
        let (logged, unlogged) = self.logged.entry(notice.event).or_insert((now, 0));
        if *unlogged > 0 && now.since(*logged) < LOG_EVERY {
            *unlogged += 1;
            return false;
        }
        let before = unlogged.saturating_sub(1);
        (*logged, *unlogged) = (now, 1);
        let (client, topic) = (notice.client.as_deref().unwrap_or("-"), notice.topic.as_deref().unwrap_or("-"));
        warn!(event = notice.event.as_str(), client, topic, unlogged_before = before, "broker: {}", notice.detail);
        true
    }

    fn publish(&self, hub: &Hub) {
        let dating = hub.dating();
        hub.set_gateway_state(LEAF, self.payload(&dating, &Veil::default()), |_, veil| {
            Some(self.payload(&dating, veil))
        });
    }

    fn payload(&self, dating: &Dating, veil: &Veil) -> String {
        let when = |moment| When::from(veil.date(dating.date_of(moment)));
        let payload = Payload {
            restarts: self.restarts,
            events: self.counts.iter().map(|(event, count)| (event.as_str(), *count)).collect(),
            // Clients and topics are names, and so is what the details say.
            last: self
                .last
                .iter()
                .filter(|_| !veil.hides_names())
                .map(|(notice, moment)| ToldEvent::of(notice, when(moment)))
                .collect(),
        };
        serde_json::to_string(&payload).expect("strings and finite numbers are always JSON")
    }
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BootId;

    fn notice(event: Event, client: &str) -> Notice {
        Notice { event, client: Some(client.into()), topic: None, detail: "it says nothing".to_owned() }
    }

    fn at(second: u64) -> Moment {
        Moment { boot: BootId([0xab; 16]), at: BootTime(second * 1_000_000_000), time: None }
    }

    #[test]
    fn all_are_counted_and_the_last_are_told() {
        let mut lan = Lan::default();
        let text = |lan: &Lan| lan.payload(&Dating::default(), &Veil::default());
        assert_eq!(text(&lan), r#"{"restarts":0,"events":{},"last":[]}"#);
        lan.take(notice(Event::Silent, "esp"), at(5), 2);
        let expected = concat!(
            r#"{"restarts":2,"events":{"silent":1},"last":[{"event":"silent","client":"esp","detail":"it says nothing","#,
            r#""boot":"abababababababababababababababab","uptime":5.0}]}"#
        );
        assert_eq!(text(&lan), expected);
        for number in 0..100 {
            lan.take(notice(Event::UnknownClient, &format!("{number}{}", "é".repeat(1000))), at(6), 2);
        }
        let text = text(&lan);
        assert!(text.contains(r#""events":{"silent":1,"unknown-client":100}"#), "{text}");
        assert_eq!((lan.last.len(), lan.last[15].0.client.as_deref().map(|name| &name[..2])), (MAX_LAST, Some("99")));
        assert!(text.len() < 8 * 1024, "{}", text.len());
    }

    #[test]
    fn each_kind_is_logged_at_most_once_a_minute() {
        let mut lan = Lan::default();
        let now = |second: u64| BootTime(second * 1_000_000_000);
        assert!(lan.log(&notice(Event::Silent, "a"), now(1)));
        assert!(!lan.log(&notice(Event::Silent, "b"), now(60)));
        assert!(lan.log(&notice(Event::Back, "b"), now(60)), "another kind");
        assert!(lan.log(&notice(Event::Silent, "c"), now(61)));
    }
}
