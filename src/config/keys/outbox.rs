//! The keys of the outbox and the archive.

use super::{Section, key};

/// `[outbox]`
pub(super) static OUTBOX: Section = Section {
    title: "[outbox]",
    intro: "What was measured waits here until every broker has acknowledged it.",
    keys: &[
        key(
            "path",
            "path",
            Some("`outbox` in the state folder, such as `/var/lib/vigie/outbox`"),
            "Folder of the log.",
        ),
        key(
            "tail",
            "path",
            Some("`/run/vigie`, else `$XDG_RUNTIME_DIR`, else `/dev/shm`"),
            "Folder in memory (tmpfs) for what is not on disk yet; it survives a crash of vigie, not a power cut.",
        ),
        key(
            "flush",
            "duration up to a year; `\"0s\"`: at once",
            Some("`\"1s\"`"),
            "How long a reading may wait for its acknowledgement before it is written to disk. A power cut loses at \
             most this much; what is acknowledged earlier is never written, which spares the SD card.",
        ),
        key(
            "max_bytes",
            "size, `\"4MiB\"` to `\"1024GiB\"`",
            Some("`\"256MiB\"`"),
            "How much the log may take on disk; beyond it readings are dropped, and counted.",
        ),
        key(
            "free_share",
            "per cent, 1 to 100",
            Some("50"),
            "Nor does the log take more than this share of what it has and what is free on its disk: when another program \
             fills the disk, it stops growing.",
        ),
        key(
            "full",
            "`\"drop-oldest\"` or `\"drop-newest\"`",
            Some("`\"drop-oldest\"`"),
            "What is dropped at that limit. A reading that is in flight to a broker never is.",
        ),
        key(
            "key",
            "table, see [outbox.key](#outboxkey)",
            Some("none: nothing is encrypted"),
            "Encrypts what waits, on disk and in memory (tmpfs), so that a card that is stolen tells nothing.",
        ),
    ],
};

/// `[outbox] key = { … }`
pub(super) static OUTBOX_KEY: Section = Section {
    title: "outbox.key",
    intro: "Where the key of the outbox is read from, in exactly one way: `key = { credential = \"outbox-key\" }`. It is \
            32 random bytes, as they are, as 64 hexadecimal digits (`openssl rand -hex 32`) or in base64, and is read \
            once, at the start. A credential that is itself encrypted (`systemd-creds encrypt`) is the place for it: \
            a key that lies in clear on the same card protects nothing. What was written before there was a key is \
            still read. Without the key, or with another one, vigie does not start, and changes nothing: keep a copy. \
            The archive, and the messages that a broker refused (`refused/`), are not encrypted.",
    keys: &[
        key(
            "credential",
            "name",
            Some("none"),
            "A credential of the service, `LoadCredentialEncrypted=NAME:PATH` in its unit.",
        ),
        key("file", "path", Some("none"), "A file that nobody but its owner may read (`chmod 600`)."),
    ],
};

/// `[archive]`
pub(super) static ARCHIVE: Section = Section {
    title: "[archive]",
    intro: "Readings that every broker has acknowledged are thrown away, unless this section is there: then they are kept \
            in compressed files, which `vigie export` reads. See [archive-format](archive-format.md) for what it costs \
            the card.",
    keys: &[
        key("path", "path", Some("`archive` in the state folder, such as `/var/lib/vigie/archive`"), "Its folder."),
        key("keep", "duration, `\"1d\"` to `\"36500d\"`", Some("`\"90d\"`"), "How long readings are kept, to the day."),
        key(
            "max",
            "size, `\"1MiB\"` to `\"1024GiB\"`",
            Some("`\"1GiB\"`"),
            "How much it may take on disk; beyond it the oldest files go. Of the disk, 64 MiB are always left free.",
        ),
        key(
            "batch",
            "duration, `\"1m\"` to `\"1d\"`",
            Some("`\"5m\"`"),
            "Between two writes. A power cut costs the archive at most this much.",
        ),
    ],
};
