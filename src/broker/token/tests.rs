//! Tokens that are right, and all the ways in which they are not.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use rcgen::{KeyPair, PublicKeyData};
use ring::rand::SystemRandom;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::logging::{AuditLayer, Trail};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: Time = Time { now: Some(2_000_000_000.0), earliest: 1_700_000_000.0 };
const UNSET: Time = Time { now: None, ..NOW };

fn unsigned(algorithm: &str, claims: &str) -> String {
    let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
    format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(claims.as_bytes()))
}

fn hs256(algorithm: &str, claims: &str) -> String {
    let unsigned = unsigned(algorithm, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), unsigned.as_bytes());
    format!("{unsigned}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

fn with_key(key: Key, audience: Option<&str>) -> Tokens {
    let path = PathBuf::from("/dev/null");
    Tokens { stamp: Stamp::of(&path).unwrap(), path, key, audience: audience.map(str::to_owned) }
}

fn tokens(audience: Option<&str>) -> Tokens {
    with_key(Key::Hs256(hmac::Key::new(hmac::HMAC_SHA256, SECRET)), audience)
}

#[test]
fn a_token_is_believed_while_it_is_valid_and_meant_for_us() {
    let look = |claims: &str, time| tokens(Some("gate")).user(hs256("HS256", claims).as_bytes(), time);
    let good = r#"{"sub":"anna","aud":["other","gate"],"exp":2000000100,"nbf":1999999900}"#;
    assert_eq!(look(good, NOW), Ok(("anna".to_owned(), Some(Until(2_000_000_100.0)))));
    assert_eq!(look(r#"{"sub":"anna","aud":"gate"}"#, NOW), Ok(("anna".to_owned(), None)), "one that lasts for ever");
    for (claims, why) in [
        (r#"{"sub":"anna","aud":"gate","exp":1999999900}"#, "expired"),
        (r#"{"sub":"anna","aud":"gate","nbf":2000000100}"#, "not valid yet"),
        (r#"{"sub":"anna","aud":"other"}"#, "another audience"),
        (r#"{"sub":"anna"}"#, "another audience"),
        (r#"{"aud":"gate"}"#, "no `sub`"),
        (r#"{"sub":"a/b","aud":"gate"}"#, "cannot be a user's name"),
        (r#"{"sub":7,"aud":"gate"}"#, "not what RFC 7519 says"),
        (r#"{"sub":"anna","aud":"gate","exp":"soon"}"#, "not what RFC 7519 says"),
    ] {
        let said = look(claims, NOW).unwrap_err();
        assert!(said.contains(why), "{claims}: {said}");
    }
}

#[test]
fn what_is_left_of_a_token_is_known_when_the_time_is() {
    let left = |until: f64, now: Option<f64>| Until(until).left(Time { now, earliest: 1_900_000_000.0 });
    assert_eq!(left(2_000_000_100.0, Some(2_000_000_000.0)), Some(Duration::from_secs(160)), "with the leeway");
    assert_eq!(left(1_999_999_940.0, Some(2_000_000_000.0)), Some(Duration::ZERO));
    assert_eq!(left(-1e300, Some(2_000_000_000.0)), Some(Duration::ZERO));
    assert_eq!(left(1e300, Some(2_000_000_000.0)), Some(Duration::from_secs(1_000_000_000)));
    assert_eq!(left(1_600_000_000.0, None), None, "nobody is sent away before");
}

#[test]
fn without_a_clock_only_what_expired_before_the_program_was_built_is_refused() {
    let look = |claims: &str| tokens(None).user(hs256("HS256", claims).as_bytes(), UNSET);
    assert!(look(r#"{"sub":"anna","exp":1999999900}"#).is_ok());
    assert!(look(r#"{"sub":"anna","nbf":2000000100}"#).is_ok());
    assert!(look(r#"{"sub":"anna","exp":1600000000}"#).unwrap_err().contains("expired"));
}

#[test]
fn no_token_chooses_its_algorithm_and_every_byte_of_it_counts() {
    let tokens = tokens(None);
    let claims = r#"{"sub":"anna"}"#;
    for other in ["none", "HS512", "RS256", "hs256", ""] {
        assert!(tokens.user(hs256(other, claims).as_bytes(), NOW).unwrap_err().contains("another way"), "{other}");
    }
    let bare = format!("{}.", unsigned("none", claims));
    assert!(tokens.user(bare.as_bytes(), NOW).is_err());
    let crit = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(br#"{"alg":"HS256","crit":["b64"],"b64":false}"#),
        BASE64URL_NOPAD.encode(claims.as_bytes())
    );
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), crit.as_bytes());
    assert!(tokens.user(format!("{crit}.{}", BASE64URL_NOPAD.encode(tag.as_ref())).as_bytes(), NOW).is_err());
    let good = hs256("HS256", claims);
    assert!(Tokens::could_be(good.as_bytes()) && !Tokens::could_be(b"a.b.c") && !Tokens::could_be(b"eyJ"));
    for at in 0..good.len() {
        let mut bad = good.clone().into_bytes();
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        // The last character has bits that mean nothing; where they change, the decoder says so.
        assert!(tokens.user(&bad, NOW).is_err(), "byte {at}");
    }
    assert!(tokens.user(&vec![b'e'; MAX_BYTES + 1], NOW).unwrap_err().contains("too long"));
}

#[test]
fn public_keys_are_told_apart_and_verify_what_their_owner_signed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    fs::write(&path, pair.public_key_pem()).unwrap();
    let tokens = Tokens::open(&path, None).unwrap();
    assert_eq!(tokens.key.algorithm(), "ES256");
    let claims = r#"{"sub":"anna"}"#;
    let unsigned = unsigned("ES256", claims);
    let random = SystemRandom::new();
    let signer = signature::EcdsaKeyPair::from_pkcs8(
        &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        &pair.serialize_der(),
        &random,
    )
    .unwrap();
    let tag = signer.sign(&random, unsigned.as_bytes()).unwrap();
    let token = format!("{unsigned}.{}", BASE64URL_NOPAD.encode(tag.as_ref()));
    assert_eq!(tokens.user(token.as_bytes(), NOW).map(|(user, _)| user), Ok("anna".to_owned()));
    // Its public key is no secret: nobody may sign with it.
    let forged = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pair.der_bytes()), unsigned.as_bytes());
    let forged = format!("{unsigned}.{}", BASE64URL_NOPAD.encode(forged.as_ref()));
    assert!(tokens.user(forged.as_bytes(), NOW).unwrap_err().contains("signature"));
    fs::write(&path, KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().public_key_pem()).unwrap();
    let said = Tokens::open(&path, None).unwrap_err().to_string();
    assert!(said.contains("neither RSA nor"), "{said}");
    fs::write(&path, pair.serialize_pem()).unwrap();
    let said = Tokens::open(&path, None).unwrap_err().to_string();
    assert!(said.contains("no PUBLIC KEY"), "a private key is not for us: {said}");
}

/// From the appendix of RFC 7515 (A.2): the key, and what was signed with it.
#[test]
fn the_example_of_the_specification_for_rs256_is_verified() {
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2l\
             ZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEM\
             a2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2P\
             AcDTW9gb54h4FRWyuXpoQ";
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb29\
                 0Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujG\
                 bds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eS\
                 N9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWk\
                 WywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let modulus = BASE64URL_NOPAD.decode(n.as_bytes()).unwrap();
    // RSAPublicKey (RFC 8017, A.1.1): a sequence of the modulus, with a leading zero, and the exponent 65537.
    let mut integer = vec![0x02, 0x82, 0x01, 0x01, 0x00];
    integer.extend(&modulus);
    integer.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
    let key = [&[0x30, 0x82, 0x01, 0x0A][..], &integer].concat();
    let tokens = with_key(Key::Rs256(key), None);
    // It is verified, and has long expired.
    assert_eq!(tokens.user(token.as_bytes(), NOW), Err("its token has expired"));
    let altered = token.replace("cC4hi", "cC5hi");
    assert_eq!(tokens.user(altered.as_bytes(), NOW), Err("the signature of its token is wrong"));
}

#[test]
fn a_secret_is_long_enough_and_not_everybodys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    assert!(matches!(Tokens::open(&path, None), Err(TokenKeyError::File { .. })));
    fs::write(&path, [SECRET, b"\n"].concat()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Tokens::open(&path, None), Err(TokenKeyError::Open(_, 0o644))));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let tokens = Tokens::open(&path, None).unwrap();
    assert!(tokens.user(hs256("HS256", r#"{"sub":"anna"}"#).as_bytes(), NOW).is_ok());
    assert!(!format!("{tokens:?}").contains("0123"));
    fs::write(&path, "short").unwrap();
    assert!(Tokens::open(&path, None).unwrap_err().to_string().contains("at least 32 bytes"));
}

#[test]
fn a_new_key_counts_from_the_next_login_on_and_an_auditor_learns_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    // Replaced as a careful writer does it, which no clock's step hides.
    let write = |secret: &[u8]| {
        let new = folder.path().join("new");
        fs::write(&new, secret).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o640)).unwrap();
        fs::rename(&new, &path).unwrap();
    };
    let token = hs256("HS256", r#"{"sub":"anna"}"#);
    let trail: &'static Trail = Box::leak(Box::new(Trail::new()));
    let _here = tracing::subscriber::set_default(tracing_subscriber::registry().with(AuditLayer(trail)));
    let audited = |tokens: &mut Tokens| {
        tokens.refresh();
        let message = trail.take().map(|(event, _)| event["message"].as_str().unwrap().to_owned());
        (tokens.user(token.as_bytes(), NOW).is_ok(), message)
    };
    write(b"another secret, of 32 bytes or more");
    let mut tokens = Tokens::open(&path, None).unwrap();
    assert_eq!(audited(&mut tokens), (false, None));
    write(SECRET);
    assert_eq!(audited(&mut tokens), (true, Some("the broker has a new key for tokens".to_owned())));
    assert_eq!(audited(&mut tokens), (true, None), "once");
    write(b"short");
    let (still, said) = audited(&mut tokens);
    let said = said.unwrap();
    assert!(
        still && said.starts_with("the broker keeps its old key for tokens: ") && said.contains("32 bytes"),
        "{said}"
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(audited(&mut tokens), (true, None), "one that is gone for a moment is no new one");
}

proptest! {
    #[test]
    fn nothing_that_was_not_signed_is_believed(bytes in prop::collection::vec(any::<u8>(), 0..200), claims in ".{0,80}") {
        let tokens = tokens(None);
        prop_assert!(tokens.user(&bytes, NOW).is_err());
        // Signed, and anything in it: an answer, whatever it is.
        let _ = tokens.user(hs256("HS256", &claims).as_bytes(), NOW);
        let _ = tokens.user(hs256(&claims, r#"{"sub":"anna"}"#).as_bytes(), NOW);
    }
}
