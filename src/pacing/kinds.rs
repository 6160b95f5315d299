//! Which keys a charge has, as reloads change the kinds by which a lane tells
//! requests apart.
//!
//! A request that waits keeps the keys it came with. Each change of the kinds
//! has a number, which charges bear, and for the last few changes it is known
//! where the keys of the kinds there are now stand in older charges. A key that a
//! charge does not tell is that of the others (see `scope`).

use std::collections::VecDeque;

use super::Charge;
use super::scope::OTHERS;

/// Changes that are remembered; charges from before them tell no key.
const MOST: usize = 16;

/// The kinds of keys of one lane.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    /// How often they have changed.
    number: u32,
    /// For charges from before each of the last changes, oldest first: where the
    /// key of each kind stands.
    places: VecDeque<Box<[Option<usize>]>>,
}

impl Kinds {
    /// How often they have changed.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// There are others now; the keys of each stood at these places until now.
    pub(super) fn change(&mut self, places: Box<[Option<usize>]>) {
        for older in &mut self.places {
            let place = |place: &Option<usize>| older.get((*place)?).copied().flatten();
            *older = places.iter().map(place).collect();
        }
        self.places.push_back(places);
        if self.places.len() > MOST {
            self.places.pop_front();
        }
        self.number += 1;
    }

    /// The key of `charge` in the scope `index`; the lane's own has none.
    pub(super) fn key(&self, charge: &Charge, index: usize) -> u64 {
        let Some(kind) = index.checked_sub(1) else {
            return OTHERS;
        };
        let place = match self.number - charge.kinds.min(self.number) {
            0 => Some(kind),
            age => self.place(age, kind),
        };
        let key = place.and_then(|place| charge.keys().get(place));
        key.copied().unwrap_or(OTHERS)
    }

    /// `charge` as one that is made now, where requests have so many keys.
    pub(super) fn renew(&self, charge: Charge, keys: usize) -> Charge {
        if charge.keys.is_none() || charge.kinds == self.number {
            return charge;
        }
        let keys = (1..=keys).map(|index| self.key(&charge, index));
        Charge::new(charge.cost, keys.collect(), self.number)
    }

    /// Where the key of `kind` stands in charges from `age` changes ago.
    fn place(&self, age: u32, kind: usize) -> Option<usize> {
        let nth = self.places.len().checked_sub(usize::try_from(age).ok()?)?;
        self.places.get(nth)?.get(kind).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn charge(keys: &[u64], kinds: u32) -> Charge {
        Charge::new(NonZeroU32::MIN, keys.into(), kinds)
    }

    fn keys(kinds: &Kinds, charge: &Charge) -> [u64; 2] {
        [1, 2].map(|index| kinds.key(charge, index))
    }

    #[test]
    fn a_charge_keeps_the_keys_of_the_kinds_that_stay_and_tells_no_others() {
        let mut kinds = Kinds::default();
        let old = charge(&[7, 8], 0);
        assert_eq!(keys(&kinds, &old), [7, 8]);
        kinds.change([Some(1), Some(0)].into());
        assert_eq!(keys(&kinds, &old), [8, 7]);
        kinds.change([None, Some(0)].into());
        assert_eq!(keys(&kinds, &old), [OTHERS, 8]);
        assert_eq!(kinds.renew(old, 2), charge(&[OTHERS, 8], 2));
        assert_eq!(keys(&kinds, &charge(&[5, 6], 1)), [OTHERS, 5]);
        assert_eq!(keys(&kinds, &charge(&[5, 6], 2)), [5, 6]);
        assert_eq!(kinds.renew(charge(&[5, 6], 1), 0), Charge::ONE);
        assert_eq!(keys(&kinds, &Charge::ONE), [OTHERS; 2]);
        for _ in 0..=MOST {
            kinds.change([Some(0), Some(1)].into());
        }
        assert_eq!(keys(&kinds, &charge(&[5, 6], 2)), [OTHERS; 2]);
    }
}
