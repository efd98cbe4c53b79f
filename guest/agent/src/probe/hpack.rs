//! As much of HPACK (RFC 7541) as finds the status of a gRPC call in a block of headers.
//!
//! The agent allows no dynamic table, so that every header stands by itself: an entry of the static table, or a name and
//! a value as literals. The status's name is in no table.

/// "grpc-status" in the Huffman code of RFC 7541, appendix B.
const STATUS_CODED: [u8; 8] = [0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f];
const STATUS: &[u8] = b"grpc-status";

/// The number of `grpc-status`; None if the block has none that can be read.
pub fn grpc_status(mut block: &[u8]) -> Option<u32> {
    while let Some(first) = block.first() {
        match first {
            0x80.. => drop(number(&mut block, 7)?),
            // The size of the dynamic table.
            0x20..0x40 => drop(number(&mut block, 5)?),
            _ => {
                let named = number(&mut block, if *first >= 0x40 { 6 } else { 4 })? > 0;
                let is_status = !named && is_status(string(&mut block)?);
                let value = string(&mut block)?;
                if is_status {
                    return digits(value);
                }
            }
        }
    }
    None
}

/// An integer whose first byte has `bits` bits of it.
fn number(block: &mut &[u8], bits: u32) -> Option<usize> {
    let (first, mut rest) = block.split_first()?;
    let mask = (1usize << bits) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        for shift in (0..28).step_by(7) {
            let (next, after) = rest.split_first()?;
            rest = after;
            value += usize::from(next & 0x7f) << shift;
            if next & 0x80 == 0 {
                *block = rest;
                return Some(value);
            }
        }
        return None;
    }
    *block = rest;
    Some(value)
}

/// A string: whether it is in the Huffman code, and its bytes.
fn string<'a>(block: &mut &'a [u8]) -> Option<(bool, &'a [u8])> {
    let coded = block.first()? & 0x80 != 0;
    let length = number(block, 7)?;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some((coded, text))
}

fn is_status((coded, name): (bool, &[u8])) -> bool {
    name == if coded { &STATUS_CODED[..] } else { STATUS }
}

/// A number of at most two digits. In the Huffman code, 0 to 2 have five bits, 3 to 9 six; the rest of a byte is ones.
fn digits((coded, value): (bool, &[u8])) -> Option<u32> {
    if !coded {
        return std::str::from_utf8(value).ok()?.parse().ok().filter(|status| *status < 100);
    }
    let [byte] = value else { return None };
    match byte {
        0x07 => Some(0),
        0x0f => Some(1),
        0x17 => Some(2),
        _ => (3..10).find(|digit| *byte == ((22 + *digit as u8) << 2 | 3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
        [&[0, name.len() as u8], name, &[value.len() as u8], value].concat()
    }

    #[test]
    fn the_status_is_found_among_other_headers() {
        let mut block = vec![0x88, 0x20, 0x5f, 0x01, b'x'];
        block.extend(literal(b"grpc-message", b"5"));
        assert_eq!(grpc_status(&block), None);
        block.extend(literal(STATUS, b"12"));
        assert_eq!(grpc_status(&block), Some(12));
    }

    #[test]
    fn the_status_may_be_in_the_huffman_code() {
        let block = |value: u8| [&[0x40, 0x88], &STATUS_CODED[..], &[0x81, value]].concat();
        // From the code's table: "0" is 00000, "5" is 011011, "9" is 011111.
        assert_eq!(grpc_status(&block(0b0000_0111)), Some(0));
        assert_eq!(grpc_status(&block(0b0110_1111)), Some(5));
        assert_eq!(grpc_status(&block(0b0111_1111)), Some(9));
        assert_eq!(grpc_status(&block(0xff)), None);
    }

    #[test]
    fn a_block_that_is_cut_or_odd_has_no_status() {
        let whole = literal(STATUS, b"5");
        for length in 0..whole.len() {
            assert_eq!(grpc_status(&whole[..length]), None, "{length}");
        }
        assert_eq!(grpc_status(&[0xff; 40]), None);
        assert_eq!(grpc_status(&[0x0f, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
