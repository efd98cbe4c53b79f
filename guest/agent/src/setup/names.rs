//! The text of /etc/hosts, /etc/hostname and /etc/resolv.conf.

use crate::pb;

/// /etc/hosts: the loopback, the pod itself, what the host adds.
pub fn hosts(setup: &pb::Setup) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let mut add = |ip: &str, names: &str| {
        // One line each, whatever the names hold.
        let clean = |part: &str| part.split(char::is_whitespace).collect::<Vec<_>>().join(" ");
        text.push_str(&format!("{}\t{}\n", clean(ip), clean(names)));
    };
    if !setup.pod_ip.is_empty() && !setup.hostname.is_empty() {
        let full = if setup.domainname.is_empty() {
            setup.hostname.clone()
        } else {
            format!("{0}.{1} {0}", setup.hostname, setup.domainname)
        };
        add(&setup.pod_ip, &full);
    }
    for host in &setup.hosts {
        add(&host.ip, &host.names.join(" "));
    }
    text
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
        let text = hosts(&setup);
        assert!(text.ends_with("10.0.0.2\tweb.svc.local web\n10.0.0.9\tdb db.x 6.6.6.6 bank\n"));
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
