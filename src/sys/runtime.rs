//! The one way to run asynchronous code: a runtime on the current thread.

use std::future::Future;
use std::io;

/// Runs `future` to completion on a new runtime.
///
/// A host name lookup may still hang in a thread of the runtime. That thread is abandoned, not waited for.
pub(crate) fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}
