#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::channel::frame::{HEADER, Kind as Frame, MAX_PAYLOAD, append_checked};
use crate::channel::{EventLog, Handler, Mux};
use crate::testing::Random;

/// Unpacks what every call sends in one folder, and answers with an empty reply or the failure.
struct Unpacks(PathBuf);

impl Handler for Unpacks {
    fn call(&self, _: pb::call::Call, stream: StreamHandle) {
        let folder = Rooted::open(&self.0.to_string_lossy()).unwrap();
        spawn_local(async move {
            match unpack(folder, &stream).await {
                Ok(()) => stream.reply(pb::reply::Reply::Empty(pb::Empty {})).await,
                Err(failure) => stream.reply(failure.into_reply()).await,
            }
        });
    }
}

/// A host that sends tars over a real channel.
struct Host {
    port: DuplexStream,
    stream: u32,
}

impl Host {
    async fn greet(folder: &Path) -> Self {
        let (mut port, guest) = duplex(1 << 20);
        spawn_local(Mux::new(Rc::new(Unpacks(folder.to_owned())), EventLog::new()).run(guest));
        let mut wire = vec![0; HEADER + MAX_PAYLOAD];
        append_checked(&mut wire, Frame::Hello, 0, 0, b"");
        port.write_all(&wire).await.unwrap();
        let mut host = Self { port, stream: 0 };
        host.until(Frame::HelloAck).await;
        host
    }

    /// Reads frames up to one of this kind; gives its payload.
    async fn until(&mut self, kind: Frame) -> Vec<u8> {
        loop {
            let mut head = [0u8; HEADER];
            self.port.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize];
            self.port.read_exact(&mut payload).await.unwrap();
            if head[2] == kind as u8 {
                return payload;
            }
        }
    }

    /// None when it was unpacked, else why not.
    async fn copy(&mut self, tar: &[u8]) -> Option<pb::Error> {
        use prost::Message;
        self.stream += 1;
        let call = pb::Call { call: Some(pb::call::Call::CopyIn(pb::CopyIn::default())) };
        let mut wire = Vec::new();
        append_checked(&mut wire, Frame::Call, 0, self.stream, &call.encode_to_vec());
        append_checked(&mut wire, Frame::Data, 0, self.stream, tar);
        append_checked(&mut wire, Frame::End, 0, self.stream, &[]);
        self.port.write_all(&wire).await.unwrap();
        match pb::Reply::decode(self.until(Frame::Reply).await.as_slice()).unwrap().reply.unwrap() {
            pb::reply::Reply::Error(error) => Some(error),
            _ => None,
        }
    }
}

fn entry(kind: Kind, path: &str, target: &str, content: &[u8]) -> Vec<u8> {
    let own = fs::metadata("/proc/self").unwrap();
    let (uid, gid) = (own.uid(), own.gid());
    let size = content.len() as u64;
    let (path, target) = (path.as_bytes().to_vec(), target.as_bytes().to_vec());
    let entry = Entry { kind, path, target, mode: 0o644, uid, gid, size, seconds: 1, device: (1, 3) };
    let mut tar = entry.encode();
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    tar
}

fn sample() -> Vec<u8> {
    let mut tar = entry(Kind::Folder, "d", "", b"");
    tar.extend(entry(Kind::File, "d/file", "", &[b'x'; 700]));
    tar.extend(entry(Kind::Link, "d/link", "/d", b""));
    tar.extend(entry(Kind::File, "d/link/other", "", b"through a link"));
    tar.extend(entry(Kind::HardLink, "hard", "d/file", b""));
    tar.extend(entry(Kind::Pipe, "pipe", "", b""));
    tar.extend(entry(Kind::File, &"n".repeat(150), "", b"long"));
    tar.extend([0; 2 * BLOCK]);
    tar
}

/// The checksum of every header made right again, so that what was spoiled is looked at.
fn mended(mut tar: Vec<u8>) -> Vec<u8> {
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    for block in tar.chunks_exact_mut(BLOCK).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("cuboid-unpack-{}-{name}", std::process::id()));
    fs::create_dir_all(path.join("in")).unwrap();
    path
}

async fn with_host<T>(name: &str, test: impl AsyncFnOnce(Host, &Path) -> T) -> T {
    let above = folder(name);
    let result = LocalSet::new().run_until(async { test(Host::greet(&above.join("in")).await, &above).await }).await;
    fs::remove_dir_all(above).unwrap();
    result
}

#[tokio::test(flavor = "current_thread")]
async fn a_tar_is_unpacked_and_does_not_leave_its_folder() {
    with_host("whole", async |mut host, above| {
        let mut tar = entry(Kind::File, "a/b", "", b"content");
        tar.extend(entry(Kind::Link, "link", "..", b""));
        assert_eq!(host.copy(&tar).await, None);
        assert_eq!(fs::read(above.join("in/a/b")).unwrap(), b"content");
        // The root of the container is the folder's root: ".." of it is itself.
        host.copy(&entry(Kind::File, "link/out", "", b"x")).await;
        assert!(host.copy(&entry(Kind::File, "../out", "", b"x")).await.is_some());
        assert!(!above.join("out").exists());
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn whatever_the_tar_there_is_an_answer_and_nothing_outside() {
    with_host("spoiled", async |mut host, above| {
        let mut random = Random(11);
        assert_eq!(host.copy(&sample()).await, None);
        assert_eq!(fs::read(above.join("in/d/other")).unwrap(), b"through a link");
        let (mut unpacked, mut refused) = (0, 0);
        for turn in 0..600 {
            let tar = match turn % 3 {
                0 => mended(random.spoil(sample())),
                1 => random.spoil(sample()),
                _ => random.bytes(4 * BLOCK),
            };
            match host.copy(&tar).await {
                None => unpacked += 1,
                Some(_) => refused += 1,
            }
        }
        assert!(unpacked > 20 && refused > 20, "{unpacked} {refused}");
        assert_eq!(fs::read_dir(above).unwrap().count(), 1);
    })
    .await;
}
