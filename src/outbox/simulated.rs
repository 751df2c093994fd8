//! A file system in memory that loses what a power cut would lose, and fails when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::storage::{Lock, Storage, StoredFile};
use super::{OpenError, Outbox, Recovery, Settings, recovery};
use crate::clock::{BootId, BootTime};

/// What a power cut keeps or loses as a whole.
const SECTOR: usize = 512;

/// Which operations fail.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// Operations below this path.
    pub(crate) below: PathBuf,
    /// So many of them still work.
    pub(crate) after: u64,
    /// How many fail then.
    pub(crate) times: u64,
    /// With which error.
    pub(crate) kind: io::ErrorKind,
}

#[derive(Debug, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

type File = Arc<Mutex<Inode>>;

#[derive(Clone, Debug)]
enum NameChange {
    Add(PathBuf, File),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct World {
    names: BTreeMap<PathBuf, File>,
    durable_names: BTreeMap<PathBuf, File>,
    /// Changes of names since the last sync of a folder, in order: as in a journal, later ones never survive earlier
    /// ones.
    unsynced: Vec<NameChange>,
    /// Locked folders, each with the number of its lock.
    locked: BTreeMap<PathBuf, u64>,
    locks: u64,
    fault: Option<Fault>,
    /// Bytes taken by others, where the disk has an end.
    others: Option<(u64, u64)>,
    written: u64,
    syncs: u64,
}

/// The file system; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Simulated {
    world: Arc<Mutex<World>>,
    /// Everything below it is lost with a power cut.
    tmpfs: PathBuf,
}

#[derive(Debug)]
struct OpenFile {
    disk: Simulated,
    path: PathBuf,
    inode: File,
}

#[derive(Debug)]
struct Held(Simulated, PathBuf, u64);

impl Lock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        let world = &mut *self.0.world();
        if world.locked.get(&self.1) == Some(&self.2) {
            world.locked.remove(&self.1);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test goes on after a panic")
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Simulated {
    pub(crate) fn new(tmpfs: &Path) -> Self {
        Self { world: Arc::default(), tmpfs: tmpfs.to_owned() }
    }

    /// Opens an outbox on this file system.
    pub(crate) fn open_outbox(
        &self,
        settings: Settings,
        boot: BootId,
        now: BootTime,
    ) -> Result<(Outbox, Recovery), OpenError> {
        recovery::open(Arc::new(self.clone()), settings, boot, now)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    pub(crate) fn fail(&self, fault: Option<Fault>) {
        self.world().fault = fault;
    }

    /// Gives the disk an end: its size, and what others take of it.
    pub(super) fn limit(&self, size: u64, others: u64) {
        self.world().others = Some((size, others));
    }

    /// Bytes written below the disk's folders so far, and syncs.
    pub(crate) fn written(&self) -> (u64, u64) {
        let world = self.world();
        (world.written, world.syncs)
    }

    /// All files below a folder.
    pub(crate) fn files(&self, below: &Path) -> Vec<PathBuf> {
        self.world().names.keys().filter(|path| path.starts_with(below)).cloned().collect()
    }

    pub(crate) fn contents(&self, path: &Path) -> Vec<u8> {
        lock(&self.world().names[path]).now.clone()
    }

    /// Changes a file behind everybody's back, durably.
    pub(crate) fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inode_world = self.world();
        let inode = inode_world.names.entry(path.to_owned()).or_default().clone();
        inode_world.durable_names.insert(path.to_owned(), Arc::clone(&inode));
        let mut inode = lock(&inode);
        change(&mut inode.now);
        inode.durable = inode.now.clone();
    }

    /// Deletes a file behind everybody's back, durably.
    pub(crate) fn delete(&self, path: &Path) {
        let mut world = self.world();
        world.names.remove(path);
        world.durable_names.remove(path);
    }

    /// Removes a folder behind everybody's back, durably. Whoever has a lock on it keeps that, and it is good for nothing.
    pub(super) fn delete_folder(&self, folder: &Path) {
        let world = &mut *self.world();
        world.names.retain(|path, _| !path.starts_with(folder));
        world.durable_names.retain(|path, _| !path.starts_with(folder));
        world.locked.retain(|path, _| !path.starts_with(folder));
    }

    /// The power goes. Of what was not synced, `lottery` says for each sector and name in turn whether it survives.
    pub(crate) fn power_cut(&self, mut lottery: impl FnMut() -> bool) {
        let mut world = self.world();
        let unsynced = std::mem::take(&mut world.unsynced);
        for change in unsynced {
            if !lottery() {
                break;
            }
            match change {
                NameChange::Add(path, file) => world.durable_names.insert(path, file),
                NameChange::Remove(path) => world.durable_names.remove(&path),
            };
        }
        world.names = world.durable_names.clone();
        let tmpfs = &self.tmpfs;
        world.names.retain(|path, _| !path.starts_with(tmpfs));
        world.durable_names = world.names.clone();
        world.fault = None;
        for inode in world.names.values() {
            let mut inode = lock(inode);
            let Inode { now, durable, dirty } = &mut *inode;
            for sector in std::mem::take(dirty) {
                if lottery() {
                    copy_sector(now, durable, sector);
                }
            }
            *now = durable.clone();
        }
    }

    /// Does this operation fail?
    fn pass(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        let Some(fault) = &mut world.fault else { return Ok(()) };
        if !path.starts_with(&fault.below) || fault.times == 0 {
            return Ok(());
        }
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        fault.times -= 1;
        Err(fault.kind.into())
    }

    fn find(&self, path: &Path) -> io::Result<File> {
        self.world().names.get(path).cloned().ok_or_else(missing)
    }

    fn opened(&self, path: &Path, inode: File) -> Arc<dyn StoredFile> {
        Arc::new(OpenFile { disk: self.clone(), path: path.to_owned(), inode })
    }
}

fn copy_sector(from: &[u8], to: &mut Vec<u8>, sector: usize) {
    let range = sector * SECTOR..((sector + 1) * SECTOR).min(from.len());
    if to.len() < range.end {
        to.resize(range.end, 0);
    }
    to[range.clone()].copy_from_slice(&from[range]);
}

impl StoredFile for OpenFile {
    fn is_at(&self, path: &Path) -> bool {
        self.disk.find(path).is_ok_and(|inode| Arc::ptr_eq(&inode, &self.inode))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let inode = lock(&self.inode);
        let offset = usize::try_from(offset).expect("a small file").min(inode.now.len());
        let count = buffer.len().min(inode.now.len() - offset);
        buffer[..count].copy_from_slice(&inode.now[offset..offset + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let failed = self.disk.pass(&self.path);
        let mut inode = lock(&self.inode);
        let start = usize::try_from(offset).expect("a small file");
        // A write that fails may have got half of the way.
        let bytes = if failed.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
        let end = start + bytes.len();
        if inode.now.len() < end {
            inode.now.resize(end, 0);
        }
        inode.now[start..end].copy_from_slice(bytes);
        inode.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
        if !self.path.starts_with(&self.disk.tmpfs) {
            self.disk.world().written += bytes.len() as u64;
        }
        failed
    }

    fn sync(&self) -> io::Result<()> {
        let failed = self.disk.pass(&self.path);
        self.disk.world().syncs += 1;
        let mut inode = lock(&self.inode);
        let Inode { now, durable, dirty } = &mut *inode;
        // The kernel forgets what it could not write: it is neither on disk, nor will the next sync bring it there.
        for sector in std::mem::take(dirty) {
            if failed.is_ok() {
                copy_sector(now, durable, sector);
            }
        }
        failed
    }
}

impl Storage for Simulated {
    fn free(&self, _: &Path) -> io::Result<u64> {
        let world = self.world();
        let Some((size, others)) = world.others else { return Ok(u64::MAX / 2) };
        let files = world.names.iter().filter(|(path, _)| !path.starts_with(&self.tmpfs));
        let ours: u64 = files.map(|(_, inode)| lock(inode).now.len() as u64).sum();
        Ok(size.saturating_sub(others + ours))
    }

    fn absolute(&self, folder: &Path) -> PathBuf {
        folder.to_owned()
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.pass(folder)
    }

    fn lock(&self, folder: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let world = &mut *self.world();
        if world.locked.contains_key(folder) {
            return Ok(None);
        }
        world.locks += 1;
        world.locked.insert(folder.to_owned(), world.locks);
        Ok(Some(Box::new(Held(self.clone(), folder.to_owned(), world.locks))))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let inside = world.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.map(|path| path.file_name().expect("a name").to_str().expect("ASCII").to_owned()).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        Ok(self.opened(path, self.find(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        self.pass(path)?;
        let mut world = self.world();
        let file = world.names.get(path).cloned().unwrap_or_else(|| {
            let file = File::default();
            world.names.insert(path.to_owned(), Arc::clone(&file));
            world.unsynced.push(NameChange::Add(path.to_owned(), Arc::clone(&file)));
            file
        });
        drop(world);
        Ok(self.opened(path, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass(from)?;
        let mut world = self.world();
        let file = world.names.remove(from).ok_or_else(missing)?;
        world.names.insert(to.to_owned(), Arc::clone(&file));
        world.unsynced.push(NameChange::Add(to.to_owned(), file));
        world.unsynced.push(NameChange::Remove(from.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pass(path)?;
        let mut world = self.world();
        world.names.remove(path).ok_or_else(missing)?;
        world.unsynced.push(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.pass(folder)?;
        let mut world = self.world();
        for change in std::mem::take(&mut world.unsynced) {
            match change {
                NameChange::Add(path, file) => world.durable_names.insert(path, file),
                NameChange::Remove(path) => world.durable_names.remove(&path),
            };
        }
        Ok(())
    }
}
