//! The SDK's client of a pool: retries with backoff and jitter, deadlines, no checksums nobody asked for.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Config, IdentityCache, ProvideCredentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::{self, TlsContext};

use super::clock::ClockWatch;
use super::credentials::Keyring;
use super::trust::Trust;
use super::{S3Error, S3Settings};

/// Most times a request is sent.
const ATTEMPTS: u32 = 5;
/// Longest pause between two of them.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Slowest transfer that is still waited for, bytes per second.
const SLOWEST: u64 = 1 << 20;

/// Builds the client. Nothing is sent.
pub(super) fn build(
    settings: &S3Settings,
    trust: &Trust,
    keyring: Arc<Keyring>,
    clock: ClockWatch,
) -> Result<Client, S3Error> {
    let keyring: Arc<dyn ProvideCredentials> = keyring;
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        .endpoint_url(&settings.endpoint.url)
        .force_path_style(settings.endpoint.path_style)
        .credentials_provider(SharedCredentialsProvider::new(keyring))
        // The keyring knows best when its credentials get old.
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_max_backoff(PAUSE_MAX))
        .timeout_config(timeouts(settings.patience, 0))
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled().grace_period(settings.patience).build(),
        )
        // Servers that are not Amazon's often know no trailing checksums, and SHA-256 costs 20 times a transfer.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .interceptor(clock)
        .http_client(http_client(trust)?);
    Ok(Client::from_conf(config.build()))
}

/// The settings of a request that moves many bytes.
pub(super) fn with_time_for(bytes: u64, patience: Duration) -> Builder {
    Config::builder().timeout_config(timeouts(patience, bytes))
}

/// How long a transfer may take in all, retries included.
pub(super) fn time_for(bytes: u64, patience: Duration) -> Duration {
    2 * (patience + Duration::from_secs(bytes / SLOWEST))
}

fn timeouts(patience: Duration, bytes: u64) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_WITHIN.min(patience))
        .operation_attempt_timeout(patience + Duration::from_secs(bytes / SLOWEST))
        .operation_timeout(time_for(bytes, patience))
        .build()
}

fn http_client(trust: &Trust) -> Result<SharedHttpClient, S3Error> {
    let context = TlsContext::builder().with_trust_store(trust.for_sdk()).build();
    let context = context.map_err(|_| S3Error::Invalid("TLS cannot be set up".to_owned()))?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .tls_context(context)
        .build_https())
}
