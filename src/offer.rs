//! A LAN client's message on its way from the embedded broker into the outbox.

use tokio::sync::oneshot;

/// Offers that may wait for whoever takes them; each is of another client, whose connection is not read meanwhile.
pub const QUEUE: usize = 256;

/// A message that is to enter the outbox.
#[derive(Debug)]
pub struct Offer {
    /// Index of the `[[broker.ingest]]` that it belongs to.
    pub rule: usize,
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Did its publisher ask for it to be retained?
    pub retain: bool,
    /// What became of it is told here.
    pub answer: oneshot::Sender<Answer>,
}

/// What became of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is in the outbox, or is of no further use.
    Taken,
    /// It cannot be used, now or later, and why: it stays on the LAN.
    Unfit(String),
    /// There is no room now: its publisher is to send it again.
    Full,
}
