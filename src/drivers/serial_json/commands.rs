//! Commands and their acknowledgements as lines of JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::command::{Answer, Command};

/// The key under which a command has its number.
const ID: &str = "id";

/// The command's object as one line without white space, with its number where the device is to acknowledge it.
///
/// # Errors
/// Why it cannot be sent, for whoever sent it.
pub(super) fn line(command: &Command, numbered: bool) -> Result<Vec<u8>, String> {
    let keys: BTreeMap<Cow<'_, str>, IgnoredAny> = serde_json::from_slice(&command.payload)
        .map_err(|error| format!("the command must be one JSON object, such as {{\"relay\":true}}: {error}"))?;
    let mut line = Vec::with_capacity(command.payload.len() + 16);
    let mut rest = compact(&command.payload);
    if numbered {
        if keys.contains_key(ID) {
            return Err("the key `id` is vigie's own, for the acknowledgement: leave it out of the command".to_owned());
        }
        let comma = if keys.is_empty() { "" } else { "," };
        line.extend_from_slice(format!("{{\"{ID}\":{}{comma}", command.id).as_bytes());
        rest.remove(0);
    }
    line.append(&mut rest);
    line.push(b'\n');
    Ok(line)
}

/// JSON without the white space between its parts.
fn compact(json: &[u8]) -> Vec<u8> {
    let (mut in_text, mut escaped) = (false, false);
    let mut compact = json.to_vec();
    compact.retain(|byte| {
        if in_text {
            in_text = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            return true;
        }
        in_text = *byte == b'"';
        !byte.is_ascii_whitespace()
    });
    compact
}

/// `{"ack":7}`, or `{"ack":7,"error":"why"}`
#[derive(Deserialize)]
struct Acknowledgement {
    ack: u32,
    error: Option<String>,
}

/// Does the line have the key `ack`, so that it is an answer and no reading?
pub(super) fn is_answer(line: &[u8]) -> bool {
    const KEY: &[u8] = b"\"ack\"";
    // Few lines hold these letters at all; only those are looked at twice.
    line.windows(KEY.len()).any(|window| window == KEY)
        && serde_json::from_slice::<BTreeMap<Cow<'_, str>, IgnoredAny>>(line).is_ok_and(|keys| keys.contains_key("ack"))
}

/// What a line that [is an answer](is_answer) says.
///
/// # Errors
/// It is not in the form of one.
pub(super) fn answer(line: &[u8]) -> Result<Answer, serde_json::Error> {
    let Acknowledgement { ack, error } = serde_json::from_slice(line)?;
    Ok(Answer { id: Some(ack), outcome: error.map_or(Ok(()), Err) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(payload: &str, numbered: bool) -> Result<String, String> {
        let command = Command { id: 7, payload: payload.as_bytes().into() };
        line(&command, numbered).map(|line| String::from_utf8(line).expect("UTF-8"))
    }

    #[test]
    fn an_object_goes_down_as_one_compact_line() {
        let pretty = "{\n  \"relay\" : true,\n\t\"text\": \"a \\\" b : c\", \"list\": [1, 2.50]\r\n}\n";
        assert_eq!(
            sent(pretty, false).expect("a command"),
            "{\"relay\":true,\"text\":\"a \\\" b : c\",\"list\":[1,2.50]}\n"
        );
        assert_eq!(
            sent(pretty, true).expect("a command"),
            "{\"id\":7,\"relay\":true,\"text\":\"a \\\" b : c\",\"list\":[1,2.50]}\n"
        );
        assert_eq!(sent(" { } ", true).expect("a command"), "{\"id\":7}\n");
        assert_eq!(sent("{\"id\":1}", false).expect("a command"), "{\"id\":1}\n");
    }

    #[test]
    fn what_is_not_an_object_is_refused_with_what_is_expected() {
        for payload in ["", "on", "true", "[1]", "{\"a\":1} {}", "{\"a\":nan}"] {
            let why = sent(payload, false).expect_err(payload);
            assert!(why.contains("must be one JSON object, such as {\"relay\":true}"), "{payload}: {why}");
        }
        let why = sent("{\"a\":1,\"\\u0069d\":1}", true).expect_err("an id of its own");
        assert!(why.contains("leave it out"), "{why}");
        assert!(line(&Command { id: 1, payload: [b'{', 0xff, b'}'].into() }, false).is_err());
    }

    #[test]
    fn answers_are_told_from_readings() {
        assert!(is_answer(br#"{"ack":7}"#) && is_answer(br#"{"x":1, "ack":null}"#));
        assert!(!is_answer(br#"{"state":"ack"}"#) && !is_answer(br#"{"a":{"ack":1}}"#) && !is_answer(br#""ack""#));
        let done = answer(br#"{"ack":7}"#).expect("an answer");
        assert_eq!(done, Answer { id: Some(7), outcome: Ok(()) });
        let failed = answer(br#"{"ack":8,"error":"no relay 3"}"#).expect("an answer");
        assert_eq!(failed, Answer { id: Some(8), outcome: Err("no relay 3".to_owned()) });
        assert!(answer(br#"{"ack":"on"}"#).is_err() && answer(br#"{"ack":-1}"#).is_err());
    }

    proptest! {
        #[test]
        fn compacting_changes_no_meaning(
            values in prop::collection::btree_map(any::<String>(), any::<Option<String>>(), 0..6),
            numbered in any::<bool>(),
        ) {
            prop_assume!(!values.contains_key(ID));
            let pretty = serde_json::to_vec_pretty(&values).expect("a map");
            let sent = line(&Command { id: 7, payload: pretty.into() }, numbered).expect("an object");
            let (end, body) = sent.split_last().expect("not empty");
            prop_assert_eq!(*end, b'\n');
            prop_assert!(!body.contains(&b'\n'));
            let mut back: BTreeMap<String, serde_json::Value> = serde_json::from_slice(body).expect("an object");
            prop_assert_eq!(back.remove(ID), numbered.then(|| serde_json::Value::from(7)));
            prop_assert_eq!(serde_json::to_value(&back).ok(), serde_json::to_value(&values).ok());
        }
    }
}
