//! The file on disk: records behind a head that names the store. It is appended to and synchronised, and written anew
//! when most of it is outdated.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::record::{self, Record};

/// Name within the broker's folder.
pub(super) const NAME: &str = "store";
/// What the file begins with; the last digit is the version of its format.
const MAGIC: &[u8; 8] = b"vigie-b2";
/// Magic, identity, and the checksum of both.
pub(super) const HEAD: usize = 20;

/// What the file of the store with that identity begins with.
pub(super) fn head(id: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..16].copy_from_slice(&id.to_le_bytes());
    let sum = crc32fast::hash(&head[..16]);
    head[16..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// What was found on disk.
pub(super) struct Found {
    /// The store's identity, which its tail is named after.
    pub(super) id: u64,
    /// Length of what is good.
    pub(super) length: u64,
    /// It must be written anew before anything can be appended.
    pub(super) rewrite: bool,
    /// Where a file was put aside that could not be read, wholly or from some place on.
    pub(super) aside: Option<PathBuf>,
}

/// Reads the store of a folder, which is made where it is missing.
pub(super) fn load(folder: &Path, fresh_id: u64, take: impl FnMut(Record)) -> io::Result<Found> {
    fs::create_dir_all(folder)?;
    let path = folder.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Found { id: fresh_id, length: 0, rewrite: true, aside: None });
        }
        // That is not the card's fault, and can be mended.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
        Err(error) => {
            let aside = folder.join("store.damaged");
            tracing::warn!(file = %path.display(), %error, "the broker's store cannot be read");
            fs::rename(&path, &aside)?;
            return Ok(Found { id: fresh_id, length: 0, rewrite: true, aside: Some(aside) });
        }
    };
    let Some(id) = identity(&bytes) else {
        let aside = put_aside(folder, NAME, &bytes)?;
        if bytes.starts_with(MAGIC) {
            // Its records may be good all the same; its tail cannot be found.
            record::read(bytes.get(HEAD..).unwrap_or_default(), take);
        }
        return Ok(Found { id: fresh_id, length: 0, rewrite: true, aside: Some(aside) });
    };
    let good = HEAD + record::read(&bytes[HEAD..], take);
    let length = u64::try_from(good).expect("a length in memory");
    if good == bytes.len() {
        return Ok(Found { id, length, rewrite: false, aside: None });
    }
    // An append that a power cut ended, or damage: what comes behind is nothing that can be told apart.
    let aside = put_aside(folder, NAME, &bytes)?;
    Ok(Found { id, length, rewrite: true, aside: Some(aside) })
}

pub(super) fn identity(bytes: &[u8]) -> Option<u64> {
    let (found, _) = bytes.split_first_chunk::<HEAD>()?;
    let id = u64::from_le_bytes(*found[8..].first_chunk()?);
    (*found == head(id)).then_some(id)
}

/// One copy of each kind is kept: that of the last time.
pub(super) fn put_aside(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let path = folder.join(name).with_extension("damaged");
    private(&path, true)?.write_all(bytes)?;
    Ok(path)
}

pub(super) fn private(path: &Path, truncate: bool) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(truncate).mode(0o600).open(path)
}

/// What one flush writes. It may take long, and is meant for a thread that may wait.
#[derive(Debug)]
pub(in crate::broker) struct FlushJob {
    pub(super) folder: PathBuf,
    pub(super) id: u64,
    /// Where to append; `None`: the file is written anew.
    pub(super) at: Option<u64>,
    /// The records.
    pub(super) bytes: Vec<u8>,
}

impl FlushJob {
    /// Writes and waits until it is on disk. Gives the new length of the file.
    pub(in crate::broker) fn run(&self) -> io::Result<u64> {
        let path = self.folder.join(NAME);
        if let Some(at) = self.at {
            let mut file = OpenOptions::new().write(true).open(&path)?;
            // Whoever shortened or lengthened it is not us; the records would not be where they are looked for.
            if file.metadata()?.len() != at {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "somebody else has changed the file"));
            }
            io::Seek::seek(&mut file, io::SeekFrom::Start(at))?;
            file.write_all(&self.bytes)?;
            file.sync_data()?;
            return Ok(at + self.length());
        }
        let new = self.folder.join("store.new");
        let mut file = private(&new, true)?;
        file.write_all(&head(self.id))?;
        file.write_all(&self.bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(u64::try_from(HEAD).expect("a small number") + self.length())
    }

    fn length(&self) -> u64 {
        u64::try_from(self.bytes.len()).expect("a length in memory")
    }
}
