//! Kernel modules: those of a list at boot, others when something needs them.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Context, Outcome};
use crate::sys::files;

/// Loads the modules of a list file, one path per line, in its order. No list: a kernel with everything built in.
pub fn load_list(list: &Path) -> Outcome<()> {
    let Ok(text) = fs::read_to_string(list) else { return Ok(()) };
    for path in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        load_file(Path::new(path)).context_with(|| format!("loading the module {path}"))?;
    }
    Ok(())
}

fn load_file(path: &Path) -> io::Result<()> {
    files::load_module(&File::open(path)?)
}

/// Loads modules by name with what they depend on; a name without a file counts as built in.
#[derive(Default)]
pub struct OnDemand {
    index: Option<HashMap<String, PathBuf>>,
    done: HashSet<String>,
}

impl OnDemand {
    /// Makes the module available. Cheap when it is already.
    pub fn need(&mut self, name: &str) -> Outcome<()> {
        if !self.done.insert(name.to_owned()) {
            return Ok(());
        }
        let index = self.index.get_or_insert_with(|| index_of(Path::new("/lib/modules")));
        let Some(path) = index.get(name).cloned() else { return Ok(()) };
        let what = || format!("loading the module {name}");
        let content = fs::read(&path).context_with(what)?;
        for dependency in dependencies(&content) {
            self.need(&dependency)?;
        }
        load_file(&path).context_with(what)
    }
}

/// Every `NAME.ko` below a folder by its name, with "-" as "_" like the kernel writes it.
fn index_of(folder: &Path) -> HashMap<String, PathBuf> {
    let mut found = HashMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".ko")) {
                found.insert(name.replace('-', "_"), path);
            }
        }
    }
    found
}

/// The names that a module file's `depends=` field lists.
fn dependencies(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(start) = memchr::memmem::find(module, FIELD) else { return Vec::new() };
    let rest = &module[start + FIELD.len()..];
    let end = memchr::memchr(0, rest).unwrap_or(0);
    let names = String::from_utf8_lossy(&rest[..end]);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module_itself() {
        assert_eq!(dependencies(b"x\0depends=a-b,c\0license=GPL\0"), ["a_b", "c"]);
        assert!(dependencies(b"x\0depends=\0").is_empty());
        assert!(dependencies(b"\x7fELF nothing here").is_empty());
        assert!(dependencies(b"\0depends=cut off").is_empty());
    }

    #[test]
    fn a_module_that_has_no_file_counts_as_built_in() {
        let mut modules = OnDemand { index: Some(HashMap::new()), done: HashSet::new() };
        assert_eq!(modules.need("ext4"), Ok(()));
    }
}
