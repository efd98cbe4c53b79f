//! Unpacking the host's tar in a folder of a container.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::{Bytes, BytesMut};

use super::tar::{self, BLOCK, Entry, Kind, RECORD_LIMIT};
use crate::channel::{Incoming, StreamHandle};
use crate::container::Container;
use crate::error::{Code, Context, Failure, Outcome};
use crate::pb;
use crate::rooted::{self, Rooted};
use crate::sys::files;

/// Serves a CopyIn.
pub async fn receive(container: &Container, call: &pb::CopyIn, stream: &StreamHandle) -> Outcome<()> {
    let what = || format!("opening the folder {}", call.path);
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let folder = container.root()?.open_at(&call.path, flags).map_err(|error| not_found(&what(), &error))?;
    unpack(Rooted::from_fd(folder), stream).await?;
    stream.reply(pb::reply::Reply::Empty(pb::Empty {})).await;
    Ok(())
}

/// Unpacks what comes on the stream, up to its end.
async fn unpack(folder: Rooted, stream: &StreamHandle) -> Outcome<()> {
    Unpacker { folder, source: Source::new(stream) }.run().await
}

/// A path that is not there gets a code of its own.
pub fn not_found(what: &str, error: &io::Error) -> Failure {
    let mut failure = Failure::system(what, error);
    if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) {
        failure.code = Code::NotFound;
    }
    failure
}

/// The bytes of the stream in the sizes that a tar asks for.
struct Source<'a> {
    stream: &'a StreamHandle,
    waiting: BytesMut,
    ended: bool,
}

impl<'a> Source<'a> {
    fn new(stream: &'a StreamHandle) -> Self {
        Self { stream, waiting: BytesMut::new(), ended: false }
    }

    /// Waits for more; false at the end of the data.
    async fn more(&mut self) -> Outcome<bool> {
        if self.ended {
            return Ok(false);
        }
        match self.stream.recv().await {
            Some(Incoming::Data(_, bytes)) => self.waiting.extend_from_slice(&bytes),
            Some(Incoming::End(_)) => self.ended = true,
            Some(Incoming::Reset) | None => return Err(Failure::new(Code::Failed, "the copy was given up")),
        }
        Ok(!self.ended)
    }

    /// Exactly `count` bytes. INVALID if the data ends before.
    async fn take(&mut self, count: usize) -> Outcome<Bytes> {
        while self.waiting.len() < count {
            if !self.more().await? {
                return Err(Failure::invalid("the tar ends in the middle of an entry"));
            }
        }
        Ok(self.waiting.split_to(count).freeze())
    }

    /// Some bytes, `most` at most and at least one.
    async fn some(&mut self, most: u64) -> Outcome<Bytes> {
        while self.waiting.is_empty() {
            if !self.more().await? {
                return Err(Failure::invalid("the tar ends in the middle of a file"));
            }
        }
        let count = self.waiting.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        Ok(self.waiting.split_to(count).freeze())
    }

    /// The next block, or None at the end of the tar.
    async fn block(&mut self) -> Outcome<Option<[u8; BLOCK]>> {
        while self.waiting.is_empty() {
            if !self.more().await? {
                return Ok(None);
            }
        }
        let mut block = [0u8; BLOCK];
        block.copy_from_slice(&self.take(BLOCK).await?);
        Ok(Some(block).filter(|block| block.iter().any(|byte| *byte != 0)))
    }

    async fn skip_rest(&mut self) -> Outcome<()> {
        self.waiting.clear();
        while self.more().await? {
            self.waiting.clear();
        }
        Ok(())
    }
}

struct Unpacker<'a> {
    folder: Rooted,
    source: Source<'a>,
}

impl Unpacker<'_> {
    async fn run(&mut self) -> Outcome<()> {
        let (mut pax, mut name, mut target) = (None, None, None);
        while let Some(block) = self.source.block().await? {
            let mut entry = tar::parse(&block).ok_or_else(|| Failure::invalid("the data is no tar"))?;
            match entry.kind {
                Kind::Pax => pax = Some(self.record(&entry).await?),
                Kind::LongName => name = Some(self.record(&entry).await?),
                Kind::LongTarget => target = Some(self.record(&entry).await?),
                Kind::Global => drop(self.record(&entry).await?),
                _ => {
                    complete(&mut entry, pax.take(), name.take(), target.take())?;
                    self.unpack(&entry).await?;
                }
            }
        }
        self.source.skip_rest().await
    }

    async fn record(&mut self, entry: &Entry) -> Outcome<Bytes> {
        if entry.size > RECORD_LIMIT {
            return Err(Failure::invalid("a header of the tar is too large"));
        }
        let record = self.source.take(entry.size as usize).await?;
        self.source.take(tar::padding(entry.size)).await?;
        Ok(record)
    }

    async fn unpack(&mut self, entry: &Entry) -> Outcome<()> {
        let path = std::str::from_utf8(&entry.path).map_err(|_| Failure::invalid("a name in the tar is not UTF-8"))?;
        let what = || format!("unpacking {path}");
        let parts = rooted::parts(path).map_err(|_| Failure::invalid(format!("{path:?} leads out of the folder")))?;
        let Some((name, above)) = parts.split_last() else {
            return self.skip(entry).await;
        };
        let above = self.folder.make_folder(&above.join("/"), 0o755).context_with(what)?;
        if entry.kind == Kind::File {
            return self.write_file(entry, above.as_fd(), name).await.map_err(|mut failure| {
                failure.message = format!("{}: {}", what(), failure.message);
                failure
            });
        }
        self.make(entry, above.as_fd(), name).context_with(what)?;
        self.skip(entry).await
    }

    /// Entries other than files have no content, whatever they say; it is read over.
    async fn skip(&mut self, entry: &Entry) -> Outcome<()> {
        let mut left =
            if entry.kind == Kind::File { entry.size.saturating_add(tar::padding(entry.size) as u64) } else { 0 };
        while left > 0 {
            left -= self.source.some(left).await?.len() as u64;
        }
        Ok(())
    }

    async fn write_file(&mut self, entry: &Entry, above: BorrowedFd<'_>, name: &str) -> Outcome<()> {
        clear(above, name).context("replacing what is there")?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let mut file = File::from(files::open_at(above, name, flags, 0o600).context("making the file")?);
        let mut left = entry.size;
        while left > 0 {
            let piece = self.source.some(left).await?;
            file.write_all(&piece).context("writing the file")?;
            left -= piece.len() as u64;
        }
        self.source.take(tar::padding(entry.size)).await?;
        set_metadata(entry, above, name).context("setting owner and mode")
    }

    fn make(&self, entry: &Entry, above: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let target = || std::str::from_utf8(&entry.target).map_err(|_| crate::sys::errno(libc::EINVAL));
        if entry.kind == Kind::Folder {
            make_folder(above, name)?;
            return set_metadata(entry, above, name);
        }
        clear(above, name)?;
        let (major, minor) = entry.device;
        match entry.kind {
            Kind::Link => files::make_link(target()?, above, name)?,
            Kind::HardLink => {
                let (folder, old) = rooted::split(target()?);
                let folder = self.folder.open_at(folder, libc::O_PATH | libc::O_DIRECTORY)?;
                return files::make_hard_link(folder.as_fd(), old, above, name);
            }
            Kind::Character => files::make_node(above, name, libc::S_IFCHR | 0o600, major, minor)?,
            Kind::Block => files::make_node(above, name, libc::S_IFBLK | 0o600, major, minor)?,
            _ => files::make_node(above, name, libc::S_IFIFO | 0o600, 0, 0)?,
        }
        set_metadata(entry, above, name)
    }
}

fn complete(entry: &mut Entry, pax: Option<Bytes>, name: Option<Bytes>, target: Option<Bytes>) -> Outcome<()> {
    let text = |bytes: Bytes| bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    if let Some(name) = name {
        entry.path = text(name);
    }
    if let Some(target) = target {
        entry.target = text(target);
    }
    let pax = pax.unwrap_or_default();
    entry.apply_pax(&pax).ok_or_else(|| Failure::invalid("a pax header of the tar is malformed"))
}

/// Takes away a file or link that is in the way; a folder stays, and whoever wanted its name fails.
fn clear(above: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match files::remove_at(above, name, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn make_folder(above: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match files::make_directory(above, name, 0o755) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if files::open_at(above, name, libc::O_PATH | libc::O_DIRECTORY, 0).is_ok() {
                return Ok(());
            }
            clear(above, name)?;
            files::make_directory(above, name, 0o755)
        }
        other => other,
    }
}

fn set_metadata(entry: &Entry, above: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mode = (entry.kind != Kind::Link).then_some(entry.mode & 0o7777);
    files::set_metadata(above, name, (entry.uid, entry.gid), mode, entry.seconds)
}

#[cfg(test)]
#[path = "receive_tests.rs"]
mod tests;
