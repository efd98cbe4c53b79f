//! A folder that nothing leads out of: paths and links inside it are resolved as if it were "/".

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::files;

const MAX_PARTS: usize = 256;

/// A root folder: a container's, or a volume's.
pub struct Rooted(OwnedFd);

impl Rooted {
    pub fn open(path: &str) -> io::Result<Self> {
        files::open_path(path).map(Self)
    }

    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens `path`, following links inside the root only.
    pub fn open_at(&self, path: &str, flags: libc::c_int) -> io::Result<OwnedFd> {
        files::open_in_root(self.fd(), path, flags, 0)
    }

    /// A regular file's first `limit` bytes. Neither pipes nor devices are opened for reading.
    pub fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        let file = File::from(self.open_at(path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY)?);
        if !file.metadata()?.is_file() {
            return Err(crate::sys::errno(libc::EINVAL));
        }
        let mut content = Vec::new();
        file.take(limit).read_to_end(&mut content)?;
        Ok(content)
    }

    /// The folder `path`, made with all folders above it if missing.
    pub fn make_folder(&self, path: &str, mode: u32) -> io::Result<OwnedFd> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        match self.open_at(path, flags) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => return other,
        }
        let mut sofar = String::new();
        let mut current = self.open_at(".", flags)?;
        for part in parts(path)? {
            sofar.push('/');
            sofar.push_str(part);
            current = match self.open_at(&sofar, flags) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    files::make_directory(current.as_fd(), part, mode)?;
                    files::open_at(current.as_fd(), part, flags, 0)?
                }
                other => other?,
            };
        }
        Ok(current)
    }

    /// The file `path` as an anchor for a mount, made empty if missing.
    pub fn make_file(&self, path: &str) -> io::Result<OwnedFd> {
        match self.open_at(path, libc::O_PATH) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => return other,
        }
        let (folder, name) = split(path);
        let folder = self.make_folder(folder, 0o755)?;
        files::open_at(folder.as_fd(), name, libc::O_CREAT | libc::O_RDONLY, 0o644)
    }
}

/// The parts of a path without "." and empty ones; ".." is refused: nothing needs it.
pub fn parts(path: &str) -> io::Result<Vec<&str>> {
    let found: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if found.len() > MAX_PARTS || found.contains(&"..") {
        return Err(crate::sys::errno(libc::EINVAL));
    }
    Ok(found)
}

/// (folder, last part) of a path.
pub fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    pub(crate) fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("cuboid-rooted-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn neither_links_nor_dots_lead_out_of_the_root() {
        let folder = scratch("links");
        symlink("/etc", folder.join("absolute")).unwrap();
        symlink("../../../../etc", folder.join("relative")).unwrap();
        std::fs::create_dir(folder.join("etc")).unwrap();
        std::fs::write(folder.join("etc/passwd"), "inside").unwrap();
        let root = Rooted::open(folder.to_str().unwrap()).unwrap();
        for path in ["absolute/passwd", "relative/passwd", "/../etc/passwd"] {
            assert_eq!(root.read(path, 100).unwrap(), b"inside", "{path}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn folders_are_made_through_links_but_inside_only() {
        let folder = scratch("make");
        symlink("/target", folder.join("link")).unwrap();
        std::fs::create_dir(folder.join("target")).unwrap();
        let root = Rooted::open(folder.to_str().unwrap()).unwrap();
        root.make_folder("/link/a/b", 0o755).unwrap();
        assert!(folder.join("target/a/b").is_dir());
        assert!(root.make_folder("x/../../y", 0o755).is_err());
        root.make_file("/new/place/file").unwrap();
        assert!(folder.join("new/place/file").is_file());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_pipe_is_not_read_as_a_file() {
        let folder = scratch("pipe");
        let root = Rooted::open(folder.to_str().unwrap()).unwrap();
        files::make_node(root.fd(), "passwd", libc::S_IFIFO | 0o644, 0, 0).unwrap();
        assert!(root.read("passwd", 10).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_path_is_split_at_its_last_part() {
        assert_eq!(split("/a/b/"), ("/a", "b"));
        assert_eq!(split("b"), ("", "b"));
    }
}
