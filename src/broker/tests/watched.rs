//! What the broker tells of its clients, how it looks at itself, and logins with tokens.

use data_encoding::BASE64URL_NOPAD;

use super::raw::{Answer, Hello, Raw, publish};
use super::*;
use crate::broker::{Event, Notice};
use crate::clock::Trust;
use crate::config::{BrokerJwt, BrokerWatch, ListenerTls};

async fn connect(broker: &Broker, hello: &Hello<'_>) -> Result<Raw<TcpStream>, u8> {
    Raw::connect(TcpStream::connect(broker.address()).await.unwrap(), hello).await
}

async fn notice(broker: &Broker) -> Notice {
    timeout(DEADLINE, broker.notice()).await.expect("there is nothing to tell")
}

#[tokio::test]
async fn a_silent_client_and_an_unknown_one_are_told() {
    let mut home = Home::new();
    home.config.watch =
        BrokerWatch { silent_after: Some(Duration::from_secs(1)), unknown_clients: true, rate_factor: None };
    // Somebody was here before, so that it does not learn any more.
    std::fs::create_dir_all(&home.place.folder).unwrap();
    std::fs::write(home.place.folder.join("clients"), "").unwrap();
    let broker = home.start().await;
    let mut client = connect(&broker, &Hello::new(4, "esp")).await.unwrap();
    let Notice { event, client: who, .. } = notice(&broker).await;
    assert_eq!((event, who.as_deref()), (Event::UnknownClient, Some("esp")));
    // All at once, however slow the machine is.
    client.send(&(1..=5).flat_map(|id| publish(4, "a", "1", 1, id)).collect::<Vec<_>>()).await;
    let Notice { event, client: who, .. } = notice(&broker).await;
    assert_eq!((event, who.as_deref()), (Event::Silent, Some("esp")));
    assert_eq!(client.publish("a", "1").await, Answer::Taken);
    assert_eq!(notice(&broker).await.event, Event::Back);
    broker.stop().await.unwrap();
    // It is known now.
    let broker = home.start().await;
    connect(&broker, &Hello::new(4, "esp")).await.unwrap();
    connect(&broker, &Hello::new(4, "new")).await.unwrap();
    assert_eq!(notice(&broker).await.client.as_deref(), Some("new"));
}

#[tokio::test]
async fn looks_at_itself_take_nobodys_place_and_are_counted_nowhere() {
    let mut home = Home::new();
    home.config.limits.connections = 1;
    let folder = home.place.folder.with_file_name("tls");
    let names = ["localhost".to_owned()];
    let subject = authority::Subject::Server { names: &names, addresses: &[] };
    let issued = authority::issue(&folder, subject, 2026).unwrap();
    let tls = ListenerTls { certificate: issued.certificate, key: issued.key, client_ca: None };
    let listen = "127.0.0.1:0".parse().unwrap();
    for (tls, websocket) in [(Some(tls.clone()), false), (None, true), (Some(tls), true)] {
        home.config.listeners.push(BrokerListener { listen, tls, websocket });
    }
    let broker = home.start().await;
    let client = connect(&broker, &Hello::new(5, "the only one")).await.unwrap();
    for _ in 0..5 {
        broker.check().await.expect("it answers, although it has all the clients it may have");
    }
    for refusal in [Refusal::Connections, Refusal::ConnectRate, Refusal::Handshake, Refusal::Login] {
        assert_eq!(broker.refused(refusal), 0, "{refusal:?}");
    }
    drop(client);
}

#[tokio::test]
async fn a_damaged_store_is_told() {
    let home = Home::new();
    let broker = home.start().await;
    broker.stop().await.unwrap();
    std::fs::write(home.place.folder.join("store"), "no store").unwrap();
    let broker = home.start().await;
    assert_eq!(notice(&broker).await.event, Event::PutAside);
    broker.check().await.unwrap();
}

/// A token of HS256.
fn token(secret: &[u8], claims: &str) -> String {
    let parts = [r#"{"alg":"HS256"}"#, claims].map(|part| BASE64URL_NOPAD.encode(part.as_bytes()));
    let signed = parts.join(".");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

/// A home with tokens, and their secret.
fn with_tokens() -> (Home, &'static [u8]) {
    use std::os::unix::fs::PermissionsExt;

    let mut home = Home::new();
    let (key, secret) = (home.place.folder.with_file_name("secret"), b"0123456789abcdef0123456789abcdef");
    std::fs::write(&key, secret).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    home.config.jwt = Some(BrokerJwt { key, audience: None });
    home.config.anonymous = false;
    home.config.trust = Trust::Always;
    (home, secret)
}

#[tokio::test]
async fn a_token_is_a_login_of_its_subject_with_that_users_rights() {
    let (mut home, secret) = with_tokens();
    let rules = crate::config::BrokerRules { write: vec!["from/%u".to_owned()], ..Default::default() };
    home.config.rules.insert("anna".to_owned(), rules);
    let broker = home.start().await;
    let good = token(secret, r#"{"sub":"anna","exp":99999999999}"#);
    let expired = token(secret, r#"{"sub":"anna","exp":1700000000}"#);
    let forged = token(b"another secret, as long as it is", r#"{"sub":"anna"}"#);
    for (version, refused) in [(4, 4), (5, 0x86)] {
        for name in ["anna", ""] {
            let mut anna = connect(&broker, &Hello::new(version, "c").user(name, &good)).await.expect("a good token");
            assert_eq!(anna.publish("from/anna", "x").await, Answer::Taken);
            assert_ne!(anna.publish("from/bob", "x").await, Answer::Taken);
        }
        for (name, password) in [("bob", &good), ("anna", &expired), ("anna", &forged)] {
            let code = connect(&broker, &Hello::new(version, "c").user(name, password)).await.err();
            assert!(code == Some(refused) || code == Some(if version == 5 { 0x87 } else { 5 }), "{name} {code:?}");
        }
    }
}

#[tokio::test]
async fn a_client_is_sent_away_when_its_token_expires() {
    let (home, secret) = with_tokens();
    let broker = home.start().await;
    for version in [4, 5] {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        // With the minute that clocks may be apart, it is good for some seconds.
        let (short, long) = (now - 60 + 5, now + 3600);
        let of = |until: u64| token(secret, &format!(r#"{{"sub":"anna","exp":{until}}}"#));
        let mut stays = connect(&broker, &Hello::new(version, "stays").user("anna", &of(long))).await.unwrap();
        let hello = Hello { clean: false, ..Hello::new(version, "goes") };
        let mut goes = connect(&broker, &hello.user("anna", &of(short))).await.expect("it is good still");
        if version == 5 {
            // Maximum connect time.
            assert_eq!(goes.next().await, Some((0xe0, vec![0xa0])));
        }
        assert_eq!(goes.next().await, None);
        assert_eq!(stays.publish("a", "1").await, Answer::Taken);
        connect(&broker, &hello.user("anna", &of(long))).await.expect("another token lets it in again");
    }
    assert_eq!(broker.refused(Refusal::TokenExpired), 2);
}
