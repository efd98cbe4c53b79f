//! A container's root: the image below, its own writable layer above.

use std::fs;
use std::path::PathBuf;

use super::spawn;
use crate::boot::RUN;
use crate::error::{Context, Outcome};
use crate::reaper::Reaper;
use crate::sys::mount;

/// The folders of one attempt, and the overlay mounted from them.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Each is to be kept for a new attempt, or removed; its root is its own attempt's, so that removing it leaves the
    /// new one's alone.
    pub fn left(writable: &str, name: &str) -> Vec<Self> {
        let mut found: Vec<u32> = fs::read_dir(format!("{writable}/containers"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let file = entry.file_name().into_string().ok()?;
                let (owner, number) = file.rsplit_once('.')?;
                (owner == name).then(|| number.parse().ok())?
            })
            .collect();
        found.sort_unstable();
        found.into_iter().map(|attempt| Self::new(writable, name, attempt)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_boot_left_is_removed_without_touching_the_root_of_the_new_attempt() {
        let writable = std::env::temp_dir().join(format!("cuboid-layers-{}", std::process::id()));
        for name in ["app.10", "app.9", "app.x", "application.1", "other"] {
            fs::create_dir_all(writable.join("containers").join(name)).unwrap();
        }
        let writable = writable.to_string_lossy().into_owned();
        let left = Layers::left(&writable, "app");
        assert_eq!(left, [Layers::new(&writable, "app", 9), Layers::new(&writable, "app", 10)]);
        let kept = left[1].kept_for("app", 11);
        assert_eq!(kept.store(), left[1].store());
        assert_eq!(kept.root(), Layers::new(&writable, "app", 11).root());
        assert!(left.iter().all(|old| old.root != kept.root));
        fs::remove_dir_all(writable).unwrap();
    }
}
