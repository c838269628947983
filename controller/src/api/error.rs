//! What a client is told when a request is not carried out: `{"error": {"kind", "message", "hint"}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::logging::chain;
use crate::resource::{DecodeError, Kind};
use crate::services::ServiceError;
use crate::store::{Gone, StoreError};

/// The body of an answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorInfo,
}

/// An error as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// For programs.
    pub kind: ErrorKind,
    /// For people: what is wrong.
    pub message: String,
    /// For people: what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request is not understood. 400
    BadRequest,
    /// There is no such thing, or not for this caller. 404
    NotFound,
    /// Something else is in the way. 409
    Conflict,
    /// The history asked for is not available; list and watch from there. 410
    Gone,
    /// What is wanted makes no sense. 422
    Invalid,
    /// It may work later. 503
    Unavailable,
}

impl ErrorKind {
    fn status(self) -> StatusCode {
        match self {
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Gone => StatusCode::GONE,
            ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// An error of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError(pub ErrorInfo);

/// The result of handling a request.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

impl ApiError {
    /// An error without a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(ErrorInfo { kind, message: message.into(), hint: None })
    }

    /// The same with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// There is no such resource, or not for this caller.
    pub fn not_found(kind: Kind, name: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("there is no {kind} '{name}'"))
    }

    /// The controller failed inside: the log has the details, the client does not.
    fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = chain(error), "a request failed");
        Self::new(ErrorKind::Unavailable, "the controller failed inside").hint("look at the controller's log")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0.kind.status(), Json(ErrorBody { error: self.0 })).into_response()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::NotFound { .. } => Self::new(ErrorKind::NotFound, message),
            StoreError::Stale { .. } => {
                Self::new(ErrorKind::Conflict, message).hint("read it again, and apply your change to that")
            }
            StoreError::Exists { kind, name } => Self::new(ErrorKind::Conflict, message)
                .hint(format!("look at it with: vmdsctl get {kind} {name}; change it with: vmdsctl apply")),
            StoreError::BeingDeleted { .. } => {
                Self::new(ErrorKind::Conflict, message).hint("wait until it is gone, then try again")
            }
            StoreError::Invalid(_) => Self::new(ErrorKind::Invalid, message),
            StoreError::Exhausted(_) => Self::new(ErrorKind::Unavailable, message),
            StoreError::TooNew { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Decode(_)
            | StoreError::Engine(_) => Self::internal(&error),
        }
    }
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        Self::internal(&error)
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let kind = match error {
            ServiceError::NotFound(_) => ErrorKind::NotFound,
            ServiceError::Conflict(_) | ServiceError::Busy(_) => ErrorKind::Conflict,
            ServiceError::Invalid(_) => ErrorKind::Invalid,
            ServiceError::Unavailable(_) => ErrorKind::Unavailable,
            ServiceError::Internal(_) => return Self::internal(&error),
        };
        Self::new(kind, error.to_string())
    }
}

impl From<Gone> for ApiError {
    fn from(gone: Gone) -> Self {
        Self::new(ErrorKind::Gone, gone.to_string())
            .hint("list the resources and watch from the version of the list")
    }
}
