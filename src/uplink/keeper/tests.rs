use std::time::UNIX_EPOCH;

use rumqttc::mqttbytes::v4::Packet;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::clock::Clock;
use crate::config::Qos;
use crate::uplink::known_time::CertificateTime;
use crate::uplink::scripted::{Peer, Setup, any_port, config, numbers, run, texts};
use crate::uplink::status;

/// Waits of these tests end by what happens; this only ends a broken one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Listens for so many brokers, and names them in the configuration.
async fn brokers(setup: &mut Setup, count: usize) -> Vec<TcpListener> {
    let mut listeners = Vec::new();
    setup.config.urls.clear();
    for _ in 0..count {
        let listener = TcpListener::bind(any_port()).await.expect("a port");
        setup.config.urls.push(BrokerUrl::of(listener.local_addr().expect("bound")));
        listeners.push(listener);
    }
    listeners
}

async fn accept(listener: &TcpListener) -> Peer<TcpStream> {
    Peer::new(listener.accept().await.expect("a connection").0)
}

/// Runs the uplink against what the brokers do, until they have told it to stop.
async fn serve(setup: &Setup, script: impl AsyncFnOnce(&watch::Sender<Option<BootTime>>)) {
    let (tell, stop) = watch::channel(None);
    let task = crate::uplink::run(setup.config.clone(), setup.hub.clone(), stop);
    let both = async { tokio::join!(task, script(&tell)) };
    tokio::time::timeout(PATIENCE, both).await.expect("in time");
}

/// The orderly end of a connection: a farewell with this text, and DISCONNECT.
async fn farewell(peer: &mut Peer<TcpStream>, text: &str) {
    let Some(Packet::Publish(last)) = peer.next().await else { panic!("no farewell") };
    assert_eq!((last.topic.as_str(), &last.payload[..]), ("maison/atelier/availability", text.as_bytes()));
    peer.ack(last.pkid).await;
    assert_eq!(peer.next().await, Some(Packet::Disconnect));
}

/// Packet ids of one broker mean nothing to another, and a session that another has kept is a stranger's: at QoS 2 it
/// would swallow messages.
#[test]
fn the_brokers_of_a_list_know_nothing_of_each_other() {
    let mut setup = Setup::new(config(Qos::ExactlyOnce, 4));
    setup.take_numbers(3);
    run(async {
        let listeners = brokers(&mut setup, 2).await;
        let [first, second] = &listeners[..] else { panic!("two") };
        serve(&setup, async |tell| {
            let mut one = accept(first).await;
            one.connack(false).await;
            let sent = one.readings(3).await;
            one.acknowledge(0x50, sent[0].pkid).await;
            assert!(matches!(one.next().await, Some(Packet::PubRel(_))));
            drop(one);
            // The next of the list comes without a pause, so that nothing else can have come in between.
            let mut two = accept(second).await;
            assert!(!two.connack(true).await.clean_session);
            assert_eq!(two.next().await, Some(Packet::Disconnect));
            let mut two = accept(second).await;
            assert!(two.connack(false).await.clean_session);
            assert_eq!(two.next().await, Some(Packet::Disconnect));
            let mut two = accept(second).await;
            assert!(!two.connack(false).await.clean_session);
            let again = two.behave(3).await;
            assert_eq!(texts(&again), numbers(3));
            assert!(again.iter().all(|message| !message.dup));
            two.sync().await;
            tell.send_replace(Some(setup.clock.boot().after(Duration::from_secs(5))));
            farewell(&mut two, status::SHUTDOWN).await;
        })
        .await;
    });
    let counters = setup.hub.counters("home");
    assert_eq!((setup.backlog(), counters.possible_duplicates.get(), counters.failures.get()), (0, 3, 1));
}

/// One that does not even accept us has seen nothing: the session with the other goes on as if nothing had been.
#[test]
fn a_broker_that_refuses_us_does_not_cost_the_session() {
    let mut setup = Setup::new(config(Qos::ExactlyOnce, 4));
    setup.take_numbers(3);
    run(async {
        let listeners = brokers(&mut setup, 2).await;
        let [first, second] = &listeners[..] else { panic!("two") };
        serve(&setup, async |tell| {
            let mut one = accept(first).await;
            one.connack(false).await;
            one.readings(3).await;
            drop(one);
            let mut two = accept(second).await;
            assert!(matches!(two.next().await, Some(Packet::Connect(_))));
            two.send(&[0x20, 2, 0, 5]).await;
            let mut one = accept(first).await;
            one.connack(true).await;
            assert!(one.behave(3).await.iter().all(|message| message.dup));
            one.sync().await;
            tell.send_replace(Some(setup.clock.boot().after(Duration::from_secs(5))));
            farewell(&mut one, status::SHUTDOWN).await;
        })
        .await;
    });
    let counters = setup.hub.counters("home");
    assert_eq!((setup.backlog(), counters.possible_duplicates.get(), counters.failures.get()), (0, 0, 2));
}

#[test]
fn back_to_the_first_when_it_answers_again() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.config.failback = Duration::from_millis(50);
    run(async {
        let listeners = brokers(&mut setup, 2).await;
        let [first, second] = &listeners[..] else { panic!("two") };
        serve(&setup, async |tell| {
            drop(accept(first).await);
            let mut two = accept(second).await;
            two.connack(false).await;
            two.sync().await;
            // The look whether it is there says nothing.
            assert_eq!(accept(first).await.next().await, None);
            farewell(&mut two, status::RECONNECTING).await;
            let mut one = accept(first).await;
            one.connack(false).await;
            one.sync().await;
            tell.send_replace(Some(setup.clock.boot().after(Duration::from_secs(5))));
            farewell(&mut one, status::SHUTDOWN).await;
        })
        .await;
    });
    assert_eq!(setup.hub.counters("home").failures.get(), 1);
}

#[test]
fn a_first_broker_that_does_not_stay_is_tried_seldomer() {
    let setup = Setup::new(config(Qos::AtLeastOnce, 4));
    let mut keeper = Keeper::new(setup.config.clone(), setup.hub.clone(), watch::channel(None).1);
    let intervals: Vec<u64> = (0..40)
        .map(|vain| {
            keeper.vain = vain;
            keeper.failback_interval().as_secs()
        })
        .collect();
    assert_eq!(intervals[..6], [180, 360, 720, 1_440, 2_880, 3_600]);
    assert!(intervals[6..].iter().all(|seconds| *seconds == 3_600));
}

#[test]
fn with_everything_sent_it_sleeps_and_a_shutdown_ends_the_sleep() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 2));
    setup.config.connect = Connect::Every(Duration::from_secs(3_600));
    setup.take_numbers(5);
    run(async {
        let listeners = brokers(&mut setup, 1).await;
        serve(&setup, async |tell| {
            let mut one = accept(&listeners[0]).await;
            one.connack(false).await;
            assert_eq!(texts(&one.behave(5).await), numbers(5));
            farewell(&mut one, status::ASLEEP).await;
            assert_eq!(one.next().await, None);
            setup.take(["later"]);
            tell.send_replace(Some(setup.clock.boot()));
        })
        .await;
    });
    let counters = setup.hub.counters("home");
    assert_eq!((setup.backlog(), counters.connects.get(), counters.failures.get()), (1, 1, 0));
}

#[test]
fn a_broker_that_acknowledges_nothing_does_not_keep_it_awake() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 2));
    setup.config.connect = Connect::Every(Duration::from_secs(60));
    setup.take_numbers(5);
    run(async {
        let listeners = brokers(&mut setup, 1).await;
        serve(&setup, async |tell| {
            let mut one = accept(&listeners[0]).await;
            one.connack(false).await;
            one.readings(2).await;
            // Half of the interval is over, and then the time for an orderly end.
            setup.clock.advance(Duration::from_secs(30));
            one.sync().await;
            setup.clock.advance(Duration::from_secs(9));
            one.sync().await;
            farewell(&mut one, status::ASLEEP).await;
            tell.send_replace(Some(setup.clock.boot()));
        })
        .await;
    });
    assert_eq!(setup.backlog(), 5);
}

/// The look at the files is one at the disk: what is read for each attempt is what is there then.
#[test]
fn a_password_is_read_for_each_attempt() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    let token = "x".repeat(60_000);
    write_secret(&path, "first");
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.config.password = Some(password_in(&path));
    run(async {
        let listeners = brokers(&mut setup, 1).await;
        serve(&setup, async |tell| {
            let login =
                async |peer: &mut Peer<TcpStream>| peer.connack(false).await.login.expect("a login").password.clone();
            let mut one = accept(&listeners[0]).await;
            assert_eq!(login(&mut one).await, "first");
            std::fs::remove_file(&path).expect("removed");
            drop(one);
            // Without a password it does not even try, and as soon as there is one, it does.
            let counters = setup.hub.counters("home");
            while counters.failures.get() < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            write_secret(&path, &token);
            let mut one = accept(&listeners[0]).await;
            assert!(login(&mut one).await == token, "another password");
            one.sync().await;
            tell.send_replace(Some(setup.clock.boot().after(Duration::from_secs(5))));
            farewell(&mut one, status::SHUTDOWN).await;
        })
        .await;
    });
}

fn write_secret(path: &std::path::Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
    std::fs::rename(&new, path).expect("renamed");
}

fn password_in(path: &std::path::Path) -> crate::config::Password {
    let text =
        format!("[uplink.a]\nurl = \"mqtt://b\"\nusername = \"pi\"\npassword = {{ file = \"{}\" }}\n", path.display());
    let machine = crate::config::Machine::this();
    let config = crate::config::from_text("test.toml", &text, &machine, crate::drivers::DRIVERS);
    let config = config.map_err(|report| report.to_string()).expect("no errors");
    config.uplinks[0].password.clone().expect("a password")
}

#[test]
fn a_missing_interface_is_named() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.config.interface = Some("nosuch0".to_owned());
    let access = Access { tls: None, username: None, password: None, proxy_password: None };
    let error = run(dial::dial(&setup.config.urls[0], &setup.config, &access)).map(|_| ()).expect_err("no interface");
    assert!(error.to_string().contains("`nosuch0`: there is none of that name"), "{error}");
}

#[test]
fn the_time_is_remembered_across_boots() {
    let setup = Setup::new(config(Qos::AtLeastOnce, 4));
    let known = setup.clock.wall();
    assert_eq!(setup.hub.certificate_time(), CertificateTime::Exact(known));
    setup.hub.remember_time();
    let setup = setup.rebooted_without_time();
    assert_eq!(setup.clock.wall(), UNIX_EPOCH);
    assert_eq!(setup.hub.certificate_time(), CertificateTime::AtLeast(known));
    // A clock that is not set is no reason to forget it.
    setup.hub.remember_time();
    assert_eq!(setup.hub.certificate_time(), CertificateTime::AtLeast(known));

    let fresh = Setup::without_time(config(Qos::AtLeastOnce, 4));
    assert_eq!(fresh.hub.certificate_time(), CertificateTime::AtLeast(crate::clock::built()));
    fresh.clock.set_wall(UNIX_EPOCH + Duration::from_secs(7));
    fresh.hub.look_at_clock();
    let set = CertificateTime::Exact(UNIX_EPOCH + Duration::from_secs(7));
    assert_eq!(fresh.hub.certificate_time(), set, "a clock that is set is believed");
}
