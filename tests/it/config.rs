//! What people see of a wrong configuration: every class of error, with its whole message.
//!
//! An error without place or remedy sends people searching; an error that hides another makes them start over again
//! and again; one that shows a password puts it into logs and bug reports. Each `tests/config/NAME.toml` (with
//! `NAME.d/` beside it where there are fragments) must give exactly `NAME.txt`; `UPDATE_GOLDEN=1` rewrites those.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use secrecy::ExposeSecret;
use vigie::clock::Trust;
use vigie::config::{self, Config, Connect, Machine, PayloadShape, Qos, Report, TlsConfig, Username};
use vigie::drivers::DRIVERS;
use vigie::hardware::Backend;

/// A machine that is the same everywhere, so that messages are.
fn machine() -> Machine {
    Machine {
        hostname: "raspberrypi".to_owned(),
        id: "10000000abcdef01".to_owned(),
        state_dir: PathBuf::from("/var/lib/vigie"),
        credentials: Some(PathBuf::from("tests/config/files/credentials")),
        env: |name| match name {
            "MQTT_PASSWORD" => Some(OsString::from("from the environment")),
            "EMPTY" => Some(OsString::new()),
            _ => None,
        },
        has_broker: true,
        secrets: true,
    }
}

fn load(path: &Path) -> Result<Config, Report> {
    config::load_on(path, &machine(), DRIVERS)
}

fn from_text(text: &str) -> Result<Config, Report> {
    config::from_text("test.toml", text, &machine(), DRIVERS)
}

/// Git keeps no more of a file's mode than whether it is executable.
fn set_modes() {
    for (path, mode) in
        [("open-secret", 0o644), ("secret", 0o600), ("key.pem", 0o600), ("empty", 0o600), ("short-key", 0o600)]
    {
        let path = Path::new("tests/config/files").join(path);
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a file that is there");
    }
}

/// The files in a folder that end in `.toml`, sorted.
fn cases(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder of cases").map(|entry| entry.expect("an entry").path());
    let mut cases: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    cases.sort();
    cases
}

#[test]
fn every_class_of_error_is_shown_as_it_should_be() {
    set_modes();
    let mut cases = cases("tests/config");
    // No error in such a build.
    cases.retain(|path| !(cfg!(feature = "rppal") && path.ends_with("build-without-rppal.toml")));
    assert!(cases.len() >= 25, "only {} cases", cases.len());
    compare(&cases, |case| load(case).err());
}

/// What is only warned of does not stop anything.
#[test]
fn warnings_are_shown_as_they_should_be() {
    let cases = cases("tests/config/warned");
    assert!(!cases.is_empty());
    compare(&cases, |case| load(case).map_err(|report| report.to_string()).expect("no errors").warnings);
    let warned = load(Path::new("tests/config/warned/targets.toml")).expect("no errors").warnings.expect("warnings");
    assert_eq!(warned.lines().count(), warned.count());
    let first = warned.lines().next().expect("one");
    assert!(first.starts_with("tests/config/warned/targets.toml:"), "{first}");
}

/// What is shown of each case against what its `.txt` has.
fn compare(cases: &[PathBuf], load: impl Fn(&Path) -> Option<Report>) {
    let mut wrong = Vec::new();
    for case in cases {
        let Some(report) = load(case) else {
            wrong.push(format!("{}: nothing to show", case.display()));
            continue;
        };
        let shown = config::render(&report, false);
        assert!(!shown.contains("hunter2"), "{}: shows a secret:\n{shown}", case.display());
        let expected = case.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &shown).expect("a writable folder");
        }
        let golden = fs::read_to_string(&expected).unwrap_or_default();
        if shown != golden {
            wrong.push(format!("{}: shows\n{shown}\n--- instead of\n{golden}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\n(if it is meant: UPDATE_GOLDEN=1)", wrong.join("\n\n"));
}

/// What is shown must not depend on whether somebody looks at it on a terminal, but for the colours.
#[test]
fn colours_change_nothing_but_the_colours() {
    let report = from_text("[uplink.a]\nurl = 1\n").expect_err("an error");
    let colored = config::render(&report, true);
    assert!(colored.contains('\u{1b}'));
    let mut plain = String::new();
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        // CSI sequences end with a letter, OSC 8 links with ESC and a backslash.
        rest = match after.strip_prefix(']') {
            Some(link) => link.split_once("\u{1b}\\").map_or("", |(_, after)| after),
            None => after.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, after)| after),
        };
    }
    plain.push_str(rest);
    assert_eq!(plain, config::render(&report, false));
}

#[test]
fn the_shipped_configurations_are_right() {
    let config = load(Path::new("config/vigie.toml")).map_err(|report| report.to_string()).expect("no errors");
    assert_eq!(config.sensors.len(), 1);
    let text = fs::read_to_string("config/demo.toml").expect("the demo");
    let mut demo = from_text(&text).map_err(|report| report.to_string()).expect("no errors");
    assert_eq!((demo.hardware.backend, demo.trust), (Backend::Sim, Trust::Always));
    let drivers: Vec<&str> = demo.sensors.iter().map(|sensor| sensor.driver.name).collect();
    assert_eq!(drivers, ["bme280", "gpio-input", "serial-json", "host"]);
    let broker = demo.broker.as_ref().expect("a broker");
    assert_eq!((broker.listeners.len(), broker.anonymous), (1, true));
    assert!(broker.own_topics.iter().any(|topic| topic.ends_with("/availability")), "{:?}", broker.own_topics);
    demo.reach_broker(([127, 0, 0, 1], 1999).into(), "vigie", &"secret".into());
    assert_eq!(demo.uplinks[0].urls[0].to_string(), "mqtt://127.0.0.1:1999");
    assert!(matches!(&demo.uplinks[0].username, Some(Username::Text(name)) if name == "vigie"));
}

/// The examples in comments must work too when they are taken out of the comments.
#[test]
fn the_commented_examples_are_right() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("vigie.d")).expect("a folder");
    fs::copy("config/vigie.d/arduino.toml.example", folder.path().join("vigie.d/arduino.toml")).expect("the example");
    for (file, from) in [("mqtt-password", "secret"), ("ca.pem", "ca.pem")] {
        let path = folder.path().join(file);
        fs::copy(Path::new("tests/config/files").join(from), &path).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a file that is there");
    }
    let text = fs::read_to_string("config/vigie.toml").expect("the example");
    let is_toml = |line: &&str| {
        let line = line.trim();
        line.starts_with('[')
            || line.starts_with('#')
            || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
    };
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(is_toml).unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let path = folder.path().join("vigie.toml");
    fs::write(&path, uncommented).expect("a writable folder");
    let config = load(&path).map_err(|report| report.to_string()).expect("no errors");
    assert_eq!(config.sensors.len(), 4);
    assert_eq!(config.uplinks.len(), 2);
}

#[test]
fn everything_that_is_left_out_has_its_default() {
    let config = from_text("[uplink.a]\nurl = \"mqtt://b\"\n").expect("no errors");
    assert_eq!(config.gateway.name, "raspberrypi");
    assert_eq!(config.gateway.id, "10000000abcdef01");
    assert_eq!(config.gateway.topic.to_string(), "{site}/{room}/{quantity}");
    assert_eq!((config.hardware.backend, config.trust), (Backend::Linux, Trust::Kernel));
    assert_eq!(config.outbox.path, Path::new("/var/lib/vigie/outbox"));
    assert_eq!((config.outbox.flush, config.outbox.tail), (Duration::from_secs(1), None));
    assert!(config.sensors.is_empty() && config.broker.is_none());
    let uplink = &config.uplinks[0];
    assert_eq!(uplink.urls[0].to_string(), "mqtt://b:1883");
    assert_eq!((uplink.client_id.as_str(), uplink.inflight), ("vigie-raspberrypi", 100));
    assert_eq!((uplink.qos, uplink.retain, uplink.payload.shape), (Qos::AtLeastOnce, true, PayloadShape::Quantity));
    assert_eq!((uplink.clock_wait, &uplink.tls), (Duration::from_secs(60), &TlsConfig::default()));
    assert_eq!((uplink.connect, uplink.failback), (Connect::Always, Duration::from_secs(180)));
}

#[test]
fn the_broker_brings_its_own_uplink() {
    let config = from_text("[broker]\nlisten = \"[::1]:1884\"\n").expect("no errors");
    let [uplink] = &config.uplinks[..] else { panic!("one uplink") };
    assert_eq!((uplink.name.as_str(), uplink.urls[0].to_string().as_str()), ("broker", "mqtt://[::1]:1884"));
    assert_eq!(uplink.clock_wait, Duration::ZERO);
}

#[test]
fn a_sensor_has_from_its_room_what_it_does_not_say_itself() {
    let config = from_text(
        "[broker]\n[gateway]\nsite = \"s\"\nlocation = { latitude = 1, longitude = 2 }\n\
         [room.a]\nlabel = \"A\"\nevery = \"5s\"\nheartbeat = \"1m\"\ntags = { x = \"1\", y = \"2\" }\n\
         location = { latitude = 3, longitude = 4 }\n\
         [[sensor]]\nname = \"one\"\nroom = \"a\"\ndriver = \"bme280\"\ntags = { y = \"3\" }\n\
         [[sensor]]\nname = \"two\"\ndriver = \"host\"\nevery = \"7s\"\n",
    )
    .map_err(|report| report.to_string())
    .expect("no errors");
    let [one, two] = &config.sensors[..] else { panic!("two sensors") };
    assert_eq!((one.every, one.pipeline.heartbeat), (Duration::from_secs(5), Some(Duration::from_secs(60))));
    assert_eq!(one.room_label.as_deref(), Some("A"));
    let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(one.tags, [tag("x", "1"), tag("y", "3")]);
    assert_eq!(one.location.map(|place| place.latitude.get()), Some(3.0));
    assert_eq!((two.every, two.room.as_deref()), (Duration::from_secs(7), None));
    assert_eq!(two.location.map(|place| place.latitude.get()), Some(1.0));
    assert_eq!(&*one.descriptor(&config.gateway).sensor, "one");
}

#[test]
fn a_hosts_own_fragment_is_read_there_alone_and_may_say_otherwise() {
    let folder = tempfile::tempdir().expect("a folder");
    let (main, fragments) = (folder.path().join("vigie.toml"), folder.path().join("vigie.d"));
    fs::create_dir(&fragments).expect("a folder");
    let sensor = |name: &str| format!("[[sensor]]\nname = \"{name}\"\nroom = \"{name}\"\ndriver = \"host\"\n");
    let write = |name: &str, text: String| fs::write(fragments.join(name), text).expect("a file");
    fs::write(&main, "[gateway]\nsite = \"college\"\n[uplink.home]\nurl = \"mqtt://a\"\n").expect("a file");
    // Sorted by name they would come the other way round.
    write("room.toml", format!("[gateway]\nlabel = \"A gateway\"\n{}", sensor("b")));
    write(
        "host-salle-12.toml",
        format!("gateway.label = \"Room 12\"\nuplink.home.url = \"mqtt://b\"\n{}", sensor("c")),
    );
    write("host-salle-13.toml", "gateway.site = \"elsewhere\"\n".to_owned());
    let on = |hostname: &str| {
        let machine = Machine { hostname: hostname.to_owned(), ..machine() };
        config::load_on(&main, &machine, DRIVERS).map_err(|report| report.to_string()).expect("no errors")
    };
    let summary = |config: &Config| {
        let sensors: Vec<&str> = config.sensors.iter().map(|sensor| sensor.name.as_str()).collect();
        let url = config.uplinks[0].urls[0].to_string();
        (config.gateway.name.clone(), config.gateway.site.clone(), config.gateway.label.clone(), url, sensors.join(" "))
    };
    let text = |text: &str| Some(text.to_owned());
    let salle_12 = on("Salle-12.lan");
    let expected =
        ("Salle-12.lan".to_owned(), text("college"), text("Room 12"), "mqtt://b:1883".to_owned(), "b c".to_owned());
    assert_eq!(summary(&salle_12), expected);
    assert_eq!(salle_12.files.replaced, ["gateway.label", "uplink.home.url"]);
    let path = |name: &str| fragments.join(name).display().to_string();
    assert_eq!(salle_12.files.fragments, [path("room.toml"), path("host-salle-12.toml")]);
    assert_eq!(salle_12.files.of_others, [path("host-salle-13.toml")]);
    // A host that nobody knows has what all have.
    let other = on("raspberrypi");
    let expected =
        ("raspberrypi".to_owned(), text("college"), text("A gateway"), "mqtt://a:1883".to_owned(), "b".to_owned());
    assert_eq!(summary(&other), expected);
    assert_eq!(other.files.of_others, [path("host-salle-12.toml"), path("host-salle-13.toml")]);
    assert_ne!(salle_12.hash, other.hash);
    // The command says so.
    let check = |host: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vigie"));
        let output = command.arg("check").arg(&main).args(["--host", host]).output().expect("vigie starts");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let (own, room, others) = (path("host-salle-12.toml"), path("room.toml"), path("host-salle-13.toml"));
    let expected = format!(
        "{}: fine (2 sensors, 1 uplink)\n  with {room}\n  with {own}\n  without {others}: this host is called \
         `salle-12`\n  gateway.label is this host's own\n  uplink.home.url is this host's own\n",
        main.display()
    );
    assert_eq!(check("salle-12"), expected);
    assert!(check("nobody").contains(&format!("without {own}: this host is called `nobody`")), "{}", check("nobody"));
}

#[test]
fn fragments_add_up_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vigie.toml");
    let fragments = folder.path().join("vigie.d");
    fs::create_dir(&fragments).expect("a folder");
    fs::write(&path, "[broker]\n[room.a]\nlabel = \"A\"\n[[sensor]]\nname = \"z\"\ndriver = \"host\"\n")
        .expect("a file");
    fs::write(fragments.join("20.toml"), "[[sensor]]\nname = \"c\"\nroom = \"c\"\ndriver = \"host\"\n")
        .expect("a file");
    fs::write(
        fragments.join("10.toml"),
        "[room.a]\nevery = \"9s\"\n[[sensor]]\nname = \"b\"\nroom = \"a\"\ndriver = \"host\"\n",
    )
    .expect("a file");
    fs::write(fragments.join("10.toml.bak"), "not TOML at all").expect("a file");
    let config = load(&path).map_err(|report| report.to_string()).expect("no errors");
    let names: Vec<&str> = config.sensors.iter().map(|sensor| sensor.name.as_str()).collect();
    assert_eq!(names, ["z", "b", "c"]);
    assert_eq!(config.sensors[1].room_label.as_deref(), Some("A"));
    assert_eq!(config.sensors[1].every, Duration::from_secs(9));
}

#[test]
fn a_configurations_hash_tells_it_from_another() {
    let one = from_text("[broker]\n").expect("no errors").hash;
    let other = from_text("[broker]\n\n").expect("no errors").hash;
    assert_eq!(one.len(), 8);
    assert_ne!(one, other);
}

#[test]
fn passwords_are_read_and_never_shown() {
    set_modes();
    for (from, password) in [
        ("{ credential = \"mqtt\" }", "from a credential"),
        ("{ file = \"tests/config/files/secret\" }", "hunter2"),
        ("{ env = \"MQTT_PASSWORD\" }", "from the environment"),
    ] {
        let text = format!("[uplink.a]\nurl = \"mqtts://b\"\nusername = \"pi\"\npassword = {from}\n");
        let config = from_text(&text).map_err(|report| report.to_string()).expect("no errors");
        let secret = config.uplinks[0].password.as_ref().expect("a password");
        assert_eq!(secret.read().expect("readable").expose_secret(), password);
        assert!(!format!("{config:?}").contains(password));
    }
}

/// People do write passwords into the file; the errors about that file must not repeat them, on any line.
#[test]
fn a_password_in_the_configuration_itself_is_not_shown() {
    for wrong in [
        "password = \"hunter2\"",
        "password = \"hunter2",
        "password = hunter2",
        "passwort = \"hunter2\"",
        "password = { value = \"hunter2\" }",
        "password = [\"hunter2\"]",
        "password = \"\"\"\nhunter2\"\"\"\nqos = 7",
        "url = \"mqtt://pi:hunter2@b\"",
    ] {
        let report = from_text(&format!("[uplink.a]\n{wrong}\n")).expect_err("an error");
        for shown in [config::render(&report, false), config::render(&report, true), format!("{report:?}")] {
            assert!(!shown.contains("hunter2"), "{wrong} is shown:\n{shown}");
        }
    }
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str) {
        match from_text(text) {
            Ok(config) => drop(format!("{config:?}")),
            Err(report) => {
                let shown = config::render(&report, false);
                assert!(report.count() > 0 && shown.contains("error"), "{shown}");
                drop(config::render(&report, true));
            }
        }
    }

    const HEADERS: [&str; 14] = [
        "[gateway]",
        "[clock]",
        "[hardware]",
        "[outbox]",
        "[uplink.a]",
        "[uplink.b]",
        "[uplink.broker]",
        "[room.a]",
        "[[sensor]]",
        "[sensor.quantity.temperature]",
        "[sensor.change]",
        "[broker]",
        "[uplink.a.tls]",
        "[unknown]",
    ];

    const VALUES: [&str; 26] = [
        "\"a\"",
        "\"mqtt://b\"",
        "\"mqtts://b\"",
        "\"bme280\"",
        "\"gpio-input\"",
        "\"serial-json\"",
        "\"host\"",
        "\"10s\"",
        "\"{sensor}/é\"",
        "\"\\u0000\\u001b[31m\"",
        "\"\"",
        "0",
        "1",
        "-1",
        "0x76",
        "0.5",
        "nan",
        "9223372036854775807",
        "true",
        "1979-05-27T07:32:00Z",
        "[1, \"a\"]",
        "[]",
        "{}",
        "[{ median = 5 }, { aggregate = \"1m\" }, { round = 300 }, { expression = \"x(\" }, { delta = {} }]",
        "{ temperature = [{ clamp = { min = 1 } }, { hysteresis = { upper = 1, lower = 0 } }, { min = 3 }], a = 1 }",
        "{ latitude = 91, longitude = 0, relative = 0.5, temperature = 1, file = \"/\", env = \"A\" }",
    ];

    /// A key of any table or driver.
    fn any_key() -> impl Strategy<Value = String> {
        let mut keys: Vec<String> =
            config::SECTIONS.iter().flat_map(|section| section.keys.iter().map(|key| key.name.to_owned())).collect();
        keys.extend(DRIVERS.iter().flat_map(|driver| driver.options.iter().map(|option| option.name.to_owned())));
        keys.extend(["nmae".to_owned(), "temperature".to_owned()]);
        prop::sample::select(keys)
    }

    proptest! {
        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            check(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn text_never_panics(text in "[a-z=\\[\\]{}\"'.#\\\\ \\r\\n\\tépaswordé0-9:/@-]{0,200}") {
            check(&text);
        }

        #[test]
        fn toml_never_panics(
            tables in prop::collection::vec(
                (prop::sample::select(&HEADERS[..]), prop::collection::btree_map(any_key(), prop::sample::select(&VALUES[..]), 0..8)),
                0..8,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut text = String::new();
            for (header, keys) in tables {
                text.push_str(header);
                for (key, value) in keys {
                    text.push_str(&format!("\n{key} = {value}"));
                }
                text.push('\n');
            }
            check(&text);
            // And what is left when a write was interrupted.
            let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            if !boundaries.is_empty() {
                check(&text[..*cut.get(&boundaries)]);
            }
        }
    }

    #[test]
    fn a_file_of_any_bytes_never_panics() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vigie.toml");
        for bytes in [&b"\xff"[..], b"a = \"\xc3\"", b"\xef\xbb\xbf[broker]", b"[broker]\r\n\0", b"", b"\xe2\x82"] {
            fs::write(&path, bytes).expect("a file");
            if let Err(report) = load(&path) {
                drop(config::render(&report, true));
            }
        }
        assert!(load(folder.path()).is_err());
        assert!(load(Path::new("")).is_err());
    }
}
