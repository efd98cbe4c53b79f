//! Logs of containers: cut into lines here, kept until the host has them.

pub mod cri;
pub mod spool;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Notify;

use crate::channel::StreamHandle;
use crate::pb;
use crate::stats::now_ns;
use cri::Cutter;
use spool::Spool;

/// One DATA frame.
const PIECE: usize = 65_536;
/// A writer that waits for the host looks again this often, for a host that leaves without a word.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The log of one container over all its attempts.
pub struct Log {
    spool: RefCell<Spool>,
    followers: Cell<usize>,
    /// The furthest offset that a follower has been sent.
    sent: Cell<u64>,
    closed: Cell<bool>,
    grown: Notify,
    shrunk: Notify,
}

impl Log {
    pub fn new(path: PathBuf, limit: u64) -> Self {
        Self {
            spool: RefCell::new(Spool::new(path, limit)),
            followers: Cell::new(0),
            sent: Cell::new(0),
            closed: Cell::new(false),
            grown: Notify::new(),
            shrunk: Notify::new(),
        }
    }

    pub fn end_offset(&self) -> u64 {
        self.spool.borrow().end()
    }

    pub fn acknowledge(&self, offset: u64) {
        self.spool.borrow_mut().acknowledge(offset);
        self.shrunk.notify_waiters();
    }

    /// No attempt writes any more: followers end when they have everything.
    pub fn close(&self) {
        self.closed.set(true);
        self.grown.notify_waiters();
        self.shrunk.notify_waiters();
    }

    /// Takes what a process wrote. While a host follows, waits until it keeps up.
    pub async fn write(&self, cutter: &mut Cutter, bytes: &[u8], scratch: &mut Vec<u8>) {
        scratch.clear();
        cutter.cut(bytes, &cri::stamp(now_ns()), scratch);
        self.append(scratch).await;
    }

    /// The stream has ended.
    pub async fn finish(&self, cutter: &mut Cutter) {
        let mut rest = Vec::new();
        cutter.finish(&cri::stamp(now_ns()), &mut rest);
        self.append(&rest).await;
    }

    /// Whole lines, in pieces of whole lines: another stream may come in between.
    async fn append(&self, mut lines: &[u8]) {
        while !lines.is_empty() {
            let (piece, rest) = lines.split_at(whole_lines(lines, spool::APPEND));
            self.wait_for_host().await;
            self.spool.borrow_mut().append(piece);
            self.grown.notify_waiters();
            lines = rest;
        }
    }

    async fn wait_for_host(&self) {
        while self.must_wait() {
            let shrunk = self.shrunk.notified();
            tokio::select! {
                () = shrunk => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// While a host follows: when it has not been sent what is in memory, or nothing more can be kept for it.
    fn must_wait(&self) -> bool {
        if self.followers.get() == 0 || self.closed.get() {
            return false;
        }
        let spool = self.spool.borrow();
        let unsent = spool.end().saturating_sub(self.sent.get().max(spool.first()));
        unsent >= spool::MEMORY as u64 / 2 || (!spool.has_room() && !spool.can_spill())
    }

    /// Sends the log from `offset` on: what is there, or with `follow` until the log is closed.
    ///
    /// Bytes before `offset` that are gone cannot be sent: then eight bytes on channel 1 tell where channel 0 starts.
    pub async fn send(&self, offset: u64, follow: bool, stream: &StreamHandle) {
        let start = offset.clamp(self.spool.borrow().first(), self.end_offset());
        if start != offset && stream.send(1, &start.to_le_bytes()).await.is_err() {
            return;
        }
        let follower = follow.then(|| Following::start(self, start));
        let end = self.pour(start, follow, stream).await;
        drop(follower);
        let Some(end_offset) = end else { return };
        let (first_offset, dropped_bytes) = (start, self.spool.borrow().dropped());
        let end = pb::LogsEnd { first_offset, end_offset, dropped_bytes };
        stream.reply(pb::reply::Reply::Logs(end)).await;
    }

    async fn pour(&self, start: u64, follow: bool, stream: &StreamHandle) -> Option<u64> {
        let mut piece = vec![0u8; PIECE];
        let (mut at, stop) = (start, self.end_offset());
        loop {
            let grown = self.grown.notified();
            let limit = if follow { PIECE } else { PIECE.min((stop - at) as usize) };
            let count = self.spool.borrow().read_at(at, &mut piece[..limit]);
            if count > 0 {
                stream.send(0, &piece[..count]).await.ok()?;
                at += count as u64;
                self.note_sent(at, follow);
            } else if at < self.spool.borrow().first() {
                // The host acknowledged (or the spool dropped) what it had not been sent.
                at = self.spool.borrow().first();
            } else if !follow || self.closed.get() {
                return Some(at);
            } else {
                tokio::select! {
                    () = grown => {}
                    // Nothing else comes from the host on this stream but its end.
                    _ = stream.recv() => if stream.is_over() { return None },
                }
            }
        }
    }

    fn note_sent(&self, at: u64, follow: bool) {
        if follow {
            self.sent.set(self.sent.get().max(at));
            self.shrunk.notify_waiters();
        }
    }
}

/// The length of as many whole lines from the front as fit `most`; a longer line counts as whole.
fn whole_lines(lines: &[u8], most: usize) -> usize {
    if lines.len() <= most {
        return lines.len();
    }
    let fitting = memchr::memrchr(b'\n', &lines[..most]);
    fitting.or_else(|| memchr::memchr(b'\n', lines)).map_or(lines.len(), |end| end + 1)
}

/// Counts a follower for as long as it lives.
struct Following<'a>(&'a Log);

impl<'a> Following<'a> {
    fn start(log: &'a Log, offset: u64) -> Self {
        log.followers.set(log.followers.get() + 1);
        if log.followers.get() == 1 {
            log.sent.set(offset);
        }
        Self(log)
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.0.followers.set(self.0.followers.get() - 1);
        self.0.shrunk.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_with_lines() {
        assert_eq!(whole_lines(b"ab\ncd\nef\n", 7), 6);
        assert_eq!(whole_lines(b"ab\ncd\n", 100), 6);
        assert_eq!(whole_lines(b"abcdef\ngh\n", 3), 7);
        assert_eq!(whole_lines(b"abcdef", 3), 6);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn without_a_host_nothing_waits_and_every_line_is_kept_up_to_the_limit() {
        let path = std::env::temp_dir().join(format!("cuboid-log-{}", std::process::id()));
        let log = Log::new(path, 8 << 20);
        let (mut cutter, mut scratch) = (Cutter::new("stdout"), Vec::new());
        let newlines = vec![b'\n'; 65_536];
        log.write(&mut cutter, &newlines, &mut scratch).await;
        let line = "2026-01-02T03:04:05.123456789Z stdout F \n".len() as u64;
        assert_eq!(log.end_offset(), 65_536 * line);
        assert_eq!((log.spool.borrow().first(), log.spool.borrow().dropped()), (0, 0));
    }

    #[test]
    fn a_slow_host_stops_the_writer_and_one_that_leaves_does_not() {
        let log = Log::new("/nonexistent/log".into(), 0);
        assert!(!log.must_wait());
        let following = Following::start(&log, 0);
        assert!(!log.must_wait());
        log.spool.borrow_mut().append(&[b'x'; spool::MEMORY / 2]);
        assert!(log.must_wait());
        log.note_sent(log.end_offset(), true);
        assert!(!log.must_wait());
        log.spool.borrow_mut().append(&[b'x'; spool::MEMORY / 2]);
        log.note_sent(log.end_offset(), true);
        assert!(log.must_wait(), "all is sent, nothing acknowledged, and there is no room");
        log.acknowledge(1 << 17);
        assert!(!log.must_wait());
        drop(following);
        assert!(!log.must_wait());
    }
}
