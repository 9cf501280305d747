//! What must hold for any bytes a decoder is given: it does not panic, and what it takes it would
//! write the same. Each target runs under libFuzzer and, over the committed corpus, in a test.
#![forbid(unsafe_code)]

mod frame;
mod stream;
mod text;

pub use frame::{client_frame, inner, relay_frame, signed, stun};
pub use stream::stream;
pub use text::{api, invite, map};

/// A target: panics when a property does not hold.
pub type Target = fn(&[u8]);

/// Every target under the name of its binary and of its folder in `corpus/`.
pub const TARGETS: [(&str, Target); 9] = [
    ("api", api),
    ("client_frame", client_frame),
    ("inner", inner),
    ("invite", invite),
    ("map", map),
    ("relay_frame", relay_frame),
    ("signed", signed),
    ("stream", stream),
    ("stun", stun),
];
