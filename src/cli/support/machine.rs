//! What a machine says of itself.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::system::uname;

use super::super::table::{bytes, table};

/// Properties of the service that are of interest.
pub(super) const PROPERTIES: &str = "--property=ActiveState,SubState,Result,NRestarts,ExecMainStatus,ExecMainStartTimestamp,\
     StatusText,MemoryCurrent,MemoryMax,TasksCurrent,User,SupplementaryGroups,UnitFileState,DropInPaths";

/// Files that are listed of a folder; the others are counted.
const MAX_LISTED: usize = 40;

/// Devices that sensors hang on, by the beginnings of their names in `/dev`.
const DEVICES: [&str; 8] = ["gpiochip", "gpiomem", "i2c-", "spidev", "ttyACM", "ttyAMA", "ttyUSB", "ttyS0"];

/// Which program this is.
pub(super) fn program() -> String {
    let path = std::env::current_exe().map_or_else(|_| "?".to_owned(), |path| path.display().to_string());
    format!("program {path}, run by user {}\n", rustix::process::geteuid().as_raw())
}

/// Board, system, memory, disks.
pub(super) fn about() -> String {
    let system = uname();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("board", text_of("/proc/device-tree/model").unwrap_or_else(|| "not known".to_owned()));
    let os = text_of("/etc/os-release").unwrap_or_default();
    let name = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    row("system", name.unwrap_or("not known").trim_matches('"').to_owned());
    row("kernel", format!("{} {}", system.release().to_string_lossy(), system.machine().to_string_lossy()));
    row("uptime", text_of("/proc/uptime").map_or_else(String::new, |text| uptime(&text)));
    row("load", text_of("/proc/loadavg").unwrap_or_default());
    let memory = text_of("/proc/meminfo").unwrap_or_default();
    for (name, key) in [("memory", "MemTotal:"), ("available", "MemAvailable:"), ("swap", "SwapTotal:")] {
        let line = memory.lines().find_map(|line| line.strip_prefix(key));
        row(name, line.map_or_else(String::new, |line| line.trim().to_owned()));
    }
    for place in ["/", "/var/lib/vigie", "/run/vigie"] {
        if let Ok(disk) = rustix::fs::statvfs(place) {
            let size = |blocks: u64| bytes(blocks.saturating_mul(disk.f_frsize));
            row(
                place,
                format!("{} free of {}; {}", size(disk.f_bavail), size(disk.f_blocks), mount_of(Path::new(place))),
            );
        }
    }
    table(&rows)
}

fn uptime(text: &str) -> String {
    let seconds = text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}

/// What the kernel says of the clock.
pub(super) fn clock() -> String {
    let answer = crate::hardware::adjtimex::synchronised();
    let clocks = fs::read_dir("/sys/class/rtc").into_iter().flatten().count();
    format!("kernel   synchronised: {answer:?}; hardware clocks: {clocks}\n")
}

/// The file system that a path is on, and how it is mounted (proc_pid_mountinfo(5)).
fn mount_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = text_of("/proc/self/mountinfo").unwrap_or_default();
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let mut before = before.split(' ').skip(4);
        let (Some(place), Some(options)) = (before.next(), before.next()) else { continue };
        let kind = after.split(' ').next().unwrap_or_default();
        // Of two mounts on one place the later one is seen.
        if path.starts_with(place) && best.as_ref().is_none_or(|(length, _)| *length <= place.len()) {
            best = Some((place.len(), format!("{kind} on {place} ({options})")));
        }
    }
    best.map_or_else(String::new, |(_, mount)| mount)
}

/// A folder and what is in it: rights, owners, sizes.
pub(super) fn folder(path: &Path) -> String {
    let mut text = format!("{}\n", line(path, &path.display().to_string()));
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return format!("{text}  {error}\n"),
    };
    let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    names.sort();
    for path in names.iter().take(MAX_LISTED) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  {}", line(path, &name));
    }
    if names.len() > MAX_LISTED {
        let _ = writeln!(text, "  and {} more", names.len() - MAX_LISTED);
    }
    text
}

/// The devices that sensors hang on.
pub(super) fn devices() -> String {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten().map(|entry| entry.path());
    let wanted = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        DEVICES.iter().any(|device| name.starts_with(device))
    };
    let mut paths: Vec<PathBuf> = entries.filter(wanted).collect();
    paths.extend(fs::read_dir("/dev/serial/by-id").into_iter().flatten().flatten().map(|entry| entry.path()));
    paths.sort();
    paths.iter().map(|path| format!("{}\n", line(path, &path.display().to_string()))).collect()
}

fn line(path: &Path, name: &str) -> String {
    let Ok(meta) = fs::metadata(path) else { return format!("{name}: not there, or not for us") };
    let kind = match meta.file_type() {
        kind if kind.is_dir() => "d",
        kind if kind.is_socket() => "s",
        kind if kind.is_char_device() => "c",
        _ => "-",
    };
    format!("{kind}{:04o} {}:{} {:>9} {name}", meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.len())
}

/// What a program of the system prints.
pub(super) fn said(command: &[&str]) -> String {
    let Some((program, args)) = command.split_first() else { return String::new() };
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        Err(error) => format!("{program}: {error}"),
    }
}

fn text_of(path: &str) -> Option<String> {
    let text = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
    Some(text.trim_end_matches(['\0', '\n']).to_owned())
}
