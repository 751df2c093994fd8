//! Keeps secrets out of what is shown of a configuration's text.
//!
//! Passwords do not belong into the files, but people write them there, and the error that says so shows the line.
//! This works on the text alone, so that it also holds where the text is not valid TOML.

use crate::options::did_you_mean;

/// Words that make a key one whose value is not shown.
const SECRET_WORDS: [&str; 6] = ["pass", "pwd", "secret", "token", "psk", "access_key"];

/// The keys of a `password` table, whose values are names and not secrets.
const REFERENCES: [&str; 3] = ["credential", "env", "file"];

/// The same text, as long in bytes, with stars in place of passwords.
pub(super) fn redact(text: &str) -> String {
    redacted(text, false)
}

/// The same for somebody else's eyes: what stands as a `key` is not shown unless it is surely the path of a file.
pub(super) fn redact_strictly(text: &str) -> String {
    redacted(text, true)
}

fn redacted(text: &str, strictly: bool) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut position = 0;
    // Inside of the braces of a secret's table: `password = { … }`.
    let mut in_table = false;
    while let Some(byte) = bytes.get(position).copied() {
        position += 1;
        match byte {
            b'=' => {
                let key = key_before(&text.as_bytes()[..position - 1]);
                let value = skip_space(&bytes, position);
                let secret = if in_table {
                    !REFERENCES.contains(&key.as_str())
                } else {
                    is_secret(&key) || key == "key" && may_be_key(&bytes[value..value_end(&bytes, value)], strictly)
                };
                if secret {
                    if bytes.get(value) == Some(&b'{') {
                        in_table = true;
                    } else {
                        let end = value_end(&bytes, value);
                        mask(&mut bytes[value..end]);
                        position = end;
                    }
                }
            }
            b'}' => in_table = false,
            b':' if bytes[position..].starts_with(b"//") => mask_url(&mut bytes, position + 2),
            _ => {}
        }
    }
    // Whole characters were replaced by as many stars as they have bytes, so this is still UTF-8.
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Replaces all but quotes and ends of lines.
pub(super) fn mask(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| !matches!(**byte, b'"' | b'\'' | b'\n' | b'\r')) {
        *byte = b'*';
    }
}

fn skip_space(bytes: &[u8], mut position: usize) -> usize {
    while bytes.get(position).is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        position += 1;
    }
    position
}

/// The last part of the key that ends where `before` ends.
fn key_before(before: &[u8]) -> String {
    let line = before.iter().rposition(|byte| *byte == b'\n').map_or(before, |newline| &before[newline + 1..]);
    let line = String::from_utf8_lossy(line);
    let key = line.trim_end().trim_end_matches(['"', '\'']);
    let start = key
        .rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'))
        .map_or(0, |at| at + key[at..].chars().next().map_or(0, char::len_utf8));
    key[start..].to_lowercase()
}

fn is_secret(key: &str) -> bool {
    SECRET_WORDS.iter().any(|word| key.contains(word)) || did_you_mean(key, &["password"]).is_some()
}

/// The value of `key` is a table or the path of a file, unless somebody wrote the key itself there.
fn may_be_key(value: &[u8], strictly: bool) -> bool {
    let is_long = value.len() >= 32 || strictly && !value.contains(&b'/');
    value.first() == Some(&b'{') || is_long && !value.contains(&b'.')
}

/// Where the value that starts at `start` ends: a string with its closing quotes, else the line.
fn value_end(bytes: &[u8], start: usize) -> usize {
    let rest = &bytes[start.min(bytes.len())..];
    for (quotes, escapes) in [(&b"\"\"\""[..], true), (&b"'''"[..], false)] {
        if rest.starts_with(quotes) {
            return start + quotes.len() + closing(&rest[quotes.len()..], quotes, escapes, false);
        }
    }
    match rest.first() {
        Some(b'"') => start + 1 + closing(&rest[1..], b"\"", true, true),
        Some(b'\'') => start + 1 + closing(&rest[1..], b"'", false, true),
        _ => start + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
    }
}

/// How many bytes there are to the end of the quotes; to the end of the line or text where they are not closed.
fn closing(rest: &[u8], quotes: &[u8], escapes: bool, one_line: bool) -> usize {
    let mut position = 0;
    while position < rest.len() {
        if rest[position..].starts_with(quotes) {
            return position + quotes.len();
        }
        match rest[position] {
            b'\\' if escapes => position += 1,
            b'\n' if one_line => return position,
            _ => {}
        }
        position += 1;
    }
    rest.len()
}

/// Masks `user:password@` after the two slashes of a URL, and its query, in which people put tokens.
fn mask_url(bytes: &mut [u8], start: usize) {
    let start = start.min(bytes.len());
    let length = bytes[start..]
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\'' | b'\n' | b' '))
        .unwrap_or(bytes.len() - start);
    if let Some(at) = bytes[start..start + length].iter().rposition(|byte| *byte == b'@') {
        mask(&mut bytes[start..start + at]);
    }
    if let Some(query) = bytes[start..start + length].iter().position(|byte| *byte == b'?') {
        mask(&mut bytes[start + query + 1..start + length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        for text in [
            "password = \"hunter2\"",
            "password=\"hunter2\" # why",
            "password = 'hunter2'",
            "password = \"\"\"\nhunter2\nhunter2\"\"\"\nqos = 1",
            "password = '''hunter2",
            "password = \"hunter2",
            "password = \"a\\\"hunter2\"",
            "password = hunter2",
            "passwort = \"hunter2\"",
            "pasword = \"hunter2\"",
            "\"password\" = \"hunter2\"",
            "uplink.home.password = \"hunter2\"",
            "home = { url = \"mqtt://h\", password = \"hunter2\" }",
            "password = { value = \"hunter2\" }",
            "mot_de_passe = \"hunter2\"",
            "url = \"mqtt://pi:hunter2@broker\"",
            "url = \"mqtt://pi:hunter2@b@broker",
            "api_token = \"hunter2\"",
            "url = \"wss://b/mqtt?sig=hunter2\"",
            "url = [\"mqtt://b\", \"wss://b/?hunter2\"]",
        ] {
            let shown = redact(text);
            assert!(!shown.contains("hunter2"), "{shown}");
            assert_eq!(shown.len(), text.len(), "{shown}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "url = \"mqtt://broker.lan:1883\"",
            "password = { credential = \"mqtt\" }\nname = \"x\"",
            "password = { file = \"/etc/secret\" }",
            "topic = \"a/b\"\n[outbox]\npath = \"/var\"",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
