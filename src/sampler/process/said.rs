//! What a program says on its standard error, for the log: whole lines, not too long, not too many.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes of a line; the rest is left out.
const LINE: usize = 500;

/// Lines that are logged in [`PERIOD`]; the rest is counted.
const LINES: u32 = 20;

/// See [`LINES`].
const PERIOD: Duration = Duration::from_secs(10);

/// Puts lines together.
#[derive(Debug)]
pub(super) struct Said {
    line: Vec<u8>,
    since: Instant,
    logged: u32,
    left_out: u64,
    last: String,
}

impl Said {
    pub(super) fn new(now: Instant) -> Self {
        Self { line: Vec::new(), since: now, logged: 0, left_out: 0, last: String::new() }
    }

    /// Takes what was read, and hands what is to be logged to `log`.
    pub(super) fn feed(&mut self, bytes: &[u8], now: Instant, mut log: impl FnMut(&str)) {
        for byte in bytes {
            if *byte == b'\n' {
                self.ends(now, &mut log);
            } else if self.line.len() < LINE {
                self.line.push(*byte);
            }
        }
    }

    /// A line has ended.
    pub(super) fn ends(&mut self, now: Instant, log: &mut impl FnMut(&str)) {
        let text: String = String::from_utf8_lossy(&self.line)
            .trim_end()
            .chars()
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .collect();
        self.line.clear();
        if text.is_empty() {
            return;
        }
        if now >= self.since + PERIOD {
            self.tell_left_out(log);
            (self.since, self.logged) = (now, 0);
        }
        if self.logged < LINES {
            self.logged += 1;
            log(&text);
        } else {
            self.left_out += 1;
        }
        self.last = text;
    }

    /// Says how much was left out.
    pub(super) fn tell_left_out(&mut self, log: &mut impl FnMut(&str)) {
        match std::mem::take(&mut self.left_out) {
            0 => {}
            count => log(&format!("… and {count} lines more")),
        }
    }

    /// The last line that says something.
    pub(super) fn last(&self) -> &str {
        &self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(said: &mut Said, bytes: &[u8], now: Instant) -> Vec<String> {
        let mut logged = Vec::new();
        said.feed(bytes, now, |line| logged.push(line.to_owned()));
        logged
    }

    #[test]
    fn lines_are_put_together_cut_and_cleaned() {
        let now = Instant::now();
        let mut said = Said::new(now);
        assert!(log_of(&mut said, b"no sen", now).is_empty());
        assert_eq!(log_of(&mut said, b"sor\r\n\n  \n\x1b[31mred\xff\n", now), ["no sensor", " [31mred\u{fffd}"]);
        assert_eq!(said.last(), " [31mred\u{fffd}");
        let long = log_of(&mut said, &[&[b'x'; 10_000][..], b"\n"].concat(), now);
        assert_eq!(long, ["x".repeat(LINE)]);
        assert!(said.line.capacity() <= 2 * LINE);
    }

    #[test]
    fn too_many_are_counted() {
        let now = Instant::now();
        let mut said = Said::new(now);
        assert_eq!(log_of(&mut said, &b"a\n".repeat(1000), now).len(), LINES as usize);
        assert_eq!(log_of(&mut said, b"b\n", now + PERIOD), ["… and 980 lines more", "b"]);
    }
}
