//! Encryption at rest: frames are sealed one by one, so that damage to one costs no other.
//!
//! Each process draws a salt of 256 random bits and never uses another one's. From it and the outbox's key it derives a
//! key of its own (HKDF with SHA-256, RFC 5869) for ChaCha20-Poly1305 (RFC 8439), which needs no AES instructions to be
//! quick. The nonce is a counter that lives in memory only, one for all files of the process: whatever is torn, fails,
//! is written again or is restored from a backup, no pair of key and nonce comes twice.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretBox};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// The key of an outbox; it is zeroed when it is no longer used.
pub type Key = Arc<SecretBox<[u8; KEY_BYTES]>>;

/// Bytes of a process's salt.
const SALT: usize = 32;

/// Bytes by which a key is known again.
const CHECK: usize = 16;

/// Bytes of a frame *seal* without its header.
pub(super) const NOTICE: usize = SALT + CHECK;

/// Bytes of the counter before what is sealed.
pub(super) const COUNTER: usize = 8;

/// Bytes of the tag behind what is sealed, which shows that nothing was changed.
pub(super) const TAG: usize = 16;

/// What the key that frames are sealed with is derived for.
const FOR_FRAMES: &[u8] = b"vigie outbox frames";

/// What the bytes by which the key is known again are derived for.
const FOR_CHECK: &[u8] = b"vigie outbox key check";

/// What a process seals with.
pub(super) struct Seal {
    /// Salt and check, as they stand in each file.
    notice: [u8; NOTICE],
    key: LessSafeKey,
    counter: AtomicU64,
}

impl fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Seal")
    }
}

impl Seal {
    /// A seal that was never used.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(super) fn new(key: &Key) -> io::Result<Self> {
        let mut salt = [0; SALT];
        let random = SystemRandom::new().fill(&mut salt);
        random.map_err(|_| io::Error::other("the system gives no random numbers"))?;
        let derived = derive(key, &salt);
        let mut notice = [0; NOTICE];
        notice[..SALT].copy_from_slice(&salt);
        notice[SALT..].copy_from_slice(&check(&derived));
        Ok(Self { notice, key: frames_key(&derived), counter: AtomicU64::new(0) })
    }

    /// What a reader needs beside the outbox's key: the payload of a frame *seal*.
    pub(super) fn notice(&self) -> &[u8] {
        &self.notice
    }

    /// The number of the next frame.
    pub(super) fn count(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// Seals the bytes behind `start`, with the number that `count` gave for them, and appends the tag.
    pub(super) fn seal(&self, count: u64, bound: &[u8], buffer: &mut Vec<u8>, start: usize) {
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(count), Aad::from(bound), &mut buffer[start..])
            .expect("a frame is far below the 256 GiB that the cipher takes");
        buffer.extend_from_slice(tag.as_ref());
    }
}

/// Opens what any process sealed with the outbox's key.
#[derive(Debug)]
pub(super) struct Unsealer {
    key: Option<Key>,
    has_met_seal: bool,
    /// Of the seal that was met last.
    salt: [u8; SALT],
    opening: Option<LessSafeKey>,
    /// What was opened last.
    text: Vec<u8>,
}

impl Unsealer {
    /// An unsealer that has met no seal; without a key it opens nothing.
    pub(super) fn new(key: Option<&Key>) -> Self {
        Self { key: key.cloned(), has_met_seal: false, salt: [0; SALT], opening: None, text: Vec::new() }
    }

    /// Did a seal come before?
    pub(super) fn has_met_seal(&self) -> bool {
        self.has_met_seal
    }

    /// Takes up the payload of a frame *seal*, for the frames behind it.
    pub(super) fn take_up(&mut self, notice: &[u8]) {
        self.has_met_seal = true;
        let Some((salt, found)) = notice.split_first_chunk::<SALT>() else { return };
        let Some(key) = self.key.as_ref().filter(|_| self.opening.is_none() || self.salt != *salt) else { return };
        let derived = derive(key, salt);
        self.salt = *salt;
        self.opening = (found == check(&derived)).then(|| frames_key(&derived));
    }

    /// Opens a sealed payload; `None`: it is not as it was sealed, or was sealed with another key.
    pub(super) fn open(&mut self, bound: &[u8], sealed: &[u8]) -> Option<&[u8]> {
        let (count, sealed) = sealed.split_first_chunk::<COUNTER>()?;
        self.text.clear();
        self.text.extend_from_slice(sealed);
        let nonce = nonce(u64::from_le_bytes(*count));
        let text = self.opening.as_ref()?.open_in_place(nonce, Aad::from(bound), &mut self.text);
        text.ok().map(|text| &*text)
    }
}

/// Was that frame *seal* written with this key? `None`: it is none.
pub(super) fn fits(key: &Key, notice: &[u8]) -> Option<bool> {
    let (salt, found) = notice.split_first_chunk::<SALT>()?;
    (found.len() == CHECK).then(|| found == check(&derive(key, salt)))
}

fn nonce(count: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..COUNTER].copy_from_slice(&count.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn derive(key: &Key, salt: &[u8; SALT]) -> Prk {
    Salt::new(HKDF_SHA256, salt).extract(key.expose_secret())
}

fn frames_key(derived: &Prk) -> LessSafeKey {
    let okm = derived.expand(&[FOR_FRAMES], &CHACHA20_POLY1305).expect("32 bytes are few enough for HKDF");
    LessSafeKey::new(UnboundKey::from(okm))
}

/// The length of the check, as HKDF asks for it.
struct CheckLength;

impl KeyType for CheckLength {
    fn len(&self) -> usize {
        CHECK
    }
}

fn check(derived: &Prk) -> [u8; CHECK] {
    let mut check = [0; CHECK];
    let okm = derived.expand(&[FOR_CHECK], CheckLength).expect("16 bytes are few enough for HKDF");
    okm.fill(&mut check).expect("as long as was asked for");
    check
}
