//! The session as it is kept in the outbox's state: runs of packet ids, so that a full window takes a few bytes.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::config::PayloadShape;
use crate::outbox::Seq;

use super::session::{Reading, Session, Slot, Stage, id_after};

/// Version of the stored form; another one is not read.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    peer: u32,
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
    /// 1: PUBACK is missing; 2: PUBREC; 3: PUBCOMP.
    stage: u8,
}

/// Which broker and client identifier a session belongs to: the packet ids of one mean nothing to another.
#[must_use]
pub fn peer(url: &str, client_id: &str) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(url.as_bytes());
    hash.update(&[0]);
    hash.update(client_id.as_bytes());
    hash.finalize()
}

/// The stored form of what is in flight.
#[must_use]
pub fn save(session: &Session, peer: u32) -> Vec<u8> {
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
    let saved = Saved { peer, next_id: id, runs };
    postcard::to_extend(&saved, vec![VERSION]).expect("numbers can always be written")
}

/// The session that was saved for this peer; `None` if it is another peer's, another version's, or damaged.
#[must_use]
pub fn restore(bytes: &[u8], peer: u32, inflight: u16) -> Option<Session> {
    let saved: Saved = postcard::from_bytes(bytes.strip_prefix(&[VERSION])?).ok()?;
    if saved.peer != peer || saved.next_id == 0 {
        return None;
    }
    let first_id = saved.runs.first().map_or(saved.next_id, |run| run.id);
    let mut slots = VecDeque::new();
    for run in &saved.runs {
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
            slots.push_back(Slot::Reading(Reading { seq, count: run.count, shape, stage }));
        }
        if slots.len() >= usize::from(u16::MAX) {
            return None;
        }
    }
    Some(Session::with_slots(inflight, first_id, slots))
}

fn form(reading: &Reading) -> Form {
    Form {
        sensor: reading.shape == PayloadShape::Sensor,
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
    use crate::uplink::packet::Incoming;

    const NOW: BootTime = BootTime(0);

    fn resends(mut session: Session) -> Vec<crate::uplink::session::Resend> {
        session.disconnected();
        session.connected(true, NOW);
        std::iter::from_fn(|| session.next_resend()).collect()
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
                        session.sent(seq..seq + count, shape, qos, NOW);
                        seq += count;
                    }
                    2 => drop(session.handle(Incoming::PubAck(id), NOW)),
                    3 => drop(session.handle(Incoming::PubRec(id), NOW)),
                    4 => drop(session.handle(Incoming::PubComp(id), NOW)),
                    _ => if session.free_status() > 0 { session.sent_status(NOW) },
                }
            }
            let saved = save(&session, 7);
            prop_assert!(restore(&saved, 8, 50).is_none(), "another peer's");
            let restored = restore(&saved, 7, 50).expect("as saved");
            prop_assert_eq!(restored.in_flight(), session.in_flight());
            prop_assert_eq!(restored.span(), session.span());
            prop_assert_eq!(resends(restored), resends(session));
        }

        #[test]
        fn no_bytes_whatsoever_panic(bytes: Vec<u8>) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let peer = postcard::from_bytes::<u32>(bytes.get(1..).unwrap_or_default()).unwrap_or_default();
            if let Some(session) = restore(&bytes, peer, 10) {
                let _ = (session.span(), session.free(), session.next_id());
            }
        }
    }

    #[test]
    fn a_full_window_takes_a_few_bytes() {
        let mut session = Session::new(1_000);
        for seq in 0..1_000 {
            session.sent(seq..seq + 1, PayloadShape::Quantity, Qos::ExactlyOnce, NOW);
        }
        for id in 1..=300 {
            session.handle(Incoming::PubRec(id), NOW);
        }
        assert!(save(&session, 7).len() < 40);
    }
}
