//! A batch: records with everything that they refer to, compressed.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BATCH_BYTES, MAX_BATCH_BYTES};
use crate::clock::{BootId, BootTime, WallTime};
use crate::outbox::{Body, Entry, Raw, Seq};
use crate::reading::{Descriptor, Fix, Value};

/// How hard miniz tries, 1 to 10.
const LEVEL: u8 = 6;

/// What a batch consists of, one after the other. Numbers that grow slowly are given as differences.
#[derive(Serialize, Deserialize)]
enum Item {
    /// The next descriptor; records refer to them by number, from 0.
    Descriptor(Box<Descriptor>),
    /// The run and the boot of the records that follow.
    Run(u32, BootId),
    /// Values of a sensor.
    Reading(Head, u32, Vec<(u16, Value)>),
    /// A message of a LAN client.
    Raw(Head, Raw),
    /// Values of a sensor, and where it was.
    Placed(Head, u32, Vec<(u16, Value)>, Fix),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Head {
    /// Positions between the end of the record before and this one.
    gap: i64,
    /// Nanoseconds on the boot clock since the record before.
    at: i64,
    /// Wall clock minus boot clock, as its difference to that of the last record that had one.
    offset: Option<i64>,
}

/// What differences are taken from.
#[derive(Clone, Copy, Default)]
struct Before {
    end: i64,
    at: i64,
    offset: i64,
}

impl Before {
    fn head(&mut self, entry: &Entry, time: Option<WallTime>) -> Head {
        let (seq, at) = (entry.seq.cast_signed(), entry.at.0.cast_signed());
        let offset = time.map(|time| time.0.wrapping_sub(at));
        let head = Head {
            gap: seq.wrapping_sub(self.end),
            at: at.wrapping_sub(self.at),
            offset: offset.map(|offset| offset.wrapping_sub(self.offset)),
        };
        *self =
            Self { end: seq.wrapping_add(entry.body.len().cast_signed()), at, offset: offset.unwrap_or(self.offset) };
        head
    }

    fn entry(&mut self, head: Head, (run, boot): (u32, BootId), place: Option<Fix>, body: Body) -> Entry {
        let seq = self.end.wrapping_add(head.gap);
        let at = self.at.wrapping_add(head.at);
        let offset = head.offset.map(|offset| self.offset.wrapping_add(offset));
        let time = offset.map(|offset| WallTime(at.wrapping_add(offset)));
        *self = Self { end: seq.wrapping_add(body.len().cast_signed()), at, offset: offset.unwrap_or(self.offset) };
        // A sum of a position and a length must not overflow, whatever was in a file.
        let seq: Seq = seq.cast_unsigned() & (Seq::MAX >> 1);
        Entry { seq, run, boot, at: BootTime(at.cast_unsigned()), time, place, body }
    }
}

/// Takes records until the batch is full.
#[derive(Default)]
pub struct Builder {
    bytes: Vec<u8>,
    /// By address, which is nobody else's while it is held here.
    descriptors: HashMap<usize, (Arc<Descriptor>, u32)>,
    run: Option<(u32, BootId)>,
    before: Before,
    values: u64,
    span: Option<(WallTime, WallTime)>,
}

impl Builder {
    /// Is there nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values == 0
    }

    /// Is there room for another record?
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.bytes.len() < BATCH_BYTES
    }

    /// Takes a record, with its time as far as it is known by now.
    pub fn push(&mut self, entry: &Entry, time: Option<WallTime>) {
        if self.run != Some((entry.run, entry.boot)) {
            self.run = Some((entry.run, entry.boot));
            self.put(&Item::Run(entry.run, entry.boot));
        }
        let head = self.before.head(entry, time);
        match &entry.body {
            Body::Raw(raw) => self.put(&Item::Raw(head, raw.clone())),
            Body::Reading { descriptor, values } => {
                let number = self.number(descriptor);
                self.put(&match entry.place {
                    Some(place) => Item::Placed(head, number, values.clone(), place),
                    None => Item::Reading(head, number, values.clone()),
                });
            }
        }
        self.values += entry.body.len();
        if let Some(time) = time {
            let (first, last) = self.span.unwrap_or((time, time));
            self.span = Some((first.min(time), last.max(time)));
        }
    }

    fn number(&mut self, descriptor: &Arc<Descriptor>) -> u32 {
        let address = Arc::as_ptr(descriptor) as usize;
        if let Some((_, number)) = self.descriptors.get(&address) {
            return *number;
        }
        let number = u32::try_from(self.descriptors.len()).expect("each takes bytes, of which there are few");
        // Held, so that no other one gets its address.
        self.descriptors.insert(address, (Arc::clone(descriptor), number));
        self.put(&Item::Descriptor(Box::new((**descriptor).clone())));
        number
    }

    fn put(&mut self, item: &Item) {
        let bytes = postcard::to_allocvec(item).expect("these types have lengths, and memory does not fail");
        self.bytes.extend_from_slice(&bytes);
    }

    /// Ends it.
    pub(super) fn finish(&self) -> Batch {
        Batch {
            payload: miniz_oxide::deflate::compress_to_vec(&self.bytes, LEVEL),
            raw_bytes: self.bytes.len(),
            values: self.values,
            span: self.span,
        }
    }
}

/// A batch as it is written.
pub(super) struct Batch {
    /// Compressed (RFC 1951).
    pub(super) payload: Vec<u8>,
    /// Bytes before that.
    pub(super) raw_bytes: usize,
    /// Values in it.
    pub(super) values: u64,
    /// The first and the last time in it, if any record has one.
    pub(super) span: Option<(WallTime, WallTime)>,
}

/// The records of a batch; `None`: it is damaged.
pub(super) fn read(payload: &[u8], raw_bytes: usize) -> Option<Vec<Entry>> {
    if raw_bytes > MAX_BATCH_BYTES {
        return None;
    }
    let bytes = miniz_oxide::inflate::decompress_to_vec_with_limit(payload, raw_bytes).ok()?;
    let mut descriptors: Vec<Arc<Descriptor>> = Vec::new();
    let mut run = None;
    let mut before = Before::default();
    let mut entries = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (item, more) = postcard::take_from_bytes::<Item>(rest).ok()?;
        rest = more;
        match item {
            Item::Descriptor(descriptor) => descriptors.push(Arc::new(*descriptor)),
            Item::Run(number, boot) => run = Some((number, boot)),
            Item::Raw(head, raw) => entries.push(before.entry(head, run?, None, Body::Raw(raw))),
            Item::Reading(head, number, values) => {
                let descriptor = Arc::clone(descriptors.get(number as usize)?);
                entries.push(before.entry(head, run?, None, Body::Reading { descriptor, values }));
            }
            Item::Placed(head, number, values, place) => {
                let descriptor = Arc::clone(descriptors.get(number as usize)?);
                entries.push(before.entry(head, run?, Some(place), Body::Reading { descriptor, values }));
            }
        }
    }
    Some(entries)
}
