//! Where the frames of a WebSocket begin and end (RFC 6455, section 5.2), so that
//! a frame of ours can be put between two of them. Nothing else is looked at.

/// The opcodes that there are: of data, and of control (section 11.8).
const CONTINUATION: u8 = 0x0;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PONG: u8 = 0xA;

/// The longest payload of a control frame (section 5.5).
const MOST_CONTROL: u64 = 125;

/// A close frame's status: "going away" (section 7.4.1).
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

/// How far one direction has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frames {
    place: Place,
    closed: bool,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// In the head of a frame, of which `have` bytes have come.
    Head { head: [u8; 14], have: usize },
    /// In its payload, of which so many bytes are still to come.
    Payload(u64),
    /// These are no frames.
    Lost,
}

const START: Place = Place::Head {
    head: [0; 14],
    have: 0,
};

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            place: START,
            closed: false,
        }
    }

    /// Whether a frame could begin now.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.place, Place::Head { have: 0, .. })
    }

    /// Whether what passed were not frames.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.place, Place::Lost)
    }

    /// Whether a close frame has passed: none may follow (section 5.5.1).
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// All of `bytes` pass.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let length = self.step(bytes);
            bytes = &bytes[length..];
        }
    }

    /// How many of `bytes` belong to the frame that has begun.
    pub(super) fn rest(&self, bytes: &[u8]) -> usize {
        match self.is_between() {
            true => 0,
            false => self.clone().step(bytes),
        }
    }

    /// Goes on to the end of `bytes` or of the frame; how many bytes that were.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            match &mut self.place {
                Place::Lost => return bytes.len(),
                Place::Head { head, have } => {
                    head[*have] = bytes[used];
                    *have += 1;
                    used += 1;
                    if *have < 2 || *have < length_of_head(head[1]) {
                        continue;
                    }
                    let (opcode, payload) = (head[0] & 0xF, length_of_payload(head));
                    self.place = match payload {
                        Some(0) => START,
                        Some(length) => Place::Payload(length),
                        None => Place::Lost,
                    };
                    self.closed |= payload.is_some() && opcode == CLOSE;
                    if self.is_between() {
                        return used;
                    }
                }
                Place::Payload(left) => {
                    let all = (bytes.len() - used) as u64;
                    let some = all.min(*left);
                    *left -= some;
                    used += some as usize;
                    if *left == 0 {
                        self.place = START;
                        return used;
                    }
                }
            }
        }
        used
    }
}

/// The length of a head whose second byte is this.
fn length_of_head(second: u8) -> usize {
    let length = match second & 0x7F {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    length + if second & 0x80 == 0 { 0 } else { 4 }
}

/// The length that a whole head tells; `None` if it is no head.
fn length_of_payload(head: &[u8; 14]) -> Option<u64> {
    let (opcode, last) = (head[0] & 0xF, head[0] & 0x80 != 0);
    let length = match head[1] & 0x7F {
        126 => u64::from(u16::from_be_bytes([head[2], head[3]])),
        127 => u64::from_be_bytes(head[2..10].try_into().ok()?),
        short => u64::from(short),
    };
    let valid = match opcode {
        CONTINUATION..=BINARY => length <= i64::MAX as u64,
        CLOSE..=PONG => last && length <= MOST_CONTROL,
        _ => false,
    };
    valid.then_some(length)
}

/// A close frame that says "going away"; masked, as towards a server.
pub(super) fn going_away(mask: Option<[u8; 4]>) -> Vec<u8> {
    let length = GOING_AWAY.len() as u8;
    match mask {
        None => [&[0x80 | CLOSE, length], &GOING_AWAY[..]].concat(),
        Some(mask) => {
            let masked = [GOING_AWAY[0] ^ mask[0], GOING_AWAY[1] ^ mask[1]];
            [&[0x80 | CLOSE, 0x80 | length], &mask[..], &masked[..]].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{self, Random};

    fn frame(first: u8, length: usize, mask: bool) -> Vec<u8> {
        let masked = if mask { 0x80 } else { 0 };
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(masked | length as u8),
            126..65536 => {
                frame.push(masked | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(masked | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if mask {
            frame.extend_from_slice(&[1, 2, 3, 4]);
        }
        // What would be heads if it were read as such.
        frame.resize(frame.len() + length, 0x88);
        frame
    }

    #[test]
    fn the_end_of_each_frame_is_found_in_any_pieces() {
        for mask in [false, true] {
            for length in [0, 1, 125, 126, 127, 65535, 65536, 70000] {
                let frame = frame(0x82, length, mask);
                for piece in [1, 2, 3, 1000, 100_000] {
                    let mut frames = Frames::new();
                    let mut come = 0;
                    for piece in frame.chunks(piece) {
                        assert_eq!(frames.is_between(), come == 0);
                        let with_more = [piece, &[0x81; 20]].concat();
                        if come > 0 && come + piece.len() == frame.len() {
                            assert_eq!(frames.rest(&with_more), piece.len());
                        }
                        frames.pass(piece);
                        come += piece.len();
                    }
                    assert!(frames.is_between() && !frames.is_closed() && !frames.is_lost());
                }
            }
        }
    }

    #[test]
    fn a_close_frame_is_known_and_what_is_no_frame_as_well() {
        let mut frames = Frames::new();
        frames.pass(
            &[
                frame(0x01, 5, true),
                frame(0x89, 5, true),
                frame(0x80, 1, true),
            ]
            .concat(),
        );
        assert!(!frames.is_closed());
        frames.pass(&going_away(Some([9; 4])));
        assert!(frames.is_closed() && frames.is_between());
        let mut frames = Frames::new();
        frames.pass(&going_away(None));
        assert!(frames.is_closed() && frames.is_between());
        for wrong in [
            &b"greeting"[..],
            &[0x83, 0],
            &[0x8B, 0],
            &[0x88, 126, 0, 126],
            &[0x08, 0],
            &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let mut frames = Frames::new();
            frames.pass(wrong);
            assert!(frames.is_lost() && !frames.is_closed(), "{wrong:?}");
            assert_eq!(frames.rest(b"abc"), 3);
        }
    }

    /// RFC 6455, sections 5.3 and 7.4.1.
    #[test]
    fn a_close_frame_says_going_away_masked_or_not() {
        assert_eq!(going_away(None), [0x88, 2, 0x03, 0xE9]);
        let masked = going_away(Some([0xFF, 0, 0xAA, 0xBB]));
        assert_eq!(masked, [0x88, 0x82, 0xFF, 0, 0xAA, 0xBB, 0xFC, 0xE9]);
    }

    /// Against frames that were put together, cut anywhere.
    #[test]
    fn fuzz_frames() {
        fuzz::run(20_000, |random: &mut Random| {
            let count = random.below(6);
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            let mut close = None;
            for number in 0..count {
                let opcode = [0x00, 0x01, 0x02, 0x82, 0x88, 0x89, 0x8A, 0xC1][random.below(8)];
                let longest = if opcode & 0x08 == 0 { 300 } else { 126 };
                let mask = random.below(2) == 0;
                bytes.extend(frame(opcode, random.below(longest), mask));
                ends.push(bytes.len());
                if opcode == 0x88 {
                    close.get_or_insert(number);
                }
            }
            let mut frames = Frames::new();
            let mut come = 0;
            while come < bytes.len() {
                let piece = (1 + random.below(200)).min(bytes.len() - come);
                let next = ends.iter().find(|end| **end > come).copied();
                let next = next.unwrap_or(bytes.len());
                if !ends.contains(&come) {
                    assert_eq!(frames.rest(&bytes[come..]), next - come);
                }
                frames.pass(&bytes[come..come + piece]);
                come += piece;
                assert_eq!(frames.is_between(), ends.contains(&come));
            }
            assert_eq!(frames.is_closed(), close.is_some());
            assert!(!frames.is_lost());
        });
    }
}
