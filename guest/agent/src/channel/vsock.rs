//! The channel over vsock: the host connects to a port on which the agent listens. One connection at a time counts.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
    accept: Accept,
    host: Option<UnixStream>,
}

/// The next connection and the context that it comes from.
type Accept = fn(BorrowedFd<'_>) -> io::Result<(OwnedFd, u32)>;

impl VsockPort {
    pub fn listen(port: u32) -> io::Result<Self> {
        Self::on(vsock::listen(port)?, vsock::accept)
    }

    fn on(listener: OwnedFd, accept: Accept) -> io::Result<Self> {
        Ok(Self { listener: files::watch(listener, Interest::READABLE)?, accept, host: None })
    }

    /// The host's next connection. Whoever else knocks is in the guest itself, where pods are, and is sent away.
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        loop {
            let mut guard = ready!(self.listener.poll_read_ready(context))?;
            match (self.accept)(self.listener.as_fd()) {
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream as Host};
    use std::path::PathBuf;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn accept_from(listener: BorrowedFd<'_>, context: u32) -> io::Result<(OwnedFd, u32)> {
        let (connection, _) = UnixListener::from(listener.try_clone_to_owned()?).accept()?;
        connection.set_nonblocking(true)?;
        Ok((connection.into(), context))
    }

    fn from_host(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, u32)> {
        accept_from(listener, libc::VMADDR_CID_HOST)
    }

    fn from_guest(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, u32)> {
        accept_from(listener, 3)
    }

    /// A port behind a Unix socket, and where to connect to it.
    fn port(name: &str, accept: Accept) -> (VsockPort, PathBuf) {
        let path = std::env::temp_dir().join(format!("cuboid-vsock-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        (VsockPort::on(listener.into(), accept).unwrap(), path)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(10), test).await.unwrap() });
    }

    #[test]
    fn a_host_is_waited_for_and_both_sides_are_heard() {
        run(async {
            let (mut port, path) = port("both", from_host);
            let mut buffer = [0; 16];
            let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), port.read(&mut buffer));
            assert!(waiting.await.is_err());
            let mut host = Host::connect(&path).unwrap();
            host.write_all(b"hello").unwrap();
            assert_eq!(port.read(&mut buffer).await.unwrap(), 5);
            port.write_all(b"answer").await.unwrap();
            assert_eq!(host.read(&mut buffer).unwrap(), 6);
            std::fs::remove_file(path).unwrap();
        });
    }

    #[test]
    fn the_next_host_takes_the_place_of_the_one_before_which_reads_as_an_end() {
        run(async {
            let (mut port, path) = port("next", from_host);
            let mut buffer = [0; 16];
            let mut first = Host::connect(&path).unwrap();
            first.write_all(b"one").unwrap();
            assert_eq!(port.read(&mut buffer).await.unwrap(), 3);
            let mut second = Host::connect(&path).unwrap();
            second.write_all(b"second").unwrap();
            assert_eq!(port.read(&mut buffer).await.unwrap(), 0);
            assert_eq!(port.read(&mut buffer).await.unwrap(), 6);
            assert_eq!(first.read(&mut buffer).unwrap(), 0);
            std::fs::remove_file(path).unwrap();
        });
    }

    #[test]
    fn a_host_that_goes_away_reads_as_an_end_once() {
        run(async {
            let (mut port, path) = port("end", from_host);
            let mut buffer = [0; 16];
            drop(Host::connect(&path).unwrap());
            assert_eq!(port.read(&mut buffer).await.unwrap(), 0);
            let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), port.read(&mut buffer));
            assert!(waiting.await.is_err());
            std::fs::remove_file(path).unwrap();
        });
    }

    #[test]
    fn a_pod_of_the_guest_is_sent_away() {
        run(async {
            let (mut port, path) = port("pod", from_guest);
            let mut buffer = [0; 16];
            let mut pod = Host::connect(&path).unwrap();
            pod.write_all(b"let me in").unwrap();
            let waiting = tokio::time::timeout(std::time::Duration::from_millis(50), port.read(&mut buffer));
            assert!(waiting.await.is_err());
            let error = pod.read(&mut buffer).map(|count| assert_eq!(count, 0));
            assert!(error.is_ok() || error.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
            std::fs::remove_file(path).unwrap();
        });
    }
}
