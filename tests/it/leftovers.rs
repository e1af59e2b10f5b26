//! Descendants that outlive the command: killed, waited for, left running, or impossible to kill.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::world::{World, children, copy_program, is_alive, lacks, on_servers, poll_for, poll_until, secs};

/// Starts a daemon, whose pid is written to a file, and exits with 7.
const DAEMON: &str =
    "setsid -f sh -c 'echo $$ >daemon; exec sleep 1000'; until [ -s daemon ]; do sleep 0.05; done; exit 7";

fn daemon(world: &World) -> Pid {
    let pid = world.wait_for_file("daemon");
    Pid::from_raw(pid.trim().parse().expect("a pid"))
}

#[test]
fn leftover_wait_keeps_the_lock() {
    on_servers(|world, server| {
        let name = world.name("wait");
        let mut job = world.distlock().args(["--leftover", "wait", &name, "sh", "-c", DAEMON]).spawn();
        let daemon = daemon(world);
        poll_until("the exit of the command", secs(30), || children(job.keeper()) == [daemon]);
        world.distlock().args(["-n", &name, "true"]).run().assert_code(75);
        assert!(job.is_running() && server.contenders(&name) == 1);
        kill(daemon, Signal::SIGKILL).expect("the daemon runs");
        job.wait_within(secs(30)).assert_code(7);
        assert_eq!(server.contenders(&name), 0);
    });
}

#[test]
fn signal_ends_the_wait_for_leftovers() {
    on_servers(|world, _| {
        let name = world.name("wait");
        let job = world.distlock().args(["--leftover", "wait", &name, "sh", "-c", DAEMON]).spawn();
        let daemon = daemon(world);
        poll_until("the exit of the command", secs(30), || children(job.keeper()) == [daemon]);
        job.signal(Signal::SIGTERM);
        job.wait_within(secs(30)).assert_code(7);
        assert!(!is_alive(daemon));
    });
}

#[test]
fn leftover_leave_reports_processes_and_releases_the_lock() {
    on_servers(|world, server| {
        let name = world.name("leave");
        let job = world.distlock().args(["--leftover", "leave", &name, "sh", "-c", DAEMON]).run().assert_code(7);
        let daemon = daemon(world);
        assert!(job.stderr.contains(&format!("left running without the lock: {daemon} (sleep)")), "{}", job.describe());
        assert!(is_alive(daemon));
        assert_eq!(server.contenders(&name), 0);
        kill(daemon, Signal::SIGKILL).expect("the daemon runs");
    });
}

/// distlock runs without privileges, and a descendant becomes root by a set-user-ID program.
#[test]
fn unkillable_process_is_reported_and_keeps_the_lock() {
    if !Uid::effective().is_root() {
        lacks("root, which is needed to create a process that another user may not kill");
        return;
    }
    on_servers(|world, server| {
        let name = world.name("stuck");
        // The unprivileged user needs access to the world, distlock, and a set-user-ID program.
        for (path, mode) in [("", 0o777), ("setuid", 0o4755), ("distlock", 0o755)] {
            let path = world.path().join(path);
            match path.file_name().and_then(|name| name.to_str()) {
                Some("setuid") => copy_program("/usr/bin/setpriv", &path),
                Some("distlock") => copy_program(env!("CARGO_BIN_EXE_distlock"), &path),
                _ => {}
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the test owns the file");
        }
        let become_root = "./setuid --reuid 0 --regid 0 --clear-groups sleep 1000 & \
                           until grep -qs '^Uid:.0.0.0.0' /proc/$!/status; do sleep 0.05; done; echo $! >daemon; exit 7";
        let url = server.url();
        let unprivileged = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "./distlock"];
        let options = ["-b", server.backend(), "-e", &url, "--grace", "100ms", &name, "sh", "-c", become_root];
        let mut job = world.command("setpriv").args(unprivileged).args(options).spawn();
        let daemon = daemon(world);
        let message = format!("cannot kill {daemon} (sleep)");
        let stderr = poll_for("the report", secs(30), || Some(job.stderr()).filter(|text| text.contains(&message)));
        assert_eq!(stderr.matches("cannot kill").count(), 1, "must be reported once: {stderr}");
        assert!(job.is_running() && server.contenders(&name) == 1, "the lock must stay held");
        kill(daemon, Signal::SIGKILL).expect("the daemon runs");
        job.wait_within(secs(30)).assert_code(7);
        assert_eq!(server.contenders(&name), 0);
    });
}
