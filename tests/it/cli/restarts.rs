//! `--on-lost restart` backs off and stops after `--restarts`.

use crate::world::{Server, World, secs, shared};

#[test]
fn restarts_back_off_if_command_deletes_its_lock() {
    let etcd = shared::etcd35();
    let world = World::on(etcd);
    let etcdctl = etcd.etcdctl(&world, &etcd.url()).into_command();
    let words: Vec<_> = [etcdctl.get_program()].into_iter().chain(etcdctl.get_args()).map(ToOwned::to_owned).collect();
    let line = "echo run; \"$@\" del \"$ETCD_LOCK_KEY\" >/dev/null; sleep 60";
    let job = world.distlock().args(["-v", "--on-lost", "restart", "--restarts", "4", &world.name("x"), "sh", "-c"]);
    let job = job.env("ETCDCTL_API", "3").args([line, "sh"]).args(words).run().assert_code(76);
    assert_eq!(job.stdout.lines().count(), 5, "{}", job.describe());
    assert!(job.elapsed >= secs(1), "100 + 200 + 400 + 800 ms: {}", job.describe());
    assert!(job.stderr.contains("the restart follows after 800ms"), "{}", job.describe());
    assert!(job.stderr.contains("caused by: lost again after 4 restarts"), "{}", job.describe());
}
