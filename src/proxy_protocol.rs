//! The header of the PROXY protocol, versions 1 and 2, as HAProxy's specification
//! `proxy-protocol.txt` defines it: with it, a proxy begins a connection and tells the
//! addresses of the client's own connection.
//!
//! Everything here is computed from values: no I/O, no clock, no environment.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

/// How a header of version 1 begins (section 2.1).
const SIGNATURE_1: &[u8] = b"PROXY ";
/// How a header of version 2 begins (section 2.2).
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, with its line end.
const MAX_LENGTH_1: usize = 107;
/// The part of a header of version 2 that every one has: signature, version and
/// command, family and transport, and the length of the rest.
const FIXED_LENGTH_2: usize = 16;
/// The addresses of version 2 for IPv4 and IPv6, with their ports, and for Unix sockets.
const INET_LENGTH: usize = 12;
const INET6_LENGTH: usize = 36;
const UNIX_LENGTH: usize = 216;

/// The bytes that are kept of an incomplete header: all of version 1, and of version 2 more
/// than stands before its TLVs.
const KEPT_LENGTH: usize = MAX_LENGTH_1;
const _: () = assert!(KEPT_LENGTH >= FIXED_LENGTH_2 + INET6_LENGTH);

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The addresses of the client's own connection; IPv4-mapped ones as IPv4.
    Proxied {
        /// The client's.
        source: SocketAddr,
        /// The one that the client connected to.
        destination: SocketAddr,
    },
    /// The addresses of this connection apply: the proxy itself is the client (`LOCAL`),
    /// or its client has no IP address (`UNKNOWN`, `AF_UNSPEC`, `AF_UNIX`).
    Own,
}

/// Why a connection does not begin with a valid header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// Neither signature.
    Absent,
    /// Version 2 is the newest.
    UnknownVersion,
    /// It breaks the specification.
    Malformed,
    /// Version 1: no line end within 107 bytes.
    TooLong,
    /// The peer has closed within the header.
    Incomplete,
    /// Its time has expired before it was complete.
    Late,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "no PROXY header",
            Self::UnknownVersion => "a PROXY header of an unknown version",
            Self::Malformed => "a malformed PROXY header",
            Self::TooLong => "a PROXY header of version 1 with more than 107 bytes",
            Self::Incomplete => "an incomplete PROXY header",
            Self::Late => "no complete PROXY header in time",
        })
    }
}

/// Takes a header in parts; the result does not depend on how it was split on its way.
#[derive(Debug, Clone, Default)]
pub struct HeaderParser {
    /// The first bytes, at most [`KEPT_LENGTH`].
    bytes: Vec<u8>,
    /// How many bytes have arrived.
    length: usize,
}

impl HeaderParser {
    /// Whether no byte has arrived.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Takes the next bytes. Returns the header once it is complete; the bytes that
    /// follow it are not looked at.
    ///
    /// # Errors
    /// The first byte that cannot belong to a valid header, and a missing line end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
        let first = &bytes[..bytes.len().min(KEPT_LENGTH - self.bytes.len())];
        self.length += bytes.len();
        if !self.bytes.is_empty() {
            self.bytes.extend(first);
            return parse(&self.bytes, self.length);
        }
        // Almost every header arrives whole, and needs no copy.
        let parsed = parse(first, self.length)?;
        if parsed.is_none() {
            self.bytes.extend(first);
        }
        Ok(parsed)
    }
}

/// Parses the first bytes of `length`.
fn parse(bytes: &[u8], length: usize) -> Result<Option<Header>, HeaderError> {
    if bytes.starts_with(SIGNATURE_1) {
        return parse_version_1(bytes);
    }
    if bytes.starts_with(SIGNATURE_2) {
        return parse_version_2(bytes, length);
    }
    if SIGNATURE_1.starts_with(bytes) || SIGNATURE_2.starts_with(bytes) {
        return Ok(None);
    }
    Err(HeaderError::Absent)
}

/// Section 2.1: one line, `PROXY TCP4 192.0.2.1 198.51.100.1 49152 25` and CR LF.
fn parse_version_1(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = match end.map(|end| (end, &bytes[end..])) {
        Some((end, [b'\r', b'\n', ..])) => &bytes[SIGNATURE_1.len()..end],
        None | Some((_, [b'\r'])) if bytes.len() < MAX_LENGTH_1 => return Ok(None),
        None | Some((_, [b'\r'])) => return Err(HeaderError::TooLong),
        Some(_) => return Err(HeaderError::Malformed),
    };
    let line = str::from_utf8(line).map_err(|_| HeaderError::Malformed)?;
    // What follows "UNKNOWN" is to be ignored.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Some(Header::Own));
    }
    let mut words = line.split(' ');
    let fields = [(); 5].map(|()| words.next().unwrap_or_default());
    let [family, source, destination, source_port, destination_port] = fields;
    let header = match (family, words.next()) {
        ("TCP4", None) => {
            proxied::<Ipv4Addr>([source, destination], [source_port, destination_port])
        }
        ("TCP6", None) => {
            proxied::<Ipv6Addr>([source, destination], [source_port, destination_port])
        }
        _ => None,
    };
    header.map(Some).ok_or(HeaderError::Malformed)
}

fn proxied<A>(addresses: [&str; 2], ports: [&str; 2]) -> Option<Header>
where
    A: FromStr,
    SocketAddr: From<(A, u16)>,
{
    let address = |index: usize| {
        let address: A = addresses[index].parse().ok()?;
        Some(canonical(SocketAddr::from((
            address,
            parse_port(ports[index])?,
        ))))
    };
    Some(Header::Proxied {
        source: address(0)?,
        destination: address(1)?,
    })
}

/// A decimal number without sign and leading zeros.
fn parse_port(text: &str) -> Option<u16> {
    let is_canonical = text == "0" || !text.starts_with(['0', '+']);
    is_canonical.then(|| text.parse().ok())?
}

/// Section 2.2. `bytes` are the first of `length` bytes, as many as the addresses need.
fn parse_version_2(bytes: &[u8], length: usize) -> Result<Option<Header>, HeaderError> {
    if let Some(version_and_command) = bytes.get(12) {
        if version_and_command >> 4 != 2 {
            return Err(HeaderError::UnknownVersion);
        }
    }
    if length < FIXED_LENGTH_2 {
        return Ok(None);
    }
    let rest_length = rest_length(bytes);
    let is_local = match bytes[12] & 0xf {
        0 => true,
        1 => false,
        _ => return Err(HeaderError::Malformed),
    };
    // The family of LOCAL is ignored. Families that are not supported (AF_UNIX, and
    // datagrams of each) are treated like AF_UNSPEC.
    let (address_length, is_inet) = match (is_local, bytes[13]) {
        (true, _) | (false, 0x00) => (0, false),
        (false, 0x11) => (INET_LENGTH, true),
        (false, 0x12) => (INET_LENGTH, false),
        (false, 0x21) => (INET6_LENGTH, true),
        (false, 0x22) => (INET6_LENGTH, false),
        (false, 0x31 | 0x32) => (UNIX_LENGTH, false),
        // Nothing is assigned to these values.
        (false, _) => return Err(HeaderError::Malformed),
    };
    if rest_length < address_length {
        return Err(HeaderError::Malformed);
    }
    if length < FIXED_LENGTH_2 + rest_length {
        return Ok(None);
    }
    if !is_inet {
        return Ok(Some(Header::Own));
    }
    let header = proxied_of_bytes(&bytes[FIXED_LENGTH_2..][..address_length]);
    header.map(Some).ok_or(HeaderError::Malformed)
}

/// How many bytes follow the fixed part of a header of version 2.
fn rest_length(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[14], bytes[15]]))
}

/// Both addresses, then both ports, in network byte order.
fn proxied_of_bytes(bytes: &[u8]) -> Option<Header> {
    let (addresses, ports) = bytes.split_at_checked(bytes.len() - 4)?;
    let (source, destination) = addresses.split_at_checked(addresses.len() / 2)?;
    let address = |address: &[u8], port: usize| {
        let port = u16::from_be_bytes([ports[port], ports[port + 1]]);
        let address = if let Ok(octets) = <[u8; 4]>::try_from(address) {
            SocketAddr::from((octets, port))
        } else {
            SocketAddr::from((<[u8; 16]>::try_from(address).ok()?, port))
        };
        Some(canonical(address))
    };
    Some(Header::Proxied {
        source: address(source, 0)?,
        destination: address(destination, 2)?,
    })
}

/// An IPv4-mapped address as IPv4: proxies send them for clients of sockets that listen
/// for both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2: version and command, family and transport, the rest.
    fn version_2(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let fixed = [version_and_command, family, length[0], length[1]];
        [SIGNATURE_2, &fixed, rest].concat()
    }

    /// The addresses and ports of version 2.
    fn addresses(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let mut bytes = Vec::new();
        for address in [source, destination] {
            match address {
                SocketAddr::V4(v4) => bytes.extend(v4.ip().octets()),
                SocketAddr::V6(v6) => bytes.extend(v6.ip().octets()),
            }
        }
        bytes.extend(source.port().to_be_bytes());
        bytes.extend(destination.port().to_be_bytes());
        bytes
    }

    fn header(source: &str, destination: &str) -> Header {
        Header::Proxied {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    type Parsed = Result<Option<Header>, HeaderError>;

    /// Parses the bytes whole, byte by byte, split at each position, and with data
    /// behind them: the result is the same.
    fn check(bytes: &[u8], expected: Parsed) {
        let shown = bytes.escape_ascii();
        let parse = |parts: &[&[u8]]| -> Parsed {
            let mut parser = HeaderParser::default();
            for part in parts {
                if let Some(header) = parser.push(part)? {
                    return Ok(Some(header));
                }
            }
            Ok(None)
        };
        assert_eq!(parse(&[bytes]), expected, "{shown}");
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(parse(&single), expected, "{shown}, byte by byte");
        for middle in 0..bytes.len().min(200) {
            let (first, second) = bytes.split_at(middle);
            assert_eq!(parse(&[first, second]), expected, "{shown} at {middle}");
        }
        if expected != Ok(None) {
            let with_data = [bytes, b"EHLO example.org\r\n\0\xff"].concat();
            assert_eq!(parse(&[&with_data]), expected, "{shown} with data");
        }
    }

    #[test]
    fn version_1_has_two_addresses_or_none() {
        let v4 = header("192.0.2.1:49152", "198.51.100.1:25");
        check(
            b"PROXY TCP4 192.0.2.1 198.51.100.1 49152 25\r\n",
            Ok(Some(v4)),
        );
        let v6 = header("[2001:db8::1]:65535", "[2001:db8::2]:0");
        check(
            b"PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 65535 0\r\n",
            Ok(Some(v6)),
        );
        let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                       ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        let address = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        check(longest.as_bytes(), Ok(Some(header(address, address))));
        check(b"PROXY UNKNOWN\r\n", Ok(Some(Header::Own)));
        check(
            b"PROXY UNKNOWN ffff::1 what the proxy likes 1 2\r\n",
            Ok(Some(Header::Own)),
        );
        let unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LENGTH_1 - 16));
        assert_eq!(unknown.len(), MAX_LENGTH_1);
        check(unknown.as_bytes(), Ok(Some(Header::Own)));
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let expected = Ok(Some(header("192.0.2.1:49152", "198.51.100.1:25")));
        check(
            b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 49152 25\r\n",
            expected,
        );
        let mapped = addresses(
            "[::ffff:192.0.2.1]:49152".parse().unwrap(),
            "[::ffff:198.51.100.1]:25".parse().unwrap(),
        );
        check(&version_2(0x21, 0x21, &mapped), expected);
    }

    #[test]
    fn invalid_version_1_is_malformed() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1  2\r\n",
            "PROXY TCP4\t192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY tcp4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY UNKNOWN4\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 -1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 00 2\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP6 2001:db8::1::2 2001:db8::2 1 2\r\n",
            "PROXY TCP6 fe80::1%2 2001:db8::2 1 2\r\n",
            "PROXY TCP6 [2001:db8::1] 2001:db8::2 1 2\r\n",
            "PROXY TCP4 a.example b.example 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
            "PROXY TCP4 192.0.2.1\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\rx",
            "PROXY UNKNOWN\r\r",
        ] {
            check(line.as_bytes(), Err(HeaderError::Malformed));
        }
        check(b"PROXY TCP4 \xff\xfe 1 2\r\n", Err(HeaderError::Malformed));
    }

    #[test]
    fn version_1_without_a_line_end_is_too_long() {
        let line = format!("PROXY UNKNOWN {}", "x".repeat(MAX_LENGTH_1));
        check(&line.as_bytes()[..MAX_LENGTH_1], Err(HeaderError::TooLong));
        check(&line.as_bytes()[..MAX_LENGTH_1 - 1], Ok(None));
        // The line end would begin in time, and end too late.
        let late = format!("{}\r\n", &line[..MAX_LENGTH_1 - 1]);
        check(late.as_bytes(), Err(HeaderError::TooLong));
    }

    #[test]
    fn other_data_is_no_header() {
        for data in [
            "GET / HTTP/1.1\r\n",
            "EHLO example.org\r\n",
            "PROXY\tTCP4",
            "PROXYTCP4",
            "proxy TCP4",
            " PROXY TCP4",
            "\r\n\r\n\r\n",
            "\r\n\r\n\0\r\nQUIX\n",
            "\0",
        ] {
            check(data.as_bytes(), Err(HeaderError::Absent));
        }
        check(b"", Ok(None));
        check(b"PROXY", Ok(None));
        check(&SIGNATURE_2[..11], Ok(None));
    }

    #[test]
    fn version_2_has_two_addresses_or_none() {
        let v4 = ("192.0.2.1:49152", "198.51.100.1:25");
        let v6 = ("[2001:db8::1]:65535", "[2001:db8::2]:0");
        let bytes = |(source, destination): (&str, &str)| {
            addresses(source.parse().unwrap(), destination.parse().unwrap())
        };
        let proxied = |(source, destination)| Ok(Some(header(source, destination)));
        check(&version_2(0x21, 0x11, &bytes(v4)), proxied(v4));
        check(&version_2(0x21, 0x21, &bytes(v6)), proxied(v6));
        // TLVs are passed over, however long they are.
        for tlvs in [vec![4, 0, 0], vec![0; 100], vec![0xff; 65535 - 36]] {
            let rest = [bytes(v4), tlvs.clone()].concat();
            check(&version_2(0x21, 0x11, &rest), proxied(v4));
            let rest = [bytes(v6), tlvs].concat();
            check(&version_2(0x21, 0x21, &rest), proxied(v6));
        }
        let own = Ok(Some(Header::Own));
        check(&version_2(0x21, 0x00, b""), own);
        check(&version_2(0x21, 0x00, b"anything"), own);
        check(&version_2(0x21, 0x31, &[0; 216]), own);
        check(&version_2(0x21, 0x31, &[0; 300]), own);
        // Datagrams have no use here.
        check(&version_2(0x21, 0x12, &[0; 12]), own);
        check(&version_2(0x21, 0x22, &[0; 36]), own);
        check(&version_2(0x21, 0x32, &[0; 216]), own);
        // LOCAL: family and addresses are ignored.
        for family in [0x00, 0x11, 0x12, 0x21, 0x31, 0xff] {
            check(&version_2(0x20, family, b""), own);
            check(&version_2(0x20, family, &bytes(v4)), own);
        }
    }

    #[test]
    fn invalid_version_2_is_malformed() {
        let malformed = Err(HeaderError::Malformed);
        // Too short for the addresses.
        check(&version_2(0x21, 0x11, &[0; 11]), malformed);
        check(&version_2(0x21, 0x21, &[0; 35]), malformed);
        check(&version_2(0x21, 0x31, &[0; 215]), malformed);
        check(&version_2(0x21, 0x12, &[0; 11]), malformed);
        check(&version_2(0x21, 0x22, &[0; 35]), malformed);
        check(&version_2(0x21, 0x32, &[0; 215]), malformed);
        // Nothing is assigned to these values.
        for family in [0x01, 0x02, 0x10, 0x13, 0x20, 0x23, 0x30, 0x33, 0x41] {
            check(&version_2(0x21, family, &[0; 216]), malformed);
        }
        for command in 2..=15 {
            check(&version_2(0x20 + command, 0x11, &[0; 12]), malformed);
        }
        for version in [0, 1, 3, 15] {
            check(
                &version_2(version * 16 + 1, 0x11, &[0; 12]),
                Err(HeaderError::UnknownVersion),
            );
        }
        // Incomplete.
        let whole = version_2(0x21, 0x11, &[0; 12]);
        for length in [12, 13, 15, 16, 27] {
            check(&whole[..length], Ok(None));
        }
    }

    /// Addresses from a generator with a fixed seed (xorshift64*).
    fn random_address(state: &mut u64, is_ipv4: bool) -> SocketAddr {
        let mut next = || {
            *state ^= *state >> 12;
            *state ^= *state << 25;
            *state ^= *state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()
        };
        let (high, low, port) = (next(), next(), next());
        let port = u16::from_be_bytes([port[0], port[1]]);
        if is_ipv4 {
            return SocketAddr::from(([low[0], low[1], low[2], low[3]], port));
        }
        // A zero run now and then, so that "::" is written at each place.
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&high);
        octets[8..].copy_from_slice(&low);
        let zeros = usize::from(low[7] % 16);
        octets[zeros..(zeros + usize::from(low[6] % 8)).min(16)].fill(0);
        SocketAddr::from((octets, port))
    }

    #[test]
    fn every_address_survives_both_versions() {
        let mut state = 1;
        for round in 0..2000 {
            let is_ipv4 = round % 2 == 0;
            let source = random_address(&mut state, is_ipv4);
            let destination = random_address(&mut state, is_ipv4);
            let expected = Header::Proxied {
                source: canonical(source),
                destination: canonical(destination),
            };
            let (word, family) = if is_ipv4 {
                ("TCP4", 0x11)
            } else {
                ("TCP6", 0x21)
            };
            let line = format!(
                "PROXY {word} {} {} {} {}\r\n",
                source.ip(),
                destination.ip(),
                source.port(),
                destination.port()
            );
            let parse = |bytes: &[u8]| HeaderParser::default().push(bytes);
            assert_eq!(parse(line.as_bytes()), Ok(Some(expected)), "{line}");
            let bytes = version_2(0x21, family, &addresses(source, destination));
            assert_eq!(parse(&bytes), Ok(Some(expected)), "{line}");
        }
    }
}
