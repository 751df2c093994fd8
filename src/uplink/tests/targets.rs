//! What some targets need of a connection: no state, a signed password, announcements sent again.

use std::ffi::OsString;
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::BASE64;
use rumqttc::mqttbytes::v4::{Connect, Packet, Publish};
use secrecy::SecretString;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::clock::{BootTime, Clock};
use crate::config::{self, BrokerUrl, Discovery, Format, Machine, MqttVersion, Password, Qos, UplinkConfig, Username};
use crate::uplink::scripted::{Peer, Setup, any_port, config, numbers, run, speak, texts};

/// Waits of these tests end by what happens; this only ends a broken one.
const PATIENCE: Duration = Duration::from_secs(60);

const KEY: &[u8] = b"secret key of 32 bytes .........";

#[test]
fn without_state_there_is_neither_will_nor_availability_nor_farewell() {
    for version in [MqttVersion::V311, MqttVersion::V5] {
        speak(version);
        let mut setup = Setup::new(UplinkConfig { state: false, ..config(Qos::AtLeastOnce, 4) });
        setup.take_numbers(3);
        run(async {
            let listener = TcpListener::bind(any_port()).await.expect("a port");
            setup.config.urls = vec![BrokerUrl::of(listener.local_addr().expect("bound"))];
            serve(&setup, async |tell| {
                let mut broker = Peer::new(listener.accept().await.expect("a connection").0);
                assert_eq!(broker.connack(false).await.last_will, None);
                for number in numbers(3) {
                    let Some(Packet::Publish(message)) = broker.next().await else { panic!("no reading") };
                    assert_eq!(texts(std::slice::from_ref(&message)), [number]);
                    broker.ack(message.pkid).await;
                }
                tell.send_replace(Some(setup.clock.boot().after(Duration::from_secs(5))));
                assert_eq!(broker.next().await, Some(Packet::Disconnect));
            })
            .await;
        });
        assert_eq!(setup.backlog(), 0);
    }
}

#[test]
fn thingspeak_keeps_no_session() {
    for (format, clean) in [(Format::Json, false), (Format::Thingspeak, true)] {
        let mut config = UplinkConfig { state: false, ..config(Qos::AtMostOnce, 4) };
        config.payload.format = format;
        run(async {
            let listener = TcpListener::bind(any_port()).await.expect("a port");
            config.urls = vec![BrokerUrl::of(listener.local_addr().expect("bound"))];
            let setup = Setup::new(config);
            serve(&setup, async |tell| {
                let mut broker = accept(&listener).await;
                assert_eq!(broker.connack(false).await.clean_session, clean, "{format:?}");
                // It is being served, and can be told to end in order.
                setup.take_numbers(1);
                let Some(Packet::Publish(_)) = broker.next().await else { panic!("no reading") };
                tell.send_replace(Some(setup.clock.boot().after(Duration::from_secs(5))));
                assert_eq!(broker.next().await, Some(Packet::Disconnect));
            })
            .await;
        });
    }
}

/// Runs the uplink against what the broker does, until that has told it to stop.
async fn serve(setup: &Setup, script: impl AsyncFnOnce(&watch::Sender<Option<BootTime>>)) {
    let (tell, stop) = watch::channel(None);
    let task = crate::uplink::run(setup.config.clone(), setup.hub.clone(), stop);
    let both = async { tokio::join!(task, script(&tell)) };
    tokio::time::timeout(PATIENCE, both).await.expect("in time");
}

/// The next message with state that one uplink alone sends.
async fn announcement(broker: &mut Peer<DuplexStream>) -> Publish {
    loop {
        let Some(Packet::Publish(message)) = broker.next().await else { panic!("no message") };
        broker.ack(message.pkid).await;
        if message.topic.starts_with("homeassistant/") {
            return message;
        }
    }
}

async fn say(broker: &mut Peer<DuplexStream>, topic: &str, payload: &str, retain: bool) {
    let mut packet = vec![0x30 | u8::from(retain), u8::try_from(2 + topic.len() + payload.len()).expect("short")];
    packet.extend(u16::try_from(topic.len()).expect("short").to_be_bytes());
    packet.extend(topic.bytes().chain(payload.bytes()));
    broker.send(&packet).await;
}

#[test]
fn what_is_announced_is_sent_again_when_the_home_automation_has_started() {
    let discovery = Some(Discovery { prefix: "homeassistant".to_owned() });
    let mut setup = Setup::new(UplinkConfig { discovery, ..config(Qos::AtLeastOnce, 4) });
    let topic = "homeassistant/device/a/config";
    setup.hub.set_state_of("home", topic, "{}");
    setup.hub.set_state_of("other", "homeassistant/device/b/config", "{}");
    let (clock, hub) = (setup.clock.clone(), setup.hub.clone());
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        let Some(Packet::Subscribe(subscribe)) = broker.next().await else { panic!("no SUBSCRIBE") };
        let filters: Vec<&str> = subscribe.filters.iter().map(|filter| filter.path.as_str()).collect();
        assert_eq!(filters, ["homeassistant/status"]);
        let [high, low] = subscribe.pkid.to_be_bytes();
        broker.send(&[0x90, 3, high, low, 0]).await;
        let first = announcement(broker).await;
        assert_eq!((first.topic.as_str(), first.retain), (topic, true));
        broker.sync().await;
        // None of these tells of a start: what was kept, the end, and another topic.
        say(broker, "homeassistant/status", "online", true).await;
        say(broker, "homeassistant/status", "offline", false).await;
        say(broker, "homeassistant/other", "online", false).await;
        clock.advance(Duration::from_secs(20));
        hub.set_state_of("home", "homeassistant/device/c/config", "{}");
        assert_eq!(announcement(broker).await.topic, "homeassistant/device/c/config");
        say(broker, "homeassistant/status", "online", false).await;
        broker.sync().await;
        // Not at once: there may be many gateways.
        clock.advance(Duration::from_secs(10));
        hub.set_state_of("home", "homeassistant/device/d/config", "{}");
        let mut again = vec![announcement(broker).await.topic, announcement(broker).await.topic];
        again.push(announcement(broker).await.topic);
        again.sort();
        assert_eq!(again, ["a", "c", "d"].map(|device| format!("homeassistant/device/{device}/config")));
    }))
    .expect_err("closed by the script");
    let counters = setup.hub.counters("home");
    // Three, and those of `sync`.
    assert_eq!((counters.commands.get(), counters.ignored.get()), (0, 3 + 2));
}

/// A configuration with a key, for a broker that listens there.
fn with_key(address: std::net::SocketAddr) -> UplinkConfig {
    let env = |name: &str| (name == "KEY").then(|| OsString::from(BASE64.encode(KEY)));
    let machine = Machine { env, hostname: "pi".to_owned(), ..Machine::this() };
    let text = "[uplink.home]\npreset = \"azure-iot-hub\"\nurl = \"mqtts://hub.azure-devices.net\"\nclient_id = \"dev\"\n\
                shared_access_key = { env = \"KEY\" }\nclock_wait = \"0s\"\n";
    let config = config::from_text("test.toml", text, &machine, &[]);
    let mut config = config.map_err(|report| report.to_string()).expect("no errors");
    let mut uplink = config.uplinks.remove(0);
    uplink.urls = vec![BrokerUrl::of(address)];
    uplink
}

/// As the hub does it: looks whether the signature is the device's, and gives the time until which it holds.
fn check(connect: &Connect) -> u64 {
    let login = connect.login.as_ref().expect("user name and password");
    assert_eq!(login.username, "hub.azure-devices.net/dev/?api-version=2021-04-12");
    let fields = login.password.strip_prefix("SharedAccessSignature ").expect("a signature").split('&');
    let fields: Vec<(&str, &str)> = fields.filter_map(|field| field.split_once('=')).collect();
    let field = |name| fields.iter().find(|(known, _)| *known == name).expect("a field").1;
    assert_eq!(field("sr"), "hub.azure-devices.net%2Fdevices%2Fdev");
    let signature = field("sig").replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
    let signature = BASE64.decode(signature.as_bytes()).expect("base64");
    let signed = format!("{}\n{}", field("sr"), field("se"));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, KEY);
    ring::hmac::verify(&key, signed.as_bytes(), &signature).expect("the signature of the key");
    field("se").parse().expect("seconds")
}

async fn accept(listener: &TcpListener) -> Peer<TcpStream> {
    Peer::new(listener.accept().await.expect("a connection").0)
}

#[test]
fn a_password_is_signed_for_each_connection_and_renewed_before_it_expires() {
    run(async {
        let listener = TcpListener::bind(any_port()).await.expect("a port");
        let mut uplink = with_key(listener.local_addr().expect("bound"));
        uplink.token.as_mut().expect("a token").lifetime = Duration::from_millis(1_500);
        let setup = Setup::new(uplink);
        serve(&setup, async |tell| {
            let mut broker = accept(&listener).await;
            // The clock says 1.8e9; a fraction of a second is cut off.
            assert_eq!(check(&broker.connack(false).await), 1_800_000_001);
            // It leaves in order, by itself, before the password has expired.
            setup.clock.advance(Duration::from_secs(20));
            assert_eq!(broker.next().await, Some(Packet::Disconnect));
            let mut broker = accept(&listener).await;
            assert!(check(&broker.connack(true).await) >= 1_800_000_021);
            setup.take_numbers(1);
            let Some(Packet::Publish(message)) = broker.next().await else { panic!("no reading") };
            broker.ack(message.pkid).await;
            tell.send_replace(Some(setup.clock.boot().after(Duration::from_secs(5))));
            assert_eq!(broker.next().await, Some(Packet::Disconnect));
        })
        .await;
        assert_eq!(setup.hub.counters("home").failures.get(), 0);
    });
}

#[test]
fn without_the_time_nothing_is_signed_and_with_it_at_once() {
    run(async {
        let listener = TcpListener::bind(any_port()).await.expect("a port");
        let setup = Setup::without_time(with_key(listener.local_addr().expect("bound")));
        setup.take_numbers(1);
        let failures = || setup.hub.counters("home").failures.get();
        serve(&setup, async |tell| {
            while failures() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            setup.clock.set_wall(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
            setup.hub.look_at_clock();
            let mut broker = accept(&listener).await;
            assert_eq!(check(&broker.connack(false).await), 1_800_003_600);
            let Some(Packet::Publish(message)) = broker.next().await else { panic!("no reading") };
            broker.ack(message.pkid).await;
            tell.send_replace(Some(setup.clock.boot().after(Duration::from_secs(5))));
            assert_eq!(broker.next().await, Some(Packet::Disconnect));
        })
        .await;
    });
}

#[test]
fn a_user_name_that_is_a_secret_is_sent_and_never_shown() {
    let token = "A1-TEST-TOKEN";
    for version in [MqttVersion::V311, MqttVersion::V5] {
        speak(version);
        let secret = Password::given(SecretString::from(token.to_owned()));
        let config = UplinkConfig { username: Some(Username::Secret(secret)), ..config(Qos::AtLeastOnce, 4) };
        assert!(!format!("{config:?}").contains(token));
        let mut setup = Setup::new(config);
        let failed = run(setup.connection(async |broker| {
            let Some(Packet::Connect(connect)) = broker.next().await else { panic!("no CONNECT") };
            assert_eq!(connect.login.map(|login| login.username).as_deref(), Some(token));
            match version {
                MqttVersion::V311 => broker.send(&[0x20, 2, 0, 4]).await,
                MqttVersion::V5 => broker.send(&[0x20, 3, 0, 0x86, 0]).await,
            }
        }));
        let why = failed.expect_err("refused").to_string();
        assert!(why.contains("refuses user `(secret)`") && !why.contains(token), "{why}");
    }
}
