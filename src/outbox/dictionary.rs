//! Descriptors and runs: what records refer to by number, once in each file.

use std::collections::HashMap;
use std::sync::Arc;

use super::Seq;
use super::frame::{self, Ink, Kind};
use super::record::{self, Lookup, MAX_DESCRIPTOR, StoredRun};
use crate::clock::BootId;
use crate::reading::Descriptor;

/// Descriptors that are known at once. A record that would need a further one is refused and counted.
pub(super) const MAX_DESCRIPTORS: usize = 4096;

/// The two sorts of place that records are in; each of a sort has its own copy of what its records refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A tail.
    Tail = 0,
    /// A part of a segment.
    Part = 1,
}

/// Something that records refer to.
#[derive(Debug)]
struct Known<T> {
    it: T,
    /// Position after the last record that refers to it.
    used_until: Seq,
    /// Number of the last tail and of the last part that has it; both are numbered from 1.
    written: [u64; 2],
}

impl<T> Known<T> {
    fn new(it: T) -> Self {
        Self { it, used_until: 0, written: [0; 2] }
    }

    /// Must it be written, because this file has not got it?
    fn note(&mut self, place: Place, number: u64) -> bool {
        let written = &mut self.written[place as usize];
        std::mem::replace(written, number) != number
    }
}

/// Why a descriptor cannot be taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Larger than `MAX_DESCRIPTOR`.
    TooLarge,
    /// There are `MAX_DESCRIPTORS`, and records refer to all of them.
    TooMany,
}

/// A descriptor with its stored form, by which equal ones are found.
#[derive(Debug)]
struct Stored {
    descriptor: Arc<Descriptor>,
    form: Arc<[u8]>,
}

/// What records in memory refer to.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    descriptors: HashMap<u32, Known<Stored>>,
    by_form: HashMap<Arc<[u8]>, u32>,
    /// By the address of an `Arc` that is held in `descriptors`, so that it cannot be another's.
    by_address: HashMap<usize, u32>,
    /// Address and number of the last one asked for: records of a sensor come in rows.
    last: Option<(usize, u32)>,
    next: u32,
    runs: HashMap<u32, Known<BootId>>,
}

fn address(descriptor: &Arc<Descriptor>) -> usize {
    Arc::as_ptr(descriptor) as usize
}

impl Dictionary {
    /// The number of a descriptor, which a record up to `until` will refer to. `kept_from`: where the oldest record
    /// in memory begins.
    pub(super) fn number(&mut self, descriptor: &Arc<Descriptor>, until: Seq, kept_from: Seq) -> Result<u32, Refused> {
        let address = address(descriptor);
        let number = match self.last {
            Some((last, number)) if last == address => number,
            _ => match self.by_address.get(&address) {
                Some(number) => *number,
                None => self.number_by_form(descriptor, kept_from)?,
            },
        };
        self.last = Some((address, number));
        self.descriptors.get_mut(&number).expect("numbers are given to known ones").used_until = until;
        Ok(number)
    }

    fn number_by_form(&mut self, descriptor: &Arc<Descriptor>, kept_from: Seq) -> Result<u32, Refused> {
        let mut form = Vec::new();
        record::write_descriptor(&mut form, descriptor);
        let number = if let Some(number) = self.by_form.get(form.as_slice()) {
            // The configuration was read anew, or the process was restarted: the newer one is asked for from now on.
            let known = self.descriptors.get_mut(number).expect("both maps hold the same numbers");
            self.by_address.remove(&self::address(&known.it.descriptor));
            known.it.descriptor = Arc::clone(descriptor);
            *number
        } else {
            if form.len() > MAX_DESCRIPTOR {
                return Err(Refused::TooLarge);
            }
            if self.descriptors.len() >= MAX_DESCRIPTORS {
                self.forget_descriptors(kept_from);
                if self.descriptors.len() >= MAX_DESCRIPTORS {
                    return Err(Refused::TooMany);
                }
            }
            let form: Arc<[u8]> = form.into();
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            self.by_form.insert(Arc::clone(&form), number);
            let stored = Stored { descriptor: Arc::clone(descriptor), form };
            self.descriptors.insert(number, Known::new(stored));
            number
        };
        self.by_address.insert(self::address(descriptor), number);
        Ok(number)
    }

    /// Makes a run known.
    pub(super) fn add_run(&mut self, run: u32, boot: BootId) {
        self.runs.entry(run).or_insert_with(|| Known::new(boot));
    }

    /// Notes that a record up to `until` refers to a run.
    pub(super) fn use_run(&mut self, run: u32, until: Seq) {
        if let Some(known) = self.runs.get_mut(&run) {
            known.used_until = until;
        }
    }

    /// Bytes that [`write_missing`](Self::write_missing) would write.
    pub(super) fn missing(&self, file: (Place, u64), run: u32, descriptor: Option<u32>) -> usize {
        /// A frame's header, and a run or the number of a descriptor.
        const REST: usize = frame::FRAME_HEADER + 21;
        let (place, number) = file;
        let lacks = |written: &[u64; 2]| written[place as usize] != number;
        let run = self.runs.get(&run).filter(|known| lacks(&known.written)).map_or(0, |_| REST);
        let descriptor = descriptor.and_then(|id| self.descriptors.get(&id)).filter(|known| lacks(&known.written));
        run + descriptor.map_or(0, |known| REST + known.it.form.len())
    }

    /// Writes what a record refers to and a file has not got.
    pub(super) fn write_missing(
        &mut self,
        buffer: &mut Vec<u8>,
        file: (Place, u64),
        ink: Ink<'_>,
        run: u32,
        descriptor: Option<u32>,
    ) {
        let (place, number) = file;
        if let Some(known) = self.runs.get_mut(&run)
            && known.note(place, number)
        {
            let stored = StoredRun { run, boot: known.it };
            frame::put(buffer, ink, Kind::Run, |buffer| record::write(buffer, &stored));
        }
        if let Some((id, known)) = descriptor.and_then(|id| Some((id, self.descriptors.get_mut(&id)?)))
            && known.note(place, number)
        {
            frame::put(buffer, ink, Kind::Descriptor, |buffer| {
                record::write(buffer, &id);
                buffer.extend_from_slice(&known.it.form);
            });
        }
    }

    /// Forgets descriptors to which no record from `kept_from` on refers.
    pub(super) fn forget_descriptors(&mut self, kept_from: Seq) {
        self.last = None;
        let (by_form, by_address) = (&mut self.by_form, &mut self.by_address);
        self.descriptors.retain(|_, known| {
            let used = known.used_until > kept_from;
            if !used {
                by_form.remove(&known.it.form);
                by_address.remove(&address(&known.it.descriptor));
            }
            used
        });
    }

    /// Forgets runs of which there is no record from `kept_from` on.
    pub(super) fn forget_runs(&mut self, kept_from: Seq) {
        self.runs.retain(|_, known| known.used_until > kept_from);
    }
}

impl Lookup for Dictionary {
    fn descriptor(&self, number: u32) -> Option<&Arc<Descriptor>> {
        self.descriptors.get(&number).map(|known| &known.it.descriptor)
    }

    fn boot(&self, run: u32) -> Option<BootId> {
        self.runs.get(&run).map(|known| known.it)
    }
}

/// What the records of one file refer to, as read from it.
#[derive(Debug, Default)]
pub(super) struct FileDictionary {
    descriptors: HashMap<u32, Arc<Descriptor>>,
    runs: HashMap<u32, BootId>,
}

impl FileDictionary {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.descriptors.clear();
        self.runs.clear();
    }

    /// Takes up a frame, if it is one of a descriptor, a run or a part; `false`: it is one, and not readable.
    pub(super) fn take_up(&mut self, kind: Kind, payload: &[u8]) -> bool {
        match kind {
            Kind::Part => self.clear(),
            Kind::Descriptor => {
                let Ok((number, form)) = postcard::take_from_bytes::<u32>(payload) else { return false };
                let Some(descriptor) = record::read_descriptor(form) else { return false };
                self.descriptors.insert(number, Arc::new(descriptor));
            }
            Kind::Run => {
                let Ok(StoredRun { run, boot }) = postcard::from_bytes(payload) else { return false };
                self.runs.insert(run, boot);
            }
            _ => {}
        }
        true
    }
}

impl Lookup for FileDictionary {
    fn descriptor(&self, number: u32) -> Option<&Arc<Descriptor>> {
        self.descriptors.get(&number)
    }

    fn boot(&self, run: u32) -> Option<BootId> {
        self.runs.get(&run).copied()
    }
}
