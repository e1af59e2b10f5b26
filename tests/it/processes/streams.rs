//! Output streams of a job: a full pipe delays no deadline, and readers see the end of the output.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LEASE, TTL, assert_exited, stubborn};
use crate::loss::on_each;
use crate::world::{AllProcessors, Mode, Proxy, Server, World, children, poll_for, poll_until, secs, shared, start};

#[test]
fn full_stderr_delays_no_deadline() {
    let _storms = AllProcessors::wait();
    on_each(|server| {
        let proxy = Proxy::to(server.address());
        let world = World::at(server.backend(), &proxy.url());
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let name = world.name("full");
        let verbose = ["-v", "--log-format", "json"];
        let mut command = world.distlock().args(verbose).args(LEASE).args([name, stubborn(&world)]).into_command();
        fill(&format!("/proc/self/fd/{}", writer.as_raw_fd()));
        let mut job = start(command.stderr(writer)).expect("distlock starts");
        drop(command);
        world.wait_for_file("ready");
        let supervisor = Pid::from_raw(job.id().cast_signed());
        let keeper = children(supervisor)[0];
        proxy.set(Mode::Cut);
        // The keeper keeps trying to revoke the lease.
        assert_exited(&world, &[supervisor, keeper], distlock::now(), TTL);
        poll_until("the exit of distlock", secs(30), || job.try_wait().expect("a child").is_some());
        assert_eq!(job.wait().expect("a child").code(), Some(76));
        drop(reader);
    });
}

/// Fills a pipe. The open file description of other writers stays blocking.
fn fill(pipe: &str) {
    let mut pipe =
        OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(pipe).expect("the pipe opens");
    while pipe.write(b"x").is_ok() {}
}

#[test]
fn output_ends_when_the_command_closes_it() {
    for server in shared::all() {
        let world = World::on(server);
        let name = world.name("streams");
        let closes = ["sh", "-c", "echo out; echo err >&2; exec sleep 1000 >&- 2>&-"];
        let mut command = world.distlock().args([&name]).args(closes).into_command();
        let mut job = start(command.stdout(Stdio::piped())).expect("distlock starts");
        let mut output = String::new();
        job.stdout.take().expect("stdout is piped").read_to_string(&mut output).expect("text");
        assert_eq!(output, "out\n");
        assert_eq!(server.contenders(&name), 1, "the lock must still be held");
        kill(Pid::from_raw(job.id().cast_signed()), Signal::SIGTERM).expect("distlock runs");
        job.wait().expect("a child can be waited for");
    }
}

#[test]
fn output_ends_while_the_keeper_awaits_lease_expiry() {
    let proxy = Proxy::to(shared::etcd35().address());
    for options in [&[][..], &["--on-lost", "restart", "--restarts", "0"]] {
        let world = World::at("etcd", &proxy.url());
        let name = world.name("lingers");
        // The lease expires more than the grace after the command is killed.
        let mut command = world
            .distlock()
            .args(["-t", "6", "--grace", "2"])
            .args(options)
            .args([&name, "sleep", "1000"])
            .into_command();
        let mut job = start(command.stderr(Stdio::piped())).expect("distlock starts");
        let pid = Pid::from_raw(job.id().cast_signed());
        let keeper =
            poll_for("the command", secs(30), || children(pid).pop().filter(|keeper| !children(*keeper).is_empty()));
        proxy.set(Mode::Swallow);
        let mut output = String::new();
        job.stderr.take().expect("stderr is piped").read_to_string(&mut output).expect("text");
        assert!(output.contains("was lost"), "{output}");
        assert!(world.processes().contains(&keeper), "the keeper must still try to reach the server");
        assert_eq!(job.wait().expect("a child can be waited for").code(), Some(76));
        proxy.set(Mode::Pass);
        poll_until("the exit of the keeper", secs(30), || world.processes().is_empty());
    }
}
