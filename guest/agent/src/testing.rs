//! What several tests use.

/// A small deterministic generator (xorshift64), so that the tests need no crate for it.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn bytes(&mut self, limit: usize) -> Vec<u8> {
        (0..self.below(limit)).map(|_| self.next() as u8).collect()
    }

    /// Bytes, not empty, of which a few are changed; sometimes some are taken out or put in.
    pub fn spoil(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            bytes[at] = self.next() as u8;
        }
        if self.below(4) == 0 {
            let at = self.below(bytes.len());
            let end = (at + self.below(9)).min(bytes.len());
            let fresh = self.bytes(9);
            bytes.splice(at..end, fresh);
        }
        bytes
    }
}
