//! What a network device has now: the kernel's lists of addresses and routes, read over the routing socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::{Cidr, MAIN_TABLE};

const DONE: u16 = 3;
const ERROR: u16 = 2;
const HEADER: usize = 16;
/// Made by the kernel itself, which takes them away with their address.
const BY_KERNEL: u8 = 2;

/// A route of the main table that somebody added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: Cidr,
    pub gateway: Option<IpAddr>,
}

/// The messages of an answer, (kind, payload); what is cut off is left out.
pub fn messages(answer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = answer;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(rest.get(0..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let payload = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// Whether a list ends here.
pub fn is_last(answer: &[u8]) -> bool {
    messages(answer).any(|(kind, _)| kind == DONE || kind == ERROR)
}

/// The value of the first attribute of a kind.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

/// The address of an `RTM_NEWADDR` if it is the device's.
pub fn address_of(payload: &[u8], index: u32) -> Option<Cidr> {
    let (fixed, attributes) = payload.split_at_checked(8)?;
    if u32::from_ne_bytes(fixed[4..8].try_into().ok()?) != index {
        return None;
    }
    let value = attribute(attributes, libc::IFA_LOCAL).or_else(|| attribute(attributes, libc::IFA_ADDRESS))?;
    Some(Cidr { address: address(value)?, prefix: fixed[1] })
}

/// The route of an `RTM_NEWROUTE` if it leads over the device and is not the kernel's own.
pub fn route_of(payload: &[u8], index: u32) -> Option<Route> {
    let (fixed, attributes) = payload.split_at_checked(12)?;
    let device = attribute(attributes, libc::RTA_OIF)?;
    if device != index.to_ne_bytes() || fixed[4] != MAIN_TABLE || fixed[5] == BY_KERNEL {
        return None;
    }
    let everywhere: IpAddr =
        if i32::from(fixed[0]) == libc::AF_INET { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let destination = attribute(attributes, libc::RTA_DST).map_or(Some(everywhere), address)?;
    let gateway = attribute(attributes, libc::RTA_GATEWAY).and_then(address);
    Some(Route { destination: Cidr { address: destination, prefix: fixed[1] }, gateway })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(payload);
        bytes
    }

    fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes
    }

    fn an_address(index: u32) -> Vec<u8> {
        let mut payload = vec![2, 24, 0, 0];
        payload.extend(index.to_ne_bytes());
        payload.extend(attribute_of(libc::IFA_ADDRESS, &[10, 0, 0, 255]));
        payload.extend(attribute_of(libc::IFA_LOCAL, &[10, 0, 0, 2]));
        payload
    }

    #[test]
    fn a_device_s_own_address_is_read_and_another_s_is_not() {
        assert_eq!(address_of(&an_address(2), 2), Some(Cidr { address: [10, 0, 0, 2].into(), prefix: 24 }));
        assert_eq!(address_of(&an_address(2), 3), None);
    }

    #[test]
    fn routes_of_the_kernel_and_of_other_tables_are_left_alone() {
        let route = |table: u8, protocol: u8| {
            let mut payload = vec![2, 0, 0, 0, table, protocol, 0, 1, 0, 0, 0, 0];
            payload.extend(attribute_of(libc::RTA_GATEWAY, &[10, 0, 0, 1]));
            payload.extend(attribute_of(libc::RTA_OIF, &2u32.to_ne_bytes()));
            route_of(&payload, 2)
        };
        let expected = Route {
            destination: Cidr { address: Ipv4Addr::UNSPECIFIED.into(), prefix: 0 },
            gateway: Some([10, 0, 0, 1].into()),
        };
        assert_eq!(route(MAIN_TABLE, 3), Some(expected));
        assert_eq!((route(255, 3), route(MAIN_TABLE, BY_KERNEL)), (None, None));
    }

    #[test]
    fn a_list_ends_with_its_last_message_and_cut_bytes_end_nothing_else() {
        let mut answer = message(libc::RTM_NEWADDR, &an_address(2));
        assert!(!is_last(&answer));
        answer.extend(message(DONE, &[0; 4]));
        assert!(is_last(&answer));
        assert_eq!(messages(&answer).count(), 2);
        for end in 0..answer.len() {
            for (_, payload) in messages(&answer[..end]) {
                let _ = (address_of(payload, 2), route_of(payload, 2));
            }
        }
    }
}
