//! Who may come in, and what they may read and write.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::raw::{Answer, Hello, Raw};
use super::*;
use crate::broker::authority::{self, Subject};
use crate::broker::users;
use crate::config::{BrokerRules, ListenerTls};

fn rules(read: &[&str], write: &[&str], certificate: Option<&str>) -> BrokerRules {
    let owned = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    BrokerRules { read: owned(read), write: owned(write), certificate: certificate.map(str::to_owned) }
}

impl Home {
    /// With users `anna` (no rules), `bob` and `eve` (rules), whose passwords are their names.
    fn with_users() -> Self {
        let mut home = Self::new();
        let path = home.place.folder.with_file_name("users");
        for name in ["anna", "bob", "eve"] {
            users::set_password(&path, name, name.as_bytes()).unwrap();
        }
        home.config.users = Some(path);
        home.config.anonymous = false;
        home.config.own_topics = std::iter::once("home/hall/temperature".to_owned()).collect();
        // A rule does not help where the topic is the gateway's own.
        home.config
            .rules
            .insert("bob".to_owned(), rules(&["home/#"], &["home/+/set", "home/hall/temperature", "from/%u/%c"], None));
        home.config.rules.insert("eve".to_owned(), rules(&["from/#"], &[], Some("eves-board")));
        home.config.rules.insert("anonymous".to_owned(), rules(&["public/#"], &["public/in"], None));
        home
    }
}

async fn login(address: SocketAddr, hello: &Hello<'_>) -> Result<Raw<TcpStream>, u8> {
    Raw::connect(TcpStream::connect(address).await.unwrap(), hello).await
}

#[tokio::test]
async fn every_cell_of_user_pattern_direction_and_version() {
    let mut home = Home::with_users();
    home.config.anonymous = true;
    let broker = home.start().await;
    let topics = ["home/hall/set", "home/hall/temperature", "from/bob/c", "from/bob/d", "public/in", "$SYS/x", "other"];
    // For each user: which of the topics it may read, and write.
    let cells: [(Option<&str>, [u8; 7], [u8; 7]); 4] = [
        (Some("anna"), [1, 1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 1, 0, 1]),
        (Some("bob"), [1, 1, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0]),
        (Some("eve"), [0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]),
        (None, [0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0, 0]),
    ];
    for version in [4, 5] {
        for (user, reads, writes) in &cells {
            // Patterns know the client identifier; another user may not have the session of that name.
            let mut hello = Hello::new(version, "c");
            hello.user = user.map(|name| (name, name));
            for (topic, (may_read, may_write)) in topics.iter().zip(reads.iter().zip(writes)) {
                let cell = format!("version {version}, {user:?}, {topic}");
                let mut client = login_when_free(broker.address(), &hello).await;
                let refused = if version == 5 { 0x87 } else { 0x80 };
                assert_eq!(client.subscribe(&[topic]).await, [if *may_read == 1 { 1 } else { refused }], "read {cell}");
                let answer = client.publish(topic, "x").await;
                let expected = match (*may_write, version) {
                    (1, _) => Answer::Taken,
                    (_, 5) => Answer::Refused(0x87),
                    _ => Answer::Closed,
                };
                assert_eq!(answer, expected, "write {cell}");
                client.send(&[0xe0, 0]).await;
            }
        }
    }
    assert!(broker.refused(Refusal::Write) > 0 && broker.refused(Refusal::Read) > 0);
}

/// A session of that name may still be on its way out.
async fn login_when_free(address: SocketAddr, hello: &Hello<'_>) -> Raw<TcpStream> {
    timeout(DEADLINE, async {
        loop {
            match login(address, hello).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
    .expect("it may log in")
}

#[tokio::test]
async fn wrong_names_and_passwords_are_refused_and_slowed_down() {
    let home = Home::with_users();
    let broker = home.start().await;
    let address = broker.address();
    for version in [4, 5] {
        let bad_password = if version == 5 { 0x86 } else { 4 };
        let hello = Hello::new(version, "c");
        assert!(login(address, &hello.user("anna", "anna")).await.is_ok());
        assert_eq!(login(address, &hello.user("anna", "bob")).await.err(), Some(bad_password));
        assert_eq!(login(address, &hello.user("nobody", "x")).await.err(), Some(bad_password));
        assert_eq!(login(address, &hello).await.err(), Some(bad_password), "anonymous");
    }
    let refusals = broker.refused(Refusal::Login);
    assert_eq!(refusals, 6);
    let hello = Hello::new(5, "c");
    // Each wrong one that is looked at makes the time longer for which the next ones are not.
    timeout(DEADLINE, async { while login(address, &hello.user("bob", "x")).await.err() != Some(0x87) {} })
        .await
        .expect("its address must wait");
    assert!(broker.refused(Refusal::LoginBlocked) >= 1);
    assert!(login(address, &hello.user("anna", "anna")).await.is_ok(), "a password that was right before");
}

#[tokio::test]
async fn names_of_the_gateway_and_of_others_sessions_are_taken() {
    let home = Home::with_users();
    let broker = home.start().await;
    let gateway = home.config.client_id.clone();
    let address = broker.address();
    let anna = Hello::new(5, &gateway).user("anna", "anna");
    assert_eq!(login(address, &anna).await.err(), Some(0x87), "the gateway's client identifier");
    let kept = Hello { clean: false, ..Hello::new(5, "meter").user("anna", "anna") };
    let _anna = login(address, &kept).await.unwrap_or_else(|code| panic!("{code:#x}"));
    assert_eq!(login(address, &Hello::new(5, "meter").user("bob", "bob")).await.err(), Some(0x87));
    assert!(login(address, &kept).await.is_ok(), "its own session");
    // Past the listeners there is only the gateway.
    let inner = broker.entrance();
    assert_eq!(login(inner, &Hello::new(5, "x").user("anna", "anna")).await.err(), Some(0x87));
    let credentials = broker.credentials().clone();
    let hello = Hello::new(5, &gateway).user(credentials.username(), credentials.password());
    let mut client = login(inner, &hello).await.unwrap_or_else(|code| panic!("{code:#x}"));
    assert_eq!(client.publish("home/hall/temperature", "21").await, Answer::Taken);
    assert_eq!(client.publish("home/hall/new", "1").await, Answer::Taken);
    let mut anna = login(address, &Hello::new(5, "a").user("anna", "anna")).await.unwrap_or_else(|_| panic!("anna"));
    assert_eq!(
        anna.publish("home/hall/new", "2").await,
        Answer::Refused(0x87),
        "it is the gateway's since it published"
    );
}

#[tokio::test]
async fn a_last_will_that_is_not_allowed_is_not_published() {
    let home = Home::with_users();
    let broker = home.start().await;
    let mut watcher =
        login(broker.address(), &Hello::new(4, "w").user("anna", "anna")).await.unwrap_or_else(|_| panic!());
    watcher.subscribe(&["#"]).await;
    for (id, topic) in [("b1", "home/hall/temperature"), ("b2", "elsewhere"), ("b3", "home/hall/set")] {
        let hello = Hello { will: Some((topic, "gone")), ..Hello::new(4, id).user("bob", "bob") };
        drop(login(broker.address(), &hello).await.unwrap_or_else(|_| panic!("{id}")));
        let expected = if id == "b3" { 2 } else { broker.refused(Refusal::Write) };
        assert!(expected <= 2);
    }
    assert_eq!(watcher.message().await, ("home/hall/set".to_owned(), "gone".to_owned()));
    is_refused(&broker, Refusal::Write, 2).await;
}

/// Certificates of an authority of ours, and what a client connects with.
struct Pki {
    folder: tempfile::TempDir,
}

impl Pki {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned()];
        authority::issue(folder.path(), Subject::Server { names: &names, addresses: &[] }, 2026).unwrap();
        Self { folder }
    }

    fn listener(&self, client_ca: bool) -> BrokerListener {
        let path = |name: &str| self.folder.path().join(name);
        let tls = ListenerTls {
            certificate: path("server.pem"),
            key: path("server.key"),
            client_ca: client_ca.then(|| path("ca.pem")),
        };
        BrokerListener { listen: "127.0.0.1:0".parse().unwrap(), tls: Some(tls), websocket: false }
    }

    /// Connects with TLS, showing the certificate of a user, which may be of another authority or of an earlier year.
    async fn connect(
        &self,
        address: SocketAddr,
        shows: Option<(&Pki, &str, i32)>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.folder.path().join("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match shows {
            None => builder.with_no_client_auth(),
            Some((pki, name, year)) => {
                let (certificate, key) =
                    (pki.folder.path().join(format!("{name}.pem")), pki.folder.path().join(format!("{name}.key")));
                if !certificate.exists() {
                    authority::issue(pki.folder.path(), Subject::Client(name), year).unwrap();
                }
                let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
            }
        };
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

#[tokio::test]
async fn tls_serves_both_versions_and_a_new_certificate_needs_no_restart() {
    let pki = Pki::new();
    let mut home = Home::new();
    home.config.listeners.push(pki.listener(false));
    let broker = home.start().await;
    let mut plain = Client::new(broker.address(), 4, "plain").await;
    plain.subscribe("#", 1).await;
    for version in [4, 5] {
        let stream = pki.connect(broker.addresses()[1], None).await.unwrap();
        let mut client = Raw::connect(stream, &Hello::new(version, "tls")).await.unwrap_or_else(|_| panic!());
        assert_eq!(client.publish("over", "tls").await, Answer::Taken);
        assert_eq!(plain.message().await, message("over", "tls", 1, false));
    }
    broker.check().await.unwrap();
    let other = Pki::new();
    assert!(other.connect(broker.addresses()[1], None).await.is_err(), "not of that authority");
}

#[tokio::test]
async fn a_client_certificate_is_its_user() {
    let (pki, foreign) = (Pki::new(), Pki::new());
    let mut home = Home::with_users();
    home.config.listeners.push(pki.listener(true));
    let broker = home.start().await;
    let address = broker.addresses()[1];
    for version in [4, 5] {
        // `eves-board` is eve, by rule; `bob` is bob, by his name.
        for (certificate, topic, may_read) in [
            ("eves-board", "from/x", true),
            ("eves-board", "home/x", false),
            ("bob", "home/x", true),
            ("bob", "x", false),
        ] {
            let stream = pki.connect(address, Some((&pki, certificate, 2026))).await.unwrap();
            let mut client = Raw::connect(stream, &Hello::new(version, certificate))
                .await
                .unwrap_or_else(|code| panic!("{code:#x}"));
            let code = client.subscribe(&[topic]).await[0];
            assert_eq!(code < 0x80, may_read, "version {version}, {certificate}, {topic}");
        }
        // With users, a password does as well.
        let stream = pki.connect(address, None).await.unwrap();
        assert!(Raw::connect(stream, &Hello::new(version, "p").user("anna", "anna")).await.is_ok());
        let stream = pki.connect(address, None).await.unwrap();
        assert!(Raw::connect(stream, &Hello::new(version, "q")).await.is_err(), "neither");
        // Ten years after 2000 is long ago.
        for (shows, what) in [((&foreign, "bob", 2026), "foreign"), ((&pki, "old", 2000), "expired")] {
            match pki.connect(address, Some(shows)).await {
                // TLS 1.3: the client hears of it when it reads.
                Ok(mut stream) => {
                    let _ = stream.write_all(&Hello::new(version, "bad").packet()).await;
                    let mut answer = Vec::new();
                    let end = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("it is closed");
                    assert!(end.is_err() && answer.is_empty(), "{what}: {answer:?}");
                }
                Err(error) => assert!(!error.to_string().is_empty(), "{what}"),
            }
        }
    }
    is_refused(&broker, Refusal::Handshake, 4).await;
}

#[tokio::test]
async fn without_users_a_listener_with_an_authority_wants_a_certificate() {
    let pki = Pki::new();
    let mut home = Home::new();
    home.config.anonymous = false;
    home.config.listeners = vec![pki.listener(true)];
    let broker = home.start().await;
    let stream = pki.connect(broker.address(), Some((&pki, "board", 2026))).await.unwrap();
    assert!(Raw::connect(stream, &Hello::new(4, "c")).await.is_ok());
    let bare = pki.connect(broker.address(), None).await;
    if let Ok(mut stream) = bare {
        let _ = stream.write_all(&Hello::new(4, "c").packet()).await;
        let mut answer = Vec::new();
        let end = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("it is closed");
        assert!(end.is_err() && answer.is_empty(), "{answer:?}");
    }
}
