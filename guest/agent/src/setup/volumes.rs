//! Volumes of the pod: made once at set-up, mounted by containers.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::devices;
use crate::agent::Agent;
use crate::boot::RUN;
use crate::container::{check_name, spawn};
use crate::error::{Context, Failure, Outcome};
use crate::pb;
use crate::pb::volume::Source;
use crate::reaper::Reaper;
use crate::rooted::{self, Rooted};
use crate::sys::{files, mount};

const FILES_LIMIT: usize = 10_000;

/// A volume that containers can mount.
#[derive(Clone, Debug)]
pub struct Volume {
    pub name: String,
    pub path: String,
    /// Whether the host may replace its files.
    pub is_files: bool,
    pub fs_group: Option<u32>,
}

/// Makes a volume ready. `writable`: the folder of the writable device.
pub async fn make(agent: &Agent, wanted: &pb::Volume, writable: &str) -> Outcome<Volume> {
    check_name(&wanted.name)?;
    let source = wanted.source.as_ref();
    let source = source.ok_or_else(|| Failure::invalid(format!("the volume {} has no source", wanted.name)))?;
    let on_disk = matches!(source, Source::Disk(_)) || matches!(source, Source::Files(files) if !files.memory);
    let base = if on_disk { format!("{writable}/volumes") } else { format!("{RUN}/volumes") };
    let volume = Volume {
        path: format!("{base}/{}", wanted.name),
        name: wanted.name.clone(),
        is_files: matches!(source, Source::Files(_)),
        fs_group: wanted.fs_group,
    };
    let result = fill(agent, &volume, source).await;
    result.map_err(|mut failure| {
        failure.message = format!("volume {}: {}", wanted.name, failure.message);
        failure
    })?;
    if !matches!(source, Source::Files(_) | Source::Nfs(_)) {
        give_to_group(&volume)?;
    }
    Ok(volume)
}

async fn fill(agent: &Agent, volume: &Volume, source: &Source) -> Outcome<()> {
    fs::create_dir_all(&volume.path).context("making the folder")?;
    match source {
        Source::Memory(memory) => mount_memory(&volume.path, memory),
        Source::Disk(_) => open_to_all(&volume.path),
        Source::Block(block) => mount_block(agent, &volume.path, block).await,
        Source::Files(files) => {
            if files.memory {
                mount_memory(&volume.path, &pb::MemoryVolume::default())?;
            }
            write_files(volume, &files.files)
        }
        Source::Nfs(nfs) => mount_nfs(&agent.reaper(), &volume.path, nfs).await,
    }
}

/// As Kubernetes' emptyDir: any user of the container may write.
fn open_to_all(path: &str) -> Outcome<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).context("opening the volume to its users")
}

fn mount_memory(path: &str, memory: &pb::MemoryVolume) -> Outcome<()> {
    let mut options = String::from("mode=0777");
    if memory.size_bytes > 0 {
        options.push_str(&format!(",size={}", memory.size_bytes));
    }
    if memory.huge_pages {
        options.push_str(",huge=always");
    }
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    mount::mount("tmpfs", path, "tmpfs", flags, &options).context("mounting memory")
}

async fn mount_block(agent: &Agent, path: &str, block: &pb::BlockVolume) -> Outcome<()> {
    let device = agent.devices.find(&block.serial).await?;
    let kind = if block.fs_type.is_empty() { "ext4" } else { &block.fs_type };
    let mut flags = libc::MS_NOATIME;
    if block.read_only {
        flags |= libc::MS_RDONLY;
    }
    let words = |name: &str| block.options.iter().any(|option| option == name);
    for (name, flag) in
        [("ro", libc::MS_RDONLY), ("noexec", libc::MS_NOEXEC), ("nosuid", libc::MS_NOSUID), ("nodev", libc::MS_NODEV)]
    {
        flags |= if words(name) { flag } else { 0 };
    }
    let known = ["ro", "rw", "noexec", "nosuid", "nodev", "noatime", "defaults"];
    let rest: Vec<_> = block.options.iter().map(String::as_str).filter(|option| !known.contains(option)).collect();
    devices::mount_apart(&agent.reaper(), &device, path, kind, flags, &rest.join(",")).await
}

/// The file system's name for the kernel: one for version 4, another for version 3.
pub fn nfs_kind(nfs: &pb::NfsVolume) -> Outcome<&'static str> {
    match nfs.fs_type.as_str() {
        "" | "nfs4" => Ok("nfs4"),
        "nfs" => Ok("nfs"),
        other => Err(Failure::invalid(format!("{other:?} is not a kind of NFS"))),
    }
}

/// mount(2) without a helper: the kernel wants the server's address among the options, and names itself.
async fn mount_nfs(reaper: &Reaper, path: &str, nfs: &pb::NfsVolume) -> Outcome<()> {
    let kind = nfs_kind(nfs)?;
    let source = format!("{}:{}", nfs.server, nfs.path);
    let mut options = nfs.options.clone();
    if !options.split(',').any(|option| option.starts_with("addr=")) {
        let separator = if options.is_empty() { "" } else { "," };
        options.push_str(&format!("{separator}addr={}", nfs.server));
    }
    let flags = if nfs.read_only { libc::MS_RDONLY } else { 0 };
    let (path, what) = (path.to_owned(), format!("mounting {source}"));
    spawn::in_child(reaper, move || mount::mount(&source, &path, kind, flags, &options).context(&what)).await
}

/// Group, group's rights and the set-group bit of the volume's own folder, as Kubernetes' fsGroup.
fn give_to_group(volume: &Volume) -> Outcome<()> {
    let Some(group) = volume.fs_group else { return Ok(()) };
    let what = "giving the volume to its group";
    chown(&volume.path, None, Some(group)).context(what)?;
    let mode = fs::metadata(&volume.path).context(what)?.permissions().mode();
    fs::set_permissions(&volume.path, fs::Permissions::from_mode(mode | 0o2770)).context(what)
}

/// Replaces the files of a volume at once: they are written to a new folder, and the link "..data" is moved to it.
///
/// The layout is the kubelet's: visible names are links through "..data", so that readers see all files change together.
pub fn write_files(volume: &Volume, wanted: &[pb::File]) -> Outcome<()> {
    if wanted.len() > FILES_LIMIT {
        return Err(Failure::invalid(format!("{} files are too many for one volume", wanted.len())));
    }
    let root = Rooted::open(&volume.path).context("opening the volume")?;
    let generation = new_generation(&volume.path)?;
    for file in wanted {
        write_file(&volume.path, &generation, file, volume.fs_group)?;
    }
    let old = fs::read_link(format!("{}/..data", volume.path)).ok();
    let what = "publishing the files";
    let fresh = format!("{}/..data_tmp", volume.path);
    remove_if_there(&fresh).context(what)?;
    symlink(&generation, &fresh).context(what)?;
    fs::rename(&fresh, format!("{}/..data", volume.path)).context(what)?;
    let visible = visible_names(wanted)?;
    for name in &visible {
        match files::make_link(&format!("..data/{name}"), root.fd().as_fd(), name) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error).context(what),
            _ => {}
        }
    }
    remove_stale(&volume.path, &visible).context(what)?;
    if let Some(old) = old.filter(|old| old.to_string_lossy() != generation) {
        // Readers that hold it open keep it.
        let _ = fs::remove_dir_all(format!("{}/{}", volume.path, old.to_string_lossy()));
    }
    Ok(())
}

/// A new folder "..N" in the volume.
fn new_generation(path: &str) -> Outcome<String> {
    for number in 1u64.. {
        let name = format!("..{number}");
        let folder = format!("{path}/{name}");
        match fs::create_dir(&folder) {
            Ok(()) => {
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).context("making a folder")?;
                return Ok(name);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context("making a folder for the files"),
        }
    }
    Err(Failure::invalid("no number is left for the files"))
}

fn write_file(volume: &str, generation: &str, file: &pb::File, group: Option<u32>) -> Outcome<()> {
    let what = || format!("writing {}", file.path);
    let parts = rooted::parts(&file.path).context_with(what)?;
    if parts.is_empty() || parts[0].starts_with("..") {
        return Err(Failure::invalid(format!("{:?} cannot be a file of a volume", file.path)));
    }
    let path = format!("{volume}/{generation}/{}", parts.join("/"));
    fs::create_dir_all(rooted::split(&path).0).context_with(what)?;
    fs::write(&path, &file.content).context_with(what)?;
    let mut mode = file.mode & 0o777;
    if group.is_some() {
        mode |= 0o040;
        chown(&path, None, group).context_with(what)?;
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context_with(what)
}

fn visible_names(wanted: &[pb::File]) -> Outcome<BTreeSet<String>> {
    let first = |file: &pb::File| rooted::parts(&file.path).map(|parts| parts[0].to_owned());
    wanted.iter().map(first).collect::<std::io::Result<_>>().context("reading the files' names")
}

fn remove_if_there(path: &str) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Links of names that the volume does not have any more.
fn remove_stale(path: &str, visible: &BTreeSet<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !visible.contains(&name) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str) -> Volume {
        let path = std::env::temp_dir().join(format!("cuboid-volume-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Volume { name: name.into(), path: path.to_string_lossy().into_owned(), is_files: true, fs_group: None }
    }

    fn file(path: &str, content: &str) -> pb::File {
        pb::File { path: path.into(), content: content.into(), mode: 0o440 }
    }

    fn read(volume: &Volume, path: &str) -> Option<String> {
        fs::read_to_string(format!("{}/{path}", volume.path)).ok()
    }

    #[test]
    fn files_are_replaced_together_and_old_ones_go() {
        let volume = volume("replace");
        write_files(&volume, &[file("a", "1"), file("dir/b", "2")]).unwrap();
        assert_eq!(fs::read_link(format!("{}/a", volume.path)).unwrap().to_string_lossy(), "..data/a");
        assert_eq!(read(&volume, "dir/b").unwrap(), "2");
        write_files(&volume, &[file("a", "3")]).unwrap();
        assert_eq!(read(&volume, "a").unwrap(), "3");
        assert_eq!(read(&volume, "dir/b"), None);
        let names: Vec<_> = fs::read_dir(&volume.path).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        fs::remove_dir_all(volume.path).unwrap();
    }

    #[test]
    fn a_file_cannot_leave_its_volume() {
        let volume = volume("leave");
        for path in ["../x", "a/../../x", "..data/x", "", "/"] {
            assert!(write_files(&volume, &[file(path, "x")]).is_err(), "{path:?}");
        }
        fs::remove_dir_all(volume.path).unwrap();
    }

    #[test]
    fn nfs_is_of_two_kinds() {
        let kind = |name: &str| nfs_kind(&pb::NfsVolume { fs_type: name.into(), ..Default::default() }).ok();
        assert_eq!(
            [kind(""), kind("nfs4"), kind("nfs"), kind("ext4")],
            [Some("nfs4"), Some("nfs4"), Some("nfs"), None]
        );
    }

    #[test]
    fn the_mode_is_the_host_s() {
        let volume = volume("mode");
        write_files(&volume, &[file("a", "1")]).unwrap();
        let mode = fs::metadata(format!("{}/a", volume.path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o440);
        fs::remove_dir_all(volume.path).unwrap();
    }
}
