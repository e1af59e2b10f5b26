//! A byte stream that records why it closed.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::lock::transport::tls;

/// Byte stream, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why the last connection to a server closed.
#[derive(Clone, Debug, Default)]
pub(super) enum CloseCause {
    #[default]
    Unknown,
    /// One end rejected the other.
    Untrusted(rustls::Error),
    /// It closed before any byte arrived.
    NothingReceived,
}

/// Cause that a server's connections record.
#[derive(Clone, Debug, Default)]
pub(super) struct LastCloseCause(Arc<Mutex<CloseCause>>);

impl LastCloseCause {
    pub(super) fn get(&self) -> MutexGuard<'_, CloseCause> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> CloseCause {
        std::mem::take(&mut *self.get())
    }

    /// Records an error of a connection that `received` some bytes, unless it says nothing about the cause.
    pub(super) fn record(&self, error: &io::Error, received: bool) {
        let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        let cause = match tls::cause(error) {
            Some(error) => CloseCause::Untrusted(error.clone()),
            None if !received && closed.contains(&error.kind()) => CloseCause::NothingReceived,
            None => return,
        };
        *self.get() = cause;
    }
}

/// Stream that records why it closed.
pub(super) struct ObservedStream {
    stream: Box<dyn Stream>,
    close_cause: LastCloseCause,
    received: bool,
}

impl ObservedStream {
    pub(super) fn new(stream: Box<dyn Stream>, close_cause: LastCloseCause) -> Self {
        Self { stream, close_cause, received: false }
    }

    /// Explains a failed write, which shows only that the connection is closed: reads what the other end sent before.
    fn explained<T>(mut self: Pin<&mut Self>, cx: &mut Context, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if !matches!(write, Poll::Ready(Err(_))) {
            return write;
        }
        let mut bytes = [0; 512];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match self.as_mut().poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(Err(why)) => return Poll::Ready(Err(why)),
                Poll::Ready(Ok(())) => return write,
                // The runtime does not know yet that the connection is readable, if only at its end.
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl AsyncRead for ObservedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context, buffer: &mut ReadBuf) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        match &read {
            Err(error) => self.close_cause.record(error, self.received),
            Ok(()) if buffer.filled().len() > before => self.received = true,
            Ok(()) => self.close_cause.record(&ErrorKind::UnexpectedEof.into(), self.received),
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for ObservedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.explained(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.explained(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
