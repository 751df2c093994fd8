//! A file that something else writes: read each period, as a number, a text, an object, by a pattern, or as bytes.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::serial_json;
use super::support::content::{self, CONTENT_TYPE, FORM, PATTERN};
use super::{Connection, Driver, Open, OptionInfo, Parsed, Poller, Source};
use crate::clock::{BootTime, Clock, SystemClock, Trust};
use crate::hardware::Hardware;
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample};

/// Files of a folder that are looked through for a path with `*` or `?`.
const MAX_FILES: usize = 10_000;

pub(crate) static DRIVER: Driver = Driver {
    name: "file",
    summary: "A file that something else writes: a number, a text, JSON, a picture",
    notes: "\
Each `every` the file is read from its beginning. Its content is the quantity `value`: a number where it is one, else a text
without the spaces around it. `[sensor.quantity.value]` gives it its name and unit. Instead:

- `form = \"json\"`: the content is one JSON object, whose keys become quantities as with `serial-json`;
- `pattern`: a regular expression, whose named groups become quantities, as with `serial-lines`;
  with `(?m)` at its beginning, `^` and `$` match at lines;
- `content_type = \"image/jpeg\"`: the content is bytes, such as a picture, and goes out byte for byte on its own topic
  (with `bytes = \"base64\"` of the uplink, as base64 inside JSON). A file that has not changed is not sent again.

In the last part of `path`, `*` stands for any characters and `?` for one: of the files that match, the one that was
modified last is read.

A file that is replaced should be written under another name and renamed, else half of it may be read; if it changes while
it is read, that is `bad-data`. Folders, sockets and devices are not read. With the unit that vigie comes with, /home and
/tmp are not there: files are best put below /run or /var/lib.",
    sample: r#"[[sensor]]
name = "load"
driver = "file"
path = "/proc/loadavg"
pattern = '^(?<one>\S+) (?<five>\S+)'
every = "30s"
"#,
    connection: Connection::Own,
    options: &[
        OptionInfo {
            name: "path",
            values: "absolute path; `*` and `?` in its last part",
            default: None,
            help: "The file, or the newest of several.",
        },
        FORM,
        PATTERN,
        CONTENT_TYPE,
        OptionInfo {
            name: "max_bytes",
            values: "1 to 512000",
            default: Some("65536, or 512000 with `content_type`"),
            help: "A longer file is a fault.",
        },
        OptionInfo {
            name: "stale_after",
            values: "duration",
            default: Some("never"),
            help: "A file that has not been written for so long is the fault `frozen`.",
        },
    ],
    quantities: &[],
    parse,
};

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let path = path(options);
    let content = content::parse(options);
    let stale_after = options.optional_in("stale_after", Duration::from_millis(1)..=Duration::from_secs(366 * 86_400));
    let settings = Settings { path: path?, content: content?, stale_after };
    Some(Parsed { claims: vec![], source: Source::Poller(Arc::new(settings)) })
}

/// `None`: a problem was noted.
fn path(options: &Options<'_>) -> Option<PathBuf> {
    const EXPECTED: &str = "expected the path of a file, such as \"/run/camera/*.jpg\"";
    let text = options.required::<String>("path")?;
    let path = PathBuf::from(&text);
    let wild_folder = path.parent().is_some_and(|folder| folder.to_string_lossy().contains(['*', '?']));
    let why = if !path.is_absolute() || path.file_name().is_none() || text.contains('\0') || text.ends_with('/') {
        "is not the absolute path of a file"
    } else if wild_folder {
        "has `*` or `?` in the name of a folder"
    } else {
        return Some(path);
    };
    options.problem("path", format!("`path` of {} {why}", options.what()), Some(EXPECTED.to_owned()));
    None
}

struct Settings {
    path: PathBuf,
    content: content::Settings,
    stale_after: Option<Duration>,
}

impl Open for Settings {
    fn open(&self, _hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        Ok(Box::new(self.follow(Arc::new(SystemClock::new(Trust::Kernel)))))
    }
}

impl Settings {
    fn follow(&self, clock: Arc<dyn Clock>) -> Followed {
        Followed {
            path: self.path.clone(),
            content: self.content.clone(),
            stale_after: self.stale_after,
            clock,
            last: None,
            stale: false,
        }
    }
}

/// What tells that a file is not what it was: device, inode, size, modified (seconds and nanoseconds).
type Mark = (u64, u64, u64, i64, i64);

fn mark_of(meta: &Metadata) -> Mark {
    (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())
}

struct Followed {
    path: PathBuf,
    content: content::Settings,
    stale_after: Option<Duration>,
    clock: Arc<dyn Clock>,
    /// What the file was when it was last seen to have changed, and when that was.
    last: Option<(Mark, BootTime)>,
    stale: bool,
}

impl Poller for Followed {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let path = self.newest()?;
        let file = open(&path)?;
        let meta = file.metadata().map_err(|error| unreadable(&path, &error))?;
        if !meta.is_file() {
            let detail = format!("{} is not a file but a folder, device or pipe", path.display());
            return Err(Fault::new(FaultCode::BadData, detail));
        }
        let (now, mark) = (self.clock.boot(), mark_of(&meta));
        let again = match self.last {
            Some((last, since)) if last == mark => {
                self.stale = self.stale_after.is_some_and(|limit| now.since(since) >= limit);
                true
            }
            _ => {
                (self.last, self.stale) = (Some((mark, now)), false);
                false
            }
        };
        if self.stale {
            let limit = humantime::format_duration(self.stale_after.unwrap_or_default());
            let detail = format!("{} has not been written for {limit}", path.display());
            return Err(Fault::new(FaultCode::Frozen, detail));
        }
        if again && self.content.is_bytes() {
            return Ok(Vec::new());
        }
        let mut content = Vec::new();
        let most = self.content.max_bytes as u64;
        (&file).take(most + 1).read_to_end(&mut content).map_err(|error| unreadable(&path, &error))?;
        // Files of the kernel have no size, and other ones each time.
        if meta.size() > 0 && file.metadata().is_ok_and(|after| mark_of(&after) != mark) {
            self.last = None;
            let detail = format!(
                "{} was written while it was read: have it written under another name and renamed",
                path.display()
            );
            return Err(Fault::new(FaultCode::BadData, detail));
        }
        self.content.samples(content, &path.display().to_string(), serial_json::object)
    }
}

impl Followed {
    /// The file, or of those that match the one that was modified last.
    fn newest(&self) -> Result<PathBuf, Fault> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        if !name.contains(['*', '?']) {
            return Ok(self.path.clone());
        }
        let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
        let matching = entries
            .flatten()
            .take(MAX_FILES)
            .filter(|entry| matches(name.as_bytes(), entry.file_name().as_encoded_bytes()));
        let newest = matching
            .filter_map(|entry| {
                let meta = std::fs::metadata(entry.path()).ok()?;
                meta.is_file().then(|| ((meta.mtime(), meta.mtime_nsec()), entry.path()))
            })
            .max();
        newest
            .map(|(_, path)| path)
            .ok_or_else(|| Fault::new(FaultCode::Missing, format!("no file matches {}", self.path.display())))
    }
}

/// Opens without waiting for a writer, where it is a pipe.
fn open(path: &Path) -> Result<File, Fault> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened.map(File::from).map_err(|error| unreadable(path, &error.into()))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    let path = path.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => Fault::new(FaultCode::Missing, format!("{path} is not there")),
        std::io::ErrorKind::PermissionDenied => {
            let detail = format!("{path} may not be read by the user that vigie runs as: {error}");
            Fault::new(FaultCode::Permission, detail)
        }
        _ => Fault::new(FaultCode::Io, format!("{path} cannot be read: {error}")),
    }
}

/// Does the name match, where `*` stands for any bytes and `?` for one? Takes time by the product of both lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on if the last `*` is to stand for one byte more.
    let mut again = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                again = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match again {
                Some((star, from)) => {
                    again = Some((star, from + 1));
                    (p, n) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::de::DeTable;

    use super::*;
    use crate::clock::ManualClock;
    use crate::options::Problems;
    use crate::reading::Value;

    /// A sensor on `path`, with further keys.
    fn follow(path: &Path, keys: &str, clock: &Arc<ManualClock>) -> Followed {
        let text = format!("path = {:?}\n{keys}", path.display().to_string());
        let table = DeTable::parse(&text).expect("TOML");
        let problems = Problems::new();
        let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
        let (path, content) = (super::path(&options).expect("a path"), content::parse(&options).expect("a content"));
        let stale_after = options.optional("stale_after");
        assert_eq!(problems.len(), 0);
        Settings { path, content, stale_after }.follow(Arc::clone(clock) as Arc<dyn Clock>)
    }

    fn shown(outcome: Result<Vec<Sample>, Fault>) -> Result<Vec<String>, (FaultCode, String)> {
        let show = |sample: Sample| format!("{}={:?}", sample.quantity, sample.value);
        outcome.map(|samples| samples.into_iter().map(show).collect()).map_err(|fault| (fault.code, fault.detail))
    }

    #[test]
    fn contents_mean_what_the_keys_say() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, clock) = (dir.path().join("x"), Arc::new(ManualClock::new()));
        let read = |keys: &str, content: &[u8]| {
            std::fs::write(&path, content).expect("written");
            shown(follow(&path, keys, &clock).sample())
        };
        assert_eq!(read("", b" 21.5\n").expect("a number"), ["value=Number(Finite(21.5))"]);
        assert_eq!(read("", b"nan\n").expect("a text"), ["value=Text(\"nan\")"]);
        assert_eq!(read("", b"pr\xeat\n").expect("Latin-1"), ["value=Text(\"pr\u{ea}t\")"]);
        assert_eq!(read("form = \"json\"", b"{\n \"a\": 1}").expect("an object"), ["a=Number(Finite(1.0))"]);
        let keys = "pattern = '(?m)^T=(?<t>\\S+)(?: H=(?<h>\\d+))?$'";
        assert_eq!(read(keys, b"x\nT=idle\n").expect("a line"), ["t=Text(\"idle\")"]);
        let (code, detail) = read(keys, b"T").expect_err("no match");
        assert!(code == FaultCode::BadData && detail.contains("begins with `T`"), "{detail}");
        let keys = "content_type = \"image/png\"";
        assert_eq!(read(keys, b"\xff\0").expect("bytes"), ["value=Bytes([255, 0])"]);
        let (_, detail) = read("max_bytes = 3", b"1234").expect_err("too long");
        assert!(detail.contains("more than `max_bytes` (3)"), "{detail}");
        let (_, detail) = read("form = \"json\"", b"{\n\"a\":}").expect_err("not JSON");
        assert!(detail.contains("byte 5 of `\\\"a\\\":}`"), "{detail}");
        assert!(read("", b" \n").expect_err("nothing").1.contains("is empty"));
    }

    #[test]
    fn what_stands_still_is_told_and_bytes_are_sent_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, clock) = (dir.path().join("x"), Arc::new(ManualClock::new()));
        std::fs::write(&path, "1").expect("written");
        let mut file = follow(&path, "stale_after = \"10s\"\ncontent_type = \"image/png\"", &clock);
        assert_eq!(file.sample().expect("bytes").len(), 1);
        clock.advance(Duration::from_secs(9));
        assert_eq!(file.sample().expect("nothing new").len(), 0);
        clock.advance(Duration::from_secs(1));
        assert_eq!(file.sample().expect_err("stale").code, FaultCode::Frozen);
        std::fs::write(&path, "22").expect("written");
        assert_eq!(file.sample().expect("bytes").len(), 1);
    }

    #[test]
    fn the_newest_file_is_read_and_what_is_no_file_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::new());
        let mut file = follow(&dir.path().join("*.jpg"), "", &clock);
        assert!(file.sample().expect_err("none").detail.contains("no file matches"));
        for (name, seconds) in [("b.jpg", 20), ("a.jpg", 30), ("c.jpg", 10), ("d.png", 90)] {
            std::fs::write(dir.path().join(name), name).expect("written");
            let then = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
            File::open(dir.path().join(name)).and_then(|file| file.set_modified(then)).expect("a time");
        }
        assert_eq!(file.sample().expect("a file")[0].value, Value::Text("a.jpg".into()));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        for (path, code) in [
            (&pipe, FaultCode::BadData),
            (&dir.path().to_owned(), FaultCode::BadData),
            (&dir.path().join("no"), FaultCode::Missing),
        ] {
            assert_eq!(follow(path, "", &clock).sample().expect_err("no file").code, code, "{}", path.display());
        }
    }

    proptest! {
        #[test]
        fn names_match_as_a_regular_expression_would(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let regex = format!("^{}$", pattern.replace('*', ".*").replace('?', "."));
            let expected = regex_lite::Regex::new(&regex).expect("a pattern").is_match(&name);
            prop_assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected);
        }

        #[test]
        fn any_content_gives_samples_or_a_fault(content in prop::collection::vec(any::<u8>(), 0..200)) {
            for keys in ["", "form = \"json\"", "pattern = '(?<a>.)(?<b>\\d*)'", "content_type = \"a/b\""] {
                let table = DeTable::parse(keys).expect("TOML");
                let problems = Problems::new();
                let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
                for sample in content::parse(&options).expect("fine").samples(content.clone(), "x", serial_json::object).into_iter().flatten() {
                    prop_assert!(!matches!(sample.value, Value::Number(number) if !number.get().is_finite()));
                }
            }
        }
    }
}
