//! A script of `tests/interop/`, run by the Python that `tests/interop/run` has made ready.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Lines;

/// A running script and what it has printed. Killed when dropped.
pub(crate) struct Script {
    child: Child,
    pub(crate) lines: Lines,
}

impl Script {
    /// Starts `tests/interop/NAME`.
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        let python = std::env::var_os("INTEROP_PYTHON").expect("INTEROP_PYTHON is set: tests/interop/run does so");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name);
        let mut child = Command::new(python)
            .arg(path)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the script starts");
        let lines = Lines::default();
        lines.collect(child.stdout.take().expect("a pipe was asked for"));
        Self { child, lines }
    }

    /// The line of that number, from 0; fails if it ends without.
    #[cfg(feature = "broker")]
    #[track_caller]
    pub(crate) fn line(&mut self, number: usize) -> String {
        super::wait_for("the script's next line", || {
            // It is asked first: what it printed before its end is there soon after.
            let ended = self.child.try_wait().expect("a child can be waited for");
            let line = self.lines.all().get(number).cloned();
            let failed = line.is_none() && ended.is_some_and(|status| !status.success());
            assert!(!failed, "the script has failed after:\n{}", self.lines.text());
            line
        })
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
