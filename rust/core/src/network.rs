//! Networks of addresses, as settings name them: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// An address, and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether `address` belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |ours: u128, theirs: u128, width: u8| {
            let shift = u32::from(width - self.bits);
            ours.checked_shr(shift).unwrap_or(0) == theirs.checked_shr(shift).unwrap_or(0)
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => same(ours.to_bits().into(), theirs.to_bits().into(), 32),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.to_bits(), theirs.to_bits(), 128),
            _ => false,
        }
    }

    /// The networks of a list with commas between them.
    ///
    /// **Errors:** the part that is none.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| part.parse().map_err(|()| part.to_owned())).collect()
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(drop)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), |bits| bits.parse().map_err(drop))?;
        if bits > width { Err(()) } else { Ok(Self { address, bits }) }
    }
}

/// What connections of one peer have in common: its address, or for IPv6 the network of 64 bits that one site has.
pub fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn networks_contain_what_begins_alike() {
        let contains = |network: &str, text: &str| network.parse::<Network>().expect(network).contains(address(text));
        assert!(contains("10.0.0.0/8", "10.255.1.2") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.1.2.3", "10.1.2.3") && !contains("10.1.2.3", "10.1.2.4"));
        assert!(contains("0.0.0.0/0", "203.0.113.9") && !contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1") && !contains("2001:db8::/32", "2001:db9::1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.1.1"), "an IPv4 address on an IPv6 socket");
    }

    #[test]
    fn lists_name_the_part_that_is_wrong() {
        assert_eq!(Network::list(" 10.0.0.0/8, ::1 ,").map(|list| list.len()), Ok(2));
        assert_eq!(Network::list(""), Ok(vec![]));
        for bad in ["proxy", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "::1/129", "10.0.0.0/"] {
            assert_eq!(Network::list(&format!("::1,{bad}")), Err(bad.to_owned()));
        }
    }

    #[test]
    fn a_site_is_an_address_or_a_network_of_64_bits() {
        assert_eq!(site(address("192.0.2.7")), address("192.0.2.7"));
        assert_eq!(site(address("::ffff:192.0.2.7")), address("192.0.2.7"));
        assert_eq!(site(address("2001:db8:1:2:3:4:5:6")), address("2001:db8:1:2::"));
    }
}
