//! The frames of the channel, as bytes and back. Pure: no I/O, no clock. docs/design/0002-agent-channel.md has the format.

use bytes::{Buf, Bytes, BytesMut};

pub const MAGIC: [u8; 2] = [0xb1, 0xc0];
pub const HEADER: usize = 16;
/// Bytes of payload that a frame holds at most.
pub const MAX_PAYLOAD: usize = 65_536;
/// Flag of CALL and REPLY: the message goes on in the next frame of this type.
pub const MORE: u8 = 1;
/// Bytes of one message over all its frames at most: a Setup with many ConfigMaps.
pub const MAX_MESSAGE: usize = 8 << 20;
/// A HELLO is a version and a nonce of 16 bytes; while out of step nothing longer is believed to be one.
const MAX_HELLO: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Hello = 1,
    HelloAck = 2,
    Call = 3,
    Reply = 4,
    Data = 5,
    Credit = 6,
    End = 7,
    Reset = 8,
    Event = 9,
    EventAck = 10,
    Ping = 11,
    Pong = 12,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        const ALL: [Kind; 12] = [Hello, HelloAck, Call, Reply, Data, Credit, End, Reset, Event, EventAck, Ping, Pong];
        ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub flags: u8,
    pub stream: u32,
    pub payload: Bytes,
}

struct Header {
    kind: Kind,
    flags: u8,
    stream: u32,
    length: usize,
    crc: u32,
}

impl Header {
    /// None if these bytes cannot start a frame.
    fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let [m0, m1, kind, flags, s0, s1, s2, s3, l0, l1, l2, l3, c0, c1, c2, c3] = *bytes;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if [m0, m1] != MAGIC || length > MAX_PAYLOAD {
            return None;
        }
        Some(Self {
            kind: Kind::from_byte(kind)?,
            flags,
            stream: u32::from_le_bytes([s0, s1, s2, s3]),
            length,
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        })
    }
}

fn header(kind: Kind, flags: u8, stream: u32, length: usize) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..2].copy_from_slice(&MAGIC);
    bytes[2] = kind as u8;
    bytes[3] = flags;
    bytes[4..8].copy_from_slice(&stream.to_le_bytes());
    // A length beyond u32 cannot be: callers hold to MAX_PAYLOAD, and a receiver refuses the frame otherwise.
    bytes[8..12].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    bytes
}

/// Append a frame in the guest's form: no CRC, the host needs none (see "Refused" in the design note).
pub fn append(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    out.reserve(HEADER + payload.len());
    out.extend_from_slice(&header(kind, flags, stream, payload.len()));
    out.extend_from_slice(payload);
}

/// Append a message, cut into as many frames as it needs.
pub fn append_message(out: &mut Vec<u8>, kind: Kind, stream: u32, message: &[u8]) {
    let mut rest = message;
    while rest.len() > MAX_PAYLOAD {
        let (piece, later) = rest.split_at(MAX_PAYLOAD);
        append(out, kind, MORE, stream, piece);
        rest = later;
    }
    append(out, kind, 0, stream, rest);
}

/// Append a frame in the host's form, with its CRC. The agent never sends one; tests and the fuzzer do.
pub fn append_checked(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    let start = out.len();
    append(out, kind, flags, stream, payload);
    let crc = checksum(&out[start..start + 12], payload);
    out[start + 12..start + HEADER].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// Finds the host's frames in a byte stream.
///
/// Between frames zero bytes are skipped. At anything that is not a whole frame with the right CRC the decoder is out of
/// step: it then looks for the next HELLO byte by byte and believes nothing else, so that bytes inside a broken frame
/// (a tenant's file, say) are never taken for a call. Memory stays below one frame plus what one read brings.
pub struct Decoder {
    buffer: BytesMut,
    in_step: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    pub fn new() -> Self {
        Self { buffer: BytesMut::new(), in_step: false }
    }

    /// Where to read into. Everything in it belongs to the decoder afterwards.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The host has gone: what follows starts with a HELLO.
    pub fn lose_step(&mut self) {
        self.in_step = false;
        self.buffer.clear();
    }

    /// The next whole frame; None when more bytes are needed.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            self.skip_to_candidate()?;
            let head = self.buffer.first_chunk::<HEADER>()?;
            match Header::parse(head).filter(|header| self.believable(header)) {
                Some(header) if self.buffer.len() < HEADER + header.length => return None,
                Some(header) if self.intact(&header) => return Some(self.take(&header)),
                _ => self.step_over(),
            }
        }
    }

    /// Drop what cannot start a frame; None if nothing is left.
    fn skip_to_candidate(&mut self) -> Option<()> {
        let start = if self.in_step {
            self.buffer.iter().position(|&byte| byte != 0)
        } else {
            memchr::memchr(MAGIC[0], &self.buffer)
        };
        match start {
            Some(count) => self.buffer.advance(count),
            None => self.buffer.clear(),
        }
        start.map(|_| ())
    }

    fn believable(&self, header: &Header) -> bool {
        self.in_step || (header.kind == Kind::Hello && header.length <= MAX_HELLO)
    }

    fn intact(&self, header: &Header) -> bool {
        checksum(&self.buffer[..12], &self.buffer[HEADER..HEADER + header.length]) == header.crc
    }

    fn take(&mut self, header: &Header) -> Frame {
        self.in_step = true;
        self.buffer.advance(HEADER);
        let payload = self.buffer.split_to(header.length).freeze();
        Frame { kind: header.kind, flags: header.flags, stream: header.stream, payload }
    }

    fn step_over(&mut self) {
        self.in_step = false;
        self.buffer.advance(1);
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
