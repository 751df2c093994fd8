use std::process::Command;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A folder with an authority and certificates, made by openssl.
struct Authority(tempfile::TempDir);

impl Authority {
    fn new(name: &str) -> Self {
        let authority = Self(tempfile::tempdir().expect("a folder"));
        authority.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 3650 \
             -subj /CN={name}"
        ));
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .current_dir(self.0.path())
            .args(arguments.split_whitespace())
            .output()
            .expect("these tests need openssl");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Signs `<name>.pem` with `<name>.key` for a host, valid between the two dates (YYYYMMDDHHMMSSZ).
    fn issue(&self, name: &str, host: &str, from: &str, to: &str) -> (PathBuf, PathBuf) {
        std::fs::write(self.path("ext"), format!("subjectAltName={host}\n")).expect("written");
        std::fs::write(self.path("index.txt"), "").expect("written");
        std::fs::write(
            self.path("ca.conf"),
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\n\
             policy=p\nunique_subject=no\ncertificate=ca.pem\nprivate_key=ca.key\n[p]\ncommonName=supplied\n",
        )
        .expect("written");
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        self.openssl(&format!(
            "ca -batch -config ca.conf -in {name}.csr -out {name}.pem -startdate {from} -enddate {to} -extfile ext \
             -notext"
        ));
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }
}

const FROM: &str = "20200101000000Z";
const TO: &str = "20400101000000Z";

/// 2030-01-01
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_893_456_000)
}

fn trusting(authority: &Authority) -> TlsConfig {
    TlsConfig { ca: Some(authority.path("ca.pem")), ..TlsConfig::default() }
}

fn acceptor((certificate, key): &(PathBuf, PathBuf), clients: Option<&Authority>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let time = UnixTime::since_unix_epoch(now().duration_since(UNIX_EPOCH).expect("after 1970"));
    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(Fixed(time)))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&authority.path("ca.pem"), "a test").expect("certificates") {
                roots.add(certificate).expect("an authority");
            }
            builder.with_client_cert_verifier(
                rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .build()
                    .expect("a verifier"),
            )
        }
    };
    let chain = certificates(certificate, "a test").expect("certificates");
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, private_key(key).expect("a key")).expect("a pair")))
}

/// What a client of these settings says of a broker; `Ok` holds what the broker read.
async fn attempt(settings: &TlsConfig, host: &str, acceptor: TlsAcceptor) -> Result<Option<Expiry>, String> {
    attempt_at(CertificateTime::Exact(now()), settings, host, acceptor).await
}

/// The same, with what is known of the time.
async fn attempt_at(
    time: CertificateTime,
    settings: &TlsConfig,
    host: &str,
    acceptor: TlsAcceptor,
) -> Result<Option<Expiry>, String> {
    let (ours, theirs) = tokio::io::duplex(4_096);
    let broker = async move {
        let Ok(mut stream) = acceptor.accept(theirs).await else { return };
        let mut byte = [0];
        if stream.read_exact(&mut byte).await.is_ok() {
            let _ = stream.write_all(&byte).await;
            let _ = stream.flush().await;
        }
    };
    let client = async {
        let prepared = prepare(settings, time).map_err(|error| error.to_string())?;
        let (mut stream, expiry) = connect(&prepared, host, ours).await.map_err(|error| error.to_string())?;
        let echo = async {
            stream.write_all(b"x").await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        echo.await.map_err(|error| explain(&error, host).unwrap_or_else(|| error.to_string()))?;
        Ok(expiry)
    };
    let (result, ()) = tokio::join!(client, broker);
    result
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}

#[test]
fn a_trusted_broker_is_accepted_and_its_expiry_known() {
    let authority = Authority::new("home");
    let pair = authority.issue("broker", "DNS:broker.lan", FROM, TO);
    let expiry = run(attempt(&trusting(&authority), "broker.lan", acceptor(&pair, None))).expect("a connection");
    let expiry = expiry.expect("an expiry");
    assert_eq!(humantime::format_rfc3339_seconds(expiry.at).to_string(), "2040-01-01T00:00:00Z");
    assert_eq!((expiry.whose, expiry.name.as_str()), (Whose::Server, "CN=broker"));
}

#[test]
fn what_is_wrong_with_a_broker_is_said_in_words() {
    let (authority, other) = (Authority::new("home"), Authority::new("elsewhere"));
    let fine = authority.issue("broker", "DNS:broker.lan", FROM, TO);
    let old = authority.issue("old", "DNS:broker.lan", FROM, "20250101000000Z");
    let young = authority.issue("young", "DNS:broker.lan", "20390101000000Z", TO);
    for (settings, host, pair, expected) in [
        (trusting(&other), "broker.lan", &fine, "signed by an authority that is not trusted here"),
        (trusting(&authority), "other.lan", &fine, "is for broker.lan, not for `other.lan`"),
        (trusting(&authority), "broker.lan", &old, "expired on 2025-01-01T00:00:00Z"),
        (trusting(&authority), "broker.lan", &young, "valid only from 2039-01-01T00:00:00Z on"),
        (trusting(&authority), "bad name", &fine, "neither a DNS name nor an address"),
    ] {
        let error = run(attempt(&settings, host, acceptor(pair, None))).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
}

/// A Pi without a clock, in 1970 by its own account, must not take an old certificate and must not refuse a new one.
#[test]
fn while_the_clock_is_not_set_only_what_has_surely_expired_is_refused() {
    let authority = Authority::new("home");
    let fine = authority.issue("broker", "DNS:broker.lan", FROM, TO);
    let young = authority.issue("young", "DNS:broker.lan", "20390101000000Z", TO);
    let old = authority.issue("old", "DNS:broker.lan", FROM, "20290101000000Z");
    let settings = trusting(&authority);
    let at = |time, pair| run(attempt_at(time, &settings, "broker.lan", acceptor(pair, None)));
    let nineteen_seventy = CertificateTime::AtLeast(UNIX_EPOCH);
    for pair in [&fine, &young, &old] {
        at(nineteen_seventy, pair).expect("it may well be valid");
        let error = at(CertificateTime::Exact(UNIX_EPOCH), pair).expect_err("the time is known");
        assert!(error.contains("is valid only from"), "{error}");
    }
    // The last known time is past its end; then the clock is set.
    for time in [CertificateTime::AtLeast(now()), CertificateTime::Exact(now())] {
        at(time, &fine).expect("valid");
        let error = at(time, &old).expect_err("expired");
        assert!(error.contains("expired on 2029-01-01T00:00:00Z"), "{error}");
    }
    at(CertificateTime::AtLeast(now()), &young).expect("it may be later than known");
    // Everything else is checked as ever.
    let other = Authority::new("elsewhere");
    let error = run(attempt_at(nineteen_seventy, &trusting(&other), "broker.lan", acceptor(&fine, None)));
    assert!(error.expect_err("a stranger").contains("not trusted here"));
    let error = run(attempt_at(nineteen_seventy, &settings, "other.lan", acceptor(&fine, None)));
    assert!(error.expect_err("another name").contains("not for `other.lan`"));
}

#[test]
fn protocols_are_offered() {
    let authority = Authority::new("home");
    let pair = authority.issue("broker", "DNS:broker.lan", FROM, TO);
    let speaking = |names: &[&str]| {
        let mut config = acceptor(&pair, None).config().as_ref().clone();
        config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    };
    let offering = |name: &str| TlsConfig { alpn: vec![name.to_owned()], ..trusting(&authority) };
    let both = ["http/1.1", "x-amzn-mqtt-ca"];
    run(attempt(&offering("x-amzn-mqtt-ca"), "broker.lan", speaking(&both))).expect("it is spoken");
    run(attempt(&trusting(&authority), "broker.lan", speaking(&both))).expect("nothing is asked for");
    let error = run(attempt(&offering("mqtt"), "broker.lan", speaking(&both))).expect_err("not spoken");
    assert!(error.contains("`tls.alpn`"), "{error}");
}

#[test]
fn what_is_wrong_with_us_is_said_in_words() {
    let (authority, other) = (Authority::new("home"), Authority::new("elsewhere"));
    let broker = authority.issue("broker", "DNS:broker.lan", FROM, TO);
    let client = authority.issue("pi", "DNS:pi", FROM, TO);
    let old = authority.issue("old", "DNS:pi", FROM, "20250101000000Z");
    let foreign = other.issue("pi", "DNS:pi", FROM, TO);
    let with = |client| TlsConfig { client, ..trusting(&authority) };
    let wanting = |pair| run(attempt(&with(pair), "broker.lan", acceptor(&broker, Some(&authority))));
    wanting(Some(client)).expect("our certificate is accepted");
    for (pair, expected) in [
        (None, "the broker wants a certificate of ours"),
        (Some(old), "our certificate (`tls.cert`) has expired"),
        (Some(foreign), "does not accept our certificate"),
    ] {
        let error = wanting(pair).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let authority = Authority::new("home");
    let (certificate, key) = authority.issue("pi", "DNS:pi", FROM, TO);
    let (_, other_key) = authority.issue("other", "DNS:pi", FROM, TO);
    authority.openssl("genrsa -aes128 -passout pass:secret -out locked.key 2048");
    let whole = std::fs::read_to_string(&certificate).expect("readable");
    std::fs::write(authority.path("cut.pem"), &whole[..whole.len() / 2]).expect("written");
    let missing = authority.path("missing.pem");
    let with = |ca: &Path, client| TlsConfig { ca: Some(ca.to_owned()), client, ..TlsConfig::default() };
    let ca = authority.path("ca.pem");
    for (settings, expected) in [
        (with(&missing, None), "missing.pem, the file of the authority (`tls.ca`): No such file"),
        (with(&key, None), "pi.key holds no usable PEM certificate: there is no such section"),
        (with(&authority.path("cut.pem"), None), "cut.pem holds no usable PEM certificate: a section has no end"),
        (with(&ca, Some((certificate.clone(), certificate.clone()))), "pi.pem holds no usable PEM key"),
        (with(&ca, Some((certificate.clone(), authority.path("locked.key")))), "protected by a passphrase"),
        (with(&ca, Some((certificate.clone(), other_key))), "does not belong to the certificate in"),
    ] {
        let error = prepare(&settings, CertificateTime::Exact(now())).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn every_form_of_key_is_read() {
    let authority = Authority::new("home");
    authority.openssl("genrsa -out rsa8.key 2048");
    authority.openssl("rsa -in rsa8.key -traditional -out rsa1.key");
    authority.openssl("ecparam -name prime256v1 -genkey -noout -out sec1.key");
    for (name, header) in
        [("rsa8.key", "BEGIN PRIVATE"), ("rsa1.key", "BEGIN RSA PRIVATE"), ("sec1.key", "BEGIN EC PRIVATE")]
    {
        let path = authority.path(name);
        assert!(std::fs::read_to_string(&path).expect("readable").contains(header));
        private_key(&path).expect(name);
    }
}

#[test]
fn what_does_not_speak_tls_is_recognised() {
    let authority = Authority::new("home");
    let (ours, mut theirs) = tokio::io::duplex(4_096);
    let client = async {
        let prepared = prepare(&trusting(&authority), CertificateTime::Exact(now())).expect("prepared");
        connect(&prepared, "broker.lan", ours).await.map(|_| ()).map_err(|error| error.to_string())
    };
    let plain = async move {
        let _ = theirs.write_all(&[0x20, 2, 0, 1, 0, 0, 0, 0]).await;
        theirs
    };
    let (result, _open) = run(async { tokio::join!(client, plain) });
    let error = result.expect_err("not TLS");
    assert!(error.contains("is not TLS"), "{error}");
}
