//! The session as it is kept in the outbox's state: runs of packet ids, so that a full window takes a few bytes.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::clock::BootId;
use crate::config::{BROKER_UPLINK, BrokerUrl, PayloadShape};
use crate::outbox::Seq;

use super::session::{Reading, Session, Slot, Stage, id_after};

/// Version of the stored form; another one is not read.
const VERSION: u8 = 2;

/// The largest stored form. A window that takes more (tens of thousands of messages, acknowledged in no order at all)
/// is stored as unknown: after a crash its messages count as possible duplicates.
const MAX_BYTES: usize = 128 * 1_024;

/// What stands for the URL of the embedded broker; a URL has a scheme.
const EMBEDDED: &[u8] = b"embedded";

/// Whose session it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Which broker and client identifier, by [`peer`].
    pub peer: u32,
    /// The boot in which it was saved.
    pub boot: BootId,
    /// The run that saved it.
    pub run: u32,
}

/// A session with what is to be known of it.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The session.
    pub session: Session,
    /// Whose it is.
    pub origin: Origin,
    /// The session that the broker may have is the other end of this one.
    pub known: bool,
    /// It was saved at the orderly end of its run.
    pub closed: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    origin: Origin,
    known: bool,
    closed: bool,
    next_id: u16,
    runs: Vec<Run>,
}

/// Messages with consecutive packet ids whose positions follow each other.
#[derive(Serialize, Deserialize, PartialEq)]
struct Run {
    id: u16,
    messages: u16,
    seq: Seq,
    /// Positions of each message.
    count: u32,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Form {
    sensor: bool,
    backlog: bool,
    /// 1: PUBACK is missing; 2: PUBREC; 3: PUBCOMP.
    stage: u8,
}

/// Where an uplink's session is kept in the outbox's state.
#[must_use]
pub fn state_key(uplink: &str) -> String {
    format!("session/{uplink}")
}

/// Which broker and client identifier a session belongs to: the packet ids of one mean nothing to another. Nor do those of
/// messages of several readings once these are grouped otherwise: `grouping` says how they are, empty where each reading
/// has a message of its own. The embedded broker is known by name: it keeps our session, and has another port at each
/// start.
#[must_use]
pub fn peer(uplink: &str, url: &BrokerUrl, client_id: &str, grouping: &str) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    if uplink == BROKER_UPLINK {
        hash.update(EMBEDDED);
    } else {
        hash.update(url.to_string().as_bytes());
    }
    hash.update(&[0]);
    hash.update(client_id.as_bytes());
    if !grouping.is_empty() {
        hash.update(&[0]);
        hash.update(grouping.as_bytes());
    }
    hash.finalize()
}

impl Saved {
    /// Is it the last word of the run before `now`, or of this one? A session that is older would take the broker's
    /// acknowledgements for those of other messages, and let the broker swallow messages at QoS 2 under packet ids
    /// that it still holds.
    ///
    /// `tail_found`: the outbox had a tail when it was opened. Then its state is as it was at the last commit, unless
    /// the tail was on a disk and the power failed. Without a tail only an orderly end makes sure of that.
    #[must_use]
    pub fn is_current(&self, now: &Origin, tail_found: bool) -> bool {
        let from_tail = tail_found && self.origin.boot == now.boot;
        let from_close = self.closed && self.origin.run.checked_add(1) == Some(now.run);
        // Of this very process: an uplink that was configured anew.
        let from_here = self.origin.boot == now.boot && self.origin.run == now.run;
        self.origin.peer == now.peer && (from_tail || from_close || from_here)
    }

    /// Reads the stored form; `None` if it is damaged or another version's.
    #[must_use]
    pub fn restore(bytes: &[u8], inflight: u16) -> Option<Self> {
        let stored: Stored = postcard::from_bytes(bytes.strip_prefix(&[VERSION])?).ok()?;
        if stored.next_id == 0 {
            return None;
        }
        let first_id = stored.runs.first().map_or(stored.next_id, |run| run.id);
        let slots = slots(first_id, &stored.runs)?;
        Some(Self {
            session: Session::with_slots(inflight, first_id, slots),
            origin: stored.origin,
            known: stored.known,
            closed: stored.closed,
        })
    }
}

/// The stored form of what is in flight.
#[must_use]
pub fn save(session: &Session, origin: Origin, known: bool, closed: bool) -> Vec<u8> {
    let (first_id, slots) = session.slots();
    let mut runs: Vec<Run> = Vec::new();
    let mut id = first_id;
    for slot in slots {
        if let Slot::Reading(reading) = slot {
            let form = form(reading);
            match runs.last_mut() {
                Some(run)
                    if run.form == form
                        && run.count == reading.count
                        && id_after(run.id, usize::from(run.messages)) == id
                        && run.seq + Seq::from(run.messages) * Seq::from(run.count) == reading.seq =>
                {
                    run.messages += 1;
                }
                _ => runs.push(Run { id, messages: 1, seq: reading.seq, count: reading.count, form }),
            }
        }
        id = id_after(id, 1);
    }
    let put = |known, runs| {
        let stored = Stored { origin, known, closed, next_id: id, runs };
        postcard::to_extend(&stored, vec![VERSION]).expect("numbers can always be written")
    };
    let bytes = put(known, runs);
    if bytes.len() > MAX_BYTES { put(false, Vec::new()) } else { bytes }
}

fn slots(first_id: u16, runs: &[Run]) -> Option<VecDeque<Slot>> {
    let mut slots = VecDeque::new();
    for run in runs {
        if first_id == 0 || run.id == 0 || run.count == 0 {
            return None;
        }
        let stage = stage(run.form.stage)?;
        let shape = if run.form.sensor { PayloadShape::Sensor } else { PayloadShape::Quantity };
        while id_after(first_id, slots.len()) != run.id {
            slots.push_back(Slot::Done);
            if slots.len() > usize::from(u16::MAX) {
                return None;
            }
        }
        for message in 0..run.messages {
            let seq = run.seq.checked_add(Seq::from(message) * Seq::from(run.count))?;
            seq.checked_add(Seq::from(run.count))?;
            slots.push_back(Slot::Reading(Reading::new(seq, run.count, shape, stage, run.form.backlog)));
        }
        if slots.len() >= usize::from(u16::MAX) {
            return None;
        }
    }
    Some(slots)
}

fn form(reading: &Reading) -> Form {
    Form {
        sensor: reading.shape == PayloadShape::Sensor,
        backlog: reading.backlog,
        stage: match reading.stage {
            Stage::Acknowledge => 1,
            Stage::Receive => 2,
            Stage::Complete => 3,
        },
    }
}

fn stage(number: u8) -> Option<Stage> {
    match number {
        1 => Some(Stage::Acknowledge),
        2 => Some(Stage::Receive),
        3 => Some(Stage::Complete),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::BootTime;
    use crate::config::Qos;
    use crate::uplink::packet::{Incoming, Reason};

    const NOW: BootTime = BootTime(0);
    const HERE: Origin = Origin { peer: 7, boot: BootId([1; 16]), run: 17 };

    #[test]
    fn a_broker_is_known_by_its_url_and_the_embedded_one_by_name() {
        let of = |uplink: &str, port: u16| {
            let url = BrokerUrl::of(([127, 0, 0, 1], port).into());
            peer(uplink, &url, "vigie", "")
        };
        assert_ne!(of("home", 1883), of("home", 1884));
        assert_eq!(of(BROKER_UPLINK, 1883), of(BROKER_UPLINK, 1884), "its port is another one at each start");
        assert_ne!(of(BROKER_UPLINK, 1883), of("home", 1883));
    }

    fn resends(mut session: Session) -> Vec<crate::uplink::session::Resend> {
        session.disconnected(false);
        session.connected(true, 0, NOW);
        std::iter::from_fn(|| session.next_resend().inspect(|_| session.resent())).collect()
    }

    proptest! {
        #[test]
        fn a_session_comes_back_as_it_was(
            start in 0..70_000_usize,
            steps in proptest::collection::vec((0..5_u8, 1..4_u64, any::<u16>()), 0..60),
        ) {
            let mut session = Session::with_slots(50, id_after(1, start), VecDeque::new());
            let mut seq = 100;
            for (what, count, pick) in steps {
                let (first, slots) = session.slots();
                let id = id_after(first, usize::from(pick) % slots.len().max(1));
                match what {
                    0 | 1 if session.free() > 0 => {
                        let qos = if what == 0 { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
                        let shape = if count > 1 { PayloadShape::Sensor } else { PayloadShape::Quantity };
                        session.sent(seq..seq + count, shape, qos, pick % 2 == 0, NOW);
                        seq += count;
                    }
                    2 => drop(session.handle(Incoming::PubAck(id, Reason::SUCCESS), NOW)),
                    3 => drop(session.handle(Incoming::PubRec(id, Reason::SUCCESS), NOW)),
                    4 => drop(session.handle(Incoming::PubComp(id, Reason::SUCCESS), NOW)),
                    _ => if session.free_status() > 0 { session.sent_status(NOW) },
                }
            }
            let Saved { session: restored, origin, known, closed } =
                Saved::restore(&save(&session, HERE, true, false), 50).expect("as saved");
            prop_assert_eq!((origin, known, closed), (HERE, true, false));
            prop_assert_eq!(restored.in_flight(), session.in_flight());
            prop_assert_eq!(restored.spans(110), session.spans(110));
            prop_assert_eq!(restored.backlogged(), session.backlogged());
            prop_assert_eq!(resends(restored), resends(session));
        }

        #[test]
        fn no_bytes_whatsoever_panic(bytes: Vec<u8>) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Some(Saved { session, .. }) = Saved::restore(&bytes, 10) {
                let _ = (session.spans(7), session.free(), session.next_id());
            }
        }

        /// Bytes that begin as a stored form does and go wrong further in.
        #[test]
        fn no_damage_panics(at: u16, to: u8, cut: u16) {
            let mut session = Session::new(100);
            for seq in 0..40 {
                session.sent(seq * 3..seq * 3 + 1, PayloadShape::Quantity, Qos::ExactlyOnce, false, NOW);
            }
            let mut bytes = save(&session, HERE, true, false);
            let length = bytes.len();
            bytes[usize::from(at) % length] = to;
            bytes.truncate(length - usize::from(cut) % 8);
            if let Some(Saved { session, .. }) = Saved::restore(&bytes, 10) {
                let _ = (session.spans(7), session.free(), session.next_id());
            }
        }
    }

    #[test]
    fn a_full_window_takes_a_few_bytes() {
        let mut session = Session::new(1_000);
        for seq in 0..1_000 {
            session.sent(seq..seq + 1, PayloadShape::Quantity, Qos::ExactlyOnce, false, NOW);
        }
        for id in 1..=300 {
            session.handle(Incoming::PubRec(id, Reason::SUCCESS), NOW);
        }
        assert!(save(&session, HERE, true, false).len() < 60);
    }

    #[test]
    fn a_window_that_is_too_large_to_store_is_unknown() {
        let mut session = Session::new(u16::MAX);
        for seq in 0..60_000 {
            session.sent(seq * 1_000_000..seq * 1_000_000 + 1, PayloadShape::Quantity, Qos::ExactlyOnce, false, NOW);
        }
        let restored = Saved::restore(&save(&session, HERE, true, false), 10).expect("as saved");
        assert_eq!((restored.known, restored.session.in_flight()), (false, 0));
        assert_eq!(restored.session.next_id(), session.next_id());
    }

    #[test]
    fn only_the_last_word_counts() {
        let saved = |closed| Saved::restore(&save(&Session::new(1), HERE, true, closed), 10).expect("as saved");
        let next = Origin { run: 18, ..HERE };
        assert!(saved(false).is_current(&next, true), "killed");
        assert!(!saved(false).is_current(&next, false), "the power failed, or the tail was removed");
        assert!(saved(true).is_current(&next, false), "ended in order");
        let rebooted = Origin { boot: BootId([2; 16]), ..next };
        assert!(saved(true).is_current(&rebooted, false));
        assert!(!saved(false).is_current(&rebooted, true), "a tail on a disk, of which the end may be missing");
        let later = Origin { run: 19, ..rebooted };
        assert!(!saved(true).is_current(&later, false), "a run in between has left nothing");
        assert!(!saved(true).is_current(&Origin { peer: 8, ..next }, true), "another broker");
    }
}
