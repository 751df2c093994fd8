//! Both readers against bytes that nobody would send, and the one for MQTT 5 against the codec's writer.

use proptest::prelude::*;

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

proptest! {
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
        kind in prop_oneof![any::<u8>(), Just(0x20), Just(0x40), Just(0xe0), 0x30..0x3f_u8],
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
        will: Will { topic: "a/availability", payload: "{}", qos: Qos::AtLeastOnce, retain: true },
    };
    assert!(put_connect(&mut BytesMut::new(), &settings).is_err_and(|why| why.contains("username")));
    for version in VERSIONS {
        let long = "x".repeat(70_000);
        let settings = ConnectSettings { version, client_id: &long, password: None, ..settings };
        assert!(put_connect(&mut BytesMut::new(), &settings).is_err_and(|why| why.contains("client_id")));
    }
}
