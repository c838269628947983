//! What an S3 pool answers when it cannot. Nothing here ever holds a key, a token, a signed address, or more of what
//! the endpoint said than its error code.

use std::io;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use rustix::io::Errno;
use thiserror::Error;

/// Longest error code of an endpoint that is repeated, in bytes.
const CODE_MAX: usize = 64;

/// Why an S3 pool did not do what it was asked.
#[derive(Debug, Error)]
pub enum S3Error {
    /// There is no such object.
    #[error("the object does not exist")]
    NotFound,
    /// The object is not the one that was meant: another ETag or size.
    #[error("the object is not what it was")]
    Changed,
    /// There is an object under a key that was to be new, and it is not of this upload.
    #[error("there is an object under this key already")]
    Exists,
    /// The endpoint refuses the credentials, or what they may do.
    #[error("the endpoint refuses access ({0})")]
    Denied(String),
    /// No room, or a quota of the bucket.
    #[error("the endpoint has no room ({0})")]
    NoSpace(String),
    /// Too many requests, for longer than was waited.
    #[error("the endpoint asks to slow down")]
    Throttled,
    /// The endpoint cannot be reached or fails; it may work later.
    #[error("the endpoint does not work now ({0})")]
    Unavailable(String),
    /// As many connections as one session may have.
    #[error("too many connections to the endpoint are in use")]
    TooMany,
    /// Nothing came in time; what was asked may have been done or not.
    #[error("the endpoint did not answer in time")]
    Timeout,
    /// The endpoint does not know this operation.
    #[error("the endpoint cannot do this ({0})")]
    Unsupported(String),
    /// The request or the settings make no sense to somebody: a sentence.
    #[error("{0}")]
    Invalid(String),
    /// The credentials cannot be read: a sentence.
    #[error("{0}")]
    Credentials(String),
    /// A file of the staging directory cannot be read or written.
    #[error("a file of the staging directory failed")]
    Staging(#[source] io::Error),
}

impl S3Error {
    /// What a system call answers for it.
    pub fn errno(&self) -> Errno {
        match self {
            S3Error::NotFound | S3Error::Changed => Errno::STALE,
            S3Error::NoSpace(_) => Errno::NOSPC,
            S3Error::Throttled => Errno::AGAIN,
            S3Error::TooMany => Errno::MFILE,
            S3Error::Timeout => Errno::TIMEDOUT,
            S3Error::Staging(error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
            S3Error::Exists
            | S3Error::Denied(_)
            | S3Error::Unavailable(_)
            | S3Error::Unsupported(_)
            | S3Error::Invalid(_)
            | S3Error::Credentials(_) => Errno::IO,
        }
    }

    /// Whether the same may work later without anybody changing anything.
    pub fn may_pass(&self) -> bool {
        matches!(self, S3Error::Throttled | S3Error::Unavailable(_) | S3Error::TooMany | S3Error::Timeout)
    }
}

impl From<S3Error> for io::Error {
    fn from(error: S3Error) -> Self {
        let kind = io::Error::from(error.errno()).kind();
        io::Error::new(kind, error)
    }
}

/// Says what an error of the SDK means.
pub(super) fn classify<E>(error: &SdkError<E, HttpResponse>) -> S3Error
where
    E: ProvideErrorMetadata,
{
    match error {
        SdkError::TimeoutError(_) => S3Error::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => S3Error::Timeout,
        SdkError::DispatchFailure(failure) => {
            S3Error::Unavailable(failure.as_connector_error().map_or_else(unreachable_endpoint, |e| cause(e)))
        }
        SdkError::ServiceError(answer) => {
            of_answer(answer.raw().status().as_u16(), answer.err().code().unwrap_or_default())
        }
        SdkError::ResponseError(answer) => of_answer(answer.raw().status().as_u16(), ""),
        // Made before anything is sent: credentials that cannot be read, mostly.
        SdkError::ConstructionFailure(_) => S3Error::Credentials("the request cannot be signed".to_owned()),
        _ => S3Error::Unavailable(unreachable_endpoint()),
    }
}

/// Says what an answer means, by its status and error code.
pub(super) fn of_answer(status: u16, code: &str) -> S3Error {
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(CODE_MAX).collect();
    let said = if code.is_empty() { format!("status {status}") } else { code.clone() };
    match (code.as_str(), status) {
        ("NoSuchBucket", _) => S3Error::Invalid("the bucket does not exist".to_owned()),
        ("NoSuchKey" | "NoSuchUpload" | "NotFound", _) => S3Error::NotFound,
        ("PreconditionFailed" | "InvalidRange", _) | (_, 412 | 416) => S3Error::Changed,
        ("QuotaExceeded" | "EntityTooLarge" | "XMinioStorageFull", _) | (_, 507) => S3Error::NoSpace(said),
        ("SlowDown" | "Throttling" | "ThrottlingException" | "TooManyRequests", _) | (_, 429) => {
            S3Error::Throttled
        }
        ("NotImplemented" | "MethodNotAllowed", _) | (_, 405 | 501) => S3Error::Unsupported(said),
        ("RequestTimeTooSkewed" | "ExpiredToken", _) | (_, 401 | 403) => S3Error::Denied(said),
        ("PermanentRedirect" | "AuthorizationHeaderMalformed", _) | (_, 301 | 307 | 308) => {
            S3Error::Invalid(format!("the bucket is in another region or at another endpoint ({said})"))
        }
        ("RequestTimeout" | "OperationAborted" | "ConditionalRequestConflict", _)
        | (_, 408 | 409 | 500..=599) => S3Error::Unavailable(said),
        (_, 404) => S3Error::NotFound,
        _ => S3Error::Invalid(format!("the endpoint refused the request ({said})")),
    }
}

fn unreachable_endpoint() -> String {
    "it cannot be reached".to_owned()
}

/// What the operating system says was the matter, if it was asked; errors in between may quote what was sent.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut at = error.source();
    while let Some(source) = at {
        if let Some(io) = source.downcast_ref::<io::Error>()
            && let Some(errno) = Errno::from_io_error(io)
        {
            return io::Error::from(errno).kind().to_string();
        }
        at = source.source();
    }
    unreachable_endpoint()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_a_caller_can_act_upon() {
        assert!(matches!(of_answer(404, "NoSuchKey"), S3Error::NotFound));
        assert!(matches!(of_answer(404, ""), S3Error::NotFound));
        assert!(matches!(of_answer(404, "NoSuchBucket"), S3Error::Invalid(_)));
        assert!(matches!(of_answer(412, ""), S3Error::Changed));
        assert!(matches!(of_answer(403, "SignatureDoesNotMatch"), S3Error::Denied(_)));
        assert!(matches!(of_answer(503, "SlowDown"), S3Error::Throttled));
        assert!(matches!(of_answer(503, ""), S3Error::Unavailable(_)));
        assert_eq!(of_answer(507, "").errno(), Errno::NOSPC);
        assert!(of_answer(500, "InternalError").may_pass() && !of_answer(403, "").may_pass());
    }

    #[test]
    fn what_an_endpoint_says_is_repeated_only_as_a_short_word() {
        let told = of_answer(400, &format!("Bad\u{1b}[2J{}", "x".repeat(1000))).to_string();
        assert!(told.len() < 120 && !told.contains('\u{1b}'), "{told}");
    }
}
