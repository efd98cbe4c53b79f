//! A container's root: the image below, its own writable layer above.

use std::fs;
use std::path::PathBuf;

use super::spawn;
use crate::boot::RUN;
use crate::error::{Context, Outcome};
use crate::reaper::Reaper;
use crate::sys::mount;

/// The folders of one attempt, and the overlay mounted from them.
#[derive(Clone, Debug)]
pub struct Layers {
    /// On the writable device: `upper` and `work` are in it.
    store: PathBuf,
    /// Where the overlay is mounted in the agent's view.
    root: PathBuf,
}

impl Layers {
    pub fn new(writable: &str, name: &str, attempt: u32) -> Self {
        Self {
            store: PathBuf::from(format!("{writable}/containers/{name}.{attempt}")),
            root: PathBuf::from(format!("{RUN}/roots/{name}.{attempt}")),
        }
    }

    /// The same writable layer under another attempt.
    pub fn kept_for(&self, name: &str, attempt: u32) -> Self {
        Self { store: self.store.clone(), root: PathBuf::from(format!("{RUN}/roots/{name}.{attempt}")) }
    }

    /// What earlier boots of the pod's machine left on the writable device for this container, oldest attempt first.
    /// Each is to be used under `attempt`, or removed.
    pub fn left(writable: &str, name: &str, attempt: u32) -> Vec<Self> {
        let mut found: Vec<(u32, PathBuf)> = fs::read_dir(format!("{writable}/containers"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let file = entry.file_name().into_string().ok()?;
                let (owner, number) = file.rsplit_once('.')?;
                (owner == name).then(|| Some((number.parse().ok()?, entry.path())))?
            })
            .collect();
        found.sort_unstable();
        let root = PathBuf::from(format!("{RUN}/roots/{name}.{attempt}"));
        found.into_iter().map(|(_, store)| Self { store, root: root.clone() }).collect()
    }

    pub fn root(&self) -> String {
        self.root.to_string_lossy().into_owned()
    }

    pub fn store(&self) -> &std::path::Path {
        &self.store
    }

    /// Mounts the overlay over the image that is mounted at `image`.
    pub fn mount(&self, image: &str) -> Outcome<()> {
        let what = "making the container's writable layer";
        let (upper, work) = (self.store.join("upper"), self.store.join("work"));
        for folder in [&upper, &work, &self.root] {
            fs::create_dir_all(folder).context(what)?;
        }
        let options =
            format!("lowerdir={image},upperdir={},workdir={}", upper.to_string_lossy(), work.to_string_lossy());
        mount::mount("overlay", &self.root(), "overlay", 0, &options).context("mounting the container's root")
    }

    pub fn unmount(&self) {
        // What is gone already needs no unmounting.
        let _ = mount::unmount(&self.root(), libc::MNT_DETACH);
        let _ = fs::remove_dir(&self.root);
    }

    /// Removes the writable layer; in a process of its own, as it may be large.
    pub async fn remove(&self, reaper: &Reaper) -> Outcome<()> {
        self.unmount();
        let store = self.store.clone();
        spawn::in_child(reaper, move || match fs::remove_dir_all(&store) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.context("removing the container's writable layer"),
        })
        .await
    }
}
