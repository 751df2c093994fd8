//! What a backup that was written holds, and what becomes of one that was spoilt or made up.

use std::fs;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::owner::Owner;
use super::*;
use crate::clock::{BootId, BootTime};
use crate::config::{Config, Machine, from_text};
use crate::drivers::DRIVERS;

fn head() -> Head {
    Head {
        format: FORMAT,
        vigie: "0.1.0".to_owned(),
        made: "2026-11-21T10:15:30Z".to_owned(),
        gateway: "atelier".to_owned(),
        board: Some("10000000aa".to_owned()),
        parts: Part::ALL.to_vec(),
        secrets: false,
        left_out: vec![PathBuf::from("/etc/vigie/users")],
    }
}

/// A backup of these files.
fn written(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &head(), 0).expect("a backup");
    for (name, bytes) in files {
        let item = Item::parse(name).expect(name);
        writer.add(&item, &Owner::default(), 0o640, bytes.len() as u64, *bytes).expect(name);
    }
    writer.finish().expect("a backup")
}

/// An archive of whatever is asked for, with its checksums.
fn made_up(files: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut sums = String::new();
    let text = serde_json::to_vec(&head()).expect("a head");
    let mut put = |name: &str, kind: EntryType, bytes: &[u8], sums: &mut String| {
        let mut header = Header::new_ustar();
        // As it is: `set_path` would refuse what leads out.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append(&header, bytes).expect("an entry");
        let sum = ring::digest::digest(&ring::digest::SHA256, bytes);
        sums.push_str(&format!("{}  {name}\n", data_encoding::HEXLOWER.encode(sum.as_ref())));
    };
    put(HEAD, EntryType::Regular, &text, &mut sums);
    for (name, kind, bytes) in files {
        put(name, *kind, bytes, &mut sums);
    }
    let all = sums.clone();
    put(SUMS, EntryType::Regular, all.as_bytes(), &mut sums);
    tar.into_inner().expect("an archive").finish().expect("an archive")
}

const FILES: [(&str, &[u8]); 4] = [
    ("configuration/vigie.toml", b"[broker]\n"),
    ("configuration/vigie.d/salon.toml", b"# nothing\n"),
    ("outbox/refused/one", b"a message"),
    ("archive/archive-000000000001", b""),
];

#[test]
fn what_was_written_is_read() {
    let backup = written(&FILES);
    let contents = check(backup.as_slice()).expect("a whole backup");
    assert_eq!(contents.head, head());
    let names: Vec<String> = contents.items.iter().map(|(item, _)| item.to_string()).collect();
    assert_eq!(names, FILES.map(|(name, _)| name));
    assert_eq!(
        contents.configuration,
        [(Item::Main, "[broker]\n".to_owned()), (Item::Fragment("salon.toml".to_owned()), "# nothing\n".to_owned())]
    );
    assert!(contents.has(Part::Archive) && !contents.has(Part::Broker));
    let mut read = Vec::new();
    extract(backup.as_slice(), |item, bytes, mode, _| {
        let mut text = Vec::new();
        bytes.read_to_end(&mut text)?;
        assert_eq!(mode, 0o640);
        read.push((item.to_string(), text));
        Ok(())
    })
    .expect("a whole backup");
    assert_eq!(read, FILES.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())));
}

#[test]
fn a_file_that_grows_or_shrinks_meanwhile_spoils_nothing_unnoticed() {
    let mut writer = Writer::new(Vec::new(), &head(), 0).expect("a backup");
    let item = Item::parse("outbox/segment-000000000001").expect("a name");
    writer.add(&item, &Owner::default(), 0o600, 3, &b"abcdef"[..]).expect("the beginning");
    let why = writer.add(&item, &Owner::default(), 0o600, 9, &b"abcdef"[..]).expect_err("too short");
    assert!(why.to_string().contains("became shorter"), "{why}");
}

#[test]
fn a_backup_that_is_cut_off_anywhere_is_refused() {
    let backup = written(&FILES);
    for length in 0..backup.len() {
        check(&backup[..length]).expect_err("it is not whole");
    }
}

#[test]
fn what_is_no_plain_file_of_ours_is_refused() {
    for (name, kind, why) in [
        ("../vigie.toml", EntryType::Regular, "does not belong"),
        ("/etc/passwd", EntryType::Regular, "does not belong"),
        ("beside/../../etc/passwd", EntryType::Regular, "does not belong"),
        ("outbox/segment-000000000001", EntryType::Symlink, "not a plain file"),
        ("beside/tls", EntryType::Directory, "not a plain file"),
        ("broker/store", EntryType::Char, "not a plain file"),
        ("broker/store", EntryType::GNULongName, "not a plain file"),
        ("outbox/refused/\u{1b}[2J", EntryType::Regular, "\\u{1b}"),
    ] {
        let said = check(made_up(&[(name, kind, b"x")]).as_slice()).expect_err(name).to_string();
        assert!(said.contains(why), "{name}: {said}");
    }
    let twice = ("broker/store", EntryType::Regular, &b"x"[..]);
    let said = check(made_up(&[twice, twice]).as_slice()).expect_err("twice").to_string();
    assert!(said.contains("twice"), "{said}");
    check(made_up(&[twice]).as_slice()).expect("it is fine otherwise");
}

#[test]
fn a_newer_format_is_refused_whatever_it_says() {
    let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = Header::new_ustar();
    header.set_path(HEAD).expect("a name");
    let text = b"{\"format\":2,\"of\":\"another kind\"}";
    header.set_size(text.len() as u64);
    header.set_cksum();
    tar.append(&header, &text[..]).expect("an entry");
    let backup = tar.into_inner().expect("an archive").finish().expect("an archive");
    assert!(matches!(check(backup.as_slice()), Err(Unusable::Newer(2))));
}

struct Gateway(tempfile::TempDir);

impl Gateway {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> Config {
        let text = format!(
            "[gateway]\nname = \"atelier\"\n[uplink.a]\nurl = \"mqtt://a\"\n[outbox]\npath = \"{0}/outbox\"\n\
             tail = \"{0}/tail\"\n[archive]\npath = \"{0}/archive\"\n",
            self.0.path().display()
        );
        from_text("vigie.toml", &text, &Machine::this(), DRIVERS).expect("a configuration")
    }

    fn restore(&self, backup: &[u8], force: bool) -> Result<Brought, Refusal> {
        self.restore_as(backup, force, false)
    }

    fn restore_as(&self, backup: &[u8], force: bool, adopt: bool) -> Result<Brought, Refusal> {
        let contents = check(backup)?;
        Restore {
            config_path: &self.path("etc/vigie.toml"),
            config: &self.config(),
            tails: &[self.path("tail")],
            parts: &Part::ALL,
            force,
            adopt,
            now: (BootId::current().expect("a boot id"), BootTime(1)),
            renew: Ok,
        }
        .run(&contents, backup)
    }
}

/// All files and folders below one, but links' ends.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(tree(&entry.path()));
        }
    }
    found
}

#[test]
fn what_is_there_stays_unless_it_may_be_set_aside() {
    let gateway = Gateway::new();
    let backup = written(&FILES);
    fs::create_dir_all(gateway.path("etc/vigie.d")).expect("a folder");
    fs::write(gateway.path("etc/vigie.d/old.toml"), "# old").expect("a file");
    fs::write(gateway.path("etc/other"), "somebody else's").expect("a file");
    let before = tree(&gateway.path("etc"));
    let refusal = gateway.restore(&backup, false).expect_err("a fragment is there");
    assert!(matches!(&refusal, Refusal::Exists(found) if found[0].ends_with("old.toml")), "{refusal}");
    assert_eq!(tree(&gateway.path("etc")), before);

    let brought = gateway.restore(&backup, true).expect("a restored gateway");
    assert_eq!(brought.aside, [gateway.path("etc/before-restore-1")]);
    let text = |name: &str| fs::read_to_string(gateway.path(name)).expect(name);
    assert_eq!(text("etc/before-restore-1/vigie.d/old.toml"), "# old");
    assert_eq!(text("etc/vigie.toml"), "[broker]\n");
    assert_eq!(text("etc/vigie.d/salon.toml"), "# nothing\n");
    assert_eq!(text("etc/other"), "somebody else's");
    assert_eq!(text("outbox/refused/one"), "a message");
    assert!(!gateway.path("etc/vigie.d/old.toml").exists() && gateway.path("archive/archive-000000000001").exists());
    assert!(!tree(&gateway.path("")).iter().any(|path| path.ends_with("restored.new")));

    gateway.restore(&backup, true).expect("a restored gateway, again");
    assert_eq!(text("etc/before-restore-2/vigie.toml"), "[broker]\n");
}

#[test]
fn the_outbox_stays_that_of_its_board_unless_this_one_takes_its_place() {
    let backup = written(&[("outbox/board", b"10000000aa\n")]);
    for adopt in [false, true] {
        let gateway = Gateway::new();
        gateway.restore_as(&backup, false, adopt).expect("a restored gateway");
        assert_eq!(gateway.path("outbox/board").exists(), !adopt);
        assert!(gateway.path("outbox/state-0").exists() || gateway.path("outbox/state-1").exists());
    }
}

#[test]
fn a_link_leads_nobody_out_of_the_configuration() {
    let gateway = Gateway::new();
    fs::create_dir_all(gateway.path("etc")).expect("a folder");
    fs::create_dir_all(gateway.path("elsewhere")).expect("a folder");
    std::os::unix::fs::symlink(gateway.path("elsewhere"), gateway.path("etc/tls")).expect("a link");
    let backup = written(&[("configuration/vigie.toml", b"[broker]\n"), ("beside/tls/server.key", b"key")]);
    let refusal = gateway.restore(&backup, true).expect_err("it leads out");
    assert!(refusal.to_string().contains("leads out of"), "{refusal}");
    assert!(tree(&gateway.path("elsewhere")).is_empty() && !gateway.path("etc/vigie.toml").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever bytes are changed, a backup is refused or says the same.
    #[test]
    fn damage_is_noticed(at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut backup = written(&FILES);
        let whole = check(backup.as_slice()).expect("a whole backup");
        let at = at.index(backup.len());
        backup[at] ^= with;
        if let Ok(contents) = check(backup.as_slice()) {
            // The header of the compression has bytes that mean nothing to anybody.
            prop_assert_eq!(contents.items, whole.items);
            prop_assert_eq!(contents.configuration, whole.configuration);
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), packed in any::<bool>()) {
        use std::io::Write;
        let bytes = if packed {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(&bytes).expect("memory");
            gzip.finish().expect("memory")
        } else {
            bytes
        };
        prop_assert!(check(bytes.as_slice()).is_err());
    }

    /// Whatever names a made-up backup has: nothing appears outside of the folders that it is for.
    #[test]
    fn nothing_is_written_outside(names in prop::collection::vec(
        "(configuration|beside|outbox|archive|broker)?(/(vigie\\.d|tail|refused|tls|\\.|\\.\\.|etc|[a-z]{1,4})){0,4}/(vigie\\.toml|x\\.toml|x|\\.\\.|board|store|state-0|archive-000000000001)", 1..4,
    )) {
        let gateway = Gateway::new();
        let files: Vec<(&str, EntryType, &[u8])> =
            names.iter().map(|name| (name.as_str(), EntryType::Regular, &b"x"[..])).collect();
        let restored = gateway.restore(&made_up(&files), true);
        let places = ["etc", "outbox", "archive"].map(|name| gateway.path(name));
        for path in tree(&gateway.path("")) {
            prop_assert!(places.iter().any(|place| path.starts_with(place)), "{}", path.display());
        }
        if names.iter().any(|name| name.contains("..")) {
            prop_assert!(restored.is_err());
        }
    }
}
