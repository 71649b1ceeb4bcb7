//! The beginning of a connection, as a proxy or any other peer sends it: the first byte
//! is the length of the parts that the rest arrives in; 0 is all of it at once.
#![no_main]

use greeter::proxy_protocol::{Header, HeaderError, HeaderParser};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = HeaderParser::default().push(bytes);
    let parts = match length {
        0 => bytes.len().max(1),
        length => usize::from(*length),
    };
    assert_eq!(parse(bytes, parts), whole);
    assert_eq!(parse(bytes, 1), whole);
    match whole {
        Ok(Some(Header::Proxied {
            source,
            destination,
        })) => {
            for address in [source, destination] {
                assert_eq!(address.ip(), address.ip().to_canonical());
            }
        }
        Ok(Some(Header::Own) | None) => {}
        // The other two are not the parser's: they need a clock, and the peer's end.
        Err(error) => assert!(!matches!(
            error,
            HeaderError::Late | HeaderError::Incomplete
        )),
    }
});

fn parse(bytes: &[u8], parts: usize) -> Result<Option<Header>, HeaderError> {
    let mut parser = HeaderParser::default();
    for part in bytes.chunks(parts) {
        if let Some(header) = parser.push(part)? {
            return Ok(Some(header));
        }
    }
    Ok(None)
}
