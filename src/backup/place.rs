//! A folder that files are brought back to: they are laid ready within it, and put in their places by renaming, so that
//! the folder itself may be where a partition is mounted.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::{Path, PathBuf};

use super::owner::Owner;

/// Where files are laid ready.
const READY: &str = "restored.new";

/// Folders of what was there before begin so; a number follows.
const ASIDE: &str = "before-restore-";

/// So many of them may be in a folder.
const MAX_ASIDE: u32 = 1000;

/// A folder, and what is laid ready for it.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    ready: PathBuf,
    /// Rights of folders within.
    mode: u32,
}

impl Place {
    /// Makes the folder if it is missing, and room in it; `mode`: the rights of folders that are made.
    pub(super) fn new(folder: &Path, mode: u32) -> io::Result<Self> {
        make_folder(folder, mode)?;
        let ready = folder.join(READY);
        remove(&ready)?;
        let place = Self { folder: folder.to_owned(), ready, mode };
        // Whoever makes it has it to the end: nobody else reaches into what lies ready.
        DirBuilder::new().mode(0o700).create(&place.ready)?;
        Ok(place)
    }

    /// Where files are laid ready.
    pub(super) fn ready(&self) -> &Path {
        &self.ready
    }

    /// Lays a file ready. Without an `owner` it belongs to whom the folder belongs.
    pub(super) fn lay(&self, inner: &Path, from: &mut dyn Read, mode: u32, owner: Option<&Owner>) -> io::Result<()> {
        let path = self.ready.join(inner);
        self.make_folders(inner)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::copy(from, &mut file)?;
        match owner {
            None => self.give_to_owner(&path)?,
            Some(owner) if rustix::process::geteuid().is_root() => {
                let (user, group) = owner.here();
                fchown(&file, user, group)?;
            }
            // Whoever is not root has the files.
            Some(_) => {}
        }
        file.set_permissions(fs::Permissions::from_mode(mode & 0o777))?;
        file.sync_all()
    }

    /// Makes the folders on the way to a file.
    fn make_folders(&self, inner: &Path) -> io::Result<()> {
        let mut folder = self.ready.clone();
        for name in inner.parent().into_iter().flat_map(Path::iter) {
            folder.push(name);
            if !folder.exists() {
                let mode = if name == "credentials" { 0o700 } else { self.mode };
                DirBuilder::new().mode(mode).create(&folder)?;
                self.give_to_owner(&folder)?;
            }
        }
        Ok(())
    }

    /// Root makes files for the service's user.
    fn give_to_owner(&self, path: &Path) -> io::Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let owner = fs::metadata(&self.folder)?;
        lchown(path, Some(owner.uid()), Some(owner.gid()))
    }

    /// The same for all below a folder that is laid ready.
    pub(super) fn give_all_to_owner(&self) -> io::Result<()> {
        let mut folders = vec![self.ready.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                self.give_to_owner(&entry.path())?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        Ok(())
    }

    /// Which of these are there, of those that are named from the folder.
    pub(super) fn there(folder: &Path, inner: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
        inner.map(|inner| folder.join(inner)).filter(|path| path.symlink_metadata().is_ok()).collect()
    }

    /// Moves what is there, by its path from the folder, to a folder within; `None`: nothing was.
    pub(super) fn set_aside(&self, there: &[PathBuf]) -> io::Result<Option<PathBuf>> {
        if there.is_empty() {
            return Ok(None);
        }
        let aside = self.make_aside()?;
        for path in there {
            let Ok(inner) = path.strip_prefix(&self.folder) else { continue };
            let to = aside.join(inner);
            if let Some(folder) = to.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            }
            fs::rename(path, &to)?;
        }
        File::open(&aside)?.sync_all()?;
        Ok(Some(aside))
    }

    /// A new folder for what was there before.
    pub(super) fn make_aside(&self) -> io::Result<PathBuf> {
        for number in 1..=MAX_ASIDE {
            let aside = self.folder.join(format!("{ASIDE}{number}"));
            match DirBuilder::new().mode(0o700).create(&aside) {
                Ok(()) => {
                    self.give_to_owner(&aside)?;
                    return Ok(aside);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let folder = self.folder.display();
        Err(io::Error::other(format!("{folder} has {MAX_ASIDE} folders {ASIDE}…: remove what is not needed any more")))
    }

    /// Puts all that is laid ready in its place.
    pub(super) fn put(self) -> io::Result<()> {
        let mut folders = vec![PathBuf::new()];
        while let Some(inner) = folders.pop() {
            for entry in fs::read_dir(self.ready.join(&inner))? {
                let entry = entry?;
                let inner = inner.join(entry.file_name());
                let to = self.folder.join(&inner);
                if entry.file_type()?.is_dir() && to.is_dir() {
                    folders.push(inner);
                } else {
                    fs::rename(entry.path(), &to)?;
                }
            }
            File::open(self.folder.join(&inner))?.sync_all()?;
        }
        remove(&self.ready)
    }

    /// Takes back what was laid ready.
    pub(super) fn give_up(self) {
        // It is removed by the next attempt at the latest.
        let _ = remove(&self.ready);
    }
}

/// Makes a folder with those above it; each that is made belongs to whom the one above it belongs.
fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(above, mode)?;
    DirBuilder::new().mode(mode).create(folder)?;
    if rustix::process::geteuid().is_root() {
        let owner = fs::metadata(above)?;
        lchown(folder, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Is it a name that this file gives?
pub(super) fn is_ours(name: &str) -> bool {
    name == READY || name.starts_with(ASIDE)
}
