//! Prevents: an architecture that is true on paper only. What the design says about who may know whom, where unsafe
//! code and foreign crates may stand, and how long a file may be, is held against the sources themselves.

use std::fs;
use std::path::{Path, PathBuf};

/// Direction of knowledge: each module of `src/` with the modules that it may name as `crate::…`. `agent` wires
/// everything and `cli` starts it, so nobody else may name those two.
const KNOWS: &[(&str, &[&str])] = &[
    (
        "agent",
        &[
            "archive", "broker", "clock", "command", "config", "control", "drivers", "hardware", "logging", "offer",
            "outbox", "pipeline", "reading", "sampler", "service", "state", "targets", "topic", "uplink",
        ],
    ),
    ("archive", &["clock", "outbox", "reading"]),
    ("backup", &["archive", "clock", "config", "outbox"]),
    // Tokens are valid for a time.
    ("broker", &["clock", "config", "logging::AUDIT", "offer", "topic::filter", "websocket"]),
    (
        "cli",
        &[
            "agent",
            "archive",
            "backup",
            "broker::authority",
            "broker::snapshot",
            "broker::users",
            "clock",
            "config",
            "control",
            "drivers",
            "export",
            "guard",
            "hardware",
            "logging",
            "options",
            "outbox",
            "pipeline",
            "reading",
            "sampler",
            "scan",
            "topic",
            "uplink::dating",
        ],
    ),
    // Asking the kernel about its clock is a system call of ours.
    ("clock", &["hardware::adjtimex"]),
    ("command", &["clock::BootTime"]),
    ("config", &["clock", "drivers", "hardware", "options", "pipeline", "reading", "targets", "template", "topic"]),
    ("control", &["archive", "clock", "config", "export", "logging::AUDIT", "outbox", "sampler::remote", "uplink"]),
    ("drivers", &["clock", "command", "hardware", "options", "reading", "topic"]),
    ("export", &["clock", "outbox", "reading", "uplink::dating"]),
    ("guard", &[]),
    ("hardware", &["clock", "reading"]),
    ("logging", &[]),
    ("offer", &[]),
    ("options", &[]),
    ("outbox", &["clock", "reading", "state"]),
    // Time is an argument: the type of a boot time, not a clock.
    ("pipeline", &["clock::BootTime", "options", "reading"]),
    ("reading", &["clock::BootTime"]),
    ("sampler", &["clock", "command", "drivers", "guard", "hardware", "reading"]),
    ("scan", &["drivers", "hardware", "reading"]),
    ("service", &[]),
    ("state", &[]),
    ("targets", &["reading"]),
    ("template", &[]),
    ("topic", &["reading"]),
    (
        "uplink",
        &["clock", "command", "config", "logging::AUDIT", "outbox", "reading", "template", "topic", "websocket"],
    ),
    ("websocket", &[]),
];

/// Words that only the named modules may use: crates and facts that the others must know nothing of.
const ONLY: &[(&str, &[&str])] = &[
    ("rmqtt::", &["broker"]),
    ("rumqttc::", &["uplink", "broker"]),
    ("gpiocdev::", &["hardware"]),
    ("linux_embedded_hal::", &["hardware"]),
    ("::rppal::", &["hardware"]),
    ("tokio::", &["agent", "broker", "cli", "control", "guard", "hardware", "offer", "sampler", "uplink", "websocket"]),
    ("SystemTime", &["agent", "broker", "cli", "clock", "sampler", "uplink"]),
    ("Instant::now", &["agent", "broker", "cli", "guard", "hardware", "logging", "sampler", "uplink"]),
];

/// A file that is longer has more than one job.
const MAX_LINES: usize = 600;

/// What no file may contain, and why. Written in two parts, so that this file does not contain them.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("#[ign", "ore", "a test that does not run proves nothing"),
    ("tod", "o!(", "finish it, or leave it out"),
    ("unimple", "mented!(", "finish it, or leave it out"),
    ("/wo", "rk/", "a path of one machine"),
    ("../sha", "red", "a path of one machine"),
    ("/ro", "ot/", "a path of one machine"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All text files of the repository below `folder`, but what is built and what belongs to git.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder of the repository").flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name == ".git" || name == "target" {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Name relative to the repository, and content.
fn texts(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&root().join(folder), &mut found);
    let name = |path: &Path| path.strip_prefix(root()).expect("below the root").display().to_string();
    found.iter().filter_map(|path| Some((name(path), fs::read_to_string(path).ok()?))).collect()
}

/// A source file: its name, its module, and its lines with their numbers.
type Source = (String, String, Vec<(usize, String)>);

/// The sources without comments and without unit tests, which may know more than their module.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for (name, text) in texts("src") {
        let path = name.strip_prefix("src/").expect("below src");
        let module = path.split(['/', '.']).next().expect("a first part").to_owned();
        if is_test_file(path) {
            continue;
        }
        let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        let code = text[..tests].lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        let lines = code.map(|(index, line)| (index + 1, line.to_owned())).collect();
        sources.push((name, module, lines));
    }
    assert!(sources.len() > 10, "the sources were found");
    sources
}

/// A file that its parent declares under `#[cfg(test)]`, or one below such a file.
fn is_test_file(path: &str) -> bool {
    let Some((folder, file)) = path.rsplit_once('/') else { return false };
    let stem = file.trim_end_matches(".rs");
    let parent = format!("{folder}.rs");
    let text = fs::read_to_string(root().join("src").join(&parent)).unwrap_or_default();
    let declared = |prefix: &str| text.contains(&format!("#[cfg(test)]\n{prefix}mod {stem};"));
    declared("") || declared("pub(crate) ") || declared("pub(super) ") || is_test_file(&parent)
}

/// The paths below `crate::` in a line: `crate::clock::BootTime` gives `clock::BootTime`.
fn crate_paths(line: &str) -> Vec<&str> {
    let word = |character: char| character.is_alphanumeric() || character == '_' || character == ':';
    let start = |rest: &str| !rest.ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$');
    line.match_indices("crate::")
        .filter(|(at, _)| start(&line[..*at]))
        .map(|(at, prefix)| {
            let rest = &line[at + prefix.len()..];
            &rest[..rest.find(|character| !word(character)).unwrap_or(rest.len())]
        })
        .collect()
}

/// May this path be named where `allowed` may? `clock` allows all below it, `clock::BootTime` that one.
fn allows(allowed: &[&str], path: &str, line: &str) -> bool {
    allowed.iter().any(|entry| match entry.split_once("::") {
        None => path.split("::").next() == Some(entry),
        // Grouped: `use crate::clock::{BootTime}` is to be written without braces.
        Some(_) => path.starts_with(entry) && !line.contains('{') || path == *entry,
    })
}

#[test]
fn knowledge_has_a_direction() {
    let mut wrong = Vec::new();
    for (name, module, lines) in sources() {
        if name == "src/lib.rs" || name == "src/main.rs" {
            continue;
        }
        let Some((_, allowed)) = KNOWS.iter().find(|(known, _)| *known == module) else {
            wrong.push(format!("{name}: the module `{module}` is not in the table: say what it may know"));
            continue;
        };
        for (number, line) in lines {
            if line.contains("crate::{") {
                wrong.push(format!("{name}:{number}: one `use` a module, so that this test can read it"));
            }
            for path in crate_paths(&line) {
                let own = path.split("::").next() == Some(module.as_str());
                // Macros and the test module of the crate itself have no path.
                if !path.is_empty() && !own && !allows(allowed, path, &line) {
                    wrong.push(format!("{name}:{number}: `{module}` may not know `crate::{path}`"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_drivers_share_knows_no_driver() {
    let mut wrong = Vec::new();
    for (name, _, lines) in sources() {
        if !name.starts_with("src/drivers/support") {
            continue;
        }
        for (number, line) in lines {
            let below = line.split("crate::drivers::").nth(1).or_else(|| line.split("super::super::").nth(1));
            // The types of `src/drivers.rs` begin with a capital, drivers' modules do not.
            let module = below.map(|rest| rest.trim_start_matches('{'));
            if let Some(module) = module.filter(|rest| rest.starts_with(char::is_lowercase))
                && !module.starts_with("support")
            {
                wrong.push(format!("{name}:{number}: what drivers share may not know one of them"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_table_names_only_modules_that_exist() {
    for (module, allowed) in KNOWS {
        for name in std::iter::once(module).chain(*allowed) {
            let first = name.split("::").next().expect("a first part");
            assert!(root().join(format!("src/{first}.rs")).exists(), "no module `{first}`");
        }
    }
}

#[test]
fn crates_and_clocks_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for (name, module, lines) in sources() {
        for (number, line) in lines {
            for (word, allowed) in ONLY {
                let found = line.match_indices(word).any(|(at, _)| {
                    !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
                });
                if found && !allowed.contains(&module.as_str()) {
                    wrong.push(format!("{name}:{number}: `{module}` may not use `{word}`"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_has_its_places() {
    let places = ["src/hardware/adjtimex.rs", "src/hardware/linux/tty.rs"];
    let (allow, block) = (concat!("allow(uns", "afe_code)"), concat!("uns", "afe {"));
    let mut with: Vec<String> = Vec::new();
    for folder in ["src", "tests", "benches"] {
        if root().join(folder).exists() {
            let has = |text: &str| text.contains(allow) || text.contains(block);
            with.extend(texts(folder).into_iter().filter(|(_, text)| has(text)).map(|(name, _)| name));
        }
    }
    assert_eq!(with, places);
}

#[test]
fn files_are_small() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for (name, text) in if root().join(folder).exists() { texts(folder) } else { Vec::new() } {
            let lines = text.lines().count();
            if name.ends_with(".rs") && lines > MAX_LINES {
                wrong.push(format!("{name} has {lines} lines: split it"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn nothing_forbidden_is_committed() {
    let mut wrong = Vec::new();
    for (name, text) in texts(".") {
        for (number, line) in text.lines().enumerate() {
            for (first, second, why) in FORBIDDEN {
                if line.contains(&format!("{first}{second}")) {
                    wrong.push(format!("{name}:{}: `{first}{second}`: {why}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
