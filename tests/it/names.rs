//! Lock names: each means the same lock as for the peers' tools, or is refused.

use std::time::Instant;

use crate::world::{
    Finished, Holder, Server, World, enqueue, everywhere, millis, on_servers, once_in, poll_until, secs, shared, within,
};

/// Runs `echo ran` under the lock, with `--try`.
fn try_to_lock(world: &World, name: &str) -> Finished {
    world.distlock().args(["--try", "run", name, "--", "echo", "ran"]).run()
}

#[track_caller]
fn assert_refused(world: &World, name: &str, reason: &str) {
    let job = try_to_lock(world, name).assert_code(64);
    assert!(job.stderr.starts_with("distlock: error: "), "{}", job.describe());
    assert!(job.stderr.contains(reason), "{reason:?} in {}", job.describe());
    assert_eq!(job.stdout, "");
}

#[test]
fn nested_names_are_separate_locks() {
    everywhere(|world| {
        let names = ["jobs", "jobs/a", "jobs/a/b", "jobs/a/.queue", "jobs/a/.next", "jobs/a/0", "jobs/abc"];
        let names = names.map(|name| world.name(name));
        for (n, held) in names.iter().enumerate() {
            let holder = Holder::of(world, held);
            for (m, tried) in names.iter().enumerate() {
                let code = if n == m { 75 } else { 0 };
                try_to_lock(world, tried).assert_code(code);
            }
            holder.release();
        }
    });
}

#[test]
fn queue_does_not_disturb_nested_locks() {
    everywhere(|world| once_in(3, || hand_over_among_nested_locks(world)));
}

fn hand_over_among_nested_locks(world: &World) -> Result<(), String> {
    // The backends keep keys of the lock `jobs` under such names.
    let nested = ["jobs/.queue", "jobs/.queue/a", "jobs/.next", "jobs/.lock", "jobs/.lockinfo", "jobs/0"];
    let nested = nested.map(|name| Holder::of(world, &world.name(name)));
    let name = world.name("jobs");
    let holder = Holder::of(world, &name);
    let waiters = [(); 2].map(|()| enqueue(world.distlock(), &name, &["true"]));
    holder.release();
    let released = Instant::now();
    for waiter in waiters {
        waiter.wait().assert_code(0);
    }
    let took = released.elapsed();
    // A lost lock would exit 76.
    for holder in nested {
        holder.release();
    }
    // After 2 s, a waiter passes a contender ahead that does not take the lock.
    within("the handover to both waiters", took, millis(1_900))
}

#[test]
fn one_command_line_can_hold_nested_locks() {
    everywhere(|world| {
        let (outer, inner) = (world.name("jobs"), world.name("jobs/a"));
        let distlock = world.distlock().into_command();
        let words = || [distlock.get_program()].into_iter().chain(distlock.get_args()).map(ToOwned::to_owned);
        for [first, second] in [[&outer, &inner], [&inner, &outer]] {
            let nested = words().skip(1).chain([first.into()]).chain(words()).chain([second.into()]);
            let show = ["sh", "-c", "echo $DISTLOCK_HELD_NAME; exit 7"];
            let job = world.command(distlock.get_program()).args(nested).args(show).run().assert_code(7);
            assert_eq!(job.stdout, format!("{second}\n"));
        }
    });
}

#[test]
fn names_with_special_characters_are_used_unchanged() {
    everywhere(|world| {
        let long = "n".repeat(200);
        let names = [
            "nightly backup",
            "nightly%20backup",
            "nightly+backup",
            "a.b..c",
            ".hidden",
            "...",
            "Sicherung für Zoë",
            "バックアップ",
            "🔒",
            "q?x=1&y#z",
            "a\\b",
            "it's \"quoted\"",
            "$HOME;`id`",
            "[a]*{b}",
            "e\u{301}",
            "é",
            &long,
        ]
        .map(|name| world.name(name));
        for (n, name) in names.iter().enumerate() {
            // Each name must be a lock of its own.
            let holder = Holder::of(world, name);
            try_to_lock(world, name).assert_code(75);
            let other = &names[(n + 1) % names.len()];
            let job = world.distlock().args(["--try", other, "printenv", "DISTLOCK_HELD_NAME"]).run();
            assert_eq!(job.assert_code(0).stdout, format!("{other}\n"));
            holder.release();
        }
    });
}

#[test]
fn name_of_400_characters_works_or_exits_64() {
    everywhere(|world| {
        for name in [world.name(&"n".repeat(400)), world.name(&"ü/".repeat(200)) + "x"] {
            let job = try_to_lock(world, &name);
            if job.code() == Some(64) {
                // A file name has at most 255 bytes, a key of Consul 512.
                assert!(job.stderr.contains("too long") && job.stderr.contains("hint: "), "{}", job.describe());
            } else {
                assert_eq!(job.assert_code(0).stdout, "ran\n");
                let holder = Holder::of(world, &name);
                try_to_lock(world, &name).assert_code(75);
                holder.release();
            }
        }
    });
    // Servers accept 400 ASCII characters.
    on_servers(|world, _| {
        try_to_lock(world, &world.name(&"n".repeat(400))).assert_code(0);
    });
}

#[test]
fn invalid_names_are_refused_on_all_backends() {
    everywhere(|world| {
        assert_refused(world, "/jobs/", "ends with a slash");
        assert_refused(world, "/", "ends with a slash");
        assert_refused(world, "//", "ends with a slash");
        assert_refused(world, "", "is empty");
        assert_refused(world, "a\nb", "unprintable character");
    });
    let dash = World::local().distlock().args(["--", "-x", "true"]).run().assert_code(64);
    assert!(dash.stderr.contains("begins with a dash"), "{}", dash.stderr);
}

#[test]
fn names_that_consul_lock_would_change_are_refused() {
    let world = World::on(shared::consul());
    for name in ["/jobs//a", "//jobs", "/jobs/../a", "../a", "/jobs/./a", "jobs/.."] {
        assert_refused(&world, name, "`consul lock` would drop its segment");
        assert_refused(&world, name, "hint: use a path such as");
    }
}

#[test]
fn etcd_accepts_dot_segments_and_double_slashes() {
    for server in [shared::etcd34(), shared::etcd35()] {
        let world = World::on(server);
        for name in ["jobs//a", "jobs/../a", "..", "jobs/./a"] {
            let name = world.name(name);
            let holder = Holder::of(&world, &name);
            try_to_lock(&world, &name).assert_code(75);
            try_to_lock(&world, &world.name("a")).assert_code(0);
            try_to_lock(&world, &world.name("jobs/a")).assert_code(0);
            // The name is the same lock for etcdctl.
            let peer = server.peer_lock(&world, &name, &["echo".into(), "peer".into()]).spawn();
            poll_until("etcdctl in the queue", secs(30), || server.entries(&format!("{name}/")).len() == 2);
            assert_eq!(peer.stdout(), "");
            holder.release();
            peer.wait().assert_code(0);
        }
    }
}

#[test]
fn local_name_is_one_file() {
    let world = World::local();
    for name in [".", "..", "/.", "/.."] {
        assert_refused(&world, name, "hint: ");
    }
    let holder = Holder::of(&world, "jobs/a");
    try_to_lock(&world, "jobs%2Fa").assert_code(0);
    try_to_lock(&world, "../locks/jobs/a").assert_code(0);
    holder.release();
}

#[test]
fn leading_slash_matters_on_etcd_only() {
    everywhere(|world| {
        let name = world.name("x");
        let _holder = Holder::of(world, &name);
        let expected = if uses_etcd(world) { 0 } else { 75 };
        try_to_lock(world, name.trim_start_matches('/')).assert_code(expected);
    });
}

fn uses_etcd(world: &World) -> bool {
    world.distlock().into_command().get_args().any(|word| word == "etcd")
}
