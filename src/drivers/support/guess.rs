//! What a device seems to speak, where a driver cannot read it: most often the baud rate is wrong, or the driver is.

/// Of so many bytes, one that is no text is enough to take all of them for noise or frames. Text in Latin-1 has fewer.
const ODD_ONE_OF: usize = 8;

/// What to try for a line that `driver` cannot read: words to put behind an error, or nothing.
pub(crate) fn advice(line: &[u8], driver: &str) -> &'static str {
    let line = line.trim_ascii();
    let (advice, meant) = if is_garbled(line) {
        ("; is the baud rate right? or are these the frames of the driver serial-frames?", "serial-frames")
    } else if line.starts_with(b"{") {
        ("; if it is JSON, use the driver serial-json", "serial-json")
    } else if line.starts_with(b"$") && line.iter().rev().nth(2) == Some(&b'*') {
        ("; if it is NMEA 0183, use the driver nmea", "nmea")
    } else {
        ("; for lines of text there is the driver serial-lines", "serial-lines")
    };
    if meant == driver { "" } else { advice }
}

/// Is that neither UTF-8 nor, as a whole, anything that somebody prints?
fn is_garbled(line: &[u8]) -> bool {
    let odd: usize = line
        .utf8_chunks()
        .map(|chunk| {
            let control = chunk.valid().chars().filter(|character| character.is_control() && *character != '\t');
            control.count() + chunk.invalid().len()
        })
        .sum();
    odd * ODD_ONE_OF > line.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_device_speaks_is_told_by_its_lines() {
        for (line, driver, part) in [
            (&b"Temperature: 21.5 C"[..], "serial-json", "the driver serial-lines"),
            (b"21.5,40\r", "nmea", "the driver serial-lines"),
            (b"{\"temp\":21.5}", "serial-lines", "the driver serial-json"),
            (b"{\"temp\":21.5}", "nmea", "the driver serial-json"),
            (b"$GPGGA,101500.00,,,,,0,00,99.99,,,,,,*60\r", "serial-lines", "the driver nmea"),
            (b"\xf8\x80\xfe\x00\xe0\xff", "serial-json", "is the baud rate right?"),
            (b"\x01\x01\x03\x05abc", "serial-lines", "serial-frames"),
            // Latin-1.
            (b"Temp\xe9rature : 21,5 \xb0C", "serial-json", "the driver serial-lines"),
        ] {
            let found = advice(line, driver);
            assert!(found.contains(part), "{:?} for {driver}: {found}", String::from_utf8_lossy(line));
        }
        assert_eq!(advice(b"{\"temp\":nan}", "serial-json"), "");
        assert_eq!(advice(b"hello", "serial-lines"), "");
        assert_eq!(advice(b"", "serial-lines"), "");
    }

    proptest! {
        #[test]
        fn a_drivers_own_lines_are_not_sent_elsewhere(text in "[ -~]{0,80}") {
            prop_assert!(!advice(text.as_bytes(), "serial-lines").contains("baud rate"));
        }

        #[test]
        fn any_bytes_have_advice_or_none(line in prop::collection::vec(any::<u8>(), 0..100)) {
            let advice = advice(&line, "serial-json");
            prop_assert!(advice.is_empty() || advice.starts_with("; "));
        }
    }
}
