//! Integration tests: the built binary against real servers, in one test binary.
//!
//! Run them with `scripts/test` (or `cargo test --test it FILTER` once `scripts/servers` has run).
//!
//! # Writing a test
//!
//! ```ignore
//! use crate::world::{Server, World, poll_for, secs, shared};
//!
//! #[test]
//! fn revoked_lease_kills_the_command() {
//!     for server in shared::all() {                           // etcd 3.4, etcd 3.5, Consul
//!         let world = World::on(server);                      // own home directory, `-b … -e …` set
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
//! - Shared servers start at their first use and live as long as the test process: use names from
//!   [`world::World::name`]. Start private ones ([`world::Etcd::start`], [`world::Consul::start`],
//!   [`world::etcd::cluster`], [`world::consul::cluster`]) to kill, pause or restart them.
//! - All backends: [`world::everywhere`] runs a test on each server and on this host, [`world::on_servers`] on the
//!   servers only, at the same time.
//! - Contenders: [`world::Holder`] holds a lock until the test releases it, [`world::enqueue`] starts a waiter.
//! - Network faults: [`world::Proxy::to`] a server, `World::at(backend, &proxy.url())`, then
//!   `proxy.set(Mode::Swallow)`, `proxy.reset()`.
//! - [`world::Cluster`] has three members, each behind a proxy, and injects [`world::Fault`]s.
//! - Mutual exclusion: run [`world::Ledger::command`] under the lock in each contender, distlock's and the peers'
//!   ([`world::Server::peer_lock`]), then `ledger.assert_exclusive(contenders)`.
//! - Terminals: [`world::Terminal::open`] is `bash -i` with `send` and `expect`.
//! - Processes of a job: `job.pid()` is the supervisor, `job.keeper()` the keeper; `world.processes()` are all
//!   processes of this world that still exist. Send signals to a process that may have exited through
//!   [`world::Pinned`].
//! - Every process starts through [`world::World::command`], with default signal dispositions and an empty mask. A test
//!   of other dispositions sets them with `env --ignore-signal` or `nohup`. Programs are written by
//!   [`world::write_program`], so that no other test's child keeps them open.
//! - Tests poll for a condition, with a generous bound: [`world::poll_until`], [`world::poll_for`].
//!   [`world::throughout`] asserts that something does not change. [`world::let_pass`] is for a time that has no
//!   observable effect. A command that waits reads from a [`world::Gate`].
//! - Test names state the behaviour in at most 60 characters: `lost_lease_kills_daemons`.
//! - Tests wait most of the time, so many run at the same time. Starting a cluster takes a permit, and a test that
//!   starts more processes than the processors can run takes [`world::AllProcessors`].
//! - A bound of a second gets three attempts ([`world::once_in`], [`world::within`]), because other tests and programs
//!   take the processors. Measure it from a time read before the probe, on `CLOCK_BOOTTIME` between two processes
//!   ([`world::moment`]). An event that must never happen, such as two holders at once, gets one attempt.
//! - [`world::lacks`] skips a test that the machine cannot run, and panics with `DISTLOCK_TEST_STRICT=1`.
//! - Tests leave no processes: dropping a job, a terminal or a world kills its processes, and a server exits with the
//!   test process even if that is killed.

#![allow(unreachable_pub, reason = "a test binary has no other crate to be public to")]

#[allow(dead_code, unused_imports, reason = "the harness offers more than the tests use at present")]
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
