//! A byte stream that ends when something outside says so: a revocation, a lost handle, a shutdown.
//!
//! Invariant: once cut, nothing more is read or written, whatever the other side does.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream and what ends it. The reason is the text of the error that reads and writes then give.
pub struct CutStream<S> {
    stream: S,
    end: Option<Pin<Box<dyn Future<Output = &'static str> + Send>>>,
    reason: &'static str,
}

impl<S> CutStream<S> {
    /// `stream`, until `end` resolves to the reason.
    pub fn new(stream: S, end: impl Future<Output = &'static str> + Send + 'static) -> Self {
        Self { stream, end: Some(Box::pin(end)), reason: "" }
    }

    /// What is wrapped.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(end) = &mut self.end
            && let Poll::Ready(reason) = end.as_mut().poll(context)
        {
            self.reason = reason;
            self.end = None;
        }
        if self.end.is_none() { Err(io::Error::new(io::ErrorKind::ConnectionAborted, self.reason)) } else { Ok(()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CutStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.end.is_none() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, self.reason)));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.end.is_none() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, self.reason)));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for CutStream<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CutStream").field("stream", &self.stream).field("cut", &self.end.is_none()).finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_waiting_read_ends_when_the_stream_is_cut() {
        let (near, mut far) = tokio::io::duplex(64);
        let (cut, end) = oneshot::channel::<()>();
        let mut stream = CutStream::new(near, async move {
            let _ = end.await;
            "the peer was removed"
        });
        far.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        let reading = tokio::spawn(async move {
            let refusal = stream.read_u8().await.unwrap_err();
            (refusal, stream.write_all(b"x").await.unwrap_err())
        });
        cut.send(()).unwrap();
        let (read, written) = reading.await.unwrap();
        assert_eq!(read.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(written.to_string(), "the peer was removed");
    }
}
