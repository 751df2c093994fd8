//! Bringing a gateway back: everything is laid ready first, the outbox is opened there as an agent would open it, and
//! only then anything that is in place is touched.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::owner::Owner;
use super::place::{self, Place};
use super::{Contents, Item, Part, Unusable, extract};
use crate::archive;
use crate::clock::{BootId, BootTime, WallTime};
use crate::config::{Config, files};
use crate::outbox::{Full, OpenError, Outbox, RESTORED_KEY, Settings};

/// Records that the outbox may hold in memory while it is looked at.
const MEMORY: usize = 8 << 20;

/// What is to be brought back, and where to.
#[derive(Debug)]
pub struct Restore<'a> {
    /// The configuration's main file.
    pub config_path: &'a Path,
    /// What the configuration says that will be in place.
    pub config: &'a Config,
    /// Where a tail of the outbox may lie.
    pub tails: &'a [PathBuf],
    /// What is wanted.
    pub parts: &'a [Part],
    /// Set aside what is there.
    pub force: bool,
    /// This board takes the place of the one that the backup is of.
    pub adopt: bool,
    /// This boot, and the time in it.
    pub now: (BootId, BootTime),
    /// Makes what the embedded broker kept another one's, of another identity; checks it.
    pub renew: fn(Vec<u8>) -> Result<Vec<u8>, &'static str>,
}

/// What was brought back.
#[derive(Debug, Default)]
pub struct Brought {
    /// Which parts, and where to.
    pub parts: Vec<(Part, PathBuf)>,
    /// Where what was there before is now.
    pub aside: Vec<PathBuf>,
    /// How many values wait for a broker.
    pub waiting: u64,
}

/// Files that are in the way, a few of each part.
pub type Found = Vec<PathBuf>;

/// Why nothing was brought back.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The backup itself.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// Something is there.
    #[error("there is {} already", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    Exists(Found),
    /// An agent has the outbox.
    #[error("an agent has the outbox in {path}", path = .0.display())]
    Running(PathBuf),
    /// The outbox of the backup cannot be opened.
    #[error("the outbox in it cannot be opened: {0}")]
    Outbox(OpenError),
    /// What the broker kept is of no use.
    #[error("{0}")]
    Broker(&'static str),
    /// The archive is of no use.
    #[error("the archive in it cannot be read: {0}")]
    Archive(archive::Failure),
    /// The system refuses.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> Refusal + use<> {
    let path = path.to_owned();
    move |error| Refusal::Io { path, error }
}

/// A part on its way.
struct Ready {
    part: Part,
    folder: PathBuf,
    place: Place,
    there: Vec<PathBuf>,
}

impl Restore<'_> {
    /// Brings it back. `contents` is what [`check`](super::check) said of the same file.
    ///
    /// # Errors
    /// Nothing was changed; except that where the system refuses the very last step (renaming what lies ready), what was
    /// set aside before is in the folders `before-restore-…`.
    pub fn run(&self, contents: &Contents, from: impl Read) -> Result<Brought, Refusal> {
        let _lock = self.lock()?;
        let tails = self.left_tails();
        let mut ready: Vec<Ready> = Vec::new();
        let mut in_the_way = Vec::new();
        for part in Part::ALL.into_iter().filter(|part| self.parts.contains(part) && contents.has(*part)) {
            let Some(folder) = self.folder(part) else { continue };
            let there = self.there(part, &folder, contents);
            if !there.is_empty() || part == Part::Outbox && !tails.is_empty() {
                in_the_way.push(there.first().or(tails.first()).cloned().unwrap_or_else(|| folder.clone()));
            }
            ready.push(Ready { part, place: Place::new(&folder, mode(part)).map_err(io_at(&folder))?, folder, there });
        }
        let laid =
            if in_the_way.is_empty() || self.force { self.lay(&ready, from) } else { Err(Refusal::Exists(in_the_way)) };
        match laid {
            Ok(waiting) => Self::put(ready, &tails, waiting),
            Err(refusal) => {
                ready.into_iter().for_each(|ready| ready.place.give_up());
                Err(refusal)
            }
        }
    }

    /// No agent takes the outbox meanwhile.
    fn lock(&self) -> Result<Option<File>, Refusal> {
        let path = &self.config.outbox.path;
        let folder = match File::open(path) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_at(path)(error)),
        };
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(folder)),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(Refusal::Running(path.clone())),
            Err(error) => Err(io_at(path)(error.into())),
        }
    }

    fn folder(&self, part: Part) -> Option<PathBuf> {
        match part {
            Part::Outbox => Some(self.config.outbox.path.clone()),
            Part::Archive => Some(self.config.archive.as_ref()?.path.clone()),
            Part::Broker => Some(self.config.broker.as_ref()?.path.clone()),
            Part::Configuration => {
                let folder = self.config_path.parent().filter(|folder| !folder.as_os_str().is_empty());
                Some(folder.unwrap_or(Path::new(".")).to_owned())
            }
        }
    }

    /// Where an entry lies, seen from its part's folder.
    fn inner(&self, item: &Item) -> PathBuf {
        match item {
            Item::Main => PathBuf::from(self.config_path.file_name().unwrap_or_default()),
            Item::Fragment(name) => {
                PathBuf::from(self.config_path.with_extension("d").file_name().unwrap_or_default()).join(name)
            }
            Item::Beside(path) => path.clone(),
            Item::Outbox(name) | Item::Archive(name) => PathBuf::from(name),
            Item::Tail(name) => Path::new("tail").join(name),
            Item::Refused(name) => Path::new("refused").join(name),
            Item::Store => PathBuf::from("store"),
        }
    }

    /// What is there of a part.
    fn there(&self, part: Part, folder: &Path, contents: &Contents) -> Vec<PathBuf> {
        let names =
            || fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|it| it.file_name().into_string().ok());
        let inner: Vec<PathBuf> = match part {
            Part::Outbox => names()
                .filter(|name| !place::is_ours(name) && name != "lost+found" && !name.starts_with("copied-from-"))
                .map(PathBuf::from)
                .collect(),
            Part::Archive => names().filter(|name| name.starts_with("archive-")).map(PathBuf::from).collect(),
            Part::Broker => names().filter(|name| name.starts_with("store")).map(PathBuf::from).collect(),
            Part::Configuration => {
                let main = files(self.config_path).unwrap_or_default();
                let main = main.iter().filter_map(|path| path.strip_prefix(folder).ok().map(Path::to_owned));
                let beside = contents.items.iter().filter(|(item, _)| matches!(item, Item::Beside(_)));
                main.chain(beside.map(|(item, _)| self.inner(item))).collect()
            }
        };
        Place::there(folder, inner.into_iter())
    }

    /// Tails of an outbox in this place. One that stays would be taken for that of the outbox that is brought back.
    fn left_tails(&self) -> Vec<PathBuf> {
        let folders = self.tails.iter().map(|dir| Outbox::tail_folder(dir, &self.config.outbox.path));
        let files = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        files.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).map(|entry| entry.path()).collect()
    }

    /// Lays everything ready, and looks at it. Gives how many values wait.
    fn lay(&self, ready: &[Ready], from: impl Read) -> Result<u64, Refusal> {
        let mut refusal = None;
        let extracted = extract(from, |item, bytes, mode, owner| {
            let laid = ready.iter().find(|ready| ready.part == item.part());
            let laid = laid.map_or(Ok(()), |ready| self.lay_one(ready, item, bytes, mode, owner));
            laid.map_err(|why| io::Error::other(refusal.insert(why).to_string()))
        });
        match refusal {
            Some(refusal) => return Err(refusal),
            None => extracted?,
        }
        let mut waiting = 0;
        for Ready { part, place, .. } in ready {
            match part {
                Part::Outbox => waiting = self.look_at_outbox(place)?,
                Part::Archive => look_at_archive(place.ready()).map_err(Refusal::Archive)?,
                Part::Broker | Part::Configuration => {}
            }
        }
        Ok(waiting)
    }

    fn lay_one(
        &self,
        Ready { place, folder, .. }: &Ready,
        item: &Item,
        bytes: &mut dyn Read,
        mode: u32,
        owner: &Owner,
    ) -> Result<(), Refusal> {
        let at = |inner: &Path| io_at(&folder.join(inner));
        match item {
            Item::Outbox(name) if name == "board" && self.adopt => Ok(()),
            Item::Tail(name) => {
                // Where the outbox that lies ready looks for it.
                let tail = Outbox::tail_folder(&place.ready().join("tail"), place.ready());
                let inner = tail.strip_prefix(place.ready()).unwrap_or(Path::new("tail")).join(name);
                place.lay(&inner, bytes, mode, None).map_err(at(&inner))
            }
            Item::Store => {
                let inner = self.inner(item);
                let mut store = Vec::new();
                bytes.read_to_end(&mut store).map_err(at(&inner))?;
                let store = (self.renew)(store).map_err(Refusal::Broker)?;
                place.lay(&inner, &mut store.as_slice(), 0o600, None).map_err(at(&inner))
            }
            Item::Main | Item::Fragment(_) | Item::Beside(_) => {
                let inner = self.inner(item);
                let laid = stays_within(folder, &inner).and_then(|()| place.lay(&inner, bytes, mode, Some(owner)));
                laid.map_err(at(&inner))
            }
            Item::Outbox(_) | Item::Refused(_) | Item::Archive(_) => {
                let inner = self.inner(item);
                place.lay(&inner, bytes, mode, None).map_err(at(&inner))
            }
        }
    }

    /// Opens it as an agent would, and closes it: what was in the tail is in the log afterwards, and it is known to open.
    fn look_at_outbox(&self, place: &Place) -> Result<u64, Refusal> {
        let settings = Settings {
            dir: place.ready().to_owned(),
            tail_dir: place.ready().join("tail"),
            flush: self.config.outbox.flush,
            // Nothing is dropped here: that is for the agent to do, which counts it.
            max_bytes: u64::MAX,
            free_share: 100,
            full: Full::DropNewest,
            memory_bytes: MEMORY,
            persist: std::time::Duration::ZERO,
            key: self.config.outbox.key.clone(),
        };
        let (boot, now) = self.now;
        let (mut outbox, recovery) = Outbox::open_restored(settings, boot, now).map_err(Refusal::Outbox)?;
        outbox.put_state(RESTORED_KEY, Some(Vec::new()));
        outbox.close(now).map_err(io_at(place.ready()))?;
        let tail = place.ready().join("tail");
        match fs::remove_dir_all(&tail) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_at(&tail)(error)),
            _ => {}
        }
        place.give_all_to_owner().map_err(io_at(place.ready()))?;
        Ok(recovery.waiting)
    }

    /// Puts everything in place.
    fn put(ready: Vec<Ready>, tails: &[PathBuf], waiting: u64) -> Result<Brought, Refusal> {
        let mut brought = Brought { waiting, ..Brought::default() };
        for Ready { part, folder, place, there } in ready {
            let mut aside = place.set_aside(&there).map_err(io_at(&folder))?;
            if part == Part::Outbox && !tails.is_empty() {
                let made = aside.take().map_or_else(|| place.make_aside(), Ok).map_err(io_at(&folder))?;
                for tail in tails {
                    // From memory to the disk, where renaming does not lead.
                    let to = made.join(tail.file_name().unwrap_or_default());
                    fs::copy(tail, &to).and_then(|_| fs::remove_file(tail)).map_err(io_at(tail))?;
                }
                aside = Some(made);
            }
            brought.aside.extend(aside);
            place.put().map_err(io_at(&folder))?;
            brought.parts.push((part, folder));
        }
        Ok(brought)
    }
}

/// Rights of a folder that has to be made.
fn mode(part: Part) -> u32 {
    match part {
        Part::Configuration => 0o755,
        Part::Outbox | Part::Archive | Part::Broker => 0o750,
    }
}

/// A link in the configuration's folder must not lead what is written through it out of there.
fn stays_within(folder: &Path, inner: &Path) -> io::Result<()> {
    let folder = folder.canonicalize()?;
    let there = inner.ancestors().skip(1).map(|path| folder.join(path)).find_map(|path| path.canonicalize().ok());
    if there.is_some_and(|there| there.starts_with(&folder)) {
        return Ok(());
    }
    Err(io::Error::other(format!("{} leads out of {}", inner.display(), folder.display())))
}

fn look_at_archive(folder: &Path) -> Result<(), archive::Failure> {
    // Headers alone: nothing was measured that late.
    let mut reader = archive::Reader::open(folder, Some(WallTime(i64::MAX)), None)?;
    while reader.step()?.is_some() {}
    Ok(())
}
