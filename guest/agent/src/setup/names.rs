//! The pod's names: its host name, and the text of /etc/hosts, /etc/hostname and /etc/resolv.conf.

use crate::error::{Context, Outcome};
use crate::pb;
use crate::sys::{files, process};

pub const HOSTS: &str = "/run/cuboid/etc/hosts";
pub const HOSTNAME: &str = "/run/cuboid/etc/hostname";
pub const RESOLVER: &str = "/run/cuboid/etc/resolv.conf";

/// What the pod is called, and whom it knows by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    pub hostname: String,
    pub domainname: String,
    pub pod_ip: String,
    pub hosts: Vec<pb::Host>,
}

impl Names {
    pub fn of(setup: &pb::Setup) -> Self {
        Self {
            hostname: setup.hostname.clone(),
            domainname: setup.domainname.clone(),
            pod_ip: setup.pod_ip.clone(),
            hosts: setup.hosts.clone(),
        }
    }

    /// Tells the kernel and writes the files. Containers have the files mounted: they see the change at once.
    pub fn publish(&self) -> Outcome<()> {
        process::set_hostname(&self.hostname).context("setting the host name")?;
        let what = "writing the pod's names";
        files::rewrite(HOSTS, self.file().as_bytes()).context(what)?;
        files::rewrite(HOSTNAME, format!("{}\n", self.hostname).as_bytes()).context(what)
    }

    /// Takes over what the call names; nothing happens if that is nothing. Containers with a host name of their own
    /// keep it.
    pub fn renew(&mut self, call: &pb::Renew) -> Outcome<()> {
        let fresh = self.renewed(call);
        if fresh != *self {
            fresh.publish()?;
            *self = fresh;
        }
        Ok(())
    }

    fn renewed(&self, call: &pb::Renew) -> Self {
        let text = |new: &String, old: &String| if new.is_empty() { old.clone() } else { new.clone() };
        Self {
            hostname: text(&call.hostname, &self.hostname),
            domainname: self.domainname.clone(),
            pod_ip: text(&call.pod_ip, &self.pod_ip),
            hosts: if call.hosts.is_empty() { self.hosts.clone() } else { call.hosts.clone() },
        }
    }

    /// /etc/hosts: the loopback, the pod itself, what the host adds.
    fn file(&self) -> String {
        let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        let mut add = |ip: &str, names: &str| {
            // One line each, whatever the names hold.
            let clean = |part: &str| part.split(char::is_whitespace).collect::<Vec<_>>().join(" ");
            text.push_str(&format!("{}\t{}\n", clean(ip), clean(names)));
        };
        if !self.pod_ip.is_empty() && !self.hostname.is_empty() {
            let full = if self.domainname.is_empty() {
                self.hostname.clone()
            } else {
                format!("{0}.{1} {0}", self.hostname, self.domainname)
            };
            add(&self.pod_ip, &full);
        }
        for host in &self.hosts {
            add(&host.ip, &host.names.join(" "));
        }
        text
    }
}

/// /etc/resolv.conf; None if the host says nothing about names, so that the image's own file counts.
pub fn resolver(resolver: Option<&pb::Resolver>) -> Option<String> {
    let resolver = resolver.filter(|r| **r != pb::Resolver::default())?;
    let mut text = String::new();
    let mut add = |key: &str, words: &[String]| {
        if !words.is_empty() {
            let words: Vec<_> = words.iter().flat_map(|word| word.split_whitespace()).collect();
            text.push_str(&format!("{key} {}\n", words.join(" ")));
        }
    };
    for server in &resolver.nameservers {
        add("nameserver", std::slice::from_ref(server));
    }
    add("search", &resolver.search);
    add("options", &resolver.options);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_the_pod_and_what_the_host_adds() {
        let setup = pb::Setup {
            hostname: "web".into(),
            pod_ip: "10.0.0.2".into(),
            domainname: "svc.local".into(),
            hosts: vec![pb::Host { ip: "10.0.0.9".into(), names: vec!["db".into(), "db.x\n6.6.6.6 bank".into()] }],
            ..Default::default()
        };
        let text = Names::of(&setup).file();
        assert!(text.ends_with("10.0.0.2\tweb.svc.local web\n10.0.0.9\tdb db.x 6.6.6.6 bank\n"));
    }

    #[test]
    fn a_new_identity_changes_what_it_names_and_nothing_else() {
        let old = Names { hostname: "a".into(), domainname: "d".into(), pod_ip: "10.0.0.2".into(), hosts: Vec::new() };
        assert_eq!(old.renewed(&pb::Renew::default()), old);
        let call = pb::Renew { hostname: "b".into(), ..Default::default() };
        assert_eq!(old.renewed(&call), Names { hostname: "b".into(), ..old.clone() });
        let call = pb::Renew { pod_ip: "10.0.0.3".into(), ..Default::default() };
        assert!(old.renewed(&call).file().ends_with("\n10.0.0.3\ta.d a\n"));
    }

    #[test]
    fn the_resolver_s_file_has_one_line_for_each_server() {
        let wanted = pb::Resolver {
            nameservers: vec!["10.0.0.1".into(), "10.0.0.3".into()],
            search: vec!["a.local".into(), "b".into()],
            options: vec!["ndots:5".into()],
        };
        let expected = "nameserver 10.0.0.1\nnameserver 10.0.0.3\nsearch a.local b\noptions ndots:5\n";
        assert_eq!(resolver(Some(&wanted)).unwrap(), expected);
        assert_eq!(resolver(None), None);
    }
}
