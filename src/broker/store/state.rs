//! What the records amount to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{Message, Record, Session, Waiting};

/// Everything that is kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) retained: BTreeMap<Arc<str>, Message>,
    pub(super) sessions: BTreeMap<Arc<str>, Session>,
    /// By number, which is the order in which they were taken.
    pub(super) messages: BTreeMap<u32, (Message, Vec<Waiting>)>,
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Retained(Arc<str>),
    Session(Arc<str>),
    Message(u32),
}

impl State {
    /// Takes a change; any sequence of them is allowed. Gives what it touched.
    pub(super) fn apply(&mut self, record: Record) -> Vec<Key> {
        match record {
            Record::Retained(topic, message) => {
                match message {
                    Some(message) => self.retained.insert(Arc::clone(&topic), message),
                    None => self.retained.remove(&topic),
                };
                vec![Key::Retained(topic)]
            }
            Record::Session(client, Some(session)) => {
                self.sessions.insert(Arc::clone(&client), session);
                vec![Key::Session(client)]
            }
            Record::Session(client, None) => {
                self.sessions.remove(&client);
                let mut touched = self.forget_waiting(&client);
                touched.push(Key::Session(client));
                touched
            }
            Record::Message(number, message) => {
                match message {
                    Some(message) => self.messages.insert(number, message),
                    None => self.messages.remove(&number),
                };
                vec![Key::Message(number)]
            }
            Record::Done(number, client) => {
                if let Some((_, waiting)) = self.messages.get_mut(&number) {
                    waiting.retain(|one| one.client != client);
                    if waiting.is_empty() {
                        self.messages.remove(&number);
                    }
                }
                vec![Key::Message(number)]
            }
        }
    }

    /// Nothing waits for this client any more.
    fn forget_waiting(&mut self, client: &str) -> Vec<Key> {
        let mut touched = Vec::new();
        self.messages.retain(|number, (_, waiting)| {
            let before = waiting.len();
            waiting.retain(|one| &*one.client != client);
            if waiting.len() != before {
                touched.push(Key::Message(*number));
            }
            !waiting.is_empty()
        });
        touched
    }

    /// What is to be said about a thing now.
    pub(super) fn record(&self, key: &Key) -> Record {
        match key {
            Key::Retained(topic) => Record::Retained(Arc::clone(topic), self.retained.get(topic).cloned()),
            Key::Session(client) => Record::Session(Arc::clone(client), self.sessions.get(client).cloned()),
            Key::Message(number) => Record::Message(*number, self.messages.get(number).cloned()),
        }
    }

    /// All of it.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let retained = self.retained.keys().cloned().map(Key::Retained);
        let sessions = self.sessions.keys().cloned().map(Key::Session);
        retained.chain(sessions).chain(self.messages.keys().copied().map(Key::Message))
    }
}
