//! Commands and their acknowledgements as lines of text.

use super::Encoding;
use crate::command::{Answer, Command};

/// The command as a line in the device's encoding, without its end.
///
/// # Errors
/// Why it cannot be sent, for whoever sent it.
pub(super) fn line(command: &Command, encoding: Encoding) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(&command.payload).map_err(|_| "the command is not text in UTF-8".to_owned())?;
    // Some tools end what they send with a newline.
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return Err("the command is empty: it must be one line of text".to_owned());
    }
    if let Some(control) = text.chars().find(|character| character.is_control()) {
        return Err(format!("the command must be one line of text: it contains {control:?}"));
    }
    match encoding {
        Encoding::Utf8 => Ok(text.as_bytes().to_vec()),
        Encoding::Latin1 => text
            .chars()
            .map(|character| {
                u8::try_from(character).map_err(|_| format!("the device's encoding, Latin-1, has no {character:?}"))
            })
            .collect(),
    }
}

/// The answer that a line is: `ok`, or `error` and why.
pub(super) fn answer(line: &str) -> Option<Answer> {
    if line.eq_ignore_ascii_case("ok") {
        return Some(Answer { id: None, outcome: Ok(()) });
    }
    let (word, why) = line.split_at_checked("error".len())?;
    if !word.eq_ignore_ascii_case("error") || why.starts_with(|next: char| next.is_alphanumeric() || next == '_') {
        return None;
    }
    let why = why.trim_start_matches([' ', ':']);
    let why = if why.is_empty() { "the device does not say why" } else { why };
    Some(Answer { id: None, outcome: Err(why.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(payload: &[u8], encoding: Encoding) -> Result<Vec<u8>, String> {
        line(&Command { id: 1, payload: payload.into() }, encoding)
    }

    #[test]
    fn a_command_is_one_line_of_text() {
        assert_eq!(sent("relais=été\r\n".as_bytes(), Encoding::Utf8), Ok("relais=été".as_bytes().to_vec()));
        assert_eq!(sent("été".as_bytes(), Encoding::Latin1), Ok(b"\xe9t\xe9".to_vec()));
        for (payload, part) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"a\nb", "contains '\\n'"),
            (b"a\0", "contains '\\0'"),
            (b"\xff", "not text"),
            ("5 €".as_bytes(), "has no '€'"),
        ] {
            let why = sent(payload, Encoding::Latin1).expect_err(part);
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn answers_are_ok_or_error() {
        let outcome = |line: &str| answer(line).map(|answer| answer.outcome);
        assert_eq!(outcome("OK"), Some(Ok(())));
        assert_eq!(outcome("error: no relay 3"), Some(Err("no relay 3".to_owned())));
        assert_eq!(outcome("ERROR busy"), Some(Err("busy".to_owned())));
        assert_eq!(outcome("Error"), Some(Err("the device does not say why".to_owned())));
        for line in ["okay", "errors=3", "temp=21", "", "erré"] {
            assert_eq!(outcome(line), None, "{line}");
        }
    }
}
