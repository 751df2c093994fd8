//! Small values that survive restarts: the run counter, counter totals, clock offsets, session state.
//!
//! They are kept with the outbox, because they must change together with its records: a change is in the tail at the
//! next commit, and in one of two slots on disk within `persist`. This module holds the values and their stored form;
//! the outbox does the writing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize, Serialize};

/// The longest key, in bytes: a sensor's name and what stands before it.
pub const MAX_KEY: usize = 160;
/// The largest value, in bytes.
pub const MAX_VALUE: usize = 160 * 1024;
/// All keys and values together, in bytes.
pub const MAX_TOTAL: usize = 448 * 1024;

/// All values as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// Grows with every change: of two, the one with the larger generation is the newer.
    pub(crate) generation: u64,
    /// The last run that was counted.
    pub(crate) run: u32,
    /// The next position of the outbox, as far as it was known.
    pub(crate) next: u64,
    /// The values.
    pub(crate) values: BTreeMap<Box<str>, Vec<u8>>,
}

/// One change as it is stored in the tail.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// The generation that it made.
    pub(crate) generation: u64,
    /// What was changed.
    pub(crate) key: Box<str>,
    /// Its new value; `None`: it was removed.
    pub(crate) value: Option<Vec<u8>>,
}

/// A value that was refused because of its size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the value of `{key}` does not fit into the stored state ({size} bytes; at most {MAX_VALUE} a value, {MAX_TOTAL} in all)"
)]
pub(crate) struct TooLarge {
    key: Box<str>,
    size: usize,
}

/// The values, and which of them must still be written.
#[derive(Debug, Default)]
pub(crate) struct State {
    stored: Stored,
    /// Bytes of all keys and values.
    size: usize,
    /// Changed since the last commit.
    changed: BTreeSet<Box<str>>,
    /// Generation of the newer slot on disk.
    on_disk: u64,
}

impl State {
    /// The values as they were found; `on_disk` is the generation of the newer slot.
    pub(crate) fn new(stored: Stored, on_disk: u64) -> Self {
        let size = stored.values.iter().map(|(key, value)| key.len() + value.len()).sum();
        Self { stored, size, changed: BTreeSet::new(), on_disk }
    }

    /// A value.
    pub(crate) fn get(&self, key: &str) -> Option<&[u8]> {
        self.stored.values.get(key).map(Vec::as_slice)
    }

    /// The keys that begin with that.
    pub(crate) fn keys<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = &'s str> {
        let from = self.stored.values.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.map(|(key, _)| &**key).take_while(move |key| key.starts_with(prefix))
    }

    /// Sets a value or removes it. One that is too large changes nothing.
    pub(crate) fn put(&mut self, key: &str, value: Option<Vec<u8>>) -> Result<(), TooLarge> {
        let before = self.get(key).map(|old| key.len() + old.len());
        if value.as_deref() == self.get(key) {
            return Ok(());
        }
        if let Some(value) = value {
            let size = self.size - before.unwrap_or(0) + key.len() + value.len();
            if key.len() > MAX_KEY || value.len() > MAX_VALUE || size > MAX_TOTAL {
                return Err(TooLarge { key: key.chars().take(MAX_KEY).collect::<String>().into(), size: value.len() });
            }
            self.size = size;
            self.stored.values.insert(key.into(), value);
        } else {
            self.size -= before.unwrap_or(0);
            self.stored.values.remove(key);
        }
        self.stored.generation += 1;
        self.changed.insert(key.into());
        Ok(())
    }

    /// The changes since the last call, for the tail.
    pub(crate) fn take_changes(&mut self) -> impl Iterator<Item = Change> {
        let generation = self.stored.generation;
        std::mem::take(&mut self.changed).into_iter().map(move |key| {
            let value = self.stored.values.get(&key).cloned();
            Change { generation, key, value }
        })
    }

    /// All of it, to be written; `next` is the outbox's next position.
    pub(crate) fn stored(&mut self, next: u64) -> &Stored {
        self.stored.next = next;
        &self.stored
    }

    /// The generation of what [`stored`](Self::stored) gives.
    pub(crate) fn generation(&self) -> u64 {
        self.stored.generation
    }

    /// Is there something that is in no slot on disk?
    pub(crate) fn is_dirty(&self) -> bool {
        self.stored.generation > self.on_disk
    }

    /// What was on disk is gone.
    pub(crate) fn not_on_disk(&mut self) {
        self.on_disk = 0;
    }

    /// The slot of that generation is on disk.
    pub(crate) fn written(&mut self, generation: u64) {
        self.on_disk = generation;
    }
}

impl Stored {
    /// Takes up what the tail says, if it is newer.
    pub(crate) fn apply_all(&mut self, newer: Self) {
        if newer.generation >= self.generation {
            *self = newer;
        }
    }

    /// Takes up a change, if it is newer.
    pub(crate) fn apply(&mut self, change: Change) {
        // Several changes of one commit have the same generation.
        if change.generation >= self.generation {
            self.generation = change.generation;
            match change.value {
                Some(value) => self.values.insert(change.key, value),
                None => self.values.remove(&change.key),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_given_once_and_apply_to_an_older_copy() {
        let mut state = State::default();
        state.put("a", Some(vec![1])).expect("small");
        state.put("b", Some(vec![2])).expect("small");
        let mut copy = Stored::default();
        state.take_changes().for_each(|change| copy.apply(change));
        assert_eq!(&copy, state.stored(0));
        state.put("a", None).expect("small");
        state.put("b", Some(vec![2])).expect("unchanged");
        let changes: Vec<Change> = state.take_changes().collect();
        assert_eq!(changes.len(), 1, "only what changed: {changes:?}");
        changes.into_iter().for_each(|change| copy.apply(change));
        assert_eq!(&copy, state.stored(0));
        assert_eq!(state.take_changes().count(), 0);
    }

    #[test]
    fn an_older_change_does_not_undo_a_newer_one() {
        let mut copy = Stored { generation: 7, ..Stored::default() };
        copy.apply(Change { generation: 6, key: "a".into(), value: Some(vec![1]) });
        assert!(copy.values.is_empty());
        copy.apply_all(Stored { generation: 5, run: 3, ..Stored::default() });
        assert_eq!(copy.run, 0);
    }

    #[test]
    fn bounds_hold_and_refusals_change_nothing() {
        let mut state = State::default();
        assert!(state.put("big", Some(vec![0; MAX_VALUE + 1])).is_err());
        assert!(state.put(&"k".repeat(MAX_KEY + 1), Some(vec![])).is_err());
        for key in ["a", "b"] {
            state.put(key, Some(vec![0; MAX_VALUE])).expect("fits");
        }
        assert!(state.put("c", Some(vec![0; MAX_VALUE])).is_err());
        state.put("a", None).expect("removed");
        state.put("c", Some(vec![0; MAX_VALUE])).expect("there is room again");
        assert!(state.get("big").is_none() && state.get("a").is_none());
    }
}
