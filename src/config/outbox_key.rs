//! `[outbox] key`: where the key is read from, and the three forms that it may have.

use std::path::Path;
use std::sync::Arc;

use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER_PERMISSIVE};
use secrecy::SecretBox;
use secrecy::zeroize::Zeroizing;

use super::read::Surroundings;
use super::secret::{Refusal, cannot_read, check_private, credential_called, in_table, only_key, report, with_unit};
use super::source::read_text;
use crate::options::Options;

const EXPECTED: &str = "expected { credential = \"NAME\" } or { file = \"PATH\" }";

const FORMS: &str = "a key is 32 random bytes, as they are, as 64 hexadecimal digits, or in base64";

/// The key that the outbox is encrypted with: 256 bits.
pub type OutboxKey = Arc<SecretBox<[u8; KEY_BYTES]>>;

const KEY_BYTES: usize = 32;

/// Reads `key` of `[outbox]`.
pub(super) fn outbox_key(options: &Options<'_>, around: &Surroundings<'_>) -> Option<OutboxKey> {
    in_table(options, "key", EXPECTED, |table| from_table(table, around))
}

/// The keys of its table.
pub(super) fn from_table(table: &Options<'_>, around: &Surroundings<'_>) -> Option<OutboxKey> {
    let credential = table.optional::<String>("credential");
    let file = table.optional::<String>("file");
    let key = only_key(table, &["credential", "file"], EXPECTED)?;
    let found = match (&credential, file) {
        (Some(name), _) => credential_called(name, around)
            .and_then(|path| read(&path).map_err(|refusal| with_unit(refusal, credential.as_deref()))),
        (_, Some(path)) => {
            let path = around.resolve(&path);
            check_private(&path).and_then(|()| read(&path))
        }
        _ => return None,
    };
    found.map_err(|refusal| report(table, key, refusal, around)).ok()
}

fn read(path: &Path) -> Result<OutboxKey, Refusal> {
    let bytes = Zeroizing::new(read_text(path).map_err(|error| (cannot_read(path, &error), None))?);
    let key = parse(&bytes).map_err(|why| {
        let help = "`openssl rand -hex 32` writes one; keep a copy of it where the gateway is not";
        (format!("{} {why}: {FORMS}", path.display()), Some(help.to_owned()))
    })?;
    Ok(Arc::new(SecretBox::new(key)))
}

/// Makes out the key; what is wrong is said without showing any of it.
fn parse(bytes: &[u8]) -> Result<Box<[u8; KEY_BYTES]>, String> {
    if bytes.is_empty() {
        return Err("is empty".to_owned());
    }
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    // Whoever wants 32 bytes and takes 32 digits has half of them, and would never know.
    if text.len() == KEY_BYTES && text.iter().all(u8::is_ascii_hexdigit) {
        return Err("holds 32 hexadecimal digits, which are only 16 bytes".to_owned());
    }
    if let Ok(key) = <[u8; KEY_BYTES]>::try_from(bytes) {
        return Ok(Box::new(key));
    }
    let decoded = match text.len() {
        64 => HEXLOWER_PERMISSIVE.decode(text),
        43 => BASE64_NOPAD.decode(text),
        44 => BASE64.decode(text),
        _ => return Err(format!("is {} bytes long", bytes.len())),
    };
    let decoded = decoded.map(Zeroizing::new).ok();
    let key = decoded.and_then(|bytes| Some(Box::new(<[u8; KEY_BYTES]>::try_from(bytes.as_slice()).ok()?)));
    let form = if text.len() == 64 { "hexadecimal digits" } else { "base64" };
    key.ok_or_else(|| format!("has the length of a key in {form}, but is none"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_form_gives_the_key(key: [u8; KEY_BYTES], newline in prop::sample::select(vec!["", "\n", "\r\n"])) {
            prop_assert_eq!(&*parse(&key).expect("raw"), &key);
            for form in [HEXLOWER_PERMISSIVE.encode(&key), BASE64.encode(&key), BASE64_NOPAD.encode(&key)] {
                let text = format!("{form}{newline}");
                prop_assert_eq!(&*parse(text.as_bytes()).expect(&text), &key);
            }
            let upper = HEXLOWER_PERMISSIVE.encode(&key).to_uppercase();
            prop_assert_eq!(&*parse(upper.as_bytes()).expect("upper case"), &key);
        }

        #[test]
        fn nothing_else_is_one(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            // 32 arbitrary bytes are a key; arbitrary text of another length hardly ever is.
            if bytes.len() != KEY_BYTES {
                prop_assert!(parse(&bytes).is_err());
            }
        }
    }

    #[test]
    fn half_a_key_is_none() {
        for text in ["0123456789abcdef0123456789ABCDEF", "0123456789abcdef0123456789ABCDEF\n"] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
