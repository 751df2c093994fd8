//! Tells when a device node is taken away, which says at once that its device has gone.
//!
//! The line of a GPIO chip does not: before Linux 6.6 nothing wakes who waits for its edges when the chip goes (a USB
//! adapter is pulled). The node does with every kernel, by inotify(7).

use std::fs::metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

/// Bytes for the events of a file, which are 16 each: their names are empty.
const EVENTS: usize = 256;

/// A device node that is watched.
#[derive(Debug)]
pub(super) struct Node {
    path: PathBuf,
    /// What tells this node from a later one of the same name.
    inode: Option<u64>,
    /// Readable when something has happened to it. `None` where the system has no watch left: then nothing is noticed.
    /// The type is that of a pipe because, of those that read without blocking, it alone is made of any descriptor and
    /// without unsafe code.
    events: Option<Receiver>,
}

impl Node {
    /// Watches a node. To be called from within a tokio runtime.
    pub(super) fn watch(path: &Path) -> Self {
        let watch = || {
            let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            // A node that is removed while somebody has it open changes only its count of links.
            inotify::add_watch(&watch, path, WatchFlags::ATTRIB | WatchFlags::DELETE_SELF)?;
            Receiver::from_owned_fd_unchecked(watch)
        };
        Self { path: path.to_owned(), inode: inode(path), events: watch().ok() }
    }

    /// Is it there?
    pub(super) fn exists(&self) -> bool {
        self.inode.is_some() && inode(&self.path) == self.inode
    }

    /// Resolves when it is taken away. Cancelling the wait misses nothing.
    pub(super) async fn gone(&self) {
        let Some(events) = &self.events else { return std::future::pending().await };
        while events.readable().await.is_ok() {
            // What it is follows from a look at the node.
            while events.try_read(&mut [0; EVENTS]).is_ok_and(|read| read > 0) {}
            if !self.exists() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

fn inode(path: &Path) -> Option<u64> {
    metadata(path).ok().map(|found| found.ino())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Generous: only a hang makes a test wait for it.
    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_node_that_is_taken_away_is_noticed_whether_it_is_open_or_not() {
        let folder = tempfile::tempdir().expect("a folder");
        for open in [false, true] {
            let path = folder.path().join("gpiochip7");
            let file = File::create(&path).expect("a file");
            let held = open.then_some(file);
            let node = Node::watch(&path);
            assert!(timeout(Duration::ZERO, node.gone()).await.is_err(), "it is there");
            // So udev does when a device comes.
            fs::set_permissions(&path, Permissions::from_mode(0o660)).expect("changed");
            assert!(timeout(Duration::ZERO, node.gone()).await.is_err() && node.exists(), "it is there all the same");
            fs::remove_file(&path).expect("removed");
            timeout(DEADLINE, node.gone()).await.expect("noticed");
            drop(held);
        }
    }

    #[tokio::test]
    async fn a_node_that_cannot_be_watched_is_never_said_to_go() {
        let node = Node::watch(Path::new("/not/there"));
        assert!(!node.exists());
        assert!(timeout(Duration::ZERO, node.gone()).await.is_err());
    }
}
