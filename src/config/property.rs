//! Whatever stands in a configuration: it is taken, or every complaint about it can be shown. The twin of the fuzz
//! target `configuration`.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{Machine, from_text, render};
use crate::drivers::DRIVERS;

/// Every configuration that there is a golden message for.
static REAL: LazyLock<Vec<String>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut paths: Vec<_> = fs::read_dir(folder).expect("the folder is there").flatten().map(|it| it.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let text = |path| String::from_utf8_lossy(&fs::read(path).expect("it can be read")).into_owned();
    paths.iter().map(text).collect()
});

/// What a person, or a broken editor, might put somewhere.
const PIECES: &[&str] = &[
    "=",
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    ",",
    ".",
    "#",
    "\n",
    "\r",
    "\t",
    "\0",
    "é",
    "🐌",
    "\u{feff}",
    "\\u{110000}",
    "-1",
    "0",
    "1e400",
    "nan",
    "-inf",
    "true",
    "99999999999999999999",
    "\"0s\"",
    "\"99999999d\"",
    "[]",
    "{}",
    "[[sensor]]\n",
    "[sensor.quantity.x]\n",
    "[uplink.home]\n",
    "[outbox]\n",
    "[broker]\n",
    "[room.\"\"]\n",
    "name = ",
    "driver = \"serial-json\"\n",
    "every = ",
    "change = ",
    "url = \"mqtts://[::1\"\n",
    "topic = \"{\"\n",
    "bus = ",
];

#[derive(Clone, Debug)]
enum Edit {
    /// Puts something in.
    Insert(Index, String),
    /// Cuts so many bytes out.
    Cut(Index, usize),
    /// Repeats so many bytes at another place.
    Copy(Index, usize, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let text = prop_oneof![4 => select(PIECES).prop_map(str::to_owned), 1 => any::<String>()];
    prop_oneof![
        (any::<Index>(), text).prop_map(|(at, text)| Edit::Insert(at, text)),
        (any::<Index>(), 1_usize..40).prop_map(|(at, length)| Edit::Cut(at, length)),
        (any::<Index>(), 1_usize..200, any::<Index>()).prop_map(|(at, length, to)| Edit::Copy(at, length, to)),
    ]
}

fn apply(text: &mut String, edit: &Edit) {
    let place = |text: &str, at: &Index| text.floor_char_boundary(at.index(text.len() + 1));
    let end = |text: &str, start: usize, length: usize| text.floor_char_boundary((start + length).min(text.len()));
    match edit {
        Edit::Insert(at, piece) => text.insert_str(place(text, at), piece),
        Edit::Cut(at, length) => {
            let start = place(text, at);
            text.drain(start..end(text, start, *length));
        }
        Edit::Copy(at, length, to) => {
            let start = place(text, at);
            let piece = text[start..end(text, start, *length)].to_owned();
            text.insert_str(place(text, to), &piece);
        }
    }
}

fn check(text: &str) {
    let machine = Machine {
        hostname: "host".to_owned(),
        id: "1".to_owned(),
        state_dir: "/var/lib/vigie".into(),
        credentials: None,
        env: |_| None,
        has_broker: true,
        secrets: true,
    };
    if let Err(report) = from_text("vigie.toml", text, &machine, DRIVERS) {
        assert!(report.count() > 0);
        for coloured in [false, true] {
            assert!(!render(&report, coloured).is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_edited_configuration_is_taken_or_complained_about(
        which: Index,
        edits in prop::collection::vec(edit(), 1..12),
    ) {
        let mut text = which.get(&REAL[..]).clone();
        for edit in &edits {
            apply(&mut text, edit);
        }
        check(&text);
    }

    #[test]
    fn any_text_is_taken_or_complained_about(text: String) {
        check(&text);
    }
}
