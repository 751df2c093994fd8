//! Prevents: commands whose exit code or message a script or a person cannot rely on (0 fine, 1 failed, 2 wrong usage
//! or configuration).

use std::fs;
use std::path::Path;

use super::harness::command;

struct Output {
    code: i32,
    out: String,
    err: String,
}

/// Runs the program to its end in a folder.
#[track_caller]
fn vigie(args: &[&str], folder: &Path) -> Output {
    let output = command(args, folder).current_dir(folder).output().expect("vigie starts");
    Output {
        code: output.status.code().expect("it was not killed"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

const GOOD: &str = r#"
[clock]
trust = "always"
[hardware]
backend = "sim"
[uplink.home]
url = "mqtt://localhost:1"
[[sensor]]
name = "meteo"
driver = "bme280"
bus = 1
address = 0x76
[[sensor]]
name = "pi"
driver = "host"
topic_typo_goes_here = 1
"#;

fn folder(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("vigie.toml"), text).expect("a file");
    dir
}

fn good() -> String {
    GOOD.replace("topic_typo_goes_here = 1\n", "")
}

#[test]
fn check_accepts_a_good_configuration() {
    let dir = folder(&good());
    let output = vigie(&["check", "vigie.toml"], dir.path());
    assert_eq!((output.code, output.err.as_str()), (0, ""));
    assert!(output.out.contains("vigie.toml"), "{}", output.out);
}

#[test]
fn check_shows_every_fault_with_its_place() {
    let text = GOOD.replace("address", "adress").replace("mqtt://", "http://");
    let dir = folder(&text);
    let output = vigie(&["check", "vigie.toml"], dir.path());
    assert_eq!(output.code, 2);
    let line = |part: &str| text.lines().position(|line| line.contains(part)).expect("it is there") + 1;
    for part in ["http://", "adress", "topic_typo_goes_here"] {
        let place = format!("vigie.toml:{}:", line(part));
        assert!(output.err.contains(&place), "no {place} in\n{}", output.err);
    }
    assert!(output.err.contains("did you mean `address`"), "{}", output.err);
    assert!(output.err.contains('^'), "no caret in\n{}", output.err);
    assert!(!output.err.contains('\u{1b}'), "colours in a pipe");
}

#[test]
fn check_looks_at_each_file_and_fails_if_one_is_wrong() {
    let dir = folder(&good());
    fs::write(dir.path().join("wrong.toml"), "[gateway\n").expect("a file");
    let output = vigie(&["check", "wrong.toml", "vigie.toml"], dir.path());
    assert_eq!(output.code, 2);
    assert!(output.err.contains("wrong.toml:1:"), "{}", output.err);
    assert!(output.out.contains("vigie.toml"), "{}", output.out);
    let output = vigie(&["check", "absent.toml"], dir.path());
    assert_eq!(output.code, 2);
    assert!(output.err.contains("absent.toml"), "{}", output.err);
}

#[test]
fn run_and_once_refuse_a_wrong_configuration() {
    let dir = folder(GOOD);
    for args in [["run", "--config", "vigie.toml"], ["once", "--config", "vigie.toml"]] {
        let output = vigie(&args, dir.path());
        assert_eq!(output.code, 2, "{args:?}: {}", output.err);
        assert!(output.err.contains("topic_typo_goes_here"), "{}", output.err);
    }
}

#[test]
fn once_reads_every_sensor() {
    let dir = folder(&good());
    let output = vigie(&["once", "--config", "vigie.toml"], dir.path());
    assert_eq!(output.code, 0, "{}", output.err);
    for part in ["meteo", "temperature", "humidity", "pressure", "pi", "°C"] {
        assert!(output.out.contains(part), "no {part} in\n{}", output.out);
    }
}

#[test]
fn once_shows_a_broken_sensor_beside_the_others_and_fails() {
    // The simulated machine has one bus.
    let dir = folder(&good().replace("bus = 1", "bus = 2"));
    let output = vigie(&["once", "--config", "vigie.toml"], dir.path());
    assert_eq!(output.code, 1);
    let line = |name: &str| output.out.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(line("meteo").contains("i2c-2"), "{}", output.out);
    assert!(!line("pi").is_empty() && !line("pi").contains("FAULT"), "{}", output.out);
}

#[test]
fn drivers_are_listed_and_shown() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let list = vigie(&["drivers"], dir.path());
    assert_eq!(list.code, 0);
    for name in ["bme280", "gpio-input", "host", "serial-json"] {
        assert!(list.out.contains(name), "no {name} in\n{}", list.out);
        let one = vigie(&["drivers", name], dir.path());
        assert_eq!(one.code, 0);
        assert!(one.out.contains("[[sensor]]") && one.out.contains(&format!("driver = \"{name}\"")), "{}", one.out);
    }
    let unknown = vigie(&["drivers", "bme28"], dir.path());
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("bme280"), "{}", unknown.err);
}

#[test]
fn wrong_usage_is_told_apart() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(vigie(&["chekc"], dir.path()).code, 2);
    assert_eq!(vigie(&["check"], dir.path()).code, 2);
    assert_eq!(vigie(&["run", "--config", "absent.toml"], dir.path()).code, 2);
    let version = vigie(&["-V"], dir.path());
    assert_eq!((version.code, version.out.trim()), (0, concat!("vigie ", env!("CARGO_PKG_VERSION"))));
    let build = vigie(&["--version"], dir.path());
    let lines: Vec<&str> = build.out.lines().collect();
    assert_eq!(lines[0], version.out.trim());
    let named: Vec<_> = lines[1..].iter().map(|line| line.split_once(": ").expect("a name and a value")).collect();
    assert_eq!(named.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["commit", "target", "features"]);
    assert!(named.iter().all(|(_, value)| !value.is_empty()), "{}", build.out);
    assert!(named[1].1.contains("linux"), "{}", build.out);
    assert_eq!(vigie(&["--help"], dir.path()).code, 0);
}
