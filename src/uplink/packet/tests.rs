//! Both readers against bytes that nobody would send, and the one for MQTT 5 against the codec's writer.

use proptest::prelude::*;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, Connect, ConnectProperties, ConnectReturnCode, LastWill, Login,
};

use super::*;

const VERSIONS: [MqttVersion; 2] = [MqttVersion::V311, MqttVersion::V5];

fn accepted(session_present: bool) -> Incoming {
    Incoming::connack(Ok(Accepted { session_present, limits: Limits::default() }))
}

fn all(version: MqttVersion, buffer: &mut BytesMut) -> Result<Vec<Incoming>, Malformed> {
    let mut found = Vec::new();
    while let Some(packet) = read(buffer, version, 1_000)? {
        found.push(packet);
    }
    Ok(found)
}

fn limits() -> impl Strategy<Value = (bool, Limits)> {
    let small = (any::<bool>(), 1..=u16::MAX, 1..=u32::MAX, 0..3_u8, any::<bool>(), any::<u16>());
    let durations = (proptest::option::of(any::<u16>()), proptest::option::of(0..u32::MAX));
    (small, durations).prop_map(
        |((present, receive_maximum, max_packet, qos, retain, topic_aliases), (alive, expiry))| {
            let max_qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(qos)];
            let keep_alive = alive.map(|seconds| Duration::from_secs(seconds.into()));
            let session_expiry = expiry.map(|seconds| Duration::from_secs(seconds.into()));
            let limits =
                Limits { receive_maximum, max_packet, max_qos, retain, topic_aliases, keep_alive, session_expiry };
            (present, limits)
        },
    )
}

fn seconds(duration: Option<Duration>) -> Option<u32> {
    duration.map(|duration| u32::try_from(duration.as_secs()).expect("as made above"))
}

proptest! {
    /// The codec's own writer is the reference.
    #[test]
    fn an_answer_is_read_as_the_codec_writes_it((session_present, limits) in limits(), pairs in 0..4_usize) {
        let properties = ConnAckProperties {
            session_expiry_interval: seconds(limits.session_expiry).or(Some(u32::MAX)),
            receive_max: Some(limits.receive_maximum),
            max_qos: (limits.max_qos != Qos::ExactlyOnce).then(|| qos_bits(limits.max_qos)),
            retain_available: Some(u8::from(limits.retain)),
            max_packet_size: Some(limits.max_packet),
            assigned_client_identifier: None,
            topic_alias_max: Some(limits.topic_aliases),
            reason_string: Some("welcome".to_owned()),
            user_properties: vec![("name".to_owned(), "value".repeat(20)); pairs],
            wildcard_subscription_available: Some(1),
            subscription_identifiers_available: Some(0),
            shared_subscription_available: Some(1),
            server_keep_alive: seconds(limits.keep_alive).and_then(|seconds| u16::try_from(seconds).ok()),
            response_information: Some("information".to_owned()),
            server_reference: Some("reference".to_owned()),
            authentication_method: Some("method".to_owned()),
            authentication_data: Some(vec![0, 255].into()),
        };
        let answer = ConnAck { session_present, code: ConnectReturnCode::Success, properties: Some(properties) };
        let mut buffer = BytesMut::new();
        answer.write(&mut buffer).expect("a packet");
        let expected = Incoming::connack(Ok(Accepted { session_present, limits }));
        prop_assert_eq!(read(&mut buffer, MqttVersion::V5, 1_000), Ok(Some(expected)));
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn connect_is_written_as_the_codec_writes_it(
        client_id in "[a-z]{1,200}", username in proptest::option::of("[a-z]{1,9}"), password: bool, retain: bool,
        keep_alive: u16, clean_session: bool, qos in 0..2_u8, max_packet: u32, before in 0..3_usize, with_will: bool,
    ) {
        let secret = SecretString::from("secret".to_owned());
        let (qos, reference_qos) =
            [(Qos::AtMostOnce, QoS::AtMostOnce), (Qos::AtLeastOnce, QoS::AtLeastOnce)][usize::from(qos)];
        let settings = ConnectSettings {
            version: MqttVersion::V5,
            client_id: &client_id,
            username: username.as_deref().map(UserName::Known),
            password: password.then_some(&secret),
            keep_alive: Duration::from_secs(keep_alive.into()),
            clean_session,
            max_packet,
            will: with_will.then_some(Will { topic: "a/availability", payload: b"{}", qos, retain }),
        };
        let mut out = BytesMut::from(vec![9; before].as_slice());
        put_connect(&mut out, &settings).expect("short texts");
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval = Some(if clean_session { 0 } else { u32::MAX });
        properties.max_packet_size = Some(max_packet);
        let connect = Connect { keep_alive, client_id, clean_start: clean_session, properties: Some(properties) };
        let will = with_will.then(|| LastWill::new("a/availability", "{}", reference_qos, retain, None));
        let login = Login::new(username.unwrap_or_default(), if password { "secret" } else { "" });
        let mut expected = BytesMut::new();
        connect.write(&will, &Some(login), &mut expected).expect("a packet");
        prop_assert_eq!(&out[before..], expected.as_ref());
    }

    #[test]
    fn no_bytes_whatsoever_panic_the_reader(bytes: Vec<u8>, max in 0..2_000_u32) {
        for version in VERSIONS {
            let mut buffer = BytesMut::from(bytes.as_slice());
            while let Ok(Some(_)) = read(&mut buffer, version, max) {}
            prop_assert!(buffer.capacity() <= bytes.len() + max as usize + 1_024);
        }
    }

    /// Packets that begin well and go wrong further in. What is whole is never taken for a beginning.
    #[test]
    fn no_packet_type_panics_the_reader(
        kind in prop_oneof![any::<u8>(), Just(0x20), Just(0x40), Just(0xe0), Just(0x90), 0x30..0x3f_u8],
        body in proptest::collection::vec(prop_oneof![any::<u8>(), 0..45_u8, Just(0)], 0..60),
    ) {
        for version in VERSIONS {
            let mut buffer = BytesMut::from([kind, u8::try_from(body.len()).expect("short")].as_slice());
            buffer.put_slice(&body);
            prop_assert_ne!(read(&mut buffer, version, 1_000), Ok(None));
        }
    }

    /// However the bytes are cut, the same packets come out.
    #[test]
    fn packets_come_one_byte_at_a_time(
        kinds in proptest::collection::vec((prop_oneof![Just(0x40_u8), Just(0x50), Just(0x70), Just(0xe0), Just(0x20)],
            proptest::collection::vec(0..3_u8, 0..6)), 0..6),
    ) {
        for version in VERSIONS {
            let mut whole = BytesMut::new();
            for (kind, body) in &kinds {
                whole.put_slice(&[*kind, u8::try_from(body.len()).expect("short")]);
                whole.put_slice(body);
            }
            let (mut buffer, mut seen, mut failed) = (BytesMut::new(), Vec::new(), None);
            for byte in whole.clone() {
                buffer.put_u8(byte);
                match read(&mut buffer, version, 1_000) {
                    Ok(packet) => seen.extend(packet),
                    Err(error) => { failed = Some(error); break }
                }
            }
            match (all(version, &mut whole), failed) {
                (Ok(expected), None) => prop_assert_eq!(seen, expected),
                (Err(expected), Some(error)) => prop_assert_eq!(error, expected),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

#[test]
fn an_announced_size_is_refused_before_anything_is_reserved() {
    for version in VERSIONS {
        let mut buffer = BytesMut::from([0x30, 0xff, 0xff, 0xff, 0x7f].as_slice());
        assert_eq!(read(&mut buffer, version, 1_000), Err(Malformed::TooLarge { size: 268_435_455, max: 1_000 }));
        assert!(buffer.capacity() < 1_024);
    }
}

#[test]
fn plain_packets_mean_the_same_in_both_versions() {
    let mut old = BytesMut::from([0x20, 2, 1, 0, 0x40, 2, 0, 7, 0xd0, 0].as_slice());
    let mut new = BytesMut::from([0x20, 3, 1, 0, 0, 0x40, 4, 0, 7, 0, 0, 0xd0, 0].as_slice());
    let expected = vec![accepted(true), Incoming::PubAck(7, Reason::SUCCESS), Incoming::PingResp];
    assert_eq!(all(MqttVersion::V311, &mut old), Ok(expected.clone()));
    assert_eq!(all(MqttVersion::V5, &mut new), Ok(expected));
}

#[test]
fn every_return_code_has_its_meaning() {
    for (code, reason) in
        [(1, Reason::UNSUPPORTED_PROTOCOL_VERSION), (5, Reason::NOT_AUTHORIZED), (77, Reason::new(77))]
    {
        let mut buffer = BytesMut::from([0x20, 2, 0, code].as_slice());
        assert_eq!(read(&mut buffer, MqttVersion::V311, 100), Ok(Some(Incoming::connack(Err(reason)))));
    }
}

#[test]
fn connect_refuses_what_the_format_cannot_carry() {
    let secret = SecretString::from("secret".to_owned());
    let settings = ConnectSettings {
        version: MqttVersion::V311,
        client_id: "vigie",
        username: None,
        password: Some(&secret),
        keep_alive: Duration::from_secs(30),
        clean_session: false,
        max_packet: 1_000,
        will: Some(Will { topic: "a/availability", payload: b"{}", qos: Qos::AtLeastOnce, retain: true }),
    };
    assert!(put_connect(&mut BytesMut::new(), &settings).is_err_and(|why| why.contains("username")));
    for version in VERSIONS {
        let long = "x".repeat(70_000);
        let settings = ConnectSettings { version, client_id: &long, password: None, ..settings };
        assert!(put_connect(&mut BytesMut::new(), &settings).is_err_and(|why| why.contains("client_id")));
    }
}
