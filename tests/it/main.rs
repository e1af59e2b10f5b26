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
//! fn revoked_lease_kills_the_command() {
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
//! - Shared servers start at their first use and live as long as the test process: use names from [`world::World::name`].
//!   Start private ones ([`world::Etcd::start`], [`world::Consul::start`], [`world::etcd::cluster`],
//!   [`world::consul::cluster`]) to kill, pause or restart them.
//! - A behaviour of every backend: [`world::everywhere`] (this host too) and [`world::on_servers`] run a test on all of them
//!   at once. [`world::Holder`] holds a lock until the test releases it, [`world::enqueue`] starts a waiter.
//! - Network faults: [`world::Proxy::to`] a server, `World::at(backend, &proxy.url())`, then `proxy.set(Mode::Swallow)`,
//!   `proxy.reset()`.
//! - [`world::Cluster`] has three members, each behind a proxy, and injects [`world::Fault`]s.
//! - Mutual exclusion: run [`world::Ledger::command`] under the lock in each contender, distlock's and the peers'
//!   ([`world::Server::peer_lock`]), then `ledger.assert_exclusive(contenders)`.
//! - Terminals: [`world::Terminal::open`] is `bash -i` with `send` and `expect`.
//! - Processes of a job: `job.pid()` is the supervisor, `job.keeper()` the keeper; `world.processes()` are all processes of
//!   this world that still exist. Send signals to a process that may have exited through [`world::Pinned`].
//! - Every process starts through [`world::World::command`], with default signal dispositions and an empty mask. A test of
//!   other dispositions sets them with `env --ignore-signal` or `nohup`. Programs are written by
//!   [`world::write_program`], so that no other test's child keeps them open.
//! - Tests poll for a condition, with a generous bound: [`world::poll_until`], [`world::poll_for`]. What must not change is
//!   asserted [`world::throughout`] a time. [`world::let_pass`] is for a time that has no observable effect. A command
//!   that waits reads from a [`world::Gate`].
//! - Nearly all of a test's time is waiting, so many tests run beside each other. A cluster takes a permit by itself, and a
//!   test that starts more processes than the processors can run takes [`world::AllProcessors`].
//! - A bound of a second is kept by one attempt of three ([`world::once_in`], [`world::within`]), because other tests and
//!   other programs take the processors. Count it from a stamp taken before the probe, on `CLOCK_BOOTTIME` if two
//!   processes are compared ([`world::moment`]). What must never happen, such as two holders at once, gets one attempt.
//! - [`world::lacks`] reports what the machine lacks, and fails with `DISTLOCK_TEST_STRICT=1`.
//! - Nothing is left behind: a job, a terminal, a world kills its processes when it is dropped, and a server exits with the
//!   test process even if that is killed.

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
