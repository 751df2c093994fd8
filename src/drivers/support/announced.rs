//! What a program of this machine says in JSON beyond plain values: when it measured, units, bytes, and why there is no
//! value. `docs/exec.md` describes it.

use std::borrow::Cow;

use data_encoding::BASE64;

use crate::clock::BootTime;
use crate::options::MAX_UNIT_CHARS;
use crate::reading::{Fault, FaultCode, MAX_BYTES, Sample, Value, is_content_type};

/// The key that says when it was measured: seconds of `CLOCK_BOOTTIME`, as in /proc/uptime.
const BOOTTIME: &str = "boottime";

/// The key that says why there is no value.
const FAULT: &str = "fault";

/// Characters of such a reason.
const MAX_REASON: usize = 300;

/// Reads a line's samples once more, with the time at which they were read. Gives the time at which they were measured.
pub(crate) fn understand(samples: Vec<Sample>, read_at: BootTime) -> (BootTime, Result<Vec<Sample>, Fault>) {
    if let Some(Value::Text(reason)) = value_of(&samples, FAULT) {
        let reason: String = reason.chars().filter(|letter| !letter.is_control()).take(MAX_REASON).collect();
        return (read_at, Err(Fault::new(FaultCode::Reported, reason)));
    }
    match measured_at(&samples, read_at) {
        Ok(at) => (at, objects(samples)),
        Err(why) => (read_at, Err(bad(why))),
    }
}

fn bad(why: impl Into<String>) -> Fault {
    Fault::new(FaultCode::BadData, why)
}

fn value_of<'a>(samples: &'a [Sample], name: &str) -> Option<&'a Value> {
    samples.iter().find(|sample| sample.quantity == name).map(|sample| &sample.value)
}

fn measured_at(samples: &[Sample], read_at: BootTime) -> Result<BootTime, String> {
    let seconds = match value_of(samples, BOOTTIME) {
        None => return Ok(read_at),
        Some(Value::Number(seconds)) => seconds.get(),
        Some(_) => return Err(format!("`{BOOTTIME}` is not a number of seconds")),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from float saturates")]
    let at = BootTime((seconds * 1e9) as u64);
    // Clocks are read one after the other, and rounded; a wall clock in this place is off by decades.
    if seconds < 0.0 || at > read_at.after(std::time::Duration::from_secs(1)) {
        return Err(format!(
            "`{BOOTTIME}` is {seconds}, later than now: expected the seconds of CLOCK_BOOTTIME, as in /proc/uptime"
        ));
    }
    Ok(at.min(read_at))
}

/// Puts together what objects say of one quantity: `{"value":…,"unit":…}` and `{"base64":…,"content_type":…}`. Their
/// members have come as samples of their own, one after the other.
fn objects(samples: Vec<Sample>) -> Result<Vec<Sample>, Fault> {
    let mut out: Vec<Sample> = Vec::with_capacity(samples.len());
    // What is said of a quantity besides its value, by the quantity's name.
    let (mut units, mut types) = (Vec::new(), Vec::new());
    let named = |name: &str| samples.iter().any(|sample| sample.quantity == name);
    let mut drop_time = false;
    for sample in &samples {
        let name = &*sample.quantity;
        drop_time |= name == BOOTTIME;
        if let (Some(of), Value::Text(text)) = (name.strip_suffix("_unit"), &sample.value)
            && named(&format!("{of}_value"))
        {
            units.push((of.to_owned(), text.clone()));
        } else if let (Some(of), Value::Text(text)) = (name.strip_suffix("_content_type"), &sample.value)
            && named(&format!("{of}_base64"))
        {
            types.push((of.to_owned(), text.clone()));
        }
    }
    if !drop_time && units.is_empty() && !samples.iter().any(|sample| sample.quantity.ends_with("_base64")) {
        return Ok(samples);
    }
    for mut sample in samples {
        let name = sample.quantity.clone().into_owned();
        let said_of = |suffix: &str, list: &[(String, Box<str>)]| {
            let of = name.strip_suffix(suffix)?;
            list.iter().find(|(known, _)| known == of).map(|(of, text)| (of.clone(), text.clone()))
        };
        if name == BOOTTIME || said_of("_unit", &units).is_some() || said_of("_content_type", &types).is_some() {
            continue;
        }
        if let Some((of, unit)) = said_of("_value", &units) {
            if unit.chars().count() > MAX_UNIT_CHARS || unit.chars().any(char::is_control) {
                return Err(bad(format!("the unit of `{of}` is longer than {MAX_UNIT_CHARS} characters, or not text")));
            }
            sample = Sample { quantity: Cow::Owned(of), unit: Some(Cow::Owned(unit.into())), ..sample };
        } else if let (Some(of), Value::Text(text)) = (name.strip_suffix("_base64"), &sample.value) {
            let bytes = BASE64
                .decode(text.as_bytes())
                .map_err(|error| bad(format!("the `base64` of `{of}` cannot be decoded: {error}")))?;
            let content_type = said_of("_base64", &types).map(|(_, text)| text);
            sample = self::bytes(of, bytes, content_type.as_deref())?;
        }
        out.push(sample);
    }
    Ok(out)
}

/// Bytes as a sample, if they are not too many.
pub(crate) fn bytes(quantity: &str, bytes: Vec<u8>, content_type: Option<&str>) -> Result<Sample, Fault> {
    if bytes.len() > MAX_BYTES {
        return Err(bad(format!("`{quantity}` has {} bytes; a value has at most {MAX_BYTES}", bytes.len())));
    }
    if let Some(odd) = content_type.filter(|text| !is_content_type(text)) {
        let odd: String = odd.chars().take(40).flat_map(char::escape_default).collect();
        return Err(bad(format!("`{odd}` is no content type: expected one such as image/jpeg")));
    }
    let sample = Sample::new(quantity.to_owned(), Value::Bytes(bytes.into()));
    Ok(Sample { content_type: content_type.map(Into::into), ..sample })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: BootTime = BootTime(100_000_000_000);

    fn text(name: &'static str, text: &str) -> Sample {
        Sample::new(name, Value::Text(text.into()))
    }

    fn number(name: &'static str, number: f64) -> Sample {
        Sample::new(name, Value::number(number).expect("finite"))
    }

    fn fine(samples: Vec<Sample>) -> (BootTime, Vec<Sample>) {
        let (at, outcome) = understand(samples, NOW);
        (at, outcome.expect("samples"))
    }

    fn why(samples: Vec<Sample>) -> Fault {
        understand(samples, NOW).1.expect_err("a fault")
    }

    #[test]
    fn plain_values_pass_as_they_are() {
        let plain = vec![number("a", 1.0), text("b", "x"), text("b_unit", "no object"), number("c_value", 2.0)];
        assert_eq!(fine(plain.clone()), (NOW, plain));
    }

    #[test]
    fn objects_of_one_quantity_are_put_together_in_any_order() {
        let (_, samples) = fine(vec![text("t_unit", "°C"), number("t_value", 21.5), number("u", 1.0)]);
        assert_eq!(samples, [Sample { unit: Some("°C".into()), ..number("t", 21.5) }, number("u", 1.0)]);
        let (_, samples) =
            fine(vec![text("p_content_type", "image/png"), text("p_base64", "AP8="), text("q_base64", "")]);
        assert_eq!(samples[0].value, Value::Bytes([0, 255].into()));
        assert_eq!((&*samples[0].quantity, samples[0].content_type.as_deref()), ("p", Some("image/png")));
        assert_eq!((&*samples[1].quantity, samples[1].content_type.as_deref()), ("q", None));
    }

    #[test]
    fn a_time_is_taken_if_it_has_been() {
        let (at, samples) = fine(vec![number("boottime", 99.5), number("a", 1.0)]);
        assert_eq!((at, samples), (BootTime(99_500_000_000), vec![number("a", 1.0)]));
        assert_eq!(fine(vec![number("boottime", 100.5)]).0, NOW, "rounded");
        for odd in [number("boottime", 1.7e9), number("boottime", -1.0), text("boottime", "now")] {
            assert!(why(vec![odd]).detail.contains("`boottime`"));
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        let fault = why(vec![number("a", 1.0), text("fault", "cold\n")]);
        assert_eq!((fault.code, fault.detail.as_str()), (FaultCode::Reported, "cold"));
        assert!(why(vec![text("p_base64", "AP8")]).detail.contains("`base64` of `p`"));
        let odd = vec![text("p_base64", "AP8="), text("p_content_type", "image")];
        assert!(why(odd).detail.contains("`image` is no content type"));
        let unit = "x".repeat(MAX_UNIT_CHARS + 1);
        assert!(why(vec![number("t_value", 1.0), text("t_unit", &unit)]).detail.contains("unit of `t`"));
        let large = BASE64.encode(&vec![0; MAX_BYTES + 1]);
        assert!(why(vec![text("p_base64", &large)]).detail.contains("512001 bytes"));
    }

    proptest! {
        #[test]
        fn any_line_gives_samples_or_a_fault_and_never_a_later_time(
            parts in prop::collection::vec(
                ("(a|b|)(_value|_unit|_base64|_content_type|boottime|fault|)", "[ -~é]{0,8}", any::<Option<f64>>()), 0..8,
            ),
        ) {
            let samples: Vec<Sample> = parts
                .into_iter()
                .map(|(name, text, number)| {
                    let value = number.and_then(Value::number).unwrap_or_else(|| Value::Text(text.into()));
                    Sample::new(name, value)
                })
                .collect();
            let count = samples.len();
            let (at, outcome) = understand(samples, NOW);
            prop_assert!(at <= NOW);
            prop_assert!(outcome.is_ok_and(|samples| samples.len() <= count) || at <= NOW);
        }
    }
}
