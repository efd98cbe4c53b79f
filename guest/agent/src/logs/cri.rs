//! Cuts a program's output into the lines of Kubernetes' log format.

/// A longer line is written in pieces of at most this many bytes.
pub const PIECE: usize = 16_384;

/// Cuts the bytes of one stream of a container. Holds the start of a line until its end comes.
pub struct Cutter {
    stream: &'static str,
    pending: Vec<u8>,
}

impl Cutter {
    /// `stream`: "stdout" or "stderr".
    pub fn new(stream: &'static str) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Appends the finished lines (and full pieces) of `bytes` to `out`, all stamped with the time of this read.
    pub fn cut(&mut self, mut bytes: &[u8], stamp: &str, out: &mut Vec<u8>) {
        let full = format!("{stamp} {} F ", self.stream);
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            let line = self.pieces(line, stamp, out);
            out.extend_from_slice(full.as_bytes());
            out.extend_from_slice(&self.pending);
            self.pending.clear();
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        let rest = self.pieces(bytes, stamp, out);
        self.pending.extend_from_slice(rest);
    }

    /// Writes pieces while what is held and `line` together are longer than one; gives what is left of `line`.
    fn pieces<'a>(&mut self, mut line: &'a [u8], stamp: &str, out: &mut Vec<u8>) -> &'a [u8] {
        while self.pending.len() + line.len() > PIECE {
            let (head, tail) = line.split_at(PIECE - self.pending.len());
            out.extend_from_slice(format!("{stamp} {} P ", self.stream).as_bytes());
            out.extend_from_slice(&self.pending);
            self.pending.clear();
            out.extend_from_slice(head);
            out.push(b'\n');
            line = tail;
        }
        line
    }

    /// The stream has ended: a last line without its end is a line.
    pub fn finish(&mut self, stamp: &str, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.cut(b"\n", stamp, out);
        }
    }
}

/// RFC 3339 in UTC with nanoseconds, always 30 characters: `2026-01-02T03:04:05.123456789Z`.
pub fn stamp(unix_ns: u64) -> String {
    let (seconds, nanos) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// (year, month, day) of a day since 1970. Years start in March here, so that the leap day is the last of one.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> String {
        let (mut cutter, mut out) = (Cutter::new("stdout"), Vec::new());
        for piece in pieces {
            cutter.cut(piece, "T", &mut out);
        }
        cutter.finish("E", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_over_several_reads_is_one_line() {
        assert_eq!(cut(&[b"a\nb", b"c\n\nd"]), "T stdout F a\nT stdout F bc\nT stdout F \nE stdout F d\n");
    }

    #[test]
    fn a_long_line_is_cut_into_pieces() {
        let line = "x".repeat(PIECE + 1) + "\n";
        let expected = format!("T stdout P {}\nT stdout F x\n", "x".repeat(PIECE));
        assert_eq!(cut(&[line.as_bytes()]), expected);
    }

    #[test]
    fn a_line_of_just_one_piece_is_whole() {
        let line = "x".repeat(PIECE) + "\n";
        assert_eq!(cut(&[line.as_bytes()]), format!("T stdout F {line}"));
        let (first, second) = line.as_bytes().split_at(100);
        assert_eq!(cut(&[first, second]), format!("T stdout F {line}"));
    }

    #[test]
    fn how_the_bytes_are_read_changes_nothing() {
        let text: Vec<u8> =
            (0..100_000u32).map(|n| if n % 40_007 == 7 { b'\n' } else { b'a' + (n % 26) as u8 }).collect();
        let whole = cut(&[&text]);
        for size in [1, 7, 4_096, 16_384, 16_385] {
            let pieces: Vec<_> = text.chunks(size).collect();
            assert_eq!(cut(&pieces).replace("E ", "T "), whole.replace("E ", "T "), "{size}");
        }
    }

    #[test]
    fn the_stamp_is_rfc_3339() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(stamp(1_709_210_096_123_456_789), "2024-02-29T12:34:56.123456789Z");
        assert_eq!(stamp(4_102_444_799_000_000_001), "2099-12-31T23:59:59.000000001Z");
    }
}
