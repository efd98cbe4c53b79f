//! A process's standard streams, seen from the agent: pipes or a terminal's master side.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::error::{Context, Outcome};
use crate::sys::{files, tty};

use super::child::Stdio;

/// One read takes this much: big enough for throughput, small enough to be one DATA frame.
pub const PIECE: usize = 65_536;
const PIPE_SIZE: i32 = 1 << 18;

/// A descriptor read or written without blocking.
pub struct Port(AsyncFd<OwnedFd>);

impl Port {
    pub fn new(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        files::set_nonblocking(fd.as_fd())?;
        files::watch(fd, interest).map(Self)
    }

    /// Up to a buffer of bytes; 0 at the end. A terminal whose other side is closed has ended.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| files::read(fd.get_ref().as_fd(), buffer)) {
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(0),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// What is there now; 0 if nothing is.
    fn read_rest(&self, buffer: &mut [u8]) -> usize {
        files::read(self.0.get_ref().as_fd(), buffer).unwrap_or(0)
    }

    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| files::write(fd.get_ref().as_fd(), bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => bytes = &bytes[result?..],
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    pub fn resize(&self, rows: u32, columns: u32) -> io::Result<()> {
        tty::resize(self.0.get_ref().as_fd(), rows, columns)
    }
}

/// Reads until the end of the stream, or until the process has ended and nothing is left: something that it started may
/// hold the stream open for ever.
pub struct Output {
    port: std::rc::Rc<Port>,
    ended: watch::Receiver<bool>,
}

impl Output {
    pub fn new(port: std::rc::Rc<Port>, ended: watch::Receiver<bool>) -> Self {
        Self { port, ended }
    }

    /// Bytes read; 0 at the end.
    pub async fn read(&mut self, buffer: &mut [u8]) -> usize {
        tokio::select! {
            biased;
            result = self.port.read(buffer) => result.unwrap_or(0),
            // An error means that the sender is gone, which is an end as well.
            _ = self.ended.wait_for(|ended| *ended) => self.port.read_rest(buffer),
        }
    }
}

/// The agent's ends of a process's streams.
pub struct Ends {
    pub stdin: Option<std::rc::Rc<Port>>,
    pub stdout: std::rc::Rc<Port>,
    /// None for a terminal.
    pub stderr: Option<std::rc::Rc<Port>>,
}

/// Both sides of three pipes; without `stdin` the process gets /dev/null.
pub fn pipes(stdin: bool) -> Outcome<(Stdio, Ends)> {
    let what = "making the standard streams";
    let (out_read, out_write) = files::pipe().context(what)?;
    let (err_read, err_write) = files::pipe().context(what)?;
    files::grow_pipe(out_read.as_fd(), PIPE_SIZE);
    let input = if stdin { Some(files::pipe().context(what)?) } else { None };
    let (in_read, in_write) = input.unzip();
    let port = |fd: OwnedFd, interest| Port::new(fd, interest).map(std::rc::Rc::new).context(what);
    let ends = Ends {
        stdin: in_write.map(|fd| port(fd, Interest::WRITABLE)).transpose()?,
        stdout: port(out_read, Interest::READABLE)?,
        stderr: Some(port(err_read, Interest::READABLE)?),
    };
    Ok((Stdio::Pipes { stdin: in_read, stdout: out_write, stderr: err_write }, ends))
}

/// The agent's side of a terminal: one descriptor for both directions.
pub fn terminal(master: OwnedFd, slave: OwnedFd) -> Outcome<(Stdio, Ends)> {
    let master = Port::new(master, Interest::READABLE | Interest::WRITABLE).context("opening the terminal")?;
    let master = std::rc::Rc::new(master);
    Ok((Stdio::Terminal(slave), Ends { stdin: Some(master.clone()), stdout: master, stderr: None }))
}
