//! A program that runs: how it is started, what it says, how it ends.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{Instrument, info, warn};

use super::said::Said;
use crate::drivers::ProcessSettings;
use crate::guard;
use crate::reading::{Fault, FaultCode};

/// Where programs are looked for, unless `env` says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that programs have from our own environment.
const INHERITED: [&str; 2] = ["HOME", "TZ"];

/// A program that has closed its output has so long to end by itself.
const TO_END: Duration = Duration::from_secs(1);

/// Bytes of standard error that are read in a second; what is beyond has to wait.
const SAID_A_SECOND: usize = 64 * 1024;

/// Ends when dropped, without being waited for: the guard goes on without us.
pub(super) struct Program {
    guard: Child,
    /// For messages: the program as configured.
    name: String,
    pub(super) input: Option<ChildStdin>,
    pub(super) output: ChildStdout,
    said: Rc<RefCell<Said>>,
    listener: JoinHandle<()>,
}

impl Program {
    /// Starts it, under a guard.
    pub(super) fn start(settings: &ProcessSettings, sensor: &str) -> Result<Self, Fault> {
        let mut env = vec![("PATH", PATH.to_owned()), ("LANG", "C.UTF-8".to_owned())];
        env.extend(INHERITED.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?))));
        // Else what a Python program prints stays in its buffer for hours.
        env.extend([("PYTHONUNBUFFERED", "1".to_owned()), ("VIGIE_SENSOR", sensor.to_owned())]);
        let given = settings.env.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let env: std::collections::BTreeMap<&str, String> = env.into_iter().chain(given).collect();

        let program = find(&settings.command[0], &settings.directory, env.get("PATH").map_or("", String::as_str))?;
        // The very file that we run, even if a newer one has been installed in its place.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("vigie").arg("guard").arg(std::process::id().to_string()).arg("--").arg(program);
        command.args(&settings.command[1..]).current_dir(&settings.directory).env_clear().envs(env);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A key pressed at our terminal is for us.
        command.process_group(0);
        let mut guard = command.spawn().map_err(|error| {
            let what = &settings.command[0];
            Fault::new(FaultCode::Io, format!("`{what}` cannot be started: {error}"))
        })?;
        let (input, output, errors) = (guard.stdin.take(), guard.stdout.take(), guard.stderr.take());
        let output = output.expect("a pipe was asked for");
        let said = Rc::new(RefCell::new(Said::new(Instant::now())));
        let listener = listen(errors.expect("a pipe was asked for"), Rc::clone(&said)).in_current_span();
        let listener = tokio::task::spawn_local(listener);
        Ok(Self { guard, name: settings.command[0].clone(), input, output, said, listener })
    }

    /// How faults call it.
    pub(super) fn name(&self) -> String {
        format!("`{}`", self.name)
    }

    /// Ends it and all that it has started, and waits for that.
    pub(super) async fn end(mut self) {
        self.terminate();
        if timeout(guard::GRACE + guard::KILLING + TO_END, self.guard.wait()).await.is_err() {
            warn!("{} does not end", self.name());
        }
    }

    /// It has closed its output: how did it end?
    pub(super) async fn ended(mut self) -> Fault {
        let name = self.name();
        match self.status().await {
            Some(status) => self.fault(status),
            None => {
                self.end().await;
                Fault::new(FaultCode::Ended, format!("{name} closed its standard output and was ended"))
            }
        }
    }

    /// It has closed its output: was all well?
    pub(super) async fn succeeded(&mut self) -> Result<(), Fault> {
        // The caller's deadline holds; what a program does after it has printed is its own affair until then.
        match self.guard.wait().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                self.heard().await;
                Err(self.fault(status))
            }
            Err(error) => Err(Fault::new(FaultCode::Io, format!("{} cannot be waited for: {error}", self.name()))),
        }
    }

    async fn status(&mut self) -> Option<ExitStatus> {
        // The guard itself may have to end what the program has left.
        let status = timeout(TO_END + guard::GRACE, self.guard.wait()).await.ok()?.ok()?;
        self.heard().await;
        Some(status)
    }

    /// Waits until the last line on standard error was heard.
    async fn heard(&mut self) {
        let _ = timeout(TO_END, &mut self.listener).await;
    }

    fn fault(&self, status: ExitStatus) -> Fault {
        let how = match status.code() {
            Some(code @ 129..=192) => format!("was ended by signal {} (status {code})", code - 128),
            Some(code) => format!("ended with status {code}"),
            None => "was ended from outside".to_owned(),
        };
        let said = self.said.borrow();
        let last = match said.last() {
            "" => "it said nothing on standard error".to_owned(),
            last => format!("its last line on standard error: {last}"),
        };
        Fault::new(FaultCode::Ended, format!("{} {how}; {last}", self.name()))
    }

    fn terminate(&mut self) {
        // `None` once it was waited for, so that the number is still its own.
        if let Some(pid) = self.guard.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// Logs what comes on standard error.
async fn listen(mut errors: ChildStderr, said: Rc<RefCell<Said>>) {
    let mut log = |line: &str| info!("it says: {line}");
    let mut buffer = [0; 1024];
    let (mut second, mut bytes) = (Instant::now(), 0);
    while let Ok(length @ 1..) = errors.read(&mut buffer).await {
        said.borrow_mut().feed(&buffer[..length], Instant::now(), &mut log);
        bytes += length;
        if second.elapsed() >= Duration::from_secs(1) {
            (second, bytes) = (Instant::now(), 0);
        } else if bytes >= SAID_A_SECOND {
            sleep_until(second + Duration::from_secs(1)).await;
        }
    }
    let mut said = said.borrow_mut();
    said.ends(Instant::now(), &mut log);
    said.tell_left_out(&mut log);
}

/// The program's file, with an error that says more than the kernel's.
fn find(name: &str, directory: &Path, path: &str) -> Result<PathBuf, Fault> {
    if !directory.is_dir() {
        let detail = format!("the `directory` {} is not there", directory.display());
        return Err(Fault::new(FaultCode::Missing, detail));
    }
    let candidates: Vec<PathBuf> = if name.contains('/') {
        vec![directory.join(name)]
    } else {
        path.split(':').filter(|folder| !folder.is_empty()).map(|folder| Path::new(folder).join(name)).collect()
    };
    let executable =
        |file: &&PathBuf| file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if let Some(found) = candidates.iter().find(executable) {
        return Ok(found.clone());
    }
    if let Some(found) = candidates.iter().find(|file| file.exists()) {
        let detail =
            format!("{} cannot be run: it is no file with the right to be executed (chmod +x)", found.display());
        return Err(Fault::new(FaultCode::Permission, detail));
    }
    let looked = if name.contains('/') { String::new() } else { format!(" in {path}") };
    Err(Fault::new(FaultCode::Missing, format!("the program `{name}` is not there{looked}")))
}
