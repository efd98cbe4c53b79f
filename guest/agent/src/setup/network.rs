//! The pod's network devices: found by their MAC or, after a restore, by their name; then named, addressed, routed.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::inventory::Route;
use super::netlink::{Cidr, Link, Routing, parse_mac};
use crate::error::{Code, Failure, Outcome};
use crate::pb;

const DEVICE_DEADLINE: Duration = Duration::from_secs(5);
/// The index of `lo`: the first device of every network namespace.
const LOOPBACK: u32 = 1;

/// Sets up the loopback device and every interface.
pub async fn set_up(interfaces: &[pb::Interface]) -> Outcome<()> {
    let routing = Routing::open()?;
    routing.set_link(LOOPBACK, &Link { up: Some(true), ..Default::default() })?;
    for interface in interfaces {
        let current = wait_for(interface).await?;
        set_up_one(&routing, &current, interface)?;
    }
    Ok(())
}

/// Gives devices that are in use what the call names instead of what they have. An address that stays is never taken
/// away, so connections over it go on.
pub async fn renew(interfaces: &[pb::Interface]) -> Outcome<()> {
    let routing = Routing::open()?;
    for interface in interfaces {
        let current = wait_for(interface).await?;
        let index = index_of(&current).ok_or_else(|| missing(interface))?;
        remove_others(&routing, index, interface)?;
        set_up_one(&routing, &current, interface)?;
    }
    Ok(())
}

fn remove_others(routing: &Routing, index: u32, interface: &pb::Interface) -> Outcome<()> {
    let wanted: Vec<_> = interface.routes.iter().map(route_of).collect::<Outcome<_>>()?;
    for route in routing.routes(index)? {
        if !wanted.contains(&route) {
            routing.remove_route(index, &route.destination, route.gateway.as_ref())?;
        }
    }
    let wanted: Vec<_> = interface.addresses.iter().map(|text| Cidr::parse(text)).collect::<Outcome<_>>()?;
    let (own, found): (Vec<_>, Vec<_>) = routing.addresses(index)?.into_iter().partition(is_link_local);
    for address in found.iter().filter(|address| !wanted.contains(address)) {
        routing.remove_address(index, address)?;
    }
    if own.is_empty() || interface.device.is_empty() || interface.mac.is_empty() {
        return Ok(());
    }
    // The kernel made it of the old hardware address, and makes none of the new one while the device is up.
    let fresh = link_local(parse_mac(&interface.mac)?);
    for old in own.iter().filter(|old| **old != fresh) {
        routing.remove_address(index, old)?;
    }
    routing.add_address(index, &fresh)
}

fn is_link_local(cidr: &Cidr) -> bool {
    matches!(cidr.address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// fe80::/64 with the hardware address in its lower half (RFC 4291, appendix A).
fn link_local(mac: [u8; 6]) -> Cidr {
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    let [a, b, c, d, e, f] = mac;
    let address = Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f));
    Cidr { address: address.into(), prefix: 64 }
}

fn route_of(route: &pb::IpRoute) -> Outcome<Route> {
    let gateway = Some(route.gateway.as_str()).filter(|gateway| !gateway.is_empty());
    let gateway = gateway.map(Cidr::parse).transpose()?.map(|cidr| cidr.address);
    Ok(Route { destination: destination(&route.destination, gateway.as_ref())?, gateway })
}

/// What a device was like before a set-up.
pub struct Before {
    index: u32,
    name: String,
    mtu: u32,
    mac: [u8; 6],
    addresses: Vec<Cidr>,
}

impl Before {
    pub async fn note(interfaces: &[pb::Interface]) -> Outcome<Vec<Self>> {
        let mut found = Vec::new();
        for interface in interfaces {
            let name = wait_for(interface).await?;
            let what = |file: &str| fs::read_to_string(format!("/sys/class/net/{name}/{file}")).unwrap_or_default();
            found.push(Self {
                index: index_of(&name).ok_or_else(|| missing(interface))?,
                mtu: what("mtu").trim().parse().unwrap_or(0),
                mac: parse_mac(what("address").trim())?,
                addresses: interface.addresses.iter().map(|text| Cidr::parse(text)).collect::<Outcome<_>>()?,
                name,
            });
        }
        Ok(found)
    }

    /// A device that is down loses its routes, its neighbours and its IPv6 addresses by itself.
    pub fn restore(devices: &[Self]) -> Outcome<()> {
        let routing = Routing::open()?;
        let down = Link { up: Some(false), ..Default::default() };
        for device in devices {
            for address in &device.addresses {
                routing.remove_address(device.index, address)?;
            }
            routing.set_link(device.index, &down)?;
            let mtu = Some(device.mtu).filter(|mtu| *mtu > 0);
            let was = Link { name: Some(&device.name), mtu, mac: Some(device.mac), up: None };
            routing.set_link(device.index, &was)?;
        }
        routing.set_link(LOOPBACK, &down)
    }
}

fn set_up_one(routing: &Routing, current: &str, interface: &pb::Interface) -> Outcome<()> {
    let index = index_of(current).ok_or_else(|| missing(interface))?;
    let is_restored = !interface.device.is_empty() && !interface.mac.is_empty();
    let wanted = Link {
        name: Some(interface.name.as_str()).filter(|name| !name.is_empty() && *name != current),
        mtu: Some(interface.mtu).filter(|mtu| *mtu > 0),
        mac: if is_restored { Some(parse_mac(&interface.mac)?) } else { None },
        up: Some(true),
    };
    routing.set_link(index, &wanted)?;
    for address in &interface.addresses {
        routing.add_address(index, &Cidr::parse(address)?)?;
    }
    for route in &interface.routes {
        let Route { destination, gateway } = route_of(route)?;
        routing.add_route(index, &destination, gateway.as_ref())?;
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
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return None;
    }
    fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

/// The present name of the device.
async fn wait_for(interface: &pb::Interface) -> Outcome<String> {
    let search = async {
        loop {
            if let Some(name) = find(interface) {
                return name;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEVICE_DEADLINE, search).await.map_err(|_| missing(interface))
}

fn find(interface: &pb::Interface) -> Option<String> {
    if interface.device.is_empty() {
        return device_with(&interface.mac);
    }
    let names = [&interface.device, &interface.name];
    // A set-up that is asked for again has renamed it.
    names.into_iter().find(|name| index_of(name).is_some()).cloned()
}

fn device_with(mac: &str) -> Option<String> {
    let devices = fs::read_dir("/sys/class/net").ok()?;
    let has_mac = |entry: &fs::DirEntry| {
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        address.trim().eq_ignore_ascii_case(mac)
    };
    devices.flatten().find(has_mac)?.file_name().into_string().ok()
}

fn missing(interface: &pb::Interface) -> Failure {
    let by =
        if interface.device.is_empty() { ("with the address", &interface.mac) } else { ("named", &interface.device) };
    Failure::new(Code::NotFound, format!("there is no network device {} {}", by.0, by.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_is_made_of_the_hardware_address() {
        let made = link_local([0x02, 0, 0, 0, 0x01, 0x05]);
        assert_eq!((made.address.to_string(), made.prefix), ("fe80::ff:fe00:105".to_owned(), 64));
    }

    #[test]
    fn the_default_route_is_of_its_gateway_s_family() {
        let six = "fd00::1".parse().unwrap();
        assert!(destination("", Some(&six)).unwrap().address.is_ipv6());
        assert!(destination("default", None).unwrap().address.is_ipv4());
        assert_eq!(destination("10.0.0.0/8", Some(&six)).unwrap().prefix, 8);
    }
}
