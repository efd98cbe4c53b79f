//! What a container wrote before anybody attached to it, so that `cuboid run` in the foreground shows all of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Bytes that are kept.
const LIMIT: usize = 65_536;
/// What a piece takes besides its bytes; a program that writes byte by byte must not cost more memory than another.
const PIECE_COST: usize = 64;
/// Small writes of one stream are put together up to this many bytes.
const JOINED: usize = 4_096;
/// An attachment that was announced comes within this time after the start, or nothing waits for it any more.
const PATIENCE: Duration = Duration::from_secs(15);

/// A stream (1 stdout, 2 stderr) and what was written to it.
pub type Piece = (u8, Vec<u8>);

/// The newest output of a container until somebody takes it.
pub struct History {
    kept: RefCell<Kept>,
    taken: watch::Sender<bool>,
    /// Until when output waits for the taker rather than that the oldest goes.
    patient_until: Option<Instant>,
}

#[derive(Default)]
struct Kept {
    pieces: VecDeque<Piece>,
    cost: usize,
}

impl History {
    /// `awaited`: a taker has been announced.
    pub fn new(awaited: bool) -> Self {
        Self {
            kept: RefCell::default(),
            taken: watch::Sender::new(false),
            patient_until: awaited.then(|| Instant::now() + PATIENCE),
        }
    }

    /// Everything that is kept, once; from now on nothing is.
    pub fn take(&self) -> Option<VecDeque<Piece>> {
        if self.taken.send_replace(true) {
            return None;
        }
        Some(std::mem::take(&mut *self.kept.borrow_mut()).pieces)
    }

    /// Waits while a taker is awaited and `count` more bytes would push out what it has not seen.
    pub async fn wait_room(&self, count: usize) {
        let Some(until) = self.patient_until else { return };
        if *self.taken.borrow() || self.kept.borrow().cost + count <= LIMIT {
            return;
        }
        let mut taken = self.taken.subscribe();
        // Taken or given up: either way the writer goes on.
        let _ = timeout_at(until, taken.wait_for(|taken| *taken)).await;
    }

    /// Keeps what was written, unless it has been taken; the oldest goes to make room.
    pub fn add(&self, channel: u8, bytes: &[u8]) {
        if *self.taken.borrow() {
            return;
        }
        self.kept.borrow_mut().add(channel, bytes);
    }
}

impl Kept {
    fn add(&mut self, channel: u8, bytes: &[u8]) {
        self.cost += bytes.len();
        match self.pieces.back_mut() {
            Some((last, piece)) if *last == channel && piece.len() + bytes.len() <= JOINED => {
                piece.extend_from_slice(bytes);
            }
            _ => {
                self.cost += PIECE_COST;
                self.pieces.push_back((channel, bytes.to_vec()));
            }
        }
        while self.cost > LIMIT && self.pieces.len() > 1 {
            if let Some((_, oldest)) = self.pieces.pop_front() {
                self.cost -= oldest.len() + PIECE_COST;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &VecDeque<Piece>) -> Vec<u8> {
        pieces.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    #[test]
    fn it_is_given_once_and_in_order() {
        let history = History::new(false);
        history.add(1, b"a");
        history.add(1, b"b");
        history.add(2, b"c");
        assert_eq!(history.take(), Some(VecDeque::from([(1, b"ab".to_vec()), (2, b"c".to_vec())])));
        history.add(1, b"later");
        assert_eq!(history.take(), None);
    }

    #[test]
    fn the_newest_is_kept_without_a_gap_and_bounded_however_it_is_written() {
        for size in [1, 7, 4_096, 65_536] {
            let history = History::new(false);
            let all: Vec<u8> = (0..300_000u32).map(|number| (number % 251) as u8).collect();
            for (turn, piece) in all.chunks(size).enumerate() {
                history.add(1 + (turn % 2) as u8, piece);
            }
            let pieces = history.take().unwrap();
            assert!(all.ends_with(&text(&pieces)) && !pieces.is_empty(), "{size}");
            assert!(pieces.iter().map(|(_, bytes)| bytes.len() + PIECE_COST).sum::<usize>() <= LIMIT + PIECE_COST);
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn output_waits_for_an_awaited_taker_and_for_no_other() {
        let unasked = History::new(false);
        unasked.add(1, &[0; LIMIT]);
        unasked.wait_room(1).await;
        let history = History::new(true);
        history.wait_room(LIMIT).await;
        history.add(1, &[0; LIMIT]);
        let begin = Instant::now();
        history.wait_room(1).await;
        assert_eq!(begin.elapsed(), PATIENCE);
        let fresh = History::new(true);
        fresh.add(1, &[0; LIMIT]);
        let begin = Instant::now();
        tokio::join!(fresh.wait_room(1), async { assert!(fresh.take().is_some()) });
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
