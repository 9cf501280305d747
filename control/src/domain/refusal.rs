use lanrage_proto::api::{ApiError, ErrorCode};

/// Why a request is not granted; becomes the answer's body.
pub(crate) type Refusal = ApiError;

/// Makes a refusal; `message` says what to do.
pub(crate) fn refuse(code: ErrorCode, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into() }
}
