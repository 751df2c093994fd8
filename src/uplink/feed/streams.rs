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
use super::super::encode::{Cut, Part};
use super::super::packet::TooLarge;
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
pub(super) enum Stream {
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
    pub(super) fn of(&mut self, stream: Stream) -> &mut Seq {
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
        if let Some(slots) = &mut self.slots {
            slots.connected(now);
        }
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
        self.tell_acked(outbox);
        self.unsure.known(outbox.acks_on_disk(fill.now));
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
        if !output.has_room() || !self.has_slot() {
            return 0;
        }
        let free = self.session.free().min(self.unsure.room(self.session.in_flight(), self.session.limit()));
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
            let again = match self.batch {
                Some(batch) => self.send_batch(stream, hub, outbox, output, fill, &mut entries, (batch, end)),
                None => {
                    outbox.read(self.cursor, next, room.min(READ_CHUNK), &mut entries);
                    self.send_each(stream, hub, outbox, output, fill, &entries, end)
                }
            };
            self.entries = entries;
            if again.is_some() {
                return again;
            }
        }
    }

    /// There are no records although this is not the end: gives the time when to try again, if that may help.
    pub(super) fn nothing_read(
        &mut self,
        stream: Stream,
        outbox: &mut Outbox,
        end: Seq,
        now: BootTime,
    ) -> Option<BootTime> {
        // What could not be read for good counts as acknowledged now.
        self.dirty = true;
        let next = self.next.of(stream);
        if outbox.next_unacked(self.cursor, *next) < end {
            return Some(now.after(READ_AGAIN));
        }
        *next = end;
        None
    }

    /// Sends each record by itself. Gives the time when to go on, if that is not now.
    #[expect(clippy::too_many_arguments, reason = "what a connection consists of, and a chunk of records")]
    fn send_each(
        &mut self,
        stream: Stream,
        hub: &Hub,
        outbox: &mut Outbox,
        output: &mut Output,
        fill: Fill,
        entries: &[Entry],
        end: Seq,
    ) -> Option<BootTime> {
        if entries.is_empty() {
            return self.nothing_read(stream, outbox, end, fill.now);
        }
        for entry in entries {
            if entry.seq >= end {
                *self.next.of(stream) = end;
                break;
            }
            let date = match self.judge(hub, outbox, entry, fill) {
                Judged::Send(date) => date,
                Judged::PassedOver => {
                    *self.next.of(stream) = entry.seqs().end;
                    continue;
                }
                Judged::Held => return Some(fill.hold_until),
            };
            if !self.send(stream, hub, outbox, output, entry, date, fill.now) {
                break;
            }
        }
        None
    }

    /// Decides over a record whose turn it is.
    pub(super) fn judge(&mut self, hub: &Hub, outbox: &mut Outbox, entry: &Entry, fill: Fill) -> Judged {
        let date = hub.dating().date(entry);
        let verdict = match self.selector.judge(entry, date) {
            Verdict::Send if !self.encoder.takes(entry) => Verdict::NotOurs,
            verdict => verdict,
        };
        if verdict != Verdict::Send {
            self.pass_over(outbox, entry, verdict);
            return Judged::PassedOver;
        }
        if matches!(date, Date::Uptime(boot, _) if boot == hub.boot) && fill.now < fill.hold_until {
            return Judged::Held;
        }
        Judged::Send(date)
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
                self.acked(outbox, seq..seq + 1, 0);
            }
        }
    }

    /// Sends what is left of a record; `false` if there was no room for all of it.
    #[expect(clippy::too_many_arguments, reason = "what a connection consists of, and a record")]
    fn send(
        &mut self,
        stream: Stream,
        hub: &Hub,
        outbox: &mut Outbox,
        output: &mut Output,
        entry: &Entry,
        date: Date,
        now: BootTime,
    ) -> bool {
        let seqs = entry.seqs();
        let next = *self.next.of(stream);
        let (backlog, now) = (stream == Stream::Backlog, (hub.boot, now));
        let mut shape = self.encoder.shape(entry);
        if shape == PayloadShape::Sensor {
            // Of a record that was begun in the other shape, only the rest is sent.
            if seqs.start >= next && seqs.clone().all(|seq| self.is_open(outbox, seq)) {
                let part = Part { entry, seqs, date };
                return self.send_parts(stream, hub, outbox, output, &[part], Cut { shape, backlog, now }) > 0;
            }
            shape = PayloadShape::Quantity;
        }
        for seq in next.max(seqs.start)..seqs.end {
            if !self.is_open(outbox, seq) {
                *self.next.of(stream) = seq + 1;
                continue;
            }
            let part = Part { entry, seqs: seq..seq + 1, date };
            if self.send_parts(stream, hub, outbox, output, &[part], Cut { shape, backlog, now }) == 0 {
                return false;
            }
        }
        true
    }

    /// Neither acknowledged nor in flight since before the connection.
    fn is_open(&self, outbox: &Outbox, seq: Seq) -> bool {
        !self.is_flying(seq) && !outbox.is_acked(self.cursor, seq)
    }

    /// Was it in flight when the streams were (re)started?
    pub(super) fn is_flying(&self, seq: Seq) -> bool {
        let index = self.in_slots.partition_point(|seqs| seqs.end <= seq);
        self.in_slots.get(index).is_some_and(|seqs| seqs.contains(&seq))
    }

    /// Sends one message of these parts, or of the first of them if it would be too large; gives how many are sent or
    /// refused: none if there is no room.
    pub(super) fn send_parts(
        &mut self,
        stream: Stream,
        hub: &Hub,
        outbox: &mut Outbox,
        output: &mut Output,
        parts: &[Part<'_>],
        cut: Cut,
    ) -> usize {
        let (_, now) = cut.now;
        if self.room(stream, output, now) == 0 {
            return 0;
        }
        if let Err(why) = self.introduce(hub, outbox, output, parts, cut.backlog) {
            *self.next.of(stream) = parts.last().map_or(0, |last| last.seqs.end);
            self.refuse(outbox, parts, cut, why, now);
            return parts.len();
        }
        let (qos, id) = (self.terms.qos(), self.session.next_id());
        let mut count = parts.len();
        let sent = loop {
            match self.encode(output, &parts[..count], cut, Ids { qos, id, dup: false, now }) {
                Err(failed) if count > 1 => count = fewer(count, failed.too_large),
                sent => break sent,
            }
        };
        let parts = &parts[..count];
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return 0 };
        let seqs = first.seqs.start..last.seqs.end;
        *self.next.of(stream) = seqs.end;
        if let Err(failed) = sent {
            self.refuse(outbox, parts, cut, failed.why, now);
            return count;
        }
        for part in parts {
            self.dirty |= hub.tell(outbox, part.entry);
        }
        self.counters.sent.add(1);
        self.use_slot();
        if cut.backlog {
            self.pace.sent(id, now);
        }
        if qos == Qos::AtMostOnce {
            self.session.queued(seqs, output.end());
        } else {
            self.session.sent(seqs, cut.shape, qos, cut.backlog, now);
        }
        count
    }
}

/// Of how many parts a message is to be tried next, when one of so many cannot be sent: what fits by its size, else one, so
/// that only what is to blame is refused.
fn fewer(count: usize, too_large: Option<TooLarge>) -> usize {
    let Some(TooLarge { size, max }) = too_large else { return 1 };
    let fits = count.saturating_mul(usize::try_from(max).unwrap_or(usize::MAX)) / size.max(1);
    fits.clamp(1, count - 1)
}

/// What is to become of a record whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is sent.
    Send(Date),
    /// It is done with.
    PassedOver,
    /// It waits for its date.
    Held,
}
