//! Stands between the agent and a program that a sensor runs: `vigie guard`, which no person calls.
//!
//! A program may start others, and those may outlive it, or leave its process group. The guard sees to it that nothing
//! is left of them when the program has ended, when the agent wants it to end (SIGTERM), and when the agent itself was
//! killed: the kernel then sends the same signal (prctl(2), `PR_SET_PDEATHSIG`). What loses its parent below the guard
//! becomes the guard's child (`PR_SET_CHILD_SUBREAPER`), so that it can be found and ended.
//!
//! All are asked to end with SIGTERM, and after [`GRACE`] ended with SIGKILL.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process, kill_process_group, set_child_subreaper,
    set_parent_process_death_signal, wait,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

/// What a program and its children have between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(3);

/// For so long SIGKILL is repeated, for those that lose their parent meanwhile. A process that the kernel itself holds
/// (a disk that does not answer) is left behind after that.
pub const KILLING: Duration = Duration::from_secs(2);

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(50);

/// Exit status where the program could not be started, as shells have it: not executable, and not found.
const CANNOT_START: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs a program for the agent whose process id is `parent`; gives the exit status: the program's own, or 128 and the
/// number of the signal that ended it.
pub fn run(parent: u32, command: &[OsString]) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(keep(parent, command))) {
        Ok(status) => status,
        Err(error) => {
            say(&format!("cannot be watched over: {error}"));
            CANNOT_START
        }
    }
}

/// To standard error, which the agent logs with the sensor's name.
fn say(what: &str) {
    let _ = writeln!(io::stderr().lock(), "{what}");
}

async fn keep(parent: u32, command: &[OsString]) -> io::Result<u8> {
    let (mut terminate, mut changed) = (signal(SignalKind::terminate())?, signal(SignalKind::child())?);
    set_parent_process_death_signal(Some(Signal::TERM))?;
    if getppid().is_none_or(|pid| pid.as_raw_nonzero().get().unsigned_abs() != parent) {
        // The agent has ended before this was asked for.
        return Ok(0);
    }
    set_child_subreaper(Some(getpid()))?;
    let Some((program, arguments)) = command.split_first() else { return Ok(NOT_FOUND) };
    // A process group of its own: its leader can be told apart from us.
    let main = match Command::new(program).args(arguments).process_group(0).spawn() {
        Ok(child) => Pid::from_child(&child),
        Err(error) => {
            say(&format!("{} cannot be started: {error}", program.display()));
            return Ok(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_START });
        }
    };
    // The agent is to see when the program closes its ends.
    let null = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;

    let mut status = None;
    while !reap(main, &mut status) && status.is_none() {
        tokio::select! {
            _ = changed.recv() => {}
            _ = terminate.recv() => break,
        }
    }
    tell(main, Signal::TERM);
    let start = Instant::now();
    while !reap(main, &mut status) {
        if start.elapsed() < GRACE {
            tokio::select! {
                _ = changed.recv() => {}
                () = sleep_until(start + GRACE) => {}
            }
        } else if start.elapsed() < GRACE + KILLING {
            tell(main, Signal::KILL);
            let _ = timeout(LOOK, changed.recv()).await;
        } else {
            say("does not end, not even by SIGKILL: the kernel holds it");
            break;
        }
    }
    Ok(status.unwrap_or(0))
}

/// Takes note of children that have ended; true when none is left.
fn reap(main: Pid, status: &mut Option<u8>) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, how))) if pid == main => *status = Some(exit_status(how)),
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(rustix::io::Errno::INTR) => {}
            // ECHILD.
            Err(_) => return true,
        }
    }
}

fn exit_status(how: WaitStatus) -> u8 {
    let number = how.exit_status().or_else(|| how.terminating_signal().map(|signal| 128 + signal));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX)
}

/// Sends a signal to all children, and to the program's process group.
fn tell(main: Pid, signal: Signal) {
    for (child, group) in children() {
        // It may have ended just now; nobody else can have its number before we have taken note of that.
        let _ = kill_process(child, signal);
        if group == main.as_raw_nonzero().get() {
            let _ = kill_process_group(main, signal);
        }
    }
}

/// Our children, with their process groups.
fn children() -> Vec<(Pid, i32)> {
    let me = getpid().as_raw_nonzero().get();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| {
            let pid = Pid::from_raw(name.parse().ok()?)?;
            let (parent, group) = parent_and_group(&std::fs::read_to_string(format!("/proc/{name}/stat")).ok()?)?;
            (parent == me).then_some((pid, group))
        })
        .collect()
}

/// From /proc/PID/stat (proc_pid_stat(5)): the name, which may hold anything, ends with the last bracket.
fn parent_and_group(stat: &str) -> Option<(i32, i32)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_hide_the_parent() {
        assert_eq!(parent_and_group("42 (sh) S 7 9 9 0 -1"), Some((7, 9)));
        assert_eq!(parent_and_group("42 (a) S 1 (b) ) R 7 9 9 0 -1"), Some((7, 9)));
        assert_eq!(parent_and_group("42 (sh"), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in any::<String>()) {
            let _ = parent_and_group(&text);
            let _ = parent_and_group(&format!("1 ({text}) S 5 6"));
        }
    }
}
