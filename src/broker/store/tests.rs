//! The store through crashes of the process and of the machine.

use proptest::prelude::*;

use super::*;

fn message(topic: &str, payload: &str) -> Message {
    Message {
        topic: topic.into(),
        payload: payload.to_owned().into(),
        qos: 1,
        from: "publisher".into(),
        properties: None,
    }
}

fn session(expiry: u32) -> Session {
    Session {
        level: 4,
        user: Some("anna".into()),
        gateway: false,
        expiry,
        receive_max: None,
        created_at: 1,
        subscriptions: Vec::new(),
    }
}

fn waiting(client: &str) -> Waiting {
    Waiting { client: client.into(), qos: 1, retain: false, subscriptions: Vec::new() }
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self) -> Store {
        Store::open(&self.path("disk"), &self.path("memory"), 7, Instant::now()).unwrap()
    }

    /// After a power cut nothing is left of what was in memory.
    fn cut_power(&self) {
        std::fs::remove_dir_all(self.path("memory")).unwrap();
    }
}

fn flush(store: &mut Store, now: Instant, everything: bool) -> bool {
    let Some(job) = store.begin_flush(now, everything) else { return false };
    let result = job.run();
    store.finish_flush(&job, result, now);
    true
}

#[test]
fn a_tail_of_which_the_disk_has_everything_goes_at_the_end() {
    let home = Home::new();
    let mut store = home.open();
    let now = Instant::now();
    let files = || std::fs::read_dir(home.path("memory")).unwrap().count();
    store.retain("a".into(), Some(message("a", "1")), now);
    store.close();
    assert_eq!(files(), 1, "the disk does not have it");
    assert!(flush(&mut store, now, true));
    store.close();
    assert_eq!(files(), 0);
    // It goes on all the same.
    store.retain("b".into(), Some(message("b", "2")), now);
    assert!(flush(&mut store, now, true));
    drop(store);
    assert_eq!(home.open().retained().count(), 2);
}

#[test]
fn everything_survives_the_process_and_what_was_flushed_the_machine() {
    let home = Home::new();
    let mut store = home.open();
    let now = Instant::now();
    store.retain("a".into(), Some(message("a", "1")), now);
    store.put_session("c".into(), session(60), now);
    store.subscribe("c", "x/#", Subscription { qos: 1, v5: None }, now);
    let first = store.enqueue(message("x/1", "one"), vec![waiting("c")], now);
    assert!(flush(&mut store, now, true));
    let second = store.enqueue(message("x/2", "two"), vec![waiting("c")], now);
    store.retain("b".into(), Some(message("b", "2")), now);
    assert_eq!((first, second), (1, 2));
    drop(store);
    let store = home.open();
    assert_eq!(store.retained().count(), 2);
    assert_eq!(store.waiting_for("c").map(|(number, ..)| number).collect::<Vec<_>>(), [1, 2]);
    let (_, kept) = store.sessions().next().unwrap();
    assert_eq!(kept.subscriptions, [("x/#".into(), Subscription { qos: 1, v5: None })]);
    drop(store);
    home.cut_power();
    let store = home.open();
    assert_eq!(store.retained().count(), 1);
    assert_eq!(store.waiting_for("c").map(|(number, ..)| number).collect::<Vec<_>>(), [1]);
}

#[test]
fn what_comes_and_goes_between_two_flushes_is_never_written() {
    let home = Home::new();
    let mut store = home.open();
    let start = Instant::now();
    store.put_session("c".into(), session(60), start);
    flush(&mut store, start, true);
    let before = std::fs::metadata(home.path("disk/store")).unwrap().len();
    for second in 0..100 {
        let now = start + Duration::from_secs(second);
        let number = store.enqueue(message("x", "payload"), vec![waiting("c")], now);
        store.done(number, "c", now);
        assert_eq!(store.next_due(), None);
    }
    assert_eq!(std::fs::metadata(home.path("disk/store")).unwrap().len(), before);
}

#[test]
fn topics_that_change_often_are_written_together_once_in_a_while_and_sessions_sooner() {
    let home = Home::new();
    let mut store = home.open();
    let start = Instant::now();
    let mut flushes = 0;
    for tenth in 0..600 {
        let now = start + Duration::from_millis(100 * tenth);
        let topic = format!("t/{}", tenth % 20);
        store.retain(topic.as_str().into(), Some(message(&topic, &tenth.to_string())), now);
        flushes += u32::from(flush(&mut store, now, false));
    }
    assert_eq!(flushes, 5);
    let later = start + Duration::from_secs(60);
    store.put_session("c".into(), session(1), later);
    assert!(store.next_due() <= Some(later + FLUSH));
    assert!(flush(&mut store, later + FLUSH, false));
    let stored = std::fs::metadata(home.path("disk/store")).unwrap().len();
    assert!(stored < 6 * 20 * 100, "{stored}");
}

#[test]
fn a_message_that_is_delivered_while_it_is_written_is_gone_afterwards() {
    let home = Home::new();
    let mut store = home.open();
    let now = Instant::now();
    store.put_session("c".into(), session(60), now);
    let number = store.enqueue(message("x", "1"), vec![waiting("c")], now);
    let job = store.begin_flush(now, true).unwrap();
    store.done(number, "c", now);
    let result = job.run();
    store.finish_flush(&job, result, now);
    assert!(flush(&mut store, now, true), "the disk must hear of it");
    drop(store);
    home.cut_power();
    assert_eq!(home.open().waiting_for("c").count(), 0);
}

#[test]
fn a_flush_that_fails_is_repeated_and_nothing_is_lost() {
    let home = Home::new();
    let mut store = home.open();
    let now = Instant::now();
    store.retain("a".into(), Some(message("a", "1")), now);
    let job = store.begin_flush(now, true).unwrap();
    store.finish_flush(&job, Err(io::ErrorKind::StorageFull.into()), now);
    assert_eq!(store.stats().failures, 1);
    assert_eq!(store.next_due(), Some(now + RETRY.max(FLUSH_RETAINED)));
    assert!(flush(&mut store, now + RETRY + FLUSH_RETAINED, false));
    drop(store);
    home.cut_power();
    assert_eq!(home.open().retained().count(), 1);
}

#[test]
fn a_file_that_is_not_ours_is_put_aside() {
    let home = Home::new();
    std::fs::create_dir(home.path("disk")).unwrap();
    for damaged in [&b"something else"[..], b"vigie-b1____________", b"vigie-b2"] {
        std::fs::write(home.path("disk/store"), damaged).unwrap();
        let store = home.open();
        assert_eq!((store.stats().put_aside, store.retained().count()), (1, 0));
        assert_eq!(std::fs::read(home.path("disk/store.damaged")).unwrap(), damaged);
        drop(store);
        assert_eq!(home.open().stats().put_aside, 0, "the next start finds a good one");
    }
}

/// What is in a store whose file and tail both have something.
fn filled(home: &Home) -> Vec<Record> {
    let now = Instant::now();
    let mut store = home.open();
    store.retain("a".into(), Some(message("a", "on disk")), now);
    store.put_session("anna".into(), session(60), now);
    assert!(flush(&mut store, now, true));
    store.retain("b".into(), Some(message("b", "in memory")), now);
    store.enqueue(message("c", "waits"), vec![waiting("anna")], now);
    snapshot(&store)
}

#[test]
fn each_byte_of_each_file_can_be_spoilt_or_missing_and_the_start_goes_on() {
    let spoils: [fn(&mut Vec<u8>, usize); 3] =
        [|bytes, at| bytes[at] ^= 0x10, Vec::truncate, |bytes, at| bytes[at..].fill(0xa5)];
    let home = Home::new();
    let whole = filled(&home);
    let (file, tail) = (home.path("disk/store"), home.path("memory/broker-0000000000000007"));
    let good = [file.as_path(), &tail].map(|path| std::fs::read(path).unwrap());
    for (spoilt, path) in [&file, &tail].into_iter().enumerate() {
        for at in 0..good[spoilt].len() {
            for spoil in spoils {
                std::fs::write(&file, &good[0]).unwrap();
                std::fs::write(&tail, &good[1]).unwrap();
                let mut bytes = good[spoilt].clone();
                spoil(&mut bytes, at);
                std::fs::write(path, &bytes).unwrap();
                let store = home.open();
                let left = snapshot(&store);
                assert!(left.iter().all(|record| whole.contains(record)), "byte {at} of {path:?}: {left:?}");
                let is_told = store.stats().put_aside > 0;
                // What ends with a whole record looks as if there had never been more.
                assert!(is_told || bytes.len() == at || bytes == good[spoilt], "byte {at} of {path:?} is not told");
                drop(store);
                let again = home.open();
                assert_eq!((again.stats().put_aside, snapshot(&again)), (0, left), "the next start finds good ones");
            }
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_at_all_is_put_aside() {
    let home = Home::new();
    std::fs::create_dir_all(home.path("disk/store")).unwrap();
    assert_eq!(home.open().stats().put_aside, 1);
    assert!(home.path("disk/store.damaged").is_dir());
    assert_eq!(home.open().stats().put_aside, 0);
}

#[test]
fn the_file_is_written_anew_when_most_of_it_is_outdated() {
    let home = Home::new();
    let mut store = home.open();
    let mut now = Instant::now();
    let payload = "x".repeat(100_000);
    for _ in 0..100 {
        store.retain("a".into(), Some(message("a", &payload)), now);
        now += FLUSH_RETAINED;
        assert!(flush(&mut store, now, false));
        let length = std::fs::metadata(home.path("disk/store")).unwrap().len();
        assert!(length < SMALL_FILE + 200_000, "{length}");
    }
    drop(store);
    home.cut_power();
    assert_eq!(home.open().retained().count(), 1);
}

/// One thing that happens to a store.
#[derive(Clone, Debug)]
enum Step {
    Retain(u8, Option<u8>),
    Session(u8),
    End(u8),
    Subscribe(u8, u8),
    Unsubscribe(u8, u8),
    Enqueue(Vec<u8>),
    Done(u32, u8),
    Flush,
    FlushWhile(Box<Step>),
    FailedFlush,
    Kill,
    CutPower,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..4_u8;
    let change = prop_oneof![
        (id.clone(), proptest::option::of(any::<u8>())).prop_map(|(topic, value)| Step::Retain(topic, value)),
        id.clone().prop_map(Step::Session),
        id.clone().prop_map(Step::End),
        (id.clone(), id.clone()).prop_map(|(client, filter)| Step::Subscribe(client, filter)),
        (id.clone(), id.clone()).prop_map(|(client, filter)| Step::Unsubscribe(client, filter)),
        proptest::collection::vec(id.clone(), 1..3).prop_map(Step::Enqueue),
        (1..40_u32, id).prop_map(|(number, client)| Step::Done(number, client)),
    ];
    prop_oneof![
        8 => change.clone(),
        1 => Just(Step::Flush),
        1 => change.prop_map(|step| Step::FlushWhile(Box::new(step))),
        1 => Just(Step::FailedFlush),
        1 => Just(Step::Kill),
        1 => Just(Step::CutPower),
    ]
}

fn apply(store: &mut Store, step: &Step, now: Instant) {
    let name = |id: u8| format!("n{id}");
    match step {
        Step::Retain(topic, value) => {
            let topic = name(*topic);
            let retained = value.map(|value| message(&topic, &value.to_string()));
            store.retain(topic.into(), retained, now);
        }
        Step::Session(client) => store.put_session(name(*client).into(), session(60), now),
        Step::End(client) => store.end_session(&name(*client), now),
        Step::Subscribe(client, filter) => {
            store.subscribe(&name(*client), &name(*filter), Subscription { qos: 1, v5: None }, now);
        }
        Step::Unsubscribe(client, filter) => store.unsubscribe(&name(*client), &name(*filter), now),
        Step::Enqueue(clients) => {
            let known: BTreeSet<String> =
                clients.iter().map(|id| name(*id)).filter(|id| store.has_session(id)).collect();
            if !known.is_empty() {
                store.enqueue(message("x", "y"), known.iter().map(|id| waiting(id)).collect(), now);
            }
        }
        Step::Done(number, client) => store.done(*number, &name(*client), now),
        _ => unreachable!("only changes"),
    }
}

fn snapshot(store: &Store) -> Vec<Record> {
    store.state.keys().map(|key| store.state.record(&key)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// SIGKILL loses nothing; a power cut takes the store back to what the last flush wrote, never to anything else.
    #[test]
    fn it_is_what_it_was_whatever_happens(steps in proptest::collection::vec(step(), 1..120)) {
        let home = Home::new();
        let now = Instant::now();
        let mut store = home.open();
        let mut on_disk = snapshot(&store);
        for step in &steps {
            match step {
                Step::Flush => if flush(&mut store, now, true) { on_disk = snapshot(&store) },
                Step::FlushWhile(change) => match store.begin_flush(now, true) {
                    Some(job) => {
                        on_disk = snapshot(&store);
                        apply(&mut store, change, now);
                        let result = job.run();
                        store.finish_flush(&job, result, now);
                    }
                    None => apply(&mut store, change, now),
                },
                Step::FailedFlush => if let Some(job) = store.begin_flush(now, true) {
                    store.finish_flush(&job, Err(io::ErrorKind::StorageFull.into()), now);
                },
                Step::Kill => {
                    let before = snapshot(&store);
                    // A backup is as good as the files themselves, and needs no tail.
                    let taken = super::snapshot::take(&home.path("disk"), &[home.path("memory")]).unwrap().unwrap();
                    let other = Home::new();
                    std::fs::create_dir(other.path("disk")).unwrap();
                    std::fs::write(other.path("disk/store"), super::snapshot::renewed(taken, 8).unwrap()).unwrap();
                    prop_assert_eq!(&snapshot(&other.open()), &before);
                    prop_assert!(other.path("memory/broker-0000000000000008").exists());
                    drop(store);
                    store = home.open();
                    prop_assert_eq!(snapshot(&store), before);
                }
                Step::CutPower => {
                    drop(store);
                    home.cut_power();
                    store = home.open();
                    prop_assert_eq!(&snapshot(&store), &on_disk);
                }
                change => apply(&mut store, change, now),
            }
        }
    }

    #[test]
    fn any_bytes_are_read_as_far_as_they_are_good(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let home = Home::new();
        std::fs::create_dir(home.path("disk")).unwrap();
        std::fs::write(home.path("disk/store"), [&file::head(7)[..], &bytes].concat()).unwrap();
        std::fs::create_dir(home.path("memory")).unwrap();
        std::fs::write(home.path("memory/broker-0000000000000007"), &bytes).unwrap();
        let _ = home.open();
    }
}
