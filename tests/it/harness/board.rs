//! A simulated Arduino Uno that runs one of our sketches (`tests/arduino/board.c`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::{Lines, wait_until};

/// A running board. It ends when it is dropped.
pub(crate) struct Board {
    folder: tempfile::TempDir,
    child: Child,
    orders: Option<ChildStdin>,
    said: Lines,
}

impl Board {
    /// Starts the sketch of that name.
    pub(crate) fn start(sketch: &str) -> Self {
        let target = Path::new(env!("CARGO_BIN_EXE_vigie")).ancestors().nth(2).expect("target/debug/vigie");
        let built = target.join("arduino");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(built.join("board"))
            .arg(built.join(format!("{sketch}.elf")))
            .arg(folder.path().join("port"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("no board in {}: {error}; run tests/arduino/run", built.display()));
        let said = Lines::default();
        said.collect(child.stdout.take().expect("a pipe was asked for"));
        let orders = child.stdin.take();
        let board = Self { folder, child, orders, said };
        wait_until("the board to be ready", || board.said.count("ready") == 1);
        board
    }

    /// What to write as `port` into a configuration.
    pub(crate) fn port(&self) -> PathBuf {
        self.folder.path().join("port")
    }

    /// Presses the button, turns a knob: a line as `tests/arduino/board.c` has them.
    pub(crate) fn order(&mut self, line: &str) {
        let orders = self.orders.as_mut().expect("it is there until the board is dropped");
        writeln!(orders, "{line}").expect("the board reads its orders");
    }

    /// The levels that the sketch has given an output.
    pub(crate) fn levels(&self, pin: u8) -> Vec<bool> {
        let prefix = format!("pin {pin} ");
        self.said.all().iter().filter_map(|line| line.strip_prefix(&prefix)).map(|level| level == "1").collect()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // It ends with its stdin.
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}
