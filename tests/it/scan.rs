//! Prevents: a scan whose output nobody has looked at, and sections from it that a configuration does not take.
//!
//! `UPDATE_GOLDEN=1` renews tests/scan/*.txt and *.toml.

use std::fs;
use std::path::Path;

use super::harness::command;

/// Runs `vigie` to its end in a folder; gives its output, and what it complained about.
#[track_caller]
fn vigie(args: &[&str], folder: &Path, code: i32) -> (String, String) {
    let output = command(args, folder).current_dir(folder).output().expect("vigie starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    (out, err)
}

#[track_caller]
fn assert_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scan").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, found).expect("written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} is not current (UPDATE_GOLDEN=1 renews it):\n{found}", path.display());
}

const HEAD: &str =
    "[clock]\ntrust = \"always\"\n[hardware]\nbackend = \"sim\"\n[uplink.home]\nurl = \"mqtt://localhost:1\"\n";

#[test]
fn the_simulated_machine_is_shown_as_a_table() {
    let dir = tempfile::tempdir().expect("a folder");
    let (table, complaints) = vigie(&["scan", "--sim"], dir.path(), 0);
    assert_eq!(complaints, "");
    assert_golden("sim.txt", &table);
}

#[test]
fn sections_are_taken_by_check_and_every_sensor_of_them_reads() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("head.toml"), HEAD).expect("a file");
    let (sections, _) = vigie(&["scan", "--toml", "--config", "head.toml"], dir.path(), 0);
    assert_golden("sim.toml", &sections);

    fs::write(dir.path().join("vigie.toml"), format!("{HEAD}\n{sections}")).expect("a file");
    let (checked, _) = vigie(&["check", "vigie.toml"], dir.path(), 0);
    assert!(checked.contains("fine"), "{checked}");
    vigie(&["once", "--config", "vigie.toml"], dir.path(), 0);

    // The guesses are good TOML, too, once their # is taken away.
    let guessed: String = sections
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect();
    fs::write(dir.path().join("vigie.toml"), format!("{HEAD}\n{guessed}")).expect("a file");
    vigie(&["check", "vigie.toml"], dir.path(), 0);
}

#[test]
fn this_machine_is_scanned_without_harm_whatever_it_has() {
    let dir = tempfile::tempdir().expect("a folder");
    // No bus is opened but one that no machine has, so that nothing of the machine's own is touched.
    let (table, complaints) = vigie(&["scan", "--bus", "251"], dir.path(), 0);
    assert!(table.starts_with("BY ") || table == "Nothing was found.\n", "{table}");
    assert!(complaints.contains("/dev/i2c-251"), "{complaints}");
}

#[test]
fn a_wrong_configuration_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, complaints) = vigie(&["scan", "--config", "absent.toml"], dir.path(), 2);
    assert!(complaints.contains("absent.toml"), "{complaints}");
}
