//! The form of a journal's files: a head, then records, each with its length
//! and its checksum. All numbers are little-endian.
//!
//! Times are nanoseconds since the Unix epoch. Keys are seeded hashes; what they
//! were made from is never written.

use std::num::NonZeroU32;

use super::checksum::checksum;
use super::clock::Reading;
use crate::pacing::Charge;

/// What a file begins with; the digit is the version of the form.
const MAGIC: &[u8; 16] = b"pacegate state 1";
pub(super) const HEAD: usize = MAGIC.len() + 8 + 8 + 4;

/// Length and checksum of a record.
const FRAME: usize = 2 + 4;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// What the keys of the records that follow are of.
    Kinds(Vec<u64>),
    /// So many requests had been started by `at`.
    Spent(Spent),
    /// From `at` until `until` so many may start without a record of their own.
    Reserved(Reserved),
    /// The clock was moved by so much; the times before this are by the old one.
    Moved(i64),
    /// Nobody knows what was spent until then.
    Lost(u64),
    /// Nothing follows in this file.
    End,
    /// What the clock read by which the times are that follow.
    Read(Reading),
    /// The upstream wants to be left alone.
    Paused(Paused),
}

/// Requests that have started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) at: u64,
    pub(super) times: NonZeroU32,
    pub(super) charge: Charge,
}

/// A pause that the upstream asked for: nothing starts before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paused {
    pub(super) at: u64,
    pub(super) until: u64,
    /// Whose request it answered so.
    pub(super) charge: Charge,
}

/// Requests without keys that cost one each and may be starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reserved {
    pub(super) at: u64,
    pub(super) until: u64,
    pub(super) turns: u32,
    /// How many of the last reservation have started.
    pub(super) used: u32,
}

/// The head of a file: the seed of its keys, and its number.
pub(super) fn head(seed: u64, number: u64) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend(seed.to_le_bytes());
    head.extend(number.to_le_bytes());
    head.extend(checksum(&head).to_le_bytes());
    head
}

/// The number in a file's head; `None` if it is damaged or has another seed.
pub(super) fn read_head(file: &[u8], seed: u64) -> Option<u64> {
    let given = file.get(..HEAD)?;
    let number = u64::from_le_bytes(given[24..32].try_into().ok()?);
    (given == head(seed, number)).then_some(number)
}

impl Record {
    /// Appends the record to `to`.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend([0; FRAME]);
        match self {
            Self::Kinds(kinds) => {
                to.push(1);
                kinds.iter().for_each(|kind| to.extend(kind.to_le_bytes()));
            }
            Self::Spent(spent) => {
                to.push(2);
                to.extend(spent.at.to_le_bytes());
                to.extend(spent.times.get().to_le_bytes());
                to.extend(spent.charge.cost.get().to_le_bytes());
                let keys = spent.charge.keys().iter();
                keys.for_each(|key| to.extend(key.to_le_bytes()));
            }
            Self::Reserved(reserved) => {
                to.push(3);
                to.extend(reserved.at.to_le_bytes());
                to.extend(reserved.until.to_le_bytes());
                to.extend(reserved.turns.to_le_bytes());
                to.extend(reserved.used.to_le_bytes());
            }
            Self::Moved(by) => {
                to.push(4);
                to.extend(by.to_le_bytes());
            }
            Self::Lost(at) => {
                to.push(5);
                to.extend(at.to_le_bytes());
            }
            Self::End => to.push(6),
            Self::Read(reading) => {
                to.push(7);
                to.extend(reading.boot.to_le_bytes());
                to.extend(reading.up.to_le_bytes());
                to.extend(reading.wall.to_le_bytes());
            }
            Self::Paused(paused) => {
                to.push(8);
                to.extend(paused.at.to_le_bytes());
                to.extend(paused.until.to_le_bytes());
                let keys = paused.charge.keys().iter();
                keys.for_each(|key| to.extend(key.to_le_bytes()));
            }
        }
        let payload = start + FRAME;
        // A limit names few kinds of keys: far below what the length can say.
        let length = u16::try_from(to.len() - payload).unwrap_or(u16::MAX);
        let sum = checksum(&to[payload..]);
        to[start..start + 2].copy_from_slice(&length.to_le_bytes());
        to[start + 2..payload].copy_from_slice(&sum.to_le_bytes());
    }

    /// Takes the first record off `bytes`; `None` if it is damaged.
    pub(super) fn read(bytes: &mut &[u8]) -> Option<Self> {
        let length = u16::from_le_bytes(take(bytes)?);
        let sum = u32::from_le_bytes(take(bytes)?);
        let (mut payload, rest) = bytes.split_at_checked(usize::from(length))?;
        *bytes = rest;
        if checksum(payload) != sum {
            return None;
        }
        let payload = &mut payload;
        let [kind] = take(payload)?;
        let record = match kind {
            1 => Self::Kinds(numbers(payload)),
            2 => Self::Spent(Spent {
                at: u64::from_le_bytes(take(payload)?),
                times: NonZeroU32::new(u32::from_le_bytes(take(payload)?))?,
                charge: Charge::new(
                    NonZeroU32::new(u32::from_le_bytes(take(payload)?))?,
                    numbers(payload).into(),
                    0,
                ),
            }),
            3 => Self::Reserved(Reserved {
                at: u64::from_le_bytes(take(payload)?),
                until: u64::from_le_bytes(take(payload)?),
                turns: u32::from_le_bytes(take(payload)?),
                used: u32::from_le_bytes(take(payload)?),
            }),
            4 => Self::Moved(i64::from_le_bytes(take(payload)?)),
            5 => Self::Lost(u64::from_le_bytes(take(payload)?)),
            6 => Self::End,
            7 => Self::Read(Reading {
                boot: u64::from_le_bytes(take(payload)?),
                up: u64::from_le_bytes(take(payload)?),
                wall: u64::from_le_bytes(take(payload)?),
            }),
            8 => Self::Paused(Paused {
                at: u64::from_le_bytes(take(payload)?),
                until: u64::from_le_bytes(take(payload)?),
                charge: Charge::new(NonZeroU32::MIN, numbers(payload).into(), 0),
            }),
            _ => return None,
        };
        payload.is_empty().then_some(record)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

fn numbers(bytes: &mut &[u8]) -> Vec<u64> {
    std::iter::from_fn(|| take(bytes).map(u64::from_le_bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let charge = |keys: &[u64]| Charge::new(NonZeroU32::new(5).unwrap(), keys.into(), 0);
        let spent = |keys| {
            Record::Spent(Spent {
                at: 7,
                times: NonZeroU32::new(3).unwrap(),
                charge: charge(keys),
            })
        };
        let reserved = Reserved {
            at: 1,
            until: 2,
            turns: 3,
            used: 4,
        };
        let paused = Paused {
            at: 1,
            until: 2,
            charge: Charge::new(NonZeroU32::MIN, [3].into(), 0),
        };
        vec![
            Record::Paused(paused),
            Record::Kinds(vec![9, u64::MAX]),
            spent(&[]),
            spent(&[1, 2]),
            Record::Reserved(reserved),
            Record::Moved(-5),
            Record::Lost(6),
            Record::Read(Reading {
                boot: 7,
                up: 8,
                wall: 9,
            }),
            Record::End,
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        records().iter().for_each(|record| record.write(&mut bytes));
        let mut rest = bytes.as_slice();
        for record in records() {
            assert_eq!(Record::read(&mut rest), Some(record));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_flipped_bit_and_a_missing_end_are_noticed() {
        for record in records() {
            let mut bytes = Vec::new();
            record.write(&mut bytes);
            assert_eq!(Record::read(&mut &bytes[..bytes.len() - 1]), None);
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::read(&mut bytes.as_slice()), None, "{record:?}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        assert_eq!(read_head(&head(1, 2), 1), Some(2));
        assert_eq!(read_head(&head(1, 2), 3), None);
    }
}
