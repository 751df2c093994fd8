//! An HTTP proxy that opens the connection for us (CONNECT; RFC 9110, section 9.3.6).

use data_encoding::BASE64;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The proxy's answer, with its header, may be so long.
pub const MAX_ANSWER: usize = 8 * 1_024;

/// Bytes of the answer's first line that are shown where it is none.
const SHOWN: usize = 60;

/// Why the proxy does not connect us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// What came is not HTTP.
    #[error("the proxy's answer is not HTTP (`{0}`): is this the proxy's port?")]
    NotHttp(String),
    /// The header does not end.
    #[error("the proxy's answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// It wants to know who we are, or does not believe it.
    #[error("the proxy wants a user name and password, or refuses those of `proxy`")]
    Unauthorised,
    /// Any other refusal.
    #[error("the proxy refuses to connect to {target}: {status}")]
    Refused {
        /// Whom we asked for.
        target: String,
        /// Code and phrase.
        status: String,
    },
    /// Something came before we said anything through the connection.
    #[error("the proxy sent something after its answer that is not from the broker")]
    Chatter,
    /// The proxy closed the connection.
    #[error("the proxy closed the connection without an answer")]
    Closed,
    /// The connection to the proxy is lost.
    #[error("the connection to the proxy is lost: {0}")]
    Lost(String),
}

/// Asks the proxy at the other end of the stream for a connection to `target` (host and port); from then on the stream
/// leads there.
///
/// # Errors
/// Why it does not.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &str,
    login: Option<(&str, Option<&SecretString>)>,
) -> Result<(), ProxyError> {
    let lost = |error: std::io::Error| ProxyError::Lost(error.to_string());
    stream.write_all(request(target, login).expose_secret().as_bytes()).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let mut answer = Vec::new();
    loop {
        if let Some(head) = head(&answer)? {
            return check(&answer[..head], answer.len() - head, target);
        }
        if stream.read_buf(&mut answer).await.map_err(lost)? == 0 {
            return Err(ProxyError::Closed);
        }
    }
}

fn request(target: &str, login: Option<(&str, Option<&SecretString>)>) -> SecretString {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some((username, password)) = login {
        // RFC 7617, section 2.
        let pair = format!("{username}:{}", password.map_or("", ExposeSecret::expose_secret));
        request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(pair.as_bytes())));
    }
    request.push_str("\r\n");
    request.into()
}

/// Where the header ends, with the empty line after it; `None` if more must be read.
fn head(answer: &[u8]) -> Result<Option<usize>, ProxyError> {
    // Whatever is no HTTP need not be read to its end.
    let known = answer.len().min(5);
    if answer[..known] != b"HTTP/"[..known] {
        return Err(not_http(answer));
    }
    let looked_at = &answer[..answer.len().min(MAX_ANSWER)];
    match looked_at.windows(4).position(|end| end == b"\r\n\r\n") {
        Some(at) => Ok(Some(at + 4)),
        None if answer.len() >= MAX_ANSWER => Err(ProxyError::TooLong),
        None => Ok(None),
    }
}

/// What the first line means: `HTTP/1.1 200 Connection established` (RFC 9112, section 4).
fn check(head: &[u8], after: usize, target: &str) -> Result<(), ProxyError> {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let status = line
        .strip_prefix(b"HTTP/1.")
        .filter(|rest| matches!(rest, [b'0'..=b'9', b' ', b'1'..=b'9', b'0'..=b'9', b'0'..=b'9', ..]))
        .map(|rest| &rest[2..])
        .filter(|status| status.len() == 3 || status[3] == b' ')
        .ok_or_else(|| not_http(head))?;
    match &status[..3] {
        [b'2', ..] if after == 0 => Ok(()),
        [b'2', ..] => Err(ProxyError::Chatter),
        b"407" => Err(ProxyError::Unauthorised),
        _ => Err(ProxyError::Refused { target: target.to_owned(), status: shown(status) }),
    }
}

fn not_http(answer: &[u8]) -> ProxyError {
    ProxyError::NotHttp(shown(answer.split(|byte| *byte == b'\r').next().unwrap_or_default()))
}

/// For people: no control characters, not too long.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned();
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
    }

    /// What we make of an answer that comes in pieces of so many bytes, after which the proxy closes; and what we sent.
    fn answered(answer: &[u8], piece: usize) -> (Result<(), ProxyError>, String) {
        run(async {
            let (mut ours, mut theirs) = tokio::io::duplex(64 * 1_024);
            let secret = SecretString::from("open sesame");
            let proxy = async {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    assert!(theirs.read_buf(&mut request).await.is_ok_and(|read| read > 0), "a whole request");
                }
                for piece in answer.chunks(piece.max(1)) {
                    // Whoever has heard enough hangs up.
                    let _ = theirs.write_all(piece).await;
                }
                drop(theirs);
                String::from_utf8(request).expect("text")
            };
            let client = async {
                let result = connect(&mut ours, "broker.lan:8883", Some(("pi", Some(&secret)))).await;
                drop(ours);
                result
            };
            tokio::join!(client, proxy)
        })
    }

    #[test]
    fn the_request_says_whereto_and_who() {
        let (result, request) = answered(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n", 7);
        assert_eq!(result, Ok(()));
        let expected = "CONNECT broker.lan:8883 HTTP/1.1\r\nHost: broker.lan:8883\r\n\
                        Proxy-Authorization: Basic cGk6b3BlbiBzZXNhbWU=\r\n\r\n";
        assert_eq!(request, expected);
        assert!(!request_is_shown(), "the request is a secret");
    }

    fn request_is_shown() -> bool {
        format!("{:?}", request("a:1", Some(("pi", Some(&SecretString::from("secret")))))).contains("c2VjcmV0")
    }

    #[test]
    fn every_answer_has_its_meaning() {
        let refused =
            |status: &str| ProxyError::Refused { target: "broker.lan:8883".to_owned(), status: status.into() };
        for (answer, expected) in [
            (&b"HTTP/1.0 200\r\n\r\n"[..], Ok(())),
            (b"HTTP/1.1 407 Proxy Authentication Required\r\nA: b\r\n\r\n<html>", Err(ProxyError::Unauthorised)),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", Err(refused("502 Bad Gateway"))),
            (b"HTTP/1.1 200 OK\r\n\r\n\x20", Err(ProxyError::Chatter)),
            (b"HTTP/1.1 200 OK\r\n", Err(ProxyError::Closed)),
            (b"", Err(ProxyError::Closed)),
            (b"SSH-2.0-x\r\n", Err(ProxyError::NotHttp("SSH-2.0-x".to_owned()))),
            (b"HTTP/1.1 2000 OK\r\n\r\n", Err(ProxyError::NotHttp("HTTP/1.1 2000 OK".to_owned()))),
            (b"HTTP/2 200\r\n\r\n", Err(ProxyError::NotHttp("HTTP/2 200".to_owned()))),
        ] {
            for piece in [1, 1_000] {
                // A byte that comes later than the answer is the broker's business.
                if expected != Err(ProxyError::Chatter) || piece > 1 {
                    assert_eq!(answered(answer, piece).0, expected, "{:?}", String::from_utf8_lossy(answer));
                }
            }
        }
        let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'a'; 2 * MAX_ANSWER]].concat();
        assert_eq!(answered(&endless, 100).0, Err(ProxyError::TooLong));
    }

    proptest! {
        #[test]
        fn no_answer_whatsoever_panics(tail in proptest::collection::vec(any::<u8>(), 0..200), http: bool, end: bool) {
            let mut answer = if http { b"HTTP/1.1 ".to_vec() } else { Vec::new() };
            answer.extend(tail);
            if end {
                answer.extend(b"\r\n\r\n");
            }
            match head(&answer) {
                Ok(Some(at)) => {
                    prop_assert!(at <= answer.len() && answer[..at].ends_with(b"\r\n\r\n"));
                    if let Err(error) = check(&answer[..at], answer.len() - at, "a:1") {
                        prop_assert!(error.to_string().chars().all(|c| !c.is_control()));
                    }
                }
                Ok(None) => prop_assert!(!end),
                Err(error) => prop_assert!(error.to_string().chars().all(|c| !c.is_control())),
            }
        }
    }
}
