//! The two streams of an uplink: live readings, and beside them the backlog.
//!
//! The backlog is what was taken before the connection was up, but for the last seconds before it. Order holds within
//! each stream. Live readings go first; the backlog gets what its [pace](super::super::pace) allows of three quarters of
//! the window. With `live_first = false`, or `backlog = "latest"`, live readings wait until the backlog is sent.

use crate::clock::BootTime;
use crate::config::{BacklogPolicy, PayloadShape, Qos};
use crate::outbox::{DropReason, Entry, Outbox, Seq};

use super::super::Hub;
use super::super::dating::Date;
use super::super::encode::Part;
use super::latest::Latest;
use super::selection::Verdict;
use super::{Feed, Fill, Ids, Output};

/// Records that are taken from the outbox at a time.
const READ_CHUNK: usize = 64;

/// When records wait that cannot be read from disk at the moment, it is tried again so much later.
pub(super) const READ_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// One part in so many of the window is kept for live readings while there is a backlog.
const LIVE_SHARE: usize = 4;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Backlog,
    Live,
}

/// How far each stream has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Next {
    backlog: Seq,
    live: Seq,
}

impl Next {
    fn of(&mut self, stream: Stream) -> &mut Seq {
        match stream {
            Stream::Backlog => &mut self.backlog,
            Stream::Live => &mut self.live,
        }
    }
}

/// The earlier of two times, where there are any.
fn earlier(a: Option<BootTime>, b: Option<BootTime>) -> Option<BootTime> {
    a.into_iter().chain(b).min()
}

impl Feed {
    /// A connection begins.
    pub(super) fn start_streams(&mut self, live_from: Seq, now: BootTime) {
        self.live_from = live_from;
        self.rewind();
        self.latest = (self.backlog.policy == BacklogPolicy::Latest).then(Latest::default);
        self.pace.connected(now);
    }

    /// Goes through the streams anew: what is neither acknowledged nor in flight is still to be sent.
    pub(super) fn rewind(&mut self) {
        self.next = Next { backlog: 0, live: self.live_from };
        self.in_slots.clear();
        self.in_slots.extend(self.session.readings_in_flight());
        self.in_slots.sort_by_key(|seqs| seqs.start);
    }

    /// Sends what there is room for. Gives the time when to try again.
    pub(super) fn send_streams(
        &mut self,
        hub: &Hub,
        outbox: &mut Outbox,
        output: &mut Output,
        fill: Fill,
    ) -> Option<BootTime> {
        if let Some(mut latest) = self.latest.take() {
            if !latest.search(outbox, self.cursor, self.live_from, &mut self.encoder, &self.selector) {
                // There is more to look through; meanwhile others may have their turn.
                self.latest = Some(latest);
                return Some(fill.now);
            }
            let superseded = latest.keep_only(outbox, self.cursor, &self.in_slots);
            self.counters.superseded.add(superseded);
            self.dirty |= superseded > 0;
        }
        if !self.backlog.live_first || self.backlog.policy == BacklogPolicy::Latest {
            let again = self.send_stream(Stream::Backlog, hub, outbox, output, fill);
            if self.next.backlog < self.live_from {
                return again;
            }
            return self.send_stream(Stream::Live, hub, outbox, output, fill);
        }
        let live = self.send_stream(Stream::Live, hub, outbox, output, fill);
        earlier(live, self.send_stream(Stream::Backlog, hub, outbox, output, fill))
    }

    /// How many messages may follow now.
    fn room(&self, stream: Stream, output: &Output, now: BootTime) -> usize {
        if !output.has_room() {
            return 0;
        }
        let free = self.session.free();
        if stream == Stream::Live {
            return free;
        }
        if self.pace.wait(now).is_some() {
            return 0;
        }
        let kept = if self.backlog.live_first { self.session.limit() / LIVE_SHARE } else { 0 };
        let free = free.saturating_sub(kept);
        if self.terms.qos() == Qos::AtMostOnce {
            // Nothing is acknowledged, so that there is no delay to go by.
            return free;
        }
        free.min(self.pace.window().saturating_sub(self.session.backlogged()))
    }

    fn send_stream(
        &mut self,
        stream: Stream,
        hub: &Hub,
        outbox: &mut Outbox,
        output: &mut Output,
        fill: Fill,
    ) -> Option<BootTime> {
        let end = match stream {
            Stream::Backlog => self.live_from.min(outbox.end()),
            Stream::Live => outbox.end(),
        };
        loop {
            let next = *self.next.of(stream);
            let room = self.room(stream, output, fill.now);
            if next >= end || room == 0 {
                let waits = stream == Stream::Backlog && next < end;
                return if waits { self.pace.wait(fill.now) } else { None };
            }
            let mut entries = std::mem::take(&mut self.entries);
            entries.clear();
            outbox.read(self.cursor, next, room.min(READ_CHUNK), &mut entries);
            let mut again = None;
            if entries.is_empty() {
                // What could not be read for good counts as acknowledged now.
                self.dirty = true;
                if outbox.next_unacked(self.cursor, next) < end {
                    again = Some(fill.now.after(READ_AGAIN));
                } else {
                    *self.next.of(stream) = end;
                }
            }
            for entry in &entries {
                if entry.seq >= end {
                    *self.next.of(stream) = end;
                    break;
                }
                let date = hub.dating().date(entry);
                match self.selector.judge(entry, date) {
                    Verdict::Send => {}
                    verdict @ (Verdict::NotOurs | Verdict::Expired) => {
                        *self.next.of(stream) = entry.seqs().end;
                        self.pass_over(outbox, entry, verdict);
                        continue;
                    }
                }
                if matches!(date, Date::Uptime(boot, _) if boot == hub.boot) && fill.now < fill.hold_until {
                    again = Some(fill.hold_until);
                    break;
                }
                self.dirty |= hub.tell(outbox, entry);
                if !self.send(stream, outbox, output, entry, date, fill.now) {
                    break;
                }
            }
            self.entries = entries;
            if again.is_some() {
                return again;
            }
        }
    }

    /// A record that this uplink does not send is done with, as far as it is not in flight.
    fn pass_over(&mut self, outbox: &mut Outbox, entry: &Entry, verdict: Verdict) {
        for seq in entry.seqs() {
            if !self.is_open(outbox, seq) {
                continue;
            }
            if verdict == Verdict::Expired {
                self.counters.expired.add(1);
                let (sensor, when) = (entry.sensor(), Some(entry.moment()));
                outbox.drop_for(self.cursor, seq..seq + 1, DropReason::Expired, sensor, when);
                self.dirty = true;
            } else {
                self.acked(outbox, seq..seq + 1);
            }
        }
    }

    /// Sends what is left of a record; `false` if there was no room for all of it.
    fn send(
        &mut self,
        stream: Stream,
        outbox: &mut Outbox,
        output: &mut Output,
        entry: &Entry,
        date: Date,
        now: BootTime,
    ) -> bool {
        let seqs = entry.seqs();
        let next = *self.next.of(stream);
        let backlog = stream == Stream::Backlog;
        let mut shape = self.encoder.shape(entry);
        if shape == PayloadShape::Sensor {
            // Of a record that was begun in the other shape, only the rest is sent.
            if seqs.start >= next && seqs.clone().all(|seq| self.is_open(outbox, seq)) {
                return self.send_part(stream, outbox, output, entry, Part { seqs, shape, date, backlog }, now);
            }
            shape = PayloadShape::Quantity;
        }
        for seq in next.max(seqs.start)..seqs.end {
            if !self.is_open(outbox, seq) {
                *self.next.of(stream) = seq + 1;
                continue;
            }
            let part = Part { seqs: seq..seq + 1, shape, date, backlog };
            if !self.send_part(stream, outbox, output, entry, part, now) {
                return false;
            }
        }
        true
    }

    /// Neither acknowledged nor in flight since before the connection.
    pub(super) fn is_open(&self, outbox: &Outbox, seq: Seq) -> bool {
        let index = self.in_slots.partition_point(|seqs| seqs.end <= seq);
        !self.in_slots.get(index).is_some_and(|seqs| seqs.contains(&seq)) && !outbox.is_acked(self.cursor, seq)
    }

    fn send_part(
        &mut self,
        stream: Stream,
        outbox: &mut Outbox,
        output: &mut Output,
        entry: &Entry,
        part: Part,
        now: BootTime,
    ) -> bool {
        if self.room(stream, output, now) == 0 {
            return false;
        }
        *self.next.of(stream) = part.seqs.end;
        let (qos, id) = (self.terms.qos(), self.session.next_id());
        if let Err(why) = self.encode(output, entry, &part, Ids { qos, id, dup: false, now }) {
            self.refuse(outbox, entry, &part, why, now);
            return true;
        }
        self.counters.sent.add(1);
        if part.backlog {
            self.pace.sent(id, now);
        }
        if qos == Qos::AtMostOnce {
            self.session.queued(part.seqs, output.end());
        } else {
            self.session.sent(part.seqs, part.shape, qos, part.backlog, now);
        }
        true
    }
}
