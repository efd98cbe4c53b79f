//! The virtio-serial port: a character device whose host side comes and goes.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::sys::files;

/// The kernel's driver hands over one page per read at most, and 32 KiB per write.
const READ_PIECE: usize = 4_096;
/// Fresh registrations in one poll before the task is queued again.
const TRIES: usize = 3;

/// A port as an async byte stream. A read of 0 bytes means that no host is connected now; reading again later is right.
///
/// While no host is connected the kernel says "hang up", which the runtime never forgets for a registered descriptor. So
/// the registration is dropped then and made anew when the port answers "would block" again.
pub struct VirtioPort {
    file: File,
    registration: Option<AsyncFd<OwnedFd>>,
}

impl VirtioPort {
    /// Open the device (`/dev/vport0p1`).
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { file, registration: None })
    }

    /// Try `work` until it does something other than block, as far as it can go now.
    fn poll_io<T>(
        &mut self,
        context: &mut Context<'_>,
        interest: Interest,
        mut work: impl FnMut(&File) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        for _ in 0..TRIES {
            match work(&self.file) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => return Poll::Ready(result),
            }
            ready!(self.poll_ready(context, interest))?;
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// After "would block": pending until the kernel says that it is worth another try.
    fn poll_ready(&mut self, context: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>> {
        if self.registration.is_none() {
            let descriptor = self.file.as_fd().try_clone_to_owned()?;
            self.registration = Some(files::watch(descriptor, Interest::READABLE | Interest::WRITABLE)?);
        }
        let Some(registration) = &self.registration else {
            return Poll::Ready(Ok(()));
        };
        let mut guard = ready!(if interest.is_readable() {
            registration.poll_read_ready(context)
        } else {
            registration.poll_write_ready(context)
        })?;
        let stale = guard.ready().is_read_closed() || guard.ready().is_write_closed();
        guard.clear_ready();
        drop(guard);
        if stale {
            // The other direction may wait on the old registration: let the task poll both again.
            self.registration = None;
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for VirtioPort {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = buffer.remaining().min(READ_PIECE);
        let space = buffer.initialize_unfilled_to(size);
        let count = ready!(self.poll_io(context, Interest::READABLE, |mut file| file.read(space)))?;
        if count == 0 {
            self.registration = None;
        }
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for VirtioPort {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(context, Interest::WRITABLE, |mut file| file.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
