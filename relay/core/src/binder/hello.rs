use lanrage_proto::datagram::Kind;
use lanrage_proto::frame::VERSION;
use lanrage_proto::frame::challenge::{Challenge, Unsupported};
use lanrage_proto::frame::hello::Hello;

use super::cookies::{Place, Purpose};
use super::{Binder, Now, Outcome};

impl Binder {
    /// HELLO (§4.1): the answer is a function of the question; nothing is stored.
    pub(super) fn handle_hello(&mut self, now: Now, datagram: &[u8], place: Place) -> Outcome {
        let Ok(hello) = Hello::decode(datagram) else {
            return Outcome::Malformed;
        };
        let Some(certificate) = self.certificate else {
            return Outcome::NoCertificate;
        };
        if !self.budgets.admit(Kind::Hello, now.ms) {
            return Outcome::Budget;
        }
        let nonce = hello.nonce;
        if !hello.speaks(VERSION) {
            let unsupported = Unsupported { version_min: VERSION, version_max: VERSION, nonce };
            self.transmit(place, unsupported.encode());
            return Outcome::Unsupported;
        }
        let cookie = self.cookies.make(Purpose::Hello(nonce), place);
        self.transmit(place, Challenge { nonce, certificate, cookie }.encode());
        Outcome::Challenged
    }
}
