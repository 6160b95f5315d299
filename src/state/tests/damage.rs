//! Journals at random: whatever became of the bytes, what is read was written,
//! and all of it, or nothing is relied on.

use std::num::NonZeroU32;

use super::*;
use crate::fuzz::{self, Random};
use crate::state::clock::Reading;
use crate::state::record::{HEAD, Paused, Record, Reserved, Spent, head};

const SEED: u64 = 7;

fn record(random: &mut Random) -> Record {
    let number = |random: &mut Random| random.below(1 << 40) as u64;
    let count = |random: &mut Random| NonZeroU32::new(1 + random.below(9) as u32).unwrap();
    let keys = |random: &mut Random| -> Box<[u64]> {
        (0..random.below(3)).map(|_| number(random)).collect()
    };
    match random.below(9) {
        0 => Record::Kinds((0..random.below(3)).map(|kind| kind as u64).collect()),
        1 => Record::Moved(number(random) as i64 - (1 << 39)),
        2 => Record::Lost(number(random)),
        3 => Record::Read(Reading {
            boot: number(random),
            up: number(random),
            wall: number(random),
        }),
        4 => Record::Reserved(Reserved {
            at: number(random),
            until: number(random),
            turns: random.below(9) as u32,
            used: random.below(9) as u32,
        }),
        5 => Record::Paused(Paused {
            at: number(random),
            until: number(random),
            charge: Charge::new(NonZeroU32::MIN, keys(random), 0),
        }),
        _ => Record::Spent(Spent {
            at: number(random),
            times: count(random),
            charge: Charge::new(count(random), keys(random), 0),
        }),
    }
}

/// Bytes as a disk, a crash or somebody with an editor may leave them.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len() + 1);
    match random.below(5) {
        0 => bytes.truncate(at),
        1 => bytes.extend(vec![0; random.below(64)]),
        2 => bytes.extend(
            (0..random.below(64))
                .map(|_| random.byte())
                .collect::<Vec<_>>(),
        ),
        3 => {
            let end = (at + random.below(64)).min(bytes.len());
            bytes[at..end].fill(0);
        }
        _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        _ => {}
    }
}

#[test]
fn fuzz_records() {
    fuzz::run(20_000, |random| {
        let written = record(random);
        let mut bytes = Vec::new();
        written.write(&mut bytes);
        let mut rest = bytes.as_slice();
        assert_eq!(Record::read(&mut rest), Some(written));
        assert!(rest.is_empty());
        damage(random, &mut bytes);
        let mut rest = bytes.as_slice();
        if let Some(read) = Record::read(&mut rest) {
            // Only one way to write it: nothing was passed over.
            let mut again = Vec::new();
            read.write(&mut again);
            assert_eq!(again, bytes[..bytes.len() - rest.len()]);
        }
        let noise: Vec<u8> = (0..random.below(40)).map(|_| random.byte()).collect();
        assert_eq!(Record::read(&mut noise.as_slice()), None, "{noise:?}");
    });
}

/// A file that was cut off between two records is what a crash leaves; whatever
/// else became of it, it must not be read as if less had been spent.
#[test]
fn fuzz_journals() {
    fuzz::run(5_000, |random| {
        let mut bytes = head(SEED, 3);
        // What the file says when it ends after so many bytes.
        let mut past = Past::default();
        let mut says = vec![(HEAD, past.clone())];
        for _ in 0..random.below(12) {
            let next = record(random);
            next.write(&mut bytes);
            past.take(next);
            says.push((bytes.len(), past.clone()));
        }
        let whole = bytes.clone();
        damage(random, &mut bytes);
        let mut read = Past::default();
        let number = read.read(&bytes, SEED);
        assert_eq!(Past::default().read(&bytes, SEED + 1), None);
        if whole.starts_with(&bytes) {
            let at = says.iter().find(|(length, _)| *length == bytes.len());
            match (number, at) {
                (Some(number), Some((_, said))) => {
                    assert_eq!(number, (3, false));
                    assert_eq!(read, *said);
                    // Nor does what becomes of it ever panic.
                    thinned(random, read);
                }
                (None, None) => {}
                other => panic!("{other:?}"),
            }
        } else {
            assert_eq!(number, None, "{bytes:?}");
        }
    });
}

/// Thinning out merges, but no turn that still matters is forgotten or becomes
/// older than it was.
fn thinned(random: &mut Random, past: Past) {
    let now = random.below(1 << 40) as u64;
    let reach = Duration::from_nanos(random.below(1 << 40) as u64);
    let oldest = now.saturating_sub(u64::try_from(reach.as_nanos()).unwrap());
    let mut after = past.clone();
    after.thin(now, reach);
    let turns = |past: &Past, since: u64| -> u64 {
        let spent = past.spent.iter().filter(|spent| spent.at > since);
        spent.map(|spent| u64::from(spent.times.get())).sum()
    };
    for since in [oldest, oldest + (now - oldest) / 2, now.saturating_sub(1)] {
        assert!(turns(&after, since) >= turns(&past, since.max(oldest)));
    }
    assert_eq!(
        after.lost.is_some(),
        past.lost.is_some_and(|at| at > oldest)
    );
}
