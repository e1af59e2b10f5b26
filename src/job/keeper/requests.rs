//! The requests to the backend that are under way.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use distlock_core::keeper::{Event, Request};
use distlock_core::lease::MAX_REQUEST_TIME;
use distlock_core::outcome::Trouble;
use distlock_core::time::Instant;

use crate::lock::Backend;
use crate::sys::clock;

/// How often to retry the release of an abandoned contender.
const RELEASE_INTERVAL: Duration = Duration::from_millis(300);

type Pending<T> = Pin<Box<dyn Future<Output = T>>>;

/// The backend of the current contender, its pending requests, and the contenders that were abandoned.
pub(super) struct Requests {
    backend: Rc<dyn Backend>,
    pending: [Option<Pending<Event>>; Request::COUNT],
    /// The backend's count of endpoint changes when each request began.
    endpoint_changes: [usize; Request::COUNT],
    /// Releases of abandoned contenders.
    releases: Vec<Pending<()>>,
}

impl Requests {
    pub(super) fn new(backend: Box<dyn Backend>) -> Self {
        Self {
            backend: Rc::from(backend),
            pending: [const { None }; Request::COUNT],
            endpoint_changes: [0; Request::COUNT],
            releases: Vec::new(),
        }
    }

    /// Begins a request. `last_run_token` is where the proof of [`Request::VerifyContinuity`] starts.
    pub(super) fn begin(&mut self, request: Request, last_run_token: u64) {
        let backend = Rc::clone(&self.backend);
        self.endpoint_changes[request as usize] = backend.endpoint_changes();
        self.pending[request as usize] = Some(match request {
            Request::Enter => Box::pin(async move { Event::Entered(backend.enter().await) }),
            Request::Wait => Box::pin(async move { Event::WaitReturned(backend.wait().await) }),
            Request::Renew => Box::pin(async move { Event::Renewed(backend.renew().await) }),
            Request::Watch => Box::pin(async move { Event::WatchFailed(backend.watch().await) }),
            Request::VerifyContinuity => {
                Box::pin(
                    async move { Event::ContinuityVerified(backend.held_continuously_since(last_run_token).await) },
                )
            }
            Request::Release => Box::pin(async move { Event::Released(backend.release().await) }),
        });
    }

    pub(super) fn cancel(&mut self, request: Request) {
        self.pending[request as usize] = None;
    }

    /// Leaves the endpoint on which `request` began and returns why, unless the backend has already left it.
    pub(super) fn leave_endpoint(&self, request: Request) -> String {
        self.backend.leave_endpoint(self.endpoint_changes[request as usize])
    }

    pub(super) fn lease_id(&self) -> Option<String> {
        self.backend.lease_id()
    }

    /// Continues with a new contender, and releases the old one in the background until `give_up_at` at the latest.
    pub(super) fn replace_contender(&mut self, backend: Box<dyn Backend>, give_up_at: Instant) {
        let abandoned = std::mem::replace(&mut self.backend, Rc::from(backend));
        self.releases.push(Box::pin(release(abandoned, give_up_at)));
    }

    #[must_use]
    pub(super) fn is_releasing(&self) -> bool {
        !self.releases.is_empty()
    }

    /// Polls all requests, those of abandoned contenders included, for the next outcome.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let _ = self.poll_releases(context);
        for slot in &mut self.pending {
            if let Some(request) = slot
                && let Poll::Ready(event) = request.as_mut().poll(context)
            {
                *slot = None;
                return Poll::Ready(event);
            }
        }
        Poll::Pending
    }

    pub(super) fn poll_releases(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.releases.retain_mut(|release| release.as_mut().poll(context).is_pending());
        if self.releases.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Retries the release of an abandoned contender until a server has answered, so that no waiter waits for its lease.
async fn release(backend: Rc<dyn Backend>, give_up_at: Instant) {
    while clock::now() < give_up_at {
        let endpoint_changes = backend.endpoint_changes();
        match tokio::time::timeout(MAX_REQUEST_TIME, backend.release()).await {
            Ok(Ok(()) | Err(Trouble::Lost(_) | Trouble::Broken(_) | Trouble::Fatal(_))) => return,
            Ok(Err(Trouble::Uncertain { .. })) => {}
            Err(_) => drop(backend.leave_endpoint(endpoint_changes)),
        }
        tokio::time::sleep(RELEASE_INTERVAL).await;
    }
}
