//! `vigie support`: one text with what somebody needs to know who is to help.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{FAILED, FINE, LONG_VERSION, clock, complain, outbox, print, scan};
use crate::agent::places;
use crate::config::{self, Config};

mod machine;
mod scrub;

use scrub::Scrub;

const LONG: &str = "\
Gather what somebody needs to know who is to help, as one text: versions, the machine, the clock, the configuration, how it \
stands with outbox and brokers, the rights on folders and devices, and the end of the log.

Passwords, keys and tokens are not in it, nor what programs of the driver `exec` are given. Names of sensors and rooms, topics, \
addresses, places and what the log says are: read it before you give it away. With sudo it knows more: it can ask the agent, \
read the log, and look for the passwords themselves, so that they are in none of it.";

/// The longest piece of it, in bytes; of a longer one the end is shown, which is the newest of a log.
const MAX_PIECE: usize = 256 * 1024;

/// Lines of the log.
const LOG_LINES: &str = "400";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG)]
pub(super) struct Args {
    /// Configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/vigie/vigie.toml")]
    config: PathBuf,
    /// Write it to a file that is not there yet [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also look for sensors, as `vigie scan` does: stop the agent first
    #[arg(long)]
    scan: bool,
}

pub(super) fn support(args: &Args) -> u8 {
    let text = gather(args);
    let Some(path) = &args.output else {
        print(&text);
        return FINE;
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match file.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => {
            print(&format!("{}: read it before you give it away\n", path.display()));
            FINE
        }
        Err(error) => {
            complain(&format!("cannot write {}: {error}", path.display()));
            FAILED
        }
    }
}

/// The text, piece by piece.
struct Report {
    text: String,
    scrub: Scrub,
}

impl Report {
    /// Adds a piece under its title. Nothing gets past this that is known to be a secret.
    fn put(&mut self, title: &str, piece: &str) {
        let shown = self.scrub.clean(end_of(piece));
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.text, "=== {title}\n{}\n", shown.trim_end());
    }

    /// The same for what others have written: what looks like a password there goes as well.
    fn put_foreign(&mut self, title: &str, piece: &str) {
        let piece = config::without_secrets(end_of(piece));
        self.put(title, &piece);
    }
}

/// As much of the end as may be shown, from the beginning of a line on.
fn end_of(piece: &str) -> &str {
    let Some(from) = piece.len().checked_sub(MAX_PIECE) else { return piece };
    let newline = piece.as_bytes()[from..].iter().position(|byte| *byte == b'\n');
    // A newline is never a part of another character.
    newline.map_or("", |newline| &piece[from + newline + 1..])
}

fn gather(args: &Args) -> String {
    let mut report = Report { text: String::new(), scrub: Scrub::of(&args.config) };
    report.put("vigie", &format!("version {LONG_VERSION}\n{}", machine::program()));
    report.put_foreign("machine", &machine::about());
    let loaded = config::load_to_look(&args.config);
    match &loaded {
        Ok(config) => about(&mut report, args, config),
        Err(problems) => report.put_foreign("the configuration is wrong", &config::render(problems, false)),
    }
    for (path, text) in config::redacted(&args.config) {
        report.put(&format!("configuration {path}"), &text);
    }
    report.put_foreign("devices", &machine::devices());
    report.put_foreign("service", &machine::said(&["systemctl", "show", "vigie.service", machine::PROPERTIES]));
    report.put_foreign("drop-ins", &machine::said(&["systemctl", "cat", "--no-pager", "vigie.service"]));
    let log = ["journalctl", "--no-pager", "--quiet", "--output=short-iso-precise", "--unit=vigie.service", "--lines"];
    report.put_foreign("log", &machine::said(&[&log[..], &[LOG_LINES]].concat()));
    report.text
}

/// What can be told where the configuration is right.
fn about(report: &mut Report, args: &Args, config: &Config) {
    if let Some(warnings) = &config.warnings {
        report.put_foreign("warnings of the configuration", &config::render(warnings, false));
    }
    let or_why = |said: Result<String, outbox::Failure>| said.unwrap_or_else(|why| format!("not known: {why}"));
    report.put("clock", &(or_why(clock::told(config)) + &machine::clock()));
    report.put("outbox", &or_why(outbox::told(config)));
    let mut folders: Vec<&Path> = vec![&config.outbox.path];
    folders.extend(config.outbox.path.parent());
    folders.extend(config.archive.as_ref().map(|archive| archive.path.as_path()));
    folders.extend(config.broker.as_ref().map(|broker| broker.path.as_path()));
    folders.extend(args.config.parent());
    let tails = places::possible(config.outbox.tail.as_deref(), &config.outbox.path);
    folders.extend(tails.iter().map(PathBuf::as_path).filter(|folder| folder.is_dir()));
    folders.sort();
    folders.dedup();
    let listed: String = folders.into_iter().map(machine::folder).collect();
    report.put("folders", &listed);
    if args.scan {
        report.put_foreign("scan", &scan::found(config));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_piece_the_end_is_shown_in_whole_lines() {
        let long = format!("begin\n{}\nend\n", "é".repeat(MAX_PIECE));
        assert_eq!(end_of(&long), "end\n");
        assert_eq!(end_of("short"), "short");
        assert_eq!(end_of(&"é".repeat(MAX_PIECE)), "");
    }
}
