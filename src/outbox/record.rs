//! The stored form of records: postcard's wire format, read without copying what is not kept.

use std::ops::Range;
use std::sync::Arc;

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize, Serializer};

use super::{Body, Entry, Raw, Seq};
use crate::clock::{BootId, BootTime, WallTime};
use crate::reading::{Descriptor, Finite, Fix, Value, Values};

/// The largest record in its stored form, in bytes. A larger one is refused and counted.
pub const MAX_RECORD: usize = 508 * 1024;

/// The largest descriptor in its stored form, in bytes.
pub(super) const MAX_DESCRIPTOR: usize = 64 * 1024;

/// What every record begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Position of the first message.
    pub(super) seq: Seq,
    /// Number of positions.
    pub(super) count: u32,
    /// The run that took it.
    pub(super) run: u32,
    /// When it was measured.
    pub(super) at: BootTime,
    /// The same on the wall clock, if that was set.
    pub(super) time: Option<WallTime>,
}

impl Head {
    /// The positions; `None`: no record of ours has such.
    pub(super) fn seqs(&self) -> Option<Range<Seq>> {
        let end = self.seq.checked_add(u64::from(self.count))?;
        (self.count > 0 && end < MAX_SEQ).then_some(self.seq..end)
    }
}

/// Positions stay below it, so that sums of a position and a length cannot overflow.
const MAX_SEQ: Seq = 1 << 62;

/// [`Value`] without its allocations; the same bytes in postcard.
#[derive(Serialize, Deserialize)]
enum StoredValue<'a> {
    Number(Finite),
    Switch(bool),
    Text(&'a str),
    Bytes(#[serde(serialize_with = "at_once")] &'a [u8]),
}

/// Serde would hand over a slice of bytes one by one. Postcard writes the same either way.
fn at_once<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// [`Raw`] without its allocations.
#[derive(Serialize, Deserialize)]
struct StoredRaw<'a> {
    topic: &'a str,
    retain: bool,
    #[serde(serialize_with = "at_once")]
    payload: &'a [u8],
}

/// All of a cursor, in [`Kind::Cursors`](super::frame::Kind::Cursors).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredCursor {
    /// Its uplink's name; empty for what nobody's cursor needs any more.
    pub(super) name: Box<str>,
    /// Its low-water mark.
    pub(super) low: Seq,
    /// Acknowledged ranges above it.
    pub(super) above: Vec<Range<Seq>>,
}

/// The payload of [`Kind::Cursors`](super::frame::Kind::Cursors).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredCursors {
    /// No record after this in the file has a position below it.
    pub(super) first: Seq,
    /// The cursors.
    pub(super) cursors: Vec<StoredCursor>,
}

/// The payload of [`Kind::Acks`](super::frame::Kind::Acks).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredAcks {
    /// Whose.
    pub(super) name: Box<str>,
    /// Which.
    pub(super) ranges: Vec<Range<Seq>>,
}

/// The payload of [`Kind::Run`](super::frame::Kind::Run).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredRun {
    /// The run.
    pub(super) run: u32,
    /// The boot in which it ran.
    pub(super) boot: BootId,
}

/// Appends a descriptor. Content types stand behind it, where there are any: a list of them, each with the index of its
/// quantity. What knows nothing of them reads the descriptor all the same.
pub(super) fn write_descriptor(buffer: &mut Vec<u8>, descriptor: &Descriptor) {
    write(buffer, descriptor);
    let types: Vec<(usize, &str)> = descriptor
        .quantities
        .iter()
        .enumerate()
        .filter_map(|(index, quantity)| Some((index, quantity.content_type.as_deref()?)))
        .collect();
    if !types.is_empty() {
        write(buffer, &types);
    }
}

/// Reads what [`write_descriptor`] wrote; `None`: damaged.
pub(super) fn read_descriptor(form: &[u8]) -> Option<Descriptor> {
    let (mut descriptor, rest) = postcard::take_from_bytes::<Descriptor>(form).ok()?;
    if !rest.is_empty() {
        let types: Vec<(usize, Box<str>)> = postcard::from_bytes(rest).ok()?;
        for (index, content_type) in types {
            descriptor.quantities.get_mut(index)?.content_type = Some(content_type);
        }
    }
    Some(descriptor)
}

/// Lets postcard write to the end of a vector.
struct Sink<'a>(&'a mut Vec<u8>);

impl Flavor for Sink<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends a value in postcard's form.
pub(super) fn write<T: Serialize>(buffer: &mut Vec<u8>, value: &T) {
    postcard::serialize_with_flavor(value, Sink(buffer)).expect("these types have lengths, and memory does not fail");
}

/// Appends the payload of a reading, which refers to its descriptor by number. Where it was measured stands behind its
/// values, if a receiver says so. What knows nothing of that reads the values all the same.
pub(super) fn write_reading(
    buffer: &mut Vec<u8>,
    head: &Head,
    descriptor: u32,
    values: &[(u16, Value)],
    place: Option<&Fix>,
) {
    write(buffer, head);
    write(buffer, &descriptor);
    for (quantity, value) in values {
        let value = match value {
            Value::Number(number) => StoredValue::Number(*number),
            Value::Switch(on) => StoredValue::Switch(*on),
            Value::Text(text) => StoredValue::Text(text),
            Value::Bytes(bytes) => StoredValue::Bytes(bytes),
        };
        write(buffer, &(quantity, value));
    }
    if let Some(place) = place {
        write(buffer, place);
    }
}

/// Appends the payload of a raw message.
pub(super) fn write_raw(buffer: &mut Vec<u8>, head: &Head, raw: &Raw) {
    write(buffer, head);
    write(buffer, &StoredRaw { topic: &raw.topic, retain: raw.retain, payload: &raw.payload });
}

/// A record's head, and what follows it.
pub(super) fn head(payload: &[u8]) -> Option<(Head, Range<Seq>, &[u8])> {
    let (head, rest) = postcard::take_from_bytes::<Head>(payload).ok()?;
    let seqs = head.seqs()?;
    Some((head, seqs, rest))
}

/// The number of a reading's descriptor, and what follows it.
pub(super) fn descriptor_number(rest: &[u8]) -> Option<(u32, &[u8])> {
    postcard::take_from_bytes(rest).ok()
}

/// A reading's values, and what follows them; `None`: damaged, or not of this descriptor.
fn values<'a>(count: u32, mut rest: &'a [u8], descriptor: &Descriptor) -> Option<(Values, &'a [u8])> {
    let count = count as usize;
    // A value takes three bytes at the least, so a made-up count cannot ask for more memory than the record did.
    if count > rest.len() {
        return None;
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let ((quantity, value), more) = postcard::take_from_bytes::<(u16, StoredValue<'_>)>(rest).ok()?;
        if usize::from(quantity) >= descriptor.quantities.len() {
            return None;
        }
        let value = match value {
            StoredValue::Number(number) => Value::Number(number),
            StoredValue::Switch(on) => Value::Switch(on),
            StoredValue::Text(text) => Value::Text(text.into()),
            StoredValue::Bytes(bytes) => Value::Bytes(bytes.into()),
        };
        values.push((quantity, value));
        rest = more;
    }
    Some((values, rest))
}

/// Where a record's references lead.
pub(super) trait Lookup {
    /// The descriptor of that number.
    fn descriptor(&self, number: u32) -> Option<&Arc<Descriptor>>;
    /// The boot in which that run ran.
    fn boot(&self, run: u32) -> Option<BootId>;
}

/// The entry of a reading, from what follows its head; `None`: damaged, or it refers to what is not known.
pub(super) fn reading(head: &Head, rest: &[u8], lookup: &impl Lookup) -> Option<Entry> {
    let (number, rest) = descriptor_number(rest)?;
    let descriptor = lookup.descriptor(number)?;
    let (values, rest) = values(head.count, rest, descriptor)?;
    let place = if rest.is_empty() { None } else { Some(postcard::take_from_bytes::<Fix>(rest).ok()?.0) };
    entry(head, place, Body::Reading { descriptor: Arc::clone(descriptor), values }, lookup)
}

/// The entry of a raw message, from what follows its head; `None`: damaged.
pub(super) fn raw(head: &Head, rest: &[u8], lookup: &impl Lookup) -> Option<Entry> {
    let stored: StoredRaw<'_> = postcard::from_bytes(rest).ok()?;
    let raw = Raw { topic: stored.topic.into(), payload: stored.payload.into(), retain: stored.retain };
    (head.count == 1).then(|| entry(head, None, Body::Raw(raw), lookup)).flatten()
}

fn entry(head: &Head, place: Option<Fix>, body: Body, lookup: &impl Lookup) -> Option<Entry> {
    let boot = lookup.boot(head.run)?;
    Some(Entry { seq: head.seq, run: head.run, boot, at: head.at, time: head.time, place, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Kind, Location, Quantity};

    /// Knows one run and one descriptor.
    struct Known(Arc<Descriptor>);

    impl Lookup for Known {
        fn descriptor(&self, number: u32) -> Option<&Arc<Descriptor>> {
            (number == 7).then_some(&self.0)
        }

        fn boot(&self, _: u32) -> Option<BootId> {
            Some(BootId([1; 16]))
        }
    }

    #[test]
    fn a_place_stands_behind_the_values_and_need_not_be_known() {
        let finite = |number| Finite::new(number).expect("finite");
        let location = Location { latitude: finite(47.5), longitude: finite(-0.9), altitude: Some(finite(85.0)) };
        let fix = Fix { location, accuracy: Some(finite(2.5)), age: 1_250 };
        let known = Known(super::super::tests::descriptor("x"));
        let given = Head { seq: 5, count: 2, run: 1, at: BootTime(9), time: None };
        let number = [(0, Value::Number(finite(1.5))), (0, Value::Switch(true))];
        for place in [None, Some(fix)] {
            let mut payload = Vec::new();
            write_reading(&mut payload, &given, 7, &number, place.as_ref());
            let (found, _, rest) = head(&payload).expect("a head");
            assert_eq!(found, given);
            assert_eq!(reading(&found, rest, &known).map(|entry| entry.place), Some(place));
            let (number, behind) = descriptor_number(rest).expect("a number");
            let (older, _) = values(2, behind, known.descriptor(number).expect("known")).expect("values");
            assert_eq!(older.len(), 2);
            if place.is_some() {
                assert_eq!(reading(&found, &rest[..rest.len() - 1], &known), None, "damaged");
            }
        }
    }

    #[test]
    fn content_types_stand_behind_a_descriptor_and_need_not_be_known() {
        let quantity = |name: &str, content_type: Option<&str>| Quantity {
            name: name.into(),
            unit: None,
            kind: Kind::Bytes,
            topic: None,
            content_type: content_type.map(Into::into),
        };
        let plain =
            Descriptor { quantities: vec![quantity("a", None)], ..(*super::super::tests::descriptor("x")).clone() };
        let mut form = Vec::new();
        write_descriptor(&mut form, &plain);
        let mut before = Vec::new();
        write(&mut before, &plain);
        assert_eq!(form, before, "what has none is stored as ever");
        assert_eq!(read_descriptor(&form), Some(plain.clone()));

        let quantities = vec![quantity("a", None), quantity("b", Some("image/png"))];
        let with = Descriptor { quantities, ..plain };
        let mut form = Vec::new();
        write_descriptor(&mut form, &with);
        assert_eq!(read_descriptor(&form), Some(with.clone()));
        let older: Descriptor = postcard::from_bytes(&form).expect("an older reader stops at the descriptor's end");
        assert_eq!(older.quantities.len(), 2);
        assert_eq!(read_descriptor(&form[..form.len() - 1]), None);
        let other: &[(usize, &str)] = &[(7, "a/b")];
        let mut wrong = Vec::new();
        write(&mut wrong, &older);
        write(&mut wrong, &other);
        assert_eq!(read_descriptor(&wrong), None, "there is no such quantity");
    }
}
