//! A program that prints lines of JSON: the way to add a driver without compiling. `docs/exec.md` is its protocol.

use std::path::{Path, PathBuf};

use super::serial_json::SerialJson;
use super::support::acknowledge;
use super::support::announced;
use super::support::content::{self, CONTENT_TYPE};
use super::{ByteDecoder, Connection, Decoded, Driver, OptionInfo, Parsed, ProcessSettings, ProcessSource, Source};
use crate::clock::BootTime;
use crate::command::{Answer, Command, Outgoing};
use crate::options::{FromToml, Options, Problem};
use crate::reading::MAX_BYTES;

/// `max_bytes` where it is not given: a line, or in `mode = "once"` all that is printed.
const DEFAULT_MAX_BYTES: u32 = 64 * 1024;

/// The largest `max_bytes`: the largest picture, in base64.
const MOST_BYTES: u32 = 700_000;

/// Words of a command, and variables of `env`.
const MAX_WORDS: usize = 256;

pub(crate) static DRIVER: Driver = Driver {
    name: "exec",
    summary: "A program in any language that prints one JSON object a line",
    notes: "\
`docs/exec.md` describes in one page what the program prints and reads, with examples in Python and shell. In short:

- `{\"temperature\":21.5}` is a reading; keys become quantities as with `serial-json`. `{\"fault\":\"no answer\"}` says why
  there is none.
- The program is started once and runs on; when it ends, that is the fault `ended`, and it is started again after 1 s, 2 s
  and so on up to a minute. With `mode = \"once\"` it is started each `every`, prints, and ends with status 0; after
  `deadline` it is ended.
- No shell reads `command`. The environment is empty but for `PATH`, `LANG`, `HOME`, `TZ`, `PYTHONUNBUFFERED=1`,
  `VIGIE_SENSOR` (the sensor's name) and `env`.
- What it prints on standard error goes to the log, up to 20 lines each 10 s.
- When the sensor ends or vigie does, even by SIGKILL, the program and all that it started get SIGTERM, and 3 s later
  SIGKILL. Limits: 1000 lines and 1 MiB a second, beyond which it is not read, so that it waits.

It runs with vigie's rights, and in its sandbox where systemd makes one: for another user, use a unit of its own.",
    sample: r#"[[sensor]]
name = "shell"
driver = "exec"
command = ["/bin/sh", "-c", "while :; do echo \"{\\\"minute\\\":$(date +%M | sed s/^0//)}\"; sleep 10; done"]
"#,
    connection: Connection::Own,
    options: &[
        OptionInfo {
            name: "command",
            values: "list of texts",
            default: None,
            help: "The program, with its path or as found in `PATH`, and its arguments.",
        },
        OptionInfo {
            name: "mode",
            values: "`\"stream\"` or `\"once\"`",
            default: Some("`\"stream\"`"),
            help: "Whether the program runs on, or is started each `every`.",
        },
        OptionInfo {
            name: "directory",
            values: "absolute path",
            default: Some("`\"/\"`"),
            help: "The folder in which it runs.",
        },
        OptionInfo {
            name: "env",
            values: "table of texts",
            default: Some("none"),
            help: "Variables of its environment; everybody who can read the configuration can read them.",
        },
        OptionInfo {
            name: "max_bytes",
            values: "1024 to 700000",
            default: Some("65536, or 512000 with `content_type`"),
            help: "The longest line; with `mode = \"once\"`, the most that one run prints.",
        },
        CONTENT_TYPE,
        acknowledge::OPTION,
    ],
    quantities: &[],
    parse,
};

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let command = command(options);
    let once = options.optional_word("mode", &[("stream", false), ("once", true)]).unwrap_or(false);
    let directory = directory(options);
    let env = env(options);
    let acknowledge = acknowledge::parse(options);
    let content_type = content_type(options, once);
    let max_bytes = options.optional_in("max_bytes", 1024..=MOST_BYTES);
    let content_type = content_type?;
    let max_bytes = match &content_type {
        Some(_) => max_bytes.map_or(MAX_BYTES, |bytes| bytes as usize).min(MAX_BYTES),
        None => max_bytes.unwrap_or(DEFAULT_MAX_BYTES) as usize,
    };
    let settings =
        ProcessSettings { command: command?, directory: directory?, env: env?, once: once.then_some(max_bytes) };
    let decoder = Box::new(move || match &content_type {
        Some(content_type) => Box::new(Output::new(content_type.clone())) as Box<dyn ByteDecoder>,
        None => Box::new(ProgramJson(SerialJson::of_program(max_bytes, acknowledge))),
    });
    Some(Parsed { claims: vec![], source: Source::Process(ProcessSource { settings, decoder }) })
}

/// `None`: a problem was noted.
fn content_type(options: &Options<'_>, once: bool) -> Option<Option<Box<str>>> {
    let Some(content_type) = content::content_type(options)? else { return Some(None) };
    if once {
        return Some(Some(content_type));
    }
    options.problem_with_help(
        "content_type",
        format!("`content_type` of {} makes sense only where the program ends", options.what()),
        Some("all that it prints is one value".to_owned()),
        Some("add mode = \"once\", or print {\"picture\":{\"base64\":\"…\",\"content_type\":\"…\"}}".to_owned()),
    );
    None
}

/// `None`: a problem was noted.
fn command(options: &Options<'_>) -> Option<Vec<String>> {
    const EXPECTED: &str =
        "expected the program and its arguments, such as [\"/usr/bin/python3\", \"/etc/vigie/x.py\"]";
    if options.raw("command").is_some_and(|value| value.get_ref().as_str().is_some()) {
        let message = format!("`command` of {} is one text, but no shell takes it apart", options.what());
        options.problem("command", message, Some(EXPECTED.to_owned()));
        return None;
    }
    let words = options.required::<Vec<String>>("command")?;
    let why = if words.first().is_none_or(String::is_empty) {
        "names no program".to_owned()
    } else if words.len() > MAX_WORDS {
        format!("has more than {MAX_WORDS} words")
    } else if words.iter().any(|word| word.contains('\0')) {
        "contains a NUL character".to_owned()
    } else {
        return Some(words);
    };
    options.problem("command", format!("`command` of {} {why}", options.what()), Some(EXPECTED.to_owned()));
    None
}

/// `None`: a problem was noted.
fn directory(options: &Options<'_>) -> Option<PathBuf> {
    let Some(text) = options.optional::<String>("directory") else { return Some(PathBuf::from("/")) };
    if Path::new(&text).is_absolute() && !text.contains('\0') {
        return Some(PathBuf::from(text));
    }
    let message = format!("`directory` of {} is not an absolute path", options.what());
    options.problem("directory", message, Some("expected a folder such as \"/var/lib/vigie\"".to_owned()));
    None
}

/// `None`: a problem was noted.
fn env(options: &Options<'_>) -> Option<Vec<(String, String)>> {
    if options.raw("env").is_none() {
        return Some(Vec::new());
    }
    let table = options.section("env")?;
    let mut variables = Vec::new();
    for (key, value) in table.entries() {
        let name = key.get_ref().to_string();
        let usable = !name.is_empty() && !name.contains(['=', '\0']);
        let text = String::from_toml(value.get_ref()).ok().filter(|text| usable && !text.contains('\0'));
        let Some(text) = text else {
            let message = format!("`{name}` in {} cannot be a variable of the environment", table.what());
            let problem = Problem::new(value.span(), message).expected("expected NAME = \"text\"");
            options.problems().push(problem);
            return None;
        };
        variables.push((name, text));
    }
    if variables.len() > MAX_WORDS {
        options.problem("env", format!("{} has more than {MAX_WORDS} variables", table.what()), None);
        return None;
    }
    Some(variables)
}

/// Lines of JSON from a program of this machine, which can say more than a device: when it measured, units, bytes, and
/// why there is no value.
struct ProgramJson(SerialJson);

impl ByteDecoder for ProgramJson {
    fn feed(&mut self, bytes: &[u8], at: BootTime, out: &mut Vec<Decoded>) {
        let before = out.len();
        self.0.feed(bytes, at, out);
        for (at, outcome) in &mut out[before..] {
            if let Ok(samples) = outcome {
                let (measured, understood) = announced::understand(std::mem::take(samples), *at);
                (*at, *outcome) = (measured, understood);
            }
        }
    }

    fn end(&mut self, at: BootTime, out: &mut Vec<Decoded>) {
        // The last line may lack its newline.
        self.feed(b"\n", at, out);
    }

    fn takes_commands(&self) -> bool {
        true
    }

    fn cut(&mut self) {
        self.0.cut();
    }

    fn command(&mut self, command: &Command) -> Result<Outgoing, String> {
        self.0.command(command)
    }

    fn answers(&mut self) -> Vec<Answer> {
        self.0.answers()
    }
}

/// All that a program prints in one run, as bytes.
struct Output {
    content_type: Box<str>,
    bytes: Vec<u8>,
}

impl Output {
    fn new(content_type: Box<str>) -> Self {
        Self { content_type, bytes: Vec::new() }
    }
}

impl ByteDecoder for Output {
    fn feed(&mut self, bytes: &[u8], _at: BootTime, _out: &mut Vec<Decoded>) {
        // The sampler ends a program that prints more than `max_bytes`.
        self.bytes.extend_from_slice(bytes);
    }

    fn end(&mut self, at: BootTime, out: &mut Vec<Decoded>) {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            out.push((
                at,
                announced::bytes(content::WHOLE, bytes, Some(&self.content_type)).map(|sample| vec![sample]),
            ));
        }
    }
}
