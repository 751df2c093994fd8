//! Messages that a broker does not take are put aside in a folder, a file each, for a person to look at.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::clock::BootTime;
use crate::outbox::Seq;

/// Name of the folder, within the outbox's.
pub const FOLDER: &str = "refused";

/// So many files are kept; the oldest ones go.
pub const MAX_FILES: usize = 100;

/// Of a larger payload only the beginning is kept.
pub const MAX_PAYLOAD: usize = 64 * 1_024;

/// Messages on a topic that made the broker close the connection are not sent for so long. Then the topic has another
/// chance: access rules may have been changed.
pub const QUARANTINE: Duration = Duration::from_secs(60 * 60);

/// Topics in quarantine at a time; the oldest ones get their chance earlier.
const MAX_TOPICS: usize = 64;

/// A message that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedMessage {
    /// The uplink's name.
    pub uplink: String,
    /// The run that took it.
    pub run: u32,
    /// Position of its first value.
    pub seq: Seq,
    /// Empty if it has none that a broker accepts.
    pub topic: String,
    /// Why, for people.
    pub reason: String,
    /// What was to be sent.
    pub payload: Bytes,
}

/// As it is written.
#[derive(Serialize)]
struct Stored<'a> {
    uplink: &'a str,
    id: String,
    topic: &'a str,
    reason: &'a str,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

/// Writes messages into `folder`, and lets the oldest go. Blocks.
///
/// # Errors
/// The folder does not take them.
pub fn put_aside(folder: &Path, messages: &[RefusedMessage]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for message in messages {
        let id = format!("{}-{}", message.run, message.seq);
        let kept = &message.payload[..message.payload.len().min(MAX_PAYLOAD)];
        let text = std::str::from_utf8(kept).ok();
        let stored = Stored {
            uplink: &message.uplink,
            id,
            topic: &message.topic,
            reason: &message.reason,
            bytes: message.payload.len(),
            payload: text,
            payload_hex: text.is_none().then(|| kept.iter().map(|byte| format!("{byte:02x}")).collect()),
        };
        // Names sort by age.
        let name = format!("{:010}-{:020}-{}.json", message.run, message.seq, message.uplink);
        fs::write(folder.join(name), serde_json::to_vec_pretty(&stored)?)?;
    }
    let mut names: Vec<_> = fs::read_dir(folder)?.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    for name in &names[..names.len().saturating_sub(MAX_FILES)] {
        fs::remove_file(folder.join(name))?;
    }
    Ok(())
}

/// Topics whose messages made the broker close the connection.
#[derive(Debug, Default)]
pub struct Quarantine(VecDeque<(String, BootTime)>);

impl Quarantine {
    /// From now on no message on this topic is sent.
    pub fn add(&mut self, topic: String, now: BootTime) {
        self.0.retain(|(known, _)| *known != topic);
        if self.0.len() == MAX_TOPICS {
            self.0.pop_front();
        }
        self.0.push_back((topic, now.after(QUARANTINE)));
    }

    /// Is it to be left alone?
    pub fn holds(&mut self, topic: &str, now: BootTime) -> bool {
        while self.0.pop_front_if(|(_, until)| *until <= now).is_some() {}
        self.0.iter().any(|(known, _)| known == topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: Seq, payload: &'static [u8]) -> RefusedMessage {
        RefusedMessage {
            uplink: "home".to_owned(),
            run: 17,
            seq,
            topic: "maison/salon/temperature".to_owned(),
            reason: "not authorised".to_owned(),
            payload: Bytes::from_static(payload),
        }
    }

    #[test]
    fn a_refused_message_can_be_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join(FOLDER);
        put_aside(&folder, &[message(4, b"{\"value\":1}"), message(5, b"\xff\x00")]).expect("written");
        let read = |name: &str| -> serde_json::Value {
            let bytes = fs::read(folder.join(name)).expect("a file");
            serde_json::from_slice(&bytes).expect("JSON")
        };
        let text = read("0000000017-00000000000000000004-home.json");
        assert_eq!((&text["id"], &text["payload"]), (&"17-4".into(), &"{\"value\":1}".into()));
        let bytes = read("0000000017-00000000000000000005-home.json");
        assert_eq!((&bytes["payload_hex"], &bytes["bytes"]), (&"ff00".into(), &2.into()));
    }

    #[test]
    fn the_oldest_go() {
        let dir = tempfile::tempdir().expect("a folder");
        for seq in 0..130 {
            put_aside(dir.path(), &[message(seq, b"x")]).expect("written");
        }
        let mut names: Vec<_> = fs::read_dir(dir.path()).expect("a folder").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names.len(), MAX_FILES);
        assert_eq!(names[0], "0000000017-00000000000000000030-home.json");
    }

    #[test]
    fn a_topic_has_another_chance_after_an_hour() {
        let mut quarantine = Quarantine::default();
        quarantine.add("a".to_owned(), BootTime(0));
        assert!(quarantine.holds("a", BootTime(1)) && !quarantine.holds("b", BootTime(1)));
        assert!(!quarantine.holds("a", BootTime(0).after(QUARANTINE)));
        for topic in 0..200 {
            quarantine.add(topic.to_string(), BootTime(0));
        }
        assert!(quarantine.0.len() == MAX_TOPICS && quarantine.holds("199", BootTime(1)));
    }
}
