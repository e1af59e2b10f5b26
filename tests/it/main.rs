//! The integration tests: the built binary against real servers, in one test binary.
//!
//! Run them with `scripts/test` (or `cargo test --test it FILTER` once `scripts/servers` has run).
//!
//! # Writing a test
//!
//! ```ignore
//! use crate::world::{World, Server, Ledger, Proxy, poll_until, secs, shared};
//!
//! #[test]
//! fn a_revoked_lease_ends_the_command() {
//!     for server in shared::all() {                           // etcd 3.4, etcd 3.5, Consul
//!         let world = World::on(server);                      // a home of its own, `-b … -e …` given
//!         let name = world.name("jobs/backup");               // a lock name that no other test uses
//!         let job = world.distlock().args([&name, "sleep", "60"]).spawn();
//!         let held = poll_for("the key", secs(30), || server.entries(&name).pop());
//!         server.end_lease(&held.lease.unwrap());
//!         let job = job.wait_within(secs(9)).assert_code(76); // kills and panics after the bound
//!         assert!(job.stderr.contains("distlock: error: "));
//!     }
//! }
//! ```
//!
//! - Shared servers are started when first used and live as long as the test process: use names of
//!   your own, and start private ones ([`world::Etcd::start`], [`world::Consul::start`],
//!   [`world::etcd::cluster`], [`world::consul::cluster`]) to kill, pause, resume or restart them.
//! - One behaviour, every backend: [`world::everywhere`] (this host too) and [`world::on_servers`] run
//!   a test on all of them at once. [`world::Holder`] holds a lock until it is told to let go,
//!   [`world::enqueue`] starts one who stands behind it.
//! - Faults of the network: [`world::Proxy::to`] a server, `World::at(backend, &proxy.url())`, then
//!   `proxy.set(Mode::Swallow)`, `proxy.reset()`.
//! - [`world::Cluster`] has three members, each behind a proxy, and strikes them with [`world::Blow`]s.
//! - Mutual exclusion: run [`world::Ledger::command`] under the lock in each contender, ours and the
//!   peers' ([`world::Server::peer_lock`]), then `ledger.assert_exclusive(contenders)`.
//! - Terminals: [`world::Terminal::open`] is `bash -i` with `send` and `expect`.
//! - The two processes of a job: `job.pid()` is the supervisor, `job.keeper()` the keeper;
//!   `world.processes()` are all that were started in this world and still exist. One that may have ended by the time of
//!   a blow is struck through [`world::Pinned`].
//! - Never sleep and hope: [`world::poll_until`] and [`world::poll_for`] with a generous bound. A command that is to
//!   wait reads from a [`world::Gate`].
//! - A promise of a second is kept by one run of three ([`world::once_in`], [`world::within`]): other tests and other
//!   programs take the processors. Count it from a stamp taken before the look, on `CLOCK_BOOTTIME` where two processes
//!   are compared ([`world::moment`]). What must never happen, such as two holders at once, gets no second chance.
//! - What the machine lacks is said by [`world::lacks`], and is a failure with `DISTLOCK_TEST_STRICT=1`.
//! - Nothing is left behind: a job, a terminal, a world ends its processes when it is dropped, a
//!   server dies with the test process even when that is killed.

#![allow(unreachable_pub, reason = "a test binary has no other crate to be public to")]

#[allow(dead_code, unused_imports, reason = "a harness offers more than the tests of one day use")]
mod world;

mod cli;
mod cluster;
mod command;
mod consul;
mod contender;
mod doctor;
mod etcd;
mod guardians;
mod interop;
mod leftovers;
mod loss;
mod matrix;
mod names;
mod output;
mod processes;
mod progress;
mod readme;
mod refused;
mod relock;
mod report;
mod security;
mod servers;
mod signals;
mod terminal;
mod waiting;
