use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, Unexpected, Visitor};

/// A whole number; what does not fit is refused in an operator's words, not in Rust's.
pub(super) fn whole<'de, N, D>(deserializer: D) -> Result<Option<N>, D::Error>
where
    N: TryFrom<i64>,
    D: Deserializer<'de>,
{
    struct Whole<N>(PhantomData<N>);

    impl<N: TryFrom<i64>> Visitor<'_> for Whole<N> {
        type Value = N;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number, 1 or more")
        }

        fn visit_i64<E: Error>(self, value: i64) -> Result<N, E> {
            N::try_from(value).map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
        }
    }

    deserializer.deserialize_any(Whole(PhantomData)).map(Some)
}
