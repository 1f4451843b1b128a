//! The keys of one provider at one time, and which of them a token asks for.

use std::sync::atomic::{AtomicU64, Ordering};

use jsonwebtoken::Algorithm;

use super::{
    jws::Jws,
    key::{Key, KeyId},
};

/// Most keys kept of one provider.
pub(super) const MAX_KEYS: usize = 64;
/// Most keys tried for a token that does not say which.
const MAX_TRIES: usize = 4;

/// An immutable set of keys. A change makes a new set.
#[derive(Debug)]
pub(super) struct KeySet {
    generation: u64,
    keys: Vec<Key>,
}

/// What the keys say about a token's signature.
#[derive(Debug)]
pub(super) enum Judgement<'a> {
    /// This key made it.
    Good(&'a Key),
    /// The keys that could have made it did not.
    Bad,
    /// No key has the token's `kid`, or none fits a token without one.
    UnknownKey,
    /// The key with the token's `kid` is not for its algorithm.
    Mismatch,
}

impl KeySet {
    /// A set that differs in its generation from every other in this process.
    pub(super) fn new(keys: Vec<Key>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            generation: NEXT.fetch_add(1, Ordering::Relaxed),
            keys,
        }
    }

    /// Unique number of this set.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The keys.
    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Whether this very key is in the set and still serves this algorithm.
    pub(super) fn has(&self, id: KeyId, algorithm: Algorithm) -> bool {
        self.keys
            .iter()
            .any(|key| key.id() == id && key.serves(algorithm))
    }

    /// Whether the other set holds the same keys for the same algorithms.
    pub(super) fn is_same(&self, other: &[Key]) -> bool {
        let same =
            |(one, other): (&Key, &Key)| one.id() == other.id() && one.algorithms().eq(other.algorithms());
        self.keys.len() == other.len() && self.keys.iter().zip(other).all(same)
    }

    /// Verifies a token's signature with the key that it names, or with those that have no name.
    pub(super) fn judge(&self, jws: &Jws<'_>) -> Judgement<'_> {
        let Some(kid) = jws.kid.as_deref() else {
            return self.first_good(jws, |_| true);
        };
        let mut named = self.keys.iter().filter(|key| key.kid() == Some(kid)).peekable();
        if named.peek().is_none() {
            // A key without a name answers to every name: a lone PEM or secret never had one. Beside named keys
            // it proves nothing that it does not verify: the token may be of a key not seen yet.
            let has_names = self.keys.iter().any(|key| key.kid().is_some());
            return match self.first_good(jws, |key| key.kid().is_none()) {
                Judgement::Bad if has_names => Judgement::UnknownKey,
                judgement => judgement,
            };
        }
        match self.first_good(jws, |key| key.kid() == Some(kid)) {
            Judgement::UnknownKey => Judgement::Mismatch,
            judgement => judgement,
        }
    }

    fn first_good(&self, jws: &Jws<'_>, eligible: impl Fn(&Key) -> bool) -> Judgement<'_> {
        let mut judgement = Judgement::UnknownKey;
        let fits = |key: &&Key| eligible(key) && key.serves(jws.algorithm);
        for key in self.keys.iter().filter(fits).take(MAX_TRIES) {
            if key.verifies(jws.algorithm, jws.message, &jws.signature) {
                return Judgement::Good(key);
            }
            judgement = Judgement::Bad;
        }
        judgement
    }
}
