//! Requests that outlive the call that sent them.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use distlock_core::outcome::{Outcome, Trouble};

type Request<T> = Pin<Box<dyn Future<Output = T>>>;

/// Request that creates something on a server. It stays here until its answer is read, by any call: if it were dropped
/// halfway, its effect would be unknown and could not be undone.
pub(crate) struct PendingRequest<T>(RefCell<Option<Request<T>>>);

impl<T> Default for PendingRequest<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> PendingRequest<T> {
    /// Sets the request to send with the next call of [`Self::answer`], and drops an earlier one.
    pub(crate) fn start(&self, request: impl Future<Output = T> + 'static) {
        self.0.replace(Some(Box::pin(request)));
    }

    /// Drives the request and returns its answer, once; None if no request is pending. If the future is dropped, a
    /// later call continues.
    pub(crate) async fn answer(&self) -> Option<T> {
        poll_fn(|context| {
            let mut slot = self.0.borrow_mut();
            let Some(request) = &mut *slot else { return Poll::Ready(None) };
            let answer = request.as_mut().poll(context);
            if answer.is_ready() {
                *slot = None;
            }
            answer.map(Some)
        })
        .await
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Drops a request that timed out.
    pub(crate) fn abandon(&self) {
        self.0.replace(None);
    }
}

/// Largest number of requests at a time. A further one replaces the oldest.
const MAX_PARALLEL: usize = 4;

/// Requests for the same thing, each sent because the earlier ones are late. The first good answer counts.
pub(crate) struct ParallelRequests<T>(RefCell<Vec<Request<Outcome<T>>>>);

impl<T> Default for ParallelRequests<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> ParallelRequests<T> {
    /// Adds a request, to send with the next call of [`Self::first_answer`].
    pub(crate) fn add(&self, request: impl Future<Output = Outcome<T>> + 'static) {
        let mut requests = self.0.borrow_mut();
        if requests.len() == MAX_PARALLEL {
            drop(requests.remove(0));
        }
        requests.push(Box::pin(request));
    }

    /// Returns the first answer of any request that shows the state of the lock, or the newest request's failure. The
    /// other requests stay. If the future is dropped, a later call continues.
    pub(crate) async fn first_answer(&self) -> Outcome<T> {
        poll_fn(|context| {
            let mut requests = self.0.borrow_mut();
            let mut next = 0;
            while let Some(request) = requests.get_mut(next) {
                let Poll::Ready(answer) = request.as_mut().poll(context) else {
                    next += 1;
                    continue;
                };
                drop(requests.remove(next));
                if next == requests.len() || matches!(answer, Ok(_) | Err(Trouble::Lost(_) | Trouble::Broken(_))) {
                    return Poll::Ready(answer);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Drops all requests.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn an_answer_survives_a_dropped_call() {
        let (send, receive) = tokio::sync::oneshot::channel();
        let pending = PendingRequest::default();
        pending.start(receive);
        assert_eq!(poll_once(pending.answer()), None);
        send.send(7).expect("the request");
        assert_eq!(poll_once(pending.answer()), Some(Some(Ok(7))));
        assert_eq!(poll_once(pending.answer()), Some(None), "an answer is returned once");
    }

    #[test]
    fn an_abandoned_request_has_no_answer() {
        let pending = PendingRequest::default();
        pending.start(std::future::pending::<()>());
        pending.abandon();
        assert_eq!(poll_once(pending.answer()), Some(None));
    }

    fn silence() -> Trouble {
        Trouble::no_answer("no answer")
    }

    #[test]
    fn the_first_good_answer_of_any_request_counts() {
        let (send, receive) = tokio::sync::oneshot::channel();
        let requests = ParallelRequests::default();
        requests.add(async { receive.await.map_err(|_| silence()) });
        assert_eq!(poll_once(requests.first_answer()), None);
        requests.add(std::future::pending());
        assert_eq!(poll_once(requests.first_answer()), None);
        send.send(7).expect("the request");
        assert_eq!(poll_once(requests.first_answer()), Some(Ok(7)));
    }

    #[test]
    fn the_newest_failure_is_returned_and_the_others_continue() {
        let requests = ParallelRequests::default();
        let (send, receive) = tokio::sync::oneshot::channel();
        requests.add(async { receive.await.map_err(|_| silence()) });
        requests.add(async { Err(silence()) });
        assert_eq!(poll_once(requests.first_answer()), Some(Err(silence())));
        requests.add(std::future::pending());
        assert_eq!(poll_once(requests.first_answer()), None);
        send.send(7).expect("the request");
        assert_eq!(poll_once(requests.first_answer()), Some(Ok(7)));
    }

    #[test]
    fn an_old_failure_is_ignored_and_an_old_loss_is_not() {
        let requests: ParallelRequests<u8> = ParallelRequests::default();
        requests.add(async { Err(silence()) });
        requests.add(std::future::pending());
        assert_eq!(poll_once(requests.first_answer()), None);
        requests.add(async { Err(Trouble::Lost("gone".to_owned())) });
        requests.add(std::future::pending());
        assert_eq!(poll_once(requests.first_answer()), Some(Err(Trouble::Lost("gone".to_owned()))));
    }
}
