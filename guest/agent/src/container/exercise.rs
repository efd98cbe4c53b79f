//! What most programs do in their first moments, done once in a rehearsal: files, memory, processes, threads.
//!
//! The program of a rehearsal is tiny. What a shell or a server does besides would run for the first time in the pod.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::sys::memory;

const FOLDER: &str = "/.rehearsal";

/// In the container's root, before its program. Nothing depends on it, so nothing that fails here matters.
pub fn exercise(program: &str) {
    let _ = files(program);
    let _ = File::open(program).and_then(|file| memory::exercise(&file));
    let _ = processes(program);
}

/// On the overlay: what is new, what is changed, and what of the image has to be copied up for a change.
fn files(program: &str) -> io::Result<()> {
    for entry in fs::read_dir("/")?.flatten() {
        entry.metadata()?;
    }
    fs::create_dir_all(format!("{FOLDER}/inner"))?;
    let (path, other, link) = (format!("{FOLDER}/a"), format!("{FOLDER}/inner/b"), format!("{FOLDER}/c"));
    File::create(&path)?.write_all(&[b'x'; 10_000])?;
    fs::rename(&path, &other)?;
    symlink(&other, &link)?;
    fs::read(&link)?;
    File::options().append(true).open(program)?.set_permissions(fs::metadata(program)?.permissions())?;
    fs::remove_dir_all(FOLDER)
}

/// Children with pipes, as a shell has them, and a thread.
fn processes(program: &str) -> io::Result<()> {
    for _ in 0..2 {
        let mut child = Command::new(program).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut text = Vec::new();
        child.stdout.take().map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut text))?;
        child.wait()?;
    }
    let thread = std::thread::Builder::new().spawn(std::thread::yield_now)?;
    thread.join().map_err(|_| io::Error::other("the thread ended badly"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_threads_come_to_their_end() {
        processes("/bin/true").unwrap();
        assert!(processes("/nonexistent").is_err());
    }

    #[test]
    fn memory_is_mapped_and_given_back() {
        memory::exercise(&File::open("/proc/self/exe").unwrap()).unwrap();
    }
}
