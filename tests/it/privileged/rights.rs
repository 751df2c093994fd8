//! Prevents: a user without rights on a running agent who is told nothing of use, or who gets at it all the same.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::super::harness::{Exit, Gateway, Port, command, free_port, wait_until};

/// A user of no group, as `setpriv` takes it: Debian's `nobody`.
const NOBODY: &str = "65534";

/// Runs a program as another user, of one group.
fn as_other(group: &str, program: &Path, args: &[&str]) -> Output {
    Command::new("setpriv")
        .args(["--reuid", NOBODY, "--regid", group, "--clear-groups"])
        .arg(program)
        .args(args)
        .output()
        .expect("setpriv starts")
}

#[test]
fn who_has_no_rights_on_the_socket_is_told_which_group_has() {
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&format!(
        "[uplink.home]\nurl = \"mqtt://localhost:{}\"\n\n[[sensor]]\nname = \"arduino\"\nroom = \"salle\"\n\
         driver = \"serial-json\"\nport = \"{}\"\n",
        free_port(),
        port.path().display()
    ));
    let mut agent = gateway.run();
    port.send_until_taken(&gateway);
    // Everybody may go through the folder and read the configuration; the program may lie where nobody gets at it.
    let config = gateway.config_file();
    fs::set_permissions(gateway.path(), Permissions::from_mode(0o755)).expect("it is ours");
    fs::set_permissions(&config, Permissions::from_mode(0o644)).expect("it is ours");
    let program = gateway.path().join("vigie");
    fs::copy(env!("CARGO_BIN_EXE_vigie"), &program).expect("there is room");
    let config = config.display().to_string();
    let beside = || command(&["outbox", "status", "--config", &config], gateway.path()).output().expect("vigie starts");
    wait_until("the agent to answer", || String::from_utf8_lossy(&beside().stdout).contains("running, version"));

    for args in [&["status"][..], &["export"], &["drop", "--all", "--yes"]] {
        let all = [&["outbox"], args, &["--config", &config]].concat();
        let output = as_other(NOBODY, &program, &all);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {err}");
        assert!(err.contains("no rights on the agent's control socket") && err.contains("group `root`"), "{err}");
        assert!(output.stdout.is_empty());
    }
    // The socket is open to its group.
    let output = as_other("0", &program, &["outbox", "status", "--config", &config]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("running, version"), "{out}{err}");
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}
