//! A container's log between the writer and the host: memory first, a file behind it when memory is not enough.
//!
//! The log is one sequence of bytes over all attempts; `first..end` of it is here. The older part `first..memory_start`
//! is in the file, at the same distance from `file_base`; the younger part is in memory.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::sys::files;

/// Bytes kept in memory.
pub const MEMORY: usize = 1 << 20;
/// What is appended at once at most.
pub const APPEND: usize = 1 << 16;
/// What goes to the file at once.
const SPILL: usize = 1 << 18;

pub struct Spool {
    memory: VecDeque<u8>,
    memory_start: u64,
    first: u64,
    dropped: u64,
    path: PathBuf,
    file: Option<File>,
    file_base: u64,
    limit: u64,
}

impl Spool {
    /// `limit`: bytes that are kept in the file at most.
    pub fn new(path: PathBuf, limit: u64) -> Self {
        Self { memory: VecDeque::new(), memory_start: 0, first: 0, dropped: 0, path, file: None, file_base: 0, limit }
    }

    /// Offset of the oldest byte that is still here.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Offset behind the youngest byte.
    pub fn end(&self) -> u64 {
        self.memory_start + self.memory.len() as u64
    }

    /// Bytes that went without the host having them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether memory has room for one more append of at most `APPEND` bytes.
    pub fn has_room(&self) -> bool {
        self.memory.len() + APPEND <= MEMORY
    }

    /// Whether the file can take more without anything being dropped.
    pub fn can_spill(&self) -> bool {
        self.memory_start - self.first + SPILL as u64 <= self.limit
    }

    /// Appends whole lines. Never fails: what fits neither memory nor the file goes, the oldest first.
    pub fn append(&mut self, lines: &[u8]) {
        self.make_room(lines.len());
        self.memory.extend(lines);
        while self.memory.len() > MEMORY {
            if !self.can_spill() {
                self.drop_oldest(SPILL as u64);
            }
            if self.spill().is_err() {
                // A full or broken device: what is in memory is all there is.
                self.drop_until(self.memory_start);
                self.drop_oldest(SPILL as u64);
            }
        }
    }

    /// Doubles the memory as a queue does by itself, but never far beyond what is ever kept there.
    fn make_room(&mut self, more: usize) {
        let (length, needed) = (self.memory.len(), self.memory.len() + more);
        if needed > self.memory.capacity() {
            let wanted = (needed * 2).min(MEMORY + APPEND).max(needed);
            self.memory.reserve_exact(wanted - length);
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        let count = SPILL.min(self.memory.len());
        if self.first == self.memory_start {
            self.restart_file()?;
        }
        let offset = self.memory_start - self.file_base;
        let file = self.file.as_ref().ok_or_else(|| crate::sys::errno(libc::EBADF))?;
        let (head, tail) = self.memory.as_slices();
        let from_head = count.min(head.len());
        file.write_all_at(&head[..from_head], offset)?;
        file.write_all_at(&tail[..count - from_head], offset + from_head as u64)?;
        self.memory.drain(..count);
        self.memory_start += count as u64;
        Ok(())
    }

    /// The file holds nothing that is needed: it starts anew.
    fn restart_file(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&self.path)?);
        } else if let Some(file) = &self.file {
            file.set_len(0)?;
        }
        self.file_base = self.memory_start;
        Ok(())
    }

    /// Drops at least `bytes` of the oldest, up to the end of a line, and counts them.
    fn drop_oldest(&mut self, bytes: u64) {
        let wanted = (self.first + bytes).min(self.end());
        let line_end = self.line_end_after(wanted);
        self.dropped += line_end - self.first;
        self.drop_until(line_end);
    }

    /// The start of the first line at or behind `offset`.
    fn line_end_after(&self, offset: u64) -> u64 {
        // From one byte before: if that is a line's end, the line at `offset` is whole.
        let mut at = offset.saturating_sub(1).max(self.first);
        let mut piece = [0u8; 4_096];
        loop {
            let count = self.read_at(at, &mut piece);
            if count == 0 {
                return self.end();
            }
            if let Some(end) = memchr::memchr(b'\n', &piece[..count]) {
                return at + end as u64 + 1;
            }
            at += count as u64;
        }
    }

    fn drop_until(&mut self, offset: u64) {
        let offset = offset.clamp(self.first, self.end());
        if offset > self.memory_start {
            self.memory.drain(..(offset - self.memory_start) as usize);
            self.memory_start = offset;
        }
        if let Some(file) = &self.file {
            files::punch_hole(file, self.first - self.file_base.min(self.first), offset - self.first);
        }
        self.first = offset;
    }

    /// The host has everything before `offset`.
    pub fn acknowledge(&mut self, offset: u64) {
        if offset > self.first {
            self.drop_until(offset);
        }
    }

    /// Copies bytes from `offset` on; 0 when there are none (yet).
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        if offset < self.first || offset >= self.end() {
            return 0;
        }
        if offset < self.memory_start {
            let count = buffer.len().min((self.memory_start - offset) as usize);
            return self.read_file(offset, &mut buffer[..count]);
        }
        let skip = (offset - self.memory_start) as usize;
        let (head, tail) = self.memory.as_slices();
        let (head, tail) =
            if skip < head.len() { (&head[skip..], tail) } else { (&tail[skip - head.len()..], &[][..]) };
        let from_head = head.len().min(buffer.len());
        buffer[..from_head].copy_from_slice(&head[..from_head]);
        let from_tail = tail.len().min(buffer.len() - from_head);
        buffer[from_head..from_head + from_tail].copy_from_slice(&tail[..from_tail]);
        from_head + from_tail
    }

    /// A device that fails to give back what it took must not stop the log: its place is filled with line ends.
    fn read_file(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let read = self.file.as_ref().map(|file| file.read_exact_at(buffer, offset - self.file_base));
        if !matches!(read, Some(Ok(()))) {
            buffer.fill(b'\n');
        }
        buffer.len()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if self.file.is_some() {
            // A file that is gone already is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(name: &str, limit: u64) -> Spool {
        let path = std::env::temp_dir().join(format!("cuboid-spool-{}-{name}", std::process::id()));
        Spool::new(path, limit)
    }

    fn line(number: u64) -> Vec<u8> {
        format!("{number:0>999}\n").into_bytes()
    }

    fn fill(spool: &mut Spool, lines: std::ops::Range<u64>) {
        lines.for_each(|number| spool.append(&line(number)));
    }

    fn read_line(spool: &Spool, offset: u64) -> u64 {
        let mut buffer = [0u8; 1_000];
        let mut got = 0;
        while got < buffer.len() {
            let count = spool.read_at(offset + got as u64, &mut buffer[got..]);
            assert!(count > 0, "nothing at {offset}");
            got += count;
        }
        String::from_utf8_lossy(&buffer[..999]).parse().unwrap()
    }

    #[test]
    fn every_byte_is_read_back_whether_in_memory_or_in_the_file() {
        let mut spool = spool("back", 1 << 24);
        fill(&mut spool, 0..5_000);
        assert_eq!((spool.first(), spool.end(), spool.dropped()), (0, 5_000_000, 0));
        for number in [0, 1, 1_234, 3_999, 4_000, 4_999] {
            assert_eq!(read_line(&spool, number * 1_000), number);
        }
        assert_eq!(spool.read_at(5_000_000, &mut [0; 8]), 0);
    }

    #[test]
    fn beyond_the_limit_the_oldest_whole_lines_go_and_are_counted() {
        let mut spool = spool("limit", 1 << 20);
        fill(&mut spool, 0..5_000);
        assert_eq!(spool.end(), 5_000_000);
        assert_eq!(spool.first() % 1_000, 0);
        assert_eq!(spool.dropped(), spool.first());
        assert!(spool.end() - spool.first() <= (1 << 20) + MEMORY as u64);
        assert!(spool.end() - spool.first() >= (1 << 20));
        assert_eq!(read_line(&spool, spool.first()), spool.first() / 1_000);
    }

    #[test]
    fn what_the_host_has_goes_and_offsets_stay() {
        let mut spool = spool("ack", 1 << 24);
        fill(&mut spool, 0..3_000);
        spool.acknowledge(2_999_000);
        assert_eq!((spool.first(), spool.dropped()), (2_999_000, 0));
        fill(&mut spool, 3_000..6_000);
        assert_eq!(read_line(&spool, 2_999_000), 2_999);
        assert_eq!(read_line(&spool, 5_999_000), 5_999);
        spool.acknowledge(u64::MAX);
        assert_eq!((spool.first(), spool.end()), (6_000_000, 6_000_000));
        fill(&mut spool, 6_000..9_000);
        assert_eq!(read_line(&spool, 6_000_000), 6_000);
    }

    #[test]
    fn without_a_place_for_the_file_memory_is_all() {
        let mut spool = Spool::new("/nonexistent/folder/spool".into(), 1 << 24);
        fill(&mut spool, 0..3_000);
        assert!(spool.end() - spool.first() <= MEMORY as u64);
        assert_eq!(spool.first() % 1_000, 0);
        assert_eq!(read_line(&spool, spool.first()), spool.first() / 1_000);
    }
}
