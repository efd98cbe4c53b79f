//! Reaps every process that ends in the guest and tells who waits for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use tokio::io::Interest;
use tokio::sync::oneshot;

use crate::sys::{files, process};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// 0 to 255; 128 + signal when a signal ended it.
    pub code: i32,
    /// 0: it exited by itself.
    pub signal: i32,
}

impl Ended {
    /// From the status of wait(2).
    pub fn from_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            return Self { code: 128 + signal, signal };
        }
        Self { code: libc::WEXITSTATUS(status), signal: 0 }
    }
}

/// Who waits for which process. Register in the same step as the fork: nothing is reaped between two awaits.
#[derive(Clone, Default)]
pub struct Reaper(Rc<RefCell<HashMap<i32, oneshot::Sender<Ended>>>>);

impl Reaper {
    pub fn watch(&self, pid: i32) -> oneshot::Receiver<Ended> {
        let (sender, receiver) = oneshot::channel();
        self.0.borrow_mut().insert(pid, sender);
        receiver
    }

    fn collect(&self) {
        while let Some((pid, status)) = process::reap() {
            if let Some(waiting) = self.0.borrow_mut().remove(&pid) {
                // Nobody waits any more: nothing to tell.
                let _ = waiting.send(Ended::from_status(status));
            }
        }
    }

    /// Reaps for ever. `signals` comes from `sys::process::child_signals`.
    pub async fn run(self, signals: OwnedFd) -> io::Result<()> {
        let signals = files::watch(signals, Interest::READABLE)?;
        let mut buffer = [0u8; 1024];
        loop {
            self.collect();
            let mut ready = signals.readable().await?;
            while files::read(signals.get_ref().as_fd(), &mut buffer).is_ok() {}
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_and_a_signal_are_told_apart() {
        assert_eq!(Ended::from_status(3 << 8), Ended { code: 3, signal: 0 });
        assert_eq!(Ended::from_status(libc::SIGKILL), Ended { code: 137, signal: 9 });
        assert_eq!(Ended::from_status(libc::SIGSEGV | 0x80), Ended { code: 139, signal: 11 });
    }
}
