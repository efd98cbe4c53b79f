//! The pod's network devices: found by their MAC, named, addressed, routed.

use std::fs;
use std::time::Duration;

use super::netlink::{Cidr, Routing};
use crate::error::{Code, Failure, Outcome};
use crate::pb;

const DEVICE_DEADLINE: Duration = Duration::from_secs(5);

/// Sets up the loopback device and every interface.
pub async fn set_up(interfaces: &[pb::Interface]) -> Outcome<()> {
    let routing = Routing::open()?;
    routing.set_up(index_of("lo").unwrap_or(1))?;
    for interface in interfaces {
        let current = wait_for(&interface.mac).await?;
        let index = index_of(&current).ok_or_else(|| missing(&interface.mac))?;
        set_up_one(&routing, index, &current, interface)?;
    }
    Ok(())
}

fn set_up_one(routing: &Routing, index: u32, current: &str, interface: &pb::Interface) -> Outcome<()> {
    let name = Some(interface.name.as_str()).filter(|name| !name.is_empty() && *name != current);
    let mtu = Some(interface.mtu).filter(|mtu| *mtu > 0);
    if name.is_some() || mtu.is_some() {
        routing.configure(index, name, mtu)?;
    }
    routing.set_up(index)?;
    for address in &interface.addresses {
        routing.add_address(index, &Cidr::parse(address)?)?;
    }
    for route in &interface.routes {
        let gateway = Some(route.gateway.as_str()).filter(|gateway| !gateway.is_empty());
        let gateway = gateway.map(Cidr::parse).transpose()?.map(|cidr| cidr.address);
        routing.add_route(index, &destination(&route.destination, gateway.as_ref())?, gateway.as_ref())?;
    }
    Ok(())
}

/// "default" (or nothing) is the whole of the gateway's family.
fn destination(text: &str, gateway: Option<&std::net::IpAddr>) -> Outcome<Cidr> {
    if !text.is_empty() && text != "default" {
        return Cidr::parse(text);
    }
    Cidr::parse(if gateway.is_some_and(std::net::IpAddr::is_ipv6) { "::/0" } else { "0.0.0.0/0" })
}

fn index_of(name: &str) -> Option<u32> {
    fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

async fn wait_for(mac: &str) -> Outcome<String> {
    let search = async {
        loop {
            if let Some(name) = device_with(mac) {
                return name;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEVICE_DEADLINE, search).await.map_err(|_| missing(mac))
}

fn device_with(mac: &str) -> Option<String> {
    let devices = fs::read_dir("/sys/class/net").ok()?;
    let has_mac = |entry: &fs::DirEntry| {
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        address.trim().eq_ignore_ascii_case(mac)
    };
    devices.flatten().find(has_mac)?.file_name().into_string().ok()
}

fn missing(mac: &str) -> Failure {
    Failure::new(Code::NotFound, format!("there is no network device with the address {mac}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_is_of_its_gateway_s_family() {
        let six = "fd00::1".parse().unwrap();
        assert!(destination("", Some(&six)).unwrap().address.is_ipv6());
        assert!(destination("default", None).unwrap().address.is_ipv4());
        assert_eq!(destination("10.0.0.0/8", Some(&six)).unwrap().prefix, 8);
    }
}
