//! What an uplink has done since the start.

use std::cell::Cell;

use super::presence::Presence;

/// Counts of one uplink, in messages unless said otherwise. They only grow.
#[derive(Debug, Default)]
pub struct Counters {
    /// Readings sent for the first time.
    pub sent: Count,
    /// Readings that the broker acknowledged; at QoS 0: that were written.
    pub acknowledged: Count,
    /// Readings sent again after a lost connection.
    pub replayed: Count,
    /// Readings that the broker may have twice, because it had lost the session when they were in flight.
    pub possible_duplicates: Count,
    /// Readings that this broker does not take: too large, a topic that no broker accepts, or refused by it.
    pub refused: Count,
    /// Readings that were older than `max_age` when it was their turn.
    pub expired: Count,
    /// Readings of the backlog that were passed over because there is a newer one (`backlog = "latest"`).
    pub superseded: Count,
    /// Readings that the broker did not take because its quota was exceeded, and that are sent again.
    pub postponed: Count,
    /// Acknowledgements that nothing waited for.
    pub unexpected: Count,
    /// Commands that came, and were accepted or refused.
    pub commands: Count,
    /// Of these, commands that were refused before they were handed to their sensor.
    pub commands_refused: Count,
    /// Messages for LAN clients that came and are in the outbox.
    pub delivered: Count,
    /// Messages for LAN clients that were dropped: too large, no topic for them, too many at QoS 0, or no room.
    pub delivery_refused: Count,
    /// Messages for LAN clients whose acknowledgement was held back, because more came than `rate` allows.
    pub delivery_held: Count,
    /// Messages to us on topics that this uplink takes no commands by.
    pub ignored: Count,
    /// Connections that the broker accepted.
    pub connects: Count,
    /// Attempts to connect, and connections, that failed.
    pub failures: Count,
    /// Is there a connection now?
    pub presence: Presence,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(Cell<u64>);

impl Count {
    /// Now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    pub(crate) fn add(&self, by: u64) {
        self.0.set(self.0.get().saturating_add(by));
    }
}
