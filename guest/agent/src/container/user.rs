//! Who a process runs as: names are looked up in the container's own files, which are not to be trusted.

use crate::error::{Code, Failure, Outcome};
use crate::pb;

/// More than this of /etc/passwd or /etc/group is not read.
pub const FILE_LIMIT: u64 = 1 << 20;
const GROUPS_LIMIT: usize = 1_024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// From /etc/passwd; "/" without an entry.
    pub home: String,
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Entry { name, uid, gid, home })
    })
}

/// (name, gid, members) of each line of /etc/group.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// The identity that `user` asks for, by the container's /etc/passwd and /etc/group.
pub fn identify(user: &pb::User, passwd: &str, group: &str) -> Outcome<Identity> {
    let (wanted, wanted_group) = match user.name.split_once(':') {
        Some((name, group)) => (name, group),
        None => (user.name.as_str(), ""),
    };
    let number = user.uid.or_else(|| if wanted.is_empty() { Some(0) } else { wanted.parse().ok() });
    let entry = match number {
        Some(uid) => entries(passwd).find(|entry| entry.uid == uid),
        None => entries(passwd).find(|entry| entry.name == wanted),
    };
    let uid = match (&entry, number) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(unknown("user", wanted, "/etc/passwd")),
    };
    let explicit = match user.gid {
        Some(gid) => Some(gid),
        None if wanted_group.is_empty() => None,
        None => Some(find_group(wanted_group, group)?),
    };
    let gid = explicit.or(entry.as_ref().map(|entry| entry.gid)).unwrap_or(0);
    let member_of = |name: &str| -> Vec<u32> {
        let has = |members: &str| members.split(',').any(|member| member == name);
        groups(group).filter(|(_, _, members)| has(members)).map(|(_, gid, _)| gid).take(GROUPS_LIMIT).collect()
    };
    let mut all = match &entry {
        Some(entry) if explicit.is_none() || user.gid.is_some() => member_of(entry.name),
        _ => Vec::new(),
    };
    all.extend(user.supplementary.iter().copied().take(GROUPS_LIMIT));
    all.sort_unstable();
    all.dedup();
    let home = entry.map(|entry| entry.home).filter(|home| home.starts_with('/')).unwrap_or("/");
    if user.must_be_non_root && uid == 0 {
        return Err(Failure::invalid("the container must not run as root, but its user is root (uid 0)"));
    }
    Ok(Identity { uid, gid, groups: all, home: home.to_owned() })
}

fn find_group(wanted: &str, group: &str) -> Outcome<u32> {
    if let Ok(gid) = wanted.parse() {
        return Ok(gid);
    }
    let found = groups(group).find(|(name, ..)| *name == wanted);
    found.map(|(_, gid, _)| gid).ok_or_else(|| unknown("group", wanted, "/etc/group"))
}

fn unknown(kind: &str, name: &str, file: &str) -> Failure {
    Failure::new(Code::UserNotFound, format!("the container's {file} has no {kind} {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken line\napp:x:1000:1001::/srv/app:/bin/false\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nlogs:x:20:app,other\nbad:x:notanumber:app\n";

    fn named(name: &str) -> Outcome<Identity> {
        identify(&pb::User { name: name.into(), ..Default::default() }, PASSWD, GROUP)
    }

    #[test]
    fn a_name_gets_its_groups_and_home() {
        let expected = Identity { uid: 1000, gid: 1001, groups: vec![20], home: "/srv/app".into() };
        assert_eq!(named("app").unwrap(), expected);
        assert_eq!(named("1000").unwrap(), expected);
    }

    #[test]
    fn an_explicit_group_stands_alone() {
        let found = named("app:logs").unwrap();
        assert_eq!((found.gid, found.groups), (20, vec![]));
        assert_eq!(named("app:7").unwrap().gid, 7);
    }

    #[test]
    fn a_number_without_an_entry_is_fine_and_a_name_is_not() {
        assert_eq!(named("4321").unwrap(), Identity { uid: 4321, gid: 0, groups: vec![], home: "/".into() });
        assert_eq!(named("nobody").unwrap_err().message, "the container's /etc/passwd has no user nobody");
        assert_eq!(named("app:nogroup").unwrap_err().code, Code::UserNotFound);
    }

    #[test]
    fn nothing_means_root_which_may_be_forbidden() {
        assert_eq!(named("").unwrap().uid, 0);
        let user = pb::User { must_be_non_root: true, ..Default::default() };
        assert_eq!(identify(&user, PASSWD, GROUP).unwrap_err().code, Code::Invalid);
    }

    #[test]
    fn numbers_win_over_the_name_and_groups_add_up() {
        let user = pb::User {
            name: "app".into(),
            uid: Some(5),
            gid: Some(6),
            supplementary: vec![9, 8, 9],
            ..Default::default()
        };
        let found = identify(&user, PASSWD, GROUP).unwrap();
        assert_eq!((found.uid, found.gid, found.groups), (5, 6, vec![8, 9]));
    }
}
