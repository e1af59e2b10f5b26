//! Killed supervisors and keepers, and a revoked lease: the process tree is killed and the lock released at once.

use distlock_core::time::Instant;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{LEASE, exited_within, send, stubborn};
use crate::world::{AllProcessors, Running, Server, World, millis, moment, once_in, poll_until, secs, shared, within};

/// A stubborn command that holds a lock, and a waiter in another world.
struct Scene {
    server: &'static dyn Server,
    name: String,
    world: World,
    holder: Running,
    keeper: Pid,
    waiter: (World, Running),
}

impl Scene {
    fn start(server: &'static dyn Server) -> Self {
        let world = World::on(server);
        let name = world.name("stubborn");
        let holder = world.distlock().args(LEASE).args([&name, &stubborn(&world)]).spawn();
        let keeper = holder.keeper();
        world.wait_for_file("ready");
        let waiter_world = World::on(server);
        let print_time = r#"read -r now idle </proc/uptime; echo "$now""#;
        let waiter = waiter_world.distlock().args([&name, "--", "sh", "-c", print_time]).spawn();
        poll_until("two contenders", secs(30), || server.contenders(&name) == 2);
        Self { server, name, world, holder, keeper, waiter: (waiter_world, waiter) }
    }

    /// Returns an error unless the tree exited within half a second after `faulted_at`, and the waiter acquired the
    /// lock within a second.
    fn await_handover(self, faulted_at: Instant) -> Result<(World, Running), String> {
        exited_within(&self.world, &[self.holder.pid()], faulted_at, millis(500))?;
        let waiter = self.waiter.1.wait().assert_code(0);
        assert_eq!(self.server.contenders(&self.name), 0);
        // The release must not wait for the lease to expire.
        let took = moment(&waiter.stdout).since(faulted_at);
        within(&format!("{}: the handover to the waiter", self.server.backend()), took, secs(1))?;
        Ok((self.world, self.holder))
    }
}

/// Injects a fault in a scene on each server, until one attempt keeps the bounds: the storms of processes of two scenes
/// can delay everything else. `check` gets the holder of that attempt.
fn assert_prompt_handover(inject: impl Fn(&Scene) -> Instant, check: impl Fn(Running)) {
    let _storms = AllProcessors::wait();
    for server in shared::all() {
        let (_world, holder) = once_in(3, || {
            let scene = Scene::start(server);
            let faulted_at = inject(&scene);
            scene.await_handover(faulted_at)
        });
        check(holder);
    }
}

#[test]
fn killed_supervisor_kills_the_tree_and_frees_the_lock() {
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        let check = |holder: Running| drop(holder.wait().assert_signal(signal));
        assert_prompt_handover(|scene| send(scene.holder.pid(), signal), check);
    }
}

#[test]
fn killed_keeper_kills_the_tree_and_frees_the_lock() {
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        assert_prompt_handover(
            |scene| send(scene.keeper, signal),
            |holder| {
                let holder = holder.wait().assert_code(76);
                assert!(holder.stderr.contains("distlock: error: "), "{}", holder.describe());
            },
        );
    }
}

#[test]
fn revoked_lease_kills_a_command_that_ignores_signals() {
    let _storms = AllProcessors::wait();
    for server in shared::all() {
        once_in(3, || {
            let scene = Scene::start(server);
            let key = server.entries(&scene.name).into_iter().min_by_key(|entry| entry.revision);
            let since = distlock::now();
            server.end_lease(&key.and_then(|entry| entry.lease).expect("the holder's lease"));
            // The keeper exits after its requests to the server. The tree has the kill budget, counted from the time
            // when the keeper learns of the loss.
            let outcome = exited_within(&scene.world, &[scene.holder.pid(), scene.keeper], since, millis(1000));
            scene.holder.wait().assert_code(76);
            outcome
        });
    }
}

#[test]
fn daemons_are_killed_before_distlock_exits() {
    for server in shared::all() {
        let world = World::on(server);
        let name = world.name("leftover");
        let daemon = r#"trap "" TERM; setsid -f sleep 1000; exit 7"#;
        world.distlock().args(["--grace", "200ms", &name, "sh", "-c", daemon]).run().assert_code(7);
        assert_eq!(world.processes(), []);
        assert_eq!(server.contenders(&name), 0);
    }
}
