//! The few messages of the kernel's routing socket that a guest needs.

use std::net::{IpAddr, Ipv4Addr};

use super::inventory::{self, Route};
use crate::error::{Context, Failure, Outcome};
use crate::sys::{self, net};

const REQUEST_ACK: u16 = 0x1 | 0x4;
const CREATE_EXCLUSIVE: u16 = 0x400 | 0x200;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
/// The routing table that counts.
pub const MAIN_TABLE: u8 = 254;
/// No duplicate address detection: the address is usable at once, and the host knows that it is the only one.
const IFA_F_NODAD: u32 = 0x02;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Cidr {
    /// "10.0.0.2/24"; without a prefix it is one address alone. "default" is every IPv4 address.
    pub fn parse(text: &str) -> Outcome<Self> {
        let wrong = || Failure::invalid(format!("{text:?} is no address with a prefix"));
        if text == "default" {
            return Ok(Self { address: Ipv4Addr::UNSPECIFIED.into(), prefix: 0 });
        }
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), str::parse).map_err(|_| wrong())?;
        if prefix > longest {
            return Err(wrong());
        }
        Ok(Self { address, prefix })
    }
}

fn family(address: &IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A message under construction: header, fixed part, attributes.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0u8; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST_ACK).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// What a device is to become; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link<'a> {
    pub name: Option<&'a str>,
    pub mtu: Option<u32>,
    pub mac: Option<[u8; 6]>,
    pub up: Option<bool>,
}

/// `struct ifinfomsg`
fn link(index: u32, up: Option<bool>) -> [u8; 16] {
    let mut fixed = [0u8; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let flag = |is_set: bool| (u32::from(is_set) * libc::IFF_UP as u32).to_ne_bytes();
    fixed[8..12].copy_from_slice(&flag(up == Some(true)));
    fixed[12..16].copy_from_slice(&flag(up.is_some()));
    fixed
}

/// The kernel sets the address, the name and the MTU before it starts the device.
fn set_link(index: u32, wanted: &Link<'_>) -> Vec<u8> {
    let mut message = Message::new(libc::RTM_NEWLINK, 0, &link(index, wanted.up));
    if let Some(mac) = wanted.mac {
        message = message.attribute(libc::IFLA_ADDRESS, &mac);
    }
    if let Some(name) = wanted.name {
        message = message.attribute(libc::IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
    }
    if let Some(mtu) = wanted.mtu {
        message = message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
    }
    message.finish()
}

/// "52:54:00:12:34:56"
pub fn parse_mac(text: &str) -> Outcome<[u8; 6]> {
    let is_byte = |part: &str| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = |part: &str| if is_byte(part) { u8::from_str_radix(part, 16).ok() } else { None };
    let parts: Option<Vec<u8>> = text.split(':').map(byte).collect();
    let found = parts.and_then(|parts| parts.try_into().ok());
    found.ok_or_else(|| Failure::invalid(format!("{text:?} is no hardware address")))
}

fn address(kind: u16, flags: u16, index: u32, cidr: &Cidr) -> Vec<u8> {
    let mut fixed = [family(&cidr.address), cidr.prefix, 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let value = octets(&cidr.address);
    let mut message = Message::new(kind, flags, &fixed);
    message = message.attribute(libc::IFA_LOCAL, &value).attribute(libc::IFA_ADDRESS, &value);
    if cidr.address.is_ipv6() {
        message = message.attribute(libc::IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes());
    }
    message.finish()
}

fn route(kind: u16, flags: u16, index: u32, destination: &Cidr, gateway: Option<&IpAddr>) -> Vec<u8> {
    const BOOT: u8 = 3;
    const UNIVERSE: u8 = 0;
    const LINK: u8 = 253;
    const UNICAST: u8 = 1;
    let scope = if gateway.is_some() || destination.address.is_ipv6() { UNIVERSE } else { LINK };
    let family = family(&destination.address);
    let fixed = [family, destination.prefix, 0, 0, MAIN_TABLE, BOOT, scope, UNICAST, 0, 0, 0, 0];
    let mut message = Message::new(kind, flags, &fixed);
    if destination.prefix > 0 {
        message = message.attribute(libc::RTA_DST, &octets(&destination.address));
    }
    if let Some(gateway) = gateway {
        message = message.attribute(libc::RTA_GATEWAY, &octets(gateway));
    }
    message.attribute(libc::RTA_OIF, &index.to_ne_bytes()).finish()
}

/// The errno in an answer; 0 for success.
fn answer_code(answer: &[u8]) -> i32 {
    let word = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    match (kind, word(16)) {
        (Some(ERROR), Some(code)) => -code,
        _ => libc::EPROTO,
    }
}

/// The routing socket.
pub struct Routing(std::os::fd::OwnedFd);

impl Routing {
    pub fn open() -> Outcome<Self> {
        net::open_route_socket().map(Self).context("opening the routing socket")
    }

    /// What exists already is as good as made.
    fn send(&self, what: &str, message: &[u8]) -> Outcome<()> {
        self.send_unless(libc::EEXIST, what, message)
    }

    fn send_unless(&self, fine: i32, what: &str, message: &[u8]) -> Outcome<()> {
        let answer = net::exchange(&self.0, message).context(what)?;
        match answer_code(&answer) {
            0 => Ok(()),
            code if code == fine => Ok(()),
            code => Err(Failure::system(what, &sys::errno(code))),
        }
    }

    pub fn set_link(&self, index: u32, wanted: &Link<'_>) -> Outcome<()> {
        self.send("configuring the network device", &set_link(index, wanted))
    }

    pub fn add_address(&self, index: u32, cidr: &Cidr) -> Outcome<()> {
        self.send(
            &format!("adding the address {}", cidr.address),
            &address(libc::RTM_NEWADDR, CREATE_EXCLUSIVE, index, cidr),
        )
    }

    /// One that is not there is as good as removed.
    pub fn remove_address(&self, index: u32, cidr: &Cidr) -> Outcome<()> {
        let what = format!("removing the address {}", cidr.address);
        self.send_unless(libc::EADDRNOTAVAIL, &what, &address(libc::RTM_DELADDR, 0, index, cidr))
    }

    pub fn add_route(&self, index: u32, destination: &Cidr, gateway: Option<&IpAddr>) -> Outcome<()> {
        let what = format!("adding the route to {}/{}", destination.address, destination.prefix);
        self.send(&what, &route(libc::RTM_NEWROUTE, CREATE_EXCLUSIVE, index, destination, gateway))
    }

    /// One that is not there is as good as removed.
    pub fn remove_route(&self, index: u32, destination: &Cidr, gateway: Option<&IpAddr>) -> Outcome<()> {
        let what = format!("removing the route to {}/{}", destination.address, destination.prefix);
        self.send_unless(libc::ESRCH, &what, &route(libc::RTM_DELROUTE, 0, index, destination, gateway))
    }

    /// The device's addresses.
    pub fn addresses(&self, index: u32) -> Outcome<Vec<Cidr>> {
        self.list(libc::RTM_GETADDR, 8, |payload| inventory::address_of(payload, index))
    }

    /// The routes over the device that are not the kernel's own.
    pub fn routes(&self, index: u32) -> Outcome<Vec<Route>> {
        self.list(libc::RTM_GETROUTE, 12, |payload| inventory::route_of(payload, index))
    }

    fn list<T>(&self, kind: u16, fixed: usize, parse: impl Fn(&[u8]) -> Option<T>) -> Outcome<Vec<T>> {
        let what = "listing what the network device has";
        let mut answer = net::exchange(&self.0, &Message::new(kind, DUMP, &vec![0; fixed]).finish()).context(what)?;
        let mut found = Vec::new();
        loop {
            found.extend(inventory::messages(&answer).filter_map(|(_, payload)| parse(payload)));
            if inventory::is_last(&answer) {
                return Ok(found);
            }
            answer = net::receive(&self.0).context(what)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_prefix() {
        assert_eq!(Cidr::parse("10.1.2.3/24").unwrap(), Cidr { address: [10, 1, 2, 3].into(), prefix: 24 });
        assert_eq!(Cidr::parse("fd00::1").unwrap().prefix, 128);
        assert_eq!(Cidr::parse("default").unwrap().prefix, 0);
        for bad in ["", "10.0.0.1/33", "10.0.0/8", "x/8", "10.0.0.1/-1", "10.0.0.1/"] {
            assert!(Cidr::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_route_has_the_kernel_s_layout() {
        let gateway = IpAddr::from([10, 0, 0, 1]);
        let everywhere = Cidr::parse("default").unwrap();
        let message = route(libc::RTM_NEWROUTE, CREATE_EXCLUSIVE, 2, &everywhere, Some(&gateway));
        assert_eq!(message.len(), 16 + 12 + 8 + 8);
        assert_eq!(message[0..4], 44u32.to_ne_bytes());
        assert_eq!(message[28..36], [8, 0, 5, 0, 10, 0, 0, 1]);
    }

    #[test]
    fn a_link_goes_up_or_down_or_is_left_alone() {
        let flags = |up| link(1, up)[8..16].to_vec();
        assert_eq!(flags(None), [0; 8]);
        assert_eq!(flags(Some(true)), [1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(flags(Some(false)), [0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn a_hardware_address_has_six_bytes() {
        assert_eq!(parse_mac("52:54:00:ab:CD:ef").unwrap(), [0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        for bad in
            ["", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:01", "52:54:0:ab:cd:ef", "+2:54:00:ab:cd:ef", "zz:0:0:0:0:0"]
        {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_attribute_is_padded_to_four_bytes() {
        let wanted = Link { name: Some("eth0"), mac: Some([1; 6]), ..Default::default() };
        assert_eq!(set_link(1, &wanted).len(), 16 + 16 + 12 + 12);
    }

    #[test]
    fn the_answer_tells_the_errno_and_garbage_is_no_success() {
        let mut answer = vec![0u8; 20];
        answer[4] = 2;
        assert_eq!(answer_code(&answer), 0);
        answer[16..20].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(answer_code(&answer), 17);
        assert_eq!(answer_code(b"short"), libc::EPROTO);
    }
}
