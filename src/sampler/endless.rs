//! Bytes that never become a line or frame. Nothing would be told of them, as the first line of a link may be cut, and no
//! other one begins: the baud rate is wrong, most often, or the driver.

use std::time::Duration;

use tokio::time::Instant;

use crate::drivers::support::lines::excerpt;
use crate::hardware::SerialSettings;
use crate::reading::{Fault, FaultCode};

/// How long bytes may come without an end, besides the time of [`LONG_LINE`], and how often that is told. Short enough for
/// `vigie once`.
const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of a line that is long for a device, but may be one: at 300 baud it takes half a minute.
const LONG_LINE: u32 = 1024;

/// Bits of a character on the line, at least.
const BITS: u32 = 10;

/// Fewer bytes than these may be noise of a plug, or a line that is typed by hand.
const ENOUGH: usize = 32;

/// What has come since the last end.
#[derive(Default)]
pub(super) struct Endless {
    /// When the first of it came, or when it was last told.
    since: Option<Instant>,
    /// Of how many bytes the decoder said so last.
    unfinished: usize,
}

impl Endless {
    /// Bytes were decoded, and so many of those that have come are now without an end.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        bytes: &[u8],
        unfinished: usize,
        settings: &SerialSettings,
    ) -> Option<Fault> {
        let before = std::mem::replace(&mut self.unfinished, unfinished);
        if before == 0 || unfinished != before.saturating_add(bytes.len()) {
            self.since = Some(now);
            return None;
        }
        let since = self.since.get_or_insert(now);
        let line = Duration::from_secs(1).saturating_mul(LONG_LINE * BITS) / settings.baud.max(1);
        if unfinished < ENOUGH || now.duration_since(*since) < PATIENCE + line {
            return None;
        }
        *since = now;
        let (port, baud) = (&settings.port, settings.baud);
        let text = String::from_utf8_lossy(bytes);
        let detail = format!(
            "{unfinished} bytes have come from {port} and no end of a line or frame among them: is `baud` = {baud} that of \
             the device, and is this the driver for what it sends? The last ones are `{}`",
            excerpt(&text)
        );
        Some(Fault::new(FaultCode::BadData, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_never_end_are_told_again_and_again_and_others_not() {
        // At this rate a long line takes seven seconds.
        let settings = SerialSettings::new("/dev/ttyUSB0", 1463);
        let (start, mut endless) = (Instant::now(), Endless::default());
        let mut observe = |seconds: u64, bytes: usize, unfinished: usize| {
            let now = start + Duration::from_secs(seconds);
            endless.observe(now, &vec![0xf8; bytes], unfinished, &settings).map(|fault| fault.detail)
        };
        // Lines that end in each read, whatever follows their ends.
        assert_eq!(observe(0, 100, 40), None);
        assert_eq!(observe(20, 100, 60), None);
        assert_eq!(observe(40, 60, 0), None);
        // A line that begins after a long silence and takes two reads.
        assert_eq!(observe(100, 40, 40), None);
        assert_eq!(observe(101, 40, 80), None);
        assert_eq!(observe(102, 1, 0), None);
        // None ends.
        assert_eq!(observe(200, 20, 20), None);
        assert_eq!(observe(209, 20, 40), None);
        let told = observe(210, 20, 60).expect("it is told");
        assert!(told.starts_with("60 bytes have come from /dev/ttyUSB0 and no end"), "{told}");
        assert!(told.contains("`baud` = 1463"), "{told}");
        assert_eq!(observe(215, 20, 80), None);
        assert!(observe(220, 20, 100).is_some());
        assert_eq!(observe(221, 20, 3), None);
        // Few.
        assert_eq!(observe(300, 20, 23), None);
        assert_eq!(observe(301, 1, 0), None);
        assert_eq!(observe(400, 3, 3), None);
        assert_eq!(observe(500, 3, 6), None);
    }
}
