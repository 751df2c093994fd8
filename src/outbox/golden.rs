//! Small outboxes that were written by each format so far must be read for ever.
//!
//! `tests/outbox/format-N` holds the files, without the zeros at the end of segments. Those of the present format are
//! written anew with `UPDATE_FORMATS=1`; those of former ones cannot be, and must never change. Format 3 is format 2,
//! sealed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::frame::{SEALED_VERSION, VERSION};
use super::simulated::Simulated;
use super::tests::{body, descriptor, key, settings};
use super::*;

const BOOT: BootId = BootId([7; 16]);
const NOON: WallTime = WallTime(1_795_000_000_000_000_000);

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/outbox/format-{version}"))
}

fn open(disk: &Simulated, version: u32) -> (Outbox, Recovery) {
    let settings = Settings { key: (version == SEALED_VERSION).then(key), ..settings() };
    recovery::open(Arc::new(disk.clone()), settings, BOOT, BootTime(0)).expect("opens")
}

/// Where a file of that name lies.
fn place(name: &str) -> PathBuf {
    if name.starts_with("tail-") {
        tail::folder(&settings().tail_dir, &settings().dir).join(name)
    } else {
        settings().dir.join(name)
    }
}

/// The records of the golden outbox, from position 0 on; a text takes two.
fn records() -> Vec<Body> {
    let (meteo, cave) = (descriptor("meteo"), descriptor("cave"));
    let text = Body::Reading {
        descriptor: Arc::clone(&cave),
        values: vec![(0, Value::Text("été".into())), (1, Value::Switch(true))],
    };
    let raw = Body::Raw(Raw { topic: "a/b".into(), payload: vec![0, 255].into(), retain: true });
    (0..10).map(|number| body(&meteo, number)).chain([text, raw]).chain((12..20).map(|it| body(&cave, it))).collect()
}

fn write(disk: &Simulated, version: u32) {
    let (mut outbox, _) = open(disk, version);
    let (home, _) = (outbox.cursor("home"), outbox.cursor("cloud"));
    outbox.put_state("counter", Some(vec![1, 2, 3]));
    let (mut now, mut position) = (BootTime(5), 0);
    for (index, body) in records().into_iter().enumerate() {
        let time = (index % 2 == 0).then_some(NOON);
        position = outbox.append(now, time, body).end;
        if index == 14 {
            outbox.commit(now);
            outbox.ack(home, 2..5);
            outbox.persist_soon();
            now = now.after(Duration::from_secs(2));
            let job = outbox.begin_flush(now).expect("records wait");
            outbox.finish_flush(job.run(), now);
        }
    }
    outbox.commit(now);
    outbox.ack(home, 0..2);
    outbox.ack(home, position - 1..position);
    outbox.commit(now);
}

#[test]
fn every_format_so_far_is_read() {
    if std::env::var_os("UPDATE_FORMATS").is_some() {
        for version in [VERSION, SEALED_VERSION] {
            let disk = Simulated::new(Path::new("/run"));
            write(&disk, version);
            let folder = folder(version);
            fs::create_dir_all(&folder).expect("a folder");
            for path in disk.files(Path::new("/")) {
                let mut bytes = disk.contents(&path);
                bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
                fs::write(folder.join(path.file_name().expect("a name")), bytes).expect("written");
            }
        }
    }
    for version in 1..=SEALED_VERSION {
        let disk = Simulated::new(Path::new("/run"));
        for file in fs::read_dir(folder(version)).expect("the files of each format").flatten() {
            let bytes = fs::read(file.path()).expect("readable");
            disk.edit(&place(file.file_name().to_str().expect("ASCII")), |old| *old = bytes);
        }
        let (mut outbox, recovery) = open(&disk, version);
        assert_eq!((outbox.run(), recovery.set_aside.len(), recovery.run_counted), (2, 0, true), "format {version}");
        assert!(!recovery.state_lost && !recovery.tail_torn && recovery.tail_found, "format {version}: {recovery:?}");
        assert_eq!(outbox.state("counter"), Some(&[1, 2, 3][..]));
        let (home, cloud) = (outbox.cursor("home"), outbox.cursor("cloud"));
        assert_eq!((outbox.backlog(home), outbox.backlog(cloud)), (15, 21), "format {version}");
        let mut entries = Vec::new();
        outbox.read(cloud, 0, 100, &mut entries);
        let bodies: Vec<Body> = entries.iter().map(|entry| entry.body.clone()).collect();
        assert_eq!(bodies, records(), "format {version}");
        assert_eq!((entries[0].run, entries[0].boot, entries[0].at), (1, BOOT, BootTime(5)));
        assert_eq!((entries[0].time, entries[1].time), (Some(NOON), None));
        assert_eq!((outbox.stats().damage, outbox.stats().lost), (0, 0), "format {version}");
        // And it can be written on.
        outbox.append(BootTime(9), None, body(&descriptor("meteo"), 99));
        outbox.close(BootTime(9)).expect("closes");
        let (mut outbox, _) = open(&disk, version);
        let cloud = outbox.cursor("cloud");
        assert_eq!(outbox.backlog(cloud), 22);
    }
}
