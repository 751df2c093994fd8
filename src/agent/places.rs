//! Where the tail lies, and the control socket beside it.

use std::path::{Path, PathBuf};

use rustix::fs::statfs;

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS: i128 = 0x0102_1994;

/// A folder for the tail, and whether it is in memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Tail {
    /// The folder.
    pub dir: PathBuf,
    /// Is it on a tmpfs?
    pub in_memory: bool,
}

/// The first folder on a tmpfs that can be written: the configured one, `/run/vigie`, `$XDG_RUNTIME_DIR/vigie`,
/// `/dev/shm`. Without any, the outbox's own folder: then a record survives SIGKILL all the same, but each one is a
/// write to the disk's cache.
#[must_use]
pub fn tail(configured: Option<&Path>, outbox: &Path) -> Tail {
    if let Some(dir) = configured {
        return Tail { dir: dir.to_owned(), in_memory: usable_tmpfs(dir) };
    }
    let user = rustix::process::geteuid().as_raw();
    match candidates(user).into_iter().find(|dir| usable_tmpfs(dir)) {
        Some(dir) => Tail { dir, in_memory: true },
        None => Tail { dir: on_disk(outbox), in_memory: false },
    }
}

fn candidates(user: u32) -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("vigie"));
    let shared = Some(PathBuf::from(format!("/dev/shm/vigie-{user}")));
    [Some(PathBuf::from("/run/vigie")), runtime, shared].into_iter().flatten().collect()
}

fn on_disk(outbox: &Path) -> PathBuf {
    outbox.join("tail")
}

/// Where an agent may have put the tail of this outbox, whoever ran it: the likeliest place first.
#[must_use]
pub fn possible(configured: Option<&Path>, outbox: &Path) -> Vec<PathBuf> {
    if let Some(dir) = configured {
        return vec![dir.to_owned()];
    }
    let user = rustix::process::geteuid().as_raw();
    let mut places = candidates(user);
    if let Ok(owner) = rustix::fs::stat(outbox).map(|stat| stat.st_uid)
        && owner != user
    {
        places.push(PathBuf::from(format!("/run/user/{owner}/vigie")));
        places.push(PathBuf::from(format!("/dev/shm/vigie-{owner}")));
    }
    places.push(on_disk(outbox));
    places
}

/// Makes the folder where it is missing, and sees whether it is on a tmpfs and can be written.
fn usable_tmpfs(dir: &Path) -> bool {
    if std::fs::create_dir_all(dir).is_err() {
        return false;
    }
    let writable = rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok();
    writable && statfs(dir).is_ok_and(|stat| i128::from(stat.f_type) == TMPFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_folder_is_taken_as_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(tail(Some(dir.path()), Path::new("/x")).dir, dir.path());
    }

    #[test]
    fn what_is_not_in_memory_is_not_called_so() {
        assert!(!usable_tmpfs(Path::new("/proc")));
        assert!(!usable_tmpfs(Path::new("/proc/nowhere")));
    }
}
