//! The tar format, as far as copies need it: POSIX with pax headers; GNU's long names are read as well.

/// Everything in a tar comes in blocks of this size.
pub const BLOCK: usize = 512;
/// A pax or GNU long-name record above this is refused.
pub const RECORD_LIMIT: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Link,
    Character,
    Block,
    Folder,
    Pipe,
    /// A pax header for the next entry.
    Pax,
    /// A pax header for all that follow.
    Global,
    /// GNU: the next entry's name, or its link's target.
    LongName,
    LongTarget,
}

/// What a header says about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    pub path: Vec<u8>,
    pub target: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub seconds: i64,
    pub device: (u32, u32),
}

/// Bytes behind an entry's content up to the next block.
pub fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

fn kind_of(flag: u8) -> Option<Kind> {
    Some(match flag {
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Link,
        b'3' => Kind::Character,
        b'4' => Kind::Block,
        b'5' => Kind::Folder,
        b'6' => Kind::Pipe,
        b'x' => Kind::Pax,
        b'g' => Kind::Global,
        b'L' => Kind::LongName,
        b'K' => Kind::LongTarget,
        _ => return None,
    })
}

fn flag_of(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Link => b'2',
        Kind::Character => b'3',
        Kind::Block => b'4',
        Kind::Folder => b'5',
        Kind::Pipe => b'6',
        Kind::Pax => b'x',
        Kind::Global => b'g',
        Kind::LongName => b'L',
        Kind::LongTarget => b'K',
    }
}

fn text(field: &[u8]) -> &[u8] {
    &field[..memchr::memchr(0, field).unwrap_or(field.len())]
}

/// Octal digits, or GNU's binary form (first bit set) for large numbers.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let append = |value: u64, byte: &u8| Some(value.checked_mul(256)? | u64::from(*byte));
        return if *first == 0x80 { rest.iter().try_fold(0, append) } else { None };
    }
    let digits = std::str::from_utf8(text(field)).ok()?.trim();
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
    sum - own + 8 * u64::from(b' ')
}

/// The entry of a header block. None: it is no header.
pub fn parse(block: &[u8; BLOCK]) -> Option<Entry> {
    if number(&block[148..156])? != checksum(block) {
        return None;
    }
    let small = |field: &[u8]| number(field).and_then(|value| u32::try_from(value).ok());
    let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
    let path = if &block[257..262] == b"ustar" && block[262] == 0 && !prefix.is_empty() {
        [prefix, b"/", name].concat()
    } else {
        name.to_vec()
    };
    Some(Entry {
        kind: kind_of(block[156])?,
        path,
        target: text(&block[157..257]).to_vec(),
        mode: small(&block[100..108])?,
        uid: small(&block[108..116])?,
        gid: small(&block[116..124])?,
        size: number(&block[124..136])?,
        seconds: number(&block[136..148])?.try_into().ok()?,
        device: (small(&block[329..337]).unwrap_or(0), small(&block[337..345]).unwrap_or(0)),
    })
}

impl Entry {
    /// Takes over what a pax record says: lines of "LENGTH KEY=VALUE\n". None: it is malformed.
    pub fn apply_pax(&mut self, mut record: &[u8]) -> Option<()> {
        while !record.is_empty() {
            let space = memchr::memchr(b' ', record)?;
            let length: usize = std::str::from_utf8(&record[..space]).ok()?.parse().ok()?;
            let line = record.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = memchr::memchr(b'=', line)?;
            self.apply(&line[..equals], &line[equals + 1..])?;
            record = &record[length..];
        }
        Some(())
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let word = || std::str::from_utf8(value).ok();
        match key {
            b"path" => self.path = value.to_vec(),
            b"linkpath" => self.target = value.to_vec(),
            b"size" => self.size = word()?.parse().ok()?,
            b"uid" => self.uid = word()?.parse().ok()?,
            b"gid" => self.gid = word()?.parse().ok()?,
            b"mtime" => self.seconds = word()?.split('.').next()?.parse().ok()?,
            _ => {}
        }
        Some(())
    }

    /// The header, with a pax header before it if something does not fit.
    pub fn encode(&self) -> Vec<u8> {
        let mut record = Vec::new();
        if self.path.len() > 100 {
            pax_line(&mut record, "path", &self.path);
        }
        if self.target.len() > 100 {
            pax_line(&mut record, "linkpath", &self.target);
        }
        for (key, value, limit) in [
            ("size", self.size, 0o777_7777_7777),
            ("uid", u64::from(self.uid), 0o777_7777),
            ("gid", u64::from(self.gid), 0o777_7777),
        ] {
            if value > limit {
                pax_line(&mut record, key, value.to_string().as_bytes());
            }
        }
        let mut out = Vec::with_capacity(BLOCK * 3);
        if !record.is_empty() {
            let size = record.len() as u64;
            let pax = Self { kind: Kind::Pax, path: b"pax".to_vec(), target: Vec::new(), size, ..self.clone() };
            out.extend_from_slice(&pax.block());
            out.extend_from_slice(&record);
            out.resize(out.len() + padding(size), 0);
        }
        out.extend_from_slice(&self.block());
        out
    }

    /// The header block alone; what does not fit is cut.
    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        let octal = |value: u64, digits: usize| {
            let value = value & ((1 << (3 * digits)) - 1);
            format!("{value:0digits$o}").into_bytes()
        };
        put(0, &self.path[..self.path.len().min(100)]);
        put(100, &octal(u64::from(self.mode & 0o7777), 7));
        put(108, &octal(u64::from(self.uid), 7));
        put(116, &octal(u64::from(self.gid), 7));
        put(124, &octal(self.size, 11));
        put(136, &octal(self.seconds.max(0) as u64, 11));
        put(156, &[flag_of(self.kind)]);
        put(157, &self.target[..self.target.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, &octal(u64::from(self.device.0), 7));
        put(337, &octal(u64::from(self.device.1), 7));
        let sum = octal(checksum(&block), 6);
        block[148..154].copy_from_slice(&sum);
        block[154..156].copy_from_slice(b"\0 ");
        block
    }
}

/// Appends "LENGTH KEY=VALUE\n", where the length counts itself.
fn pax_line(record: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    record.extend_from_slice(format!("{length} {key}=").as_bytes());
    record.extend_from_slice(value);
    record.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &[u8], size: u64) -> Entry {
        Entry {
            kind: Kind::File,
            path: path.to_vec(),
            target: Vec::new(),
            mode: 0o644,
            uid: 1000,
            gid: 5,
            size,
            seconds: 1_700_000_000,
            device: (0, 0),
        }
    }

    fn decode(bytes: &[u8]) -> Entry {
        let (mut at, mut pax) = (0, Vec::new());
        loop {
            let mut found = parse(bytes[at..at + BLOCK].try_into().unwrap()).unwrap();
            at += BLOCK;
            if found.kind == Kind::Pax {
                pax = bytes[at..at + found.size as usize].to_vec();
                at += found.size as usize + padding(found.size);
                continue;
            }
            found.apply_pax(&pax).unwrap();
            assert_eq!(at, bytes.len());
            return found;
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let long = [b'x'; 300];
        let huge = 1 << 40;
        let link = Entry { kind: Kind::Link, target: long.to_vec(), size: 0, ..entry(b"l", 0) };
        let large_owner = Entry { uid: 3_000_000, gid: u32::MAX, ..entry(b"o", 1) };
        for wanted in [entry(b"a/b", 7), entry(&long, 0), entry(b"\xff\xfe", 3), entry(b"big", huge), link, large_owner]
        {
            assert_eq!(decode(&wanted.encode()), wanted);
        }
    }

    #[test]
    fn the_length_of_a_pax_line_counts_itself() {
        for size in [1, 90, 91, 92, 93, 94, 989, 990, 991, 992] {
            let mut record = Vec::new();
            pax_line(&mut record, "path", &vec![b'a'; size]);
            let mut found = entry(b"", 0);
            found.apply_pax(&record).unwrap();
            assert_eq!(found.path.len(), size);
        }
    }

    #[test]
    fn a_number_may_be_binary_in_a_field_of_any_size() {
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 2]), Some(258));
        assert_eq!(number(&[0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), Some(1 << 56));
        assert_eq!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(number(&[0xff; 8]), None);
    }

    #[test]
    fn garbage_is_no_header() {
        assert_eq!(parse(&[b'x'; BLOCK]), None);
        let mut block = entry(b"a", 1).block();
        block[0] = b'b';
        assert_eq!(parse(&block), None);
    }

    #[test]
    fn malformed_pax_records_are_refused() {
        for record in
            [&b"99 path=x\n"[..], b"x path=y\n", b"9 path=xy", b"7 path\n", b"0 \n", b"18446744073709551615 a=b\n"]
        {
            assert_eq!(entry(b"", 0).apply_pax(record), None, "{record:?}");
        }
    }

    #[test]
    fn content_is_padded_to_whole_blocks() {
        assert_eq!((padding(0), padding(1), padding(512), padding(513)), (0, 511, 0, 511));
        assert_eq!(padding(u64::MAX), 1);
    }
}
