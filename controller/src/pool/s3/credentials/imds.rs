//! Credentials of the machine's role, from the instance metadata service (version 2).

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use hyper::{Method, StatusCode};
use serde::Deserialize;

use crate::pool::s3::plain::{Answer, ask};

/// The service's address on every machine that has it.
const SERVICE: &str = "169.254.169.254:80";
/// How long the token for the following questions is wanted, in seconds.
const TOKEN_SECONDS: &str = "60";
/// How long the service may take; it is on this machine.
const WITHIN: Duration = Duration::from_secs(2);
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// What the service says about a role.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Role {
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

/// Asks for the credentials of this machine's role.
///
/// # Errors
/// A sentence.
pub(super) async fn fetch() -> Result<Credentials, String> {
    fetch_from(SERVICE).await
}

async fn fetch_from(service: &str) -> Result<Credentials, String> {
    let life = [("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS)];
    let token = text(ask(service, Method::PUT, "/latest/api/token", &life, WITHIN).await)?;
    let token = [("x-aws-ec2-metadata-token", token.trim())];
    let roles = text(ask(service, Method::GET, ROLES, &token, WITHIN).await)?;
    let role = roles.lines().next().map(str::trim).filter(|role| is_name(role));
    let role = role.ok_or("the metadata service of this machine knows no role")?;
    let told = text(ask(service, Method::GET, &format!("{ROLES}{role}"), &token, WITHIN).await)?;
    // The parser's own words may quote what it has read.
    let nonsense = |_| "what the metadata service says about the role makes no sense".to_owned();
    let role: Role = serde_json::from_str(&told).map_err(nonsense)?;
    let expires = DateTime::from_str(&role.expiration, DateTimeFormat::DateTime)
        .ok()
        .and_then(|time| SystemTime::try_from(time).ok())
        .ok_or("the metadata service does not say when the credentials end")?;
    let Role { access_key_id, secret_access_key, token, .. } = role;
    Ok(Credentials::new(access_key_id, secret_access_key, Some(token), Some(expires), "imds"))
}

/// Role names may contain letters, digits and `+=,.@_-`.
fn is_name(role: &str) -> bool {
    !role.is_empty() && role.chars().all(|c| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c))
}

fn text(answer: std::io::Result<Answer>) -> Result<String, String> {
    let unreachable = |error| format!("the metadata service of this machine cannot be asked: {error}");
    let answer = answer.map_err(unreachable)?;
    match answer.status {
        StatusCode::OK => String::from_utf8(answer.body.to_vec())
            .map_err(|_| "the metadata service does not answer with text".to_owned()),
        status => Err(format!("the metadata service of this machine has no credentials ({status})")),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::{get, put};

    use super::*;

    #[tokio::test]
    async fn a_role_is_found_with_a_token() {
        let asks = |headers: HeaderMap, answer: &'static str| async move {
            match headers.get("x-aws-ec2-metadata-token").map(|token| token.as_bytes()) {
                Some(b"T") => (StatusCode::OK, answer),
                _ => (StatusCode::UNAUTHORIZED, ""),
            }
        };
        let role = "{\"Code\":\"Success\",\"AccessKeyId\":\"AK\",\"SecretAccessKey\":\"SK\",\"Token\":\"ST\",\
                    \"Expiration\":\"2031-05-07T12:00:00Z\"}";
        let app = Router::new()
            .route("/latest/api/token", put(|| async { "T" }))
            .route(ROLES, get(move |headers: HeaderMap| asks(headers, "the-role\n")))
            .route(&format!("{ROLES}the-role"), get(move |headers: HeaderMap| asks(headers, role)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        let credentials = fetch_from(&service).await.unwrap();
        assert_eq!((credentials.access_key_id(), credentials.session_token()), ("AK", Some("ST")));
        let may_2031 = SystemTime::UNIX_EPOCH + Duration::from_secs(1_935_921_600);
        assert_eq!(credentials.expiry(), Some(may_2031));
        serving.abort();
    }
}
