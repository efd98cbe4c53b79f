//! Packing a file or folder of a container for the host.

use std::ffi::{CStr, CString, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use super::receive::not_found;
use super::tar::{self, BLOCK, Entry, Kind};
use crate::channel::StreamHandle;
use crate::container::Container;
use crate::error::{Code, Context, Failure, Outcome};
use crate::pb;
use crate::rooted;
use crate::sys::{self, files};

const PIECE: usize = 65_536;
const DEPTH_LIMIT: usize = 256;

/// Serves a CopyOut.
pub async fn send(container: &Container, call: &pb::CopyOut, stream: &StreamHandle) -> Outcome<()> {
    let what = format!("opening {}", call.path);
    let (folder, name) = rooted::split(&call.path);
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let folder = container.root()?.open_at(folder, flags).map_err(|error| not_found(&what, &error))?;
    let name = if name.is_empty() || name == ".." { "." } else { name };
    let start = sys::cstring(name).context(&what)?;
    files::stat_at(folder.as_fd(), &start).map_err(|error| not_found(&what, &error))?;
    let mut packer = Packer { stream, out: Vec::with_capacity(PIECE + BLOCK) };
    packer.tree(folder, start).await?;
    packer.put(&[0u8; BLOCK * 2]).await?;
    packer.flush().await?;
    // The host may have gone; then the reply goes nowhere.
    let _ = stream.end(0).await;
    stream.reply(pb::reply::Reply::Empty(pb::Empty {})).await;
    Ok(())
}

/// A folder under way: what is left of it.
struct Level {
    folder: OwnedFd,
    path: Vec<u8>,
    names: Vec<CString>,
}

struct Packer<'a> {
    stream: &'a StreamHandle,
    out: Vec<u8>,
}

impl Packer<'_> {
    /// Packs `start` in `folder` and all below it. What vanishes meanwhile is left out.
    async fn tree(&mut self, folder: OwnedFd, start: CString) -> Outcome<()> {
        let mut levels = vec![Level { folder, path: Vec::new(), names: vec![start] }];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            let path = join(&level.path, name.to_bytes());
            let below = self.one(level.folder.as_fd(), &name, &path).await?;
            if let Some((folder, names)) = below {
                if levels.len() >= DEPTH_LIMIT {
                    return Err(Failure::invalid(format!("folders are nested deeper than {DEPTH_LIMIT}")));
                }
                levels.push(Level { folder, path, names });
            }
        }
        Ok(())
    }

    /// Packs one name; for a folder gives what is in it.
    async fn one(
        &mut self,
        above: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
    ) -> Outcome<Option<(OwnedFd, Vec<CString>)>> {
        let Ok(found) = files::stat_at(above, name) else { return Ok(None) };
        let Some(mut entry) = entry_of(&found, path) else { return Ok(None) };
        match entry.kind {
            Kind::Folder => {
                let opened = files::open_at(above, name.to_bytes(), libc::O_RDONLY | libc::O_DIRECTORY, 0);
                let Ok(folder) = opened else { return Ok(None) };
                entry.path.push(b'/');
                self.put(&entry.encode()).await?;
                let names = names_in(&folder)?;
                return Ok(Some((folder, names)));
            }
            Kind::File => {
                let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
                let Ok(file) = files::open_at(above, name.to_bytes(), flags, 0) else { return Ok(None) };
                self.put(&entry.encode()).await?;
                self.content(File::from(file), entry.size).await?;
            }
            Kind::Link => {
                let Ok(target) = files::read_link(above, name) else { return Ok(None) };
                entry.target = target;
                self.put(&entry.encode()).await?;
            }
            _ => self.put(&entry.encode()).await?,
        }
        Ok(None)
    }

    /// Exactly `size` bytes: a file that shrinks meanwhile is filled with zeros, one that grows is cut.
    async fn content(&mut self, mut file: File, size: u64) -> Outcome<()> {
        let mut left = size;
        while left > 0 {
            let start = self.out.len();
            let room = (PIECE - start.min(PIECE - 1)).min(usize::try_from(left).unwrap_or(PIECE));
            self.out.resize(start + room, 0);
            let count = file.read(&mut self.out[start..]).unwrap_or(0);
            let count = if count == 0 { room } else { count };
            self.out.truncate(start + count);
            left -= count as u64;
            self.flush_if_full().await?;
        }
        self.put(&[0u8; BLOCK][..tar::padding(size)]).await
    }

    async fn put(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.out.extend_from_slice(bytes);
        self.flush_if_full().await
    }

    async fn flush_if_full(&mut self) -> Outcome<()> {
        if self.out.len() >= PIECE { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Outcome<()> {
        let sent = self.stream.send(0, &self.out).await;
        self.out.clear();
        sent.map_err(|_| Failure::new(Code::Failed, "the copy was given up"))
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// None for what a tar cannot hold (sockets).
fn entry_of(found: &libc::stat, path: &[u8]) -> Option<Entry> {
    let kind = match found.st_mode & libc::S_IFMT {
        libc::S_IFREG => Kind::File,
        libc::S_IFDIR => Kind::Folder,
        libc::S_IFLNK => Kind::Link,
        libc::S_IFCHR => Kind::Character,
        libc::S_IFBLK => Kind::Block,
        libc::S_IFIFO => Kind::Pipe,
        _ => return None,
    };
    Some(Entry {
        kind,
        path: path.to_vec(),
        target: Vec::new(),
        mode: found.st_mode & 0o7777,
        uid: found.st_uid,
        gid: found.st_gid,
        size: if kind == Kind::File { found.st_size as u64 } else { 0 },
        seconds: found.st_mtime,
        device: (libc::major(found.st_rdev), libc::minor(found.st_rdev)),
    })
}

fn names_in(folder: &OwnedFd) -> Outcome<Vec<CString>> {
    let what = "reading a folder";
    let entries = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd())).context(what)?;
    let name = |entry: fs::DirEntry| OsString::into_vec(entry.file_name());
    let mut names: Vec<_> = entries.flatten().filter_map(|entry| CString::new(name(entry)).ok()).collect();
    // The last is taken first.
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_left_out_and_folders_have_no_size() {
        let folder = sys::files::open_path("/").unwrap();
        let mut found = files::stat_at(folder.as_fd(), c"etc").unwrap();
        let entry = entry_of(&found, b"etc").unwrap();
        assert_eq!((entry.kind, entry.size), (Kind::Folder, 0));
        found.st_mode = libc::S_IFSOCK | 0o600;
        assert_eq!(entry_of(&found, b"s"), None);
    }

    #[test]
    fn names_come_in_order_from_the_end() {
        let folder = OwnedFd::from(File::open("/proc/self").unwrap());
        let names = names_in(&folder).unwrap();
        assert!(names.windows(2).all(|pair| pair[0] > pair[1]));
    }
}
