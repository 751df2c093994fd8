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
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
