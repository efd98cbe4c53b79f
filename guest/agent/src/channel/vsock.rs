//! The channel over vsock: the host connects to a port on which the agent listens. One connection at a time counts.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use crate::sys::{files, vsock};

/// As an async byte stream. A read of 0 bytes means that a connection has ended or another one has taken its place;
/// reading again waits for what comes.
pub struct VsockPort {
    listener: AsyncFd<OwnedFd>,
    host: Option<UnixStream>,
}

impl VsockPort {
    pub fn listen(port: u32) -> io::Result<Self> {
        Ok(Self { listener: files::watch(vsock::listen(port)?, Interest::READABLE)?, host: None })
    }

    /// The host's next connection. Whoever else knocks is in the guest itself, where pods are, and is sent away.
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        loop {
            let mut guard = ready!(self.listener.poll_read_ready(context))?;
            match vsock::accept(self.listener.as_fd()) {
                Ok((connection, libc::VMADDR_CID_HOST)) => {
                    // A stream socket is a stream socket: no call that the runtime makes on it knows its family.
                    return Poll::Ready(UnixStream::from_std(connection.into()));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for VsockPort {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(next) = self.poll_accept(context) {
            let had_one = self.host.replace(next?).is_some();
            if had_one {
                return Poll::Ready(Ok(()));
            }
        }
        let Some(host) = &mut self.host else { return Poll::Pending };
        let before = buffer.filled().len();
        let result = ready!(Pin::new(host).poll_read(context, buffer));
        if result.is_err() || buffer.filled().len() == before {
            self.host = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for VsockPort {
    /// Without a connection nothing is written; the reading side is what waits for one.
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.host {
            Some(host) => Pin::new(host).poll_write(context, bytes),
            None => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
