//! What a command's payload says to us, and not to the device: when it was sent, and what its sender knows it by.

use std::time::Duration;

use serde_json::Value;

use crate::clock::WallTime;
use crate::command::MAX_REFERENCE;

/// A payload without what is for us.
#[derive(Debug, PartialEq)]
pub(super) struct Envelope {
    /// For the device. Byte for byte as it came, unless it is a JSON object with a `time` or `ref`.
    pub(super) payload: Box<[u8]>,
    /// `time`: when it was sent (RFC 3339).
    pub(super) time: Option<String>,
    /// `ref`: goes into the result as it is.
    pub(super) reference: Option<Value>,
}

impl Envelope {
    /// Takes `time` and `ref` out of a JSON object. Whatever else the payload is, it is the device's.
    pub(super) fn open(payload: &[u8]) -> Result<Self, String> {
        let plain = || Self { payload: payload.into(), time: None, reference: None };
        let Ok(Value::Object(mut object)) = serde_json::from_slice(payload) else { return Ok(plain()) };
        let (time, reference) = (object.remove("time"), object.remove("ref"));
        if time.is_none() && reference.is_none() {
            return Ok(plain());
        }
        let time = match time {
            None => None,
            Some(Value::String(time)) => Some(time),
            Some(_) => return Err("`time` is not a text: it says when the command was sent, as RFC 3339".to_owned()),
        };
        match &reference {
            Some(Value::String(text)) if text.len() > MAX_REFERENCE => {
                return Err(format!("`ref` is longer than {MAX_REFERENCE} bytes"));
            }
            None | Some(Value::String(_) | Value::Number(_)) => {}
            Some(_) => return Err("`ref` is neither a text nor a number".to_owned()),
        }
        let payload = serde_json::to_vec(&object).map_err(|error| error.to_string())?;
        Ok(Self { payload: payload.into(), time, reference })
    }
}

/// Was it sent within `max_age`? While our clock is not set, nobody knows, and it is let through: it came over a live
/// connection.
pub(super) fn check_age(time: &str, now: Option<WallTime>, max_age: Duration) -> Result<(), String> {
    let sent = humantime::parse_rfc3339(time)
        .map_err(|_| "`time` is not of the form 2026-11-21T10:15:30Z (RFC 3339, UTC)".to_owned())?;
    let Some(now) = now else { return Ok(()) };
    let now = now.to_system();
    let limit = humantime::format_duration(max_age);
    match now.duration_since(sent) {
        Ok(age) if age > max_age => {
            let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
            Err(format!("it was sent {age} ago; the limit is {limit} (`command_max_age`)"))
        }
        Err(early) if early.duration() > max_age => {
            let early = humantime::format_duration(Duration::from_secs(early.duration().as_secs()));
            Err(format!("it was sent {early} from now: one of the two clocks is wrong (the limit is {limit})"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn opened(payload: &str) -> (String, Option<String>, Option<Value>) {
        let Envelope { payload, time, reference } = Envelope::open(payload.as_bytes()).expect(payload);
        (String::from_utf8_lossy(&payload).into_owned(), time, reference)
    }

    #[test]
    fn what_is_for_us_does_not_reach_the_device() {
        let (payload, time, reference) = opened(r#"{ "time":"2026-01-01T00:00:00Z", "led": true, "ref": "a-1" }"#);
        assert_eq!(payload, r#"{"led":true}"#);
        assert_eq!(time.as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(reference, Some("a-1".into()));
        assert_eq!(opened(r#"{"ref":17}"#), ("{}".to_owned(), None, Some(17.into())));
    }

    #[test]
    fn what_is_not_for_us_is_left_as_it_is() {
        for text in [r#"{ "led" : 1.10 }"#, "relay on", "[\"time\"]", "", "{", "\"time\"", "{\"a\":{\"time\":1}}"] {
            assert_eq!(opened(text), (text.to_owned(), None, None));
        }
        let bytes = [0, 0xff, b'{', 1];
        assert_eq!(*Envelope::open(&bytes).expect("bytes").payload, bytes);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let long = format!(r#"{{"ref":"{}"}}"#, "x".repeat(MAX_REFERENCE + 1));
        for (text, part) in [
            (r#"{"time":1700000000}"#, "RFC 3339"),
            (r#"{"ref":[1]}"#, "neither a text nor a number"),
            (r#"{"ref":null}"#, "neither"),
            (long.as_str(), "longer than"),
        ] {
            let why = Envelope::open(text.as_bytes()).expect_err(text);
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn a_command_has_an_age() {
        let max_age = Duration::from_secs(30);
        let now = humantime::parse_rfc3339("2026-11-21T10:00:00Z").expect("a time");
        let check = |time: &str| check_age(time, Some(WallTime::from_system(now)), max_age);
        let at = |time: SystemTime| humantime::format_rfc3339_millis(time).to_string();
        assert_eq!(check(&at(now)), Ok(()));
        assert_eq!(check(&at(now - max_age)), Ok(()));
        assert_eq!(check(&at(now + max_age)), Ok(()));
        assert!(check(&at(now - Duration::from_secs(3_600))).is_err_and(|why| why.contains("1h ago")));
        assert!(check(&at(now + Duration::from_secs(31))).is_err_and(|why| why.contains("31s from now")));
        assert!(check("yesterday").is_err_and(|why| why.contains("RFC 3339")));
        assert_eq!(check_age("1999-01-01T00:00:00Z", None, max_age), Ok(()), "nobody knows");
        assert!(check_age("now", None, max_age).is_err());
    }
}
