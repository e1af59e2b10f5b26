//! Contenders of the library, driven request by request, without a supervisor and a keeper.

use std::net::SocketAddr;
use std::rc::Rc;

use distlock::{Backend, ConsulOptions, Endpoint, Identity, LockSpec, PreparedBackend, Server as Settings, Tls};
use distlock_core::outcome::{Outcome, Position, Trouble};
use distlock_core::record::Record;

use crate::loss::on_each;
use crate::world::{Mode, Proxy, Server, World, secs};

/// Runs a test on a runtime like the keeper's.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}

/// Creates a contender that may acquire its lock again after a loss.
fn contender(server: &dyn Server, name: &str) -> Box<dyn Backend> {
    contender_at(server, server.address(), name)
}

/// Creates a contender that reaches the server at this address. On Consul its lock-delay is a second.
fn contender_at(server: &dyn Server, address: SocketAddr, name: &str) -> Box<dyn Backend> {
    let endpoints = vec![Endpoint::Http { authority: address.to_string() }];
    let settings = Settings { endpoints, tls: Tls::default(), identity: Identity::default() };
    let prepared = match server.backend() {
        "consul" => PreparedBackend::Consul(settings, ConsulOptions { lock_delay: secs(1), health_checks: Vec::new() }),
        _ => PreparedBackend::Etcd(settings),
    };
    let spec = LockSpec { name: name.to_owned(), ttl: secs(10), relock: true, record: Record::default() };
    prepared.contender(spec, Rc::new(|_| ())).expect("a contender")
}

/// Enters the queue and waits for the lock; returns the token.
async fn acquire(contender: &dyn Backend) -> u64 {
    let mut position: Outcome<Position> = contender.enter().await.map(|(_, position)| position);
    loop {
        match position {
            Ok(Position::Held { token, .. }) => return token,
            Ok(Position::Queued(_)) => position = contender.wait().await,
            Err(trouble) => panic!("{trouble:?}"),
        }
    }
}

/// Ends the contender's lease or session, and lets a renewal report the loss.
async fn lose(server: &dyn Server, contender: &dyn Backend) {
    server.end_lease(&contender.lease_id().expect("a lease"));
    assert!(matches!(contender.renew().await, Err(Trouble::Lost(_))));
}

#[test]
fn continuity_is_proved_across_several_leases() {
    on_each(|server| {
        let name = World::new().name("x");
        run(async {
            let ours = contender(server, &name);
            let first = acquire(&*ours).await;
            for _ in 0..3 {
                lose(server, &*ours).await;
                acquire(&*ours).await;
                assert_eq!(ours.held_continuously_since(first).await, Ok(true));
            }
            ours.release().await.expect("the lock is held");
        });
    });
}

#[test]
fn other_holder_is_remembered_after_an_unproved_lease() {
    on_each(|server| {
        let name = World::new().name("x");
        run(async {
            let (ours, other) = (contender(server, &name), contender(server, &name));
            let first = acquire(&*ours).await;
            lose(server, &*ours).await;
            acquire(&*other).await;
            other.release().await.expect("the lock is held");
            // The second lease is lost before continuity was checked.
            acquire(&*ours).await;
            lose(server, &*ours).await;
            acquire(&*ours).await;
            assert_eq!(ours.held_continuously_since(first).await, Ok(false));
            ours.release().await.expect("the lock is held");
        });
    });
}

/// Rule 1. Each reply comes two seconds after its request, so a time that was sampled at the reply is far too late.
#[test]
fn leases_and_renewals_count_from_before_the_request() {
    on_each(|server| {
        let name = World::new().name("x");
        let proxy = Proxy::to(server.address());
        let one_way = secs(1);
        proxy.set(Mode::Delay(one_way));
        run(async {
            let ours = contender_at(server, proxy.address(), &name);
            let entered_at = distlock::now();
            let (granted, _) = ours.enter().await.expect("the lock is free");
            assert!(granted.sent_at.since(entered_at) < one_way, "the grant counts from its reply");
            let renewed_at = distlock::now();
            let sent_at = ours.renew().await.expect("the lease is alive");
            assert!(sent_at >= renewed_at && sent_at.since(renewed_at) < one_way, "the renewal counts from its reply");
            ours.release().await.expect("the lock is held");
        });
    });
}

/// A session can end long before its TTL; then only the lock-delay excludes other clients.
#[test]
fn lock_delay_limits_the_cover_on_consul() {
    on_each(|server| {
        let name = World::new().name("x");
        run(async {
            let ours = contender(server, &name);
            let (granted, _) = ours.enter().await.expect("the lock is free");
            let expected = if server.backend() == "consul" { secs(1) } else { secs(10) };
            assert_eq!(granted.cover, Some(expected));
            ours.release().await.expect("the lock is held");
        });
    });
}
