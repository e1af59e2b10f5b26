//! The one way to run asynchronous code: a runtime on the current thread.

use std::future::Future;
use std::io;

use tokio::runtime::Builder;

pub(crate) struct Runtime(tokio::runtime::Runtime);

impl Runtime {
    pub(crate) fn new() -> io::Result<Self> {
        Builder::new_current_thread().enable_io().enable_time().build().map(Self)
    }

    /// Runs `future` to completion.
    ///
    /// A host name lookup may still hang in a thread of the runtime. That thread is abandoned, not waited for.
    pub(crate) fn block_on<F: Future>(self, future: F) -> F::Output {
        let output = self.0.block_on(future);
        self.0.shutdown_background();
        output
    }
}

/// Runs `future` to completion on a new runtime.
pub(crate) fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(Runtime::new()?.block_on(future))
}
