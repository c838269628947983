//! A client that does nothing but move bytes: addresses signed in advance, bare HTTP, as many connections and requests of
//! the same size as a mount uses.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::store::Place;

/// As a VMDS reads ahead: 16 MiB in pieces of 2 MiB.
const READERS: u64 = 8;
const RANGE: u64 = 2 << 20;
/// As the controller uploads.
const WRITERS: u64 = 4;
const PART: u64 = 8 << 20;

/// See the module.
pub(crate) struct Plain {
    runtime: Runtime,
    object: Object,
}

/// The object that is written and read.
#[derive(Clone)]
struct Object {
    client: Client,
    address: String,
    bucket: String,
    key: String,
}

/// A part or range that is to be moved.
struct Turns {
    next: AtomicU64,
    size: u64,
    step: u64,
}

impl Turns {
    fn of(size: u64, step: u64) -> Arc<Self> {
        Arc::new(Self { next: AtomicU64::new(0), size, step })
    }

    fn take(&self) -> Option<Range<u64>> {
        let start = self.next.fetch_add(self.step, Ordering::Relaxed);
        (start < self.size).then(|| start..self.size.min(start + self.step))
    }
}

impl Plain {
    pub(crate) fn new(place: &Place) -> Self {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(place.region.clone()))
            .endpoint_url(&place.endpoint)
            .force_path_style(true)
            .credentials_provider(Credentials::new(&place.access_key, &place.secret_key, None, None, "bench"))
            // Not every store knows those that nobody asked for.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .build();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let object = Object {
            client: Client::from_conf(config),
            address: place.address().to_owned(),
            bucket: place.bucket.clone(),
            key: place.key("plain"),
        };
        Self { runtime: runtime.expect("start threads"), object }
    }

    /// Reads the object, which was written before.
    pub(crate) fn read(&self, size: u64) {
        self.runtime.block_on(async {
            let Object { client, address, bucket, key } = &self.object;
            let get = client.get_object().bucket(bucket).key(key).presigned(an_hour()).await;
            let uri = get.expect("sign").uri().to_owned();
            let (turns, mut readers) = (Turns::of(size, RANGE), JoinSet::new());
            for _ in 0..READERS {
                readers.spawn(read(address.clone(), uri.clone(), turns.clone()));
            }
            let read: u64 = readers.join_all().await.into_iter().sum();
            assert_eq!(read, size);
        });
    }

    /// Writes the object in parts.
    pub(crate) fn write(&self, size: u64) {
        self.runtime.block_on(async {
            let Object { client, bucket, key, .. } = &self.object;
            let begun = client.create_multipart_upload().bucket(bucket).key(key).send().await;
            let id = begun.expect("begin an upload").upload_id.expect("an upload has a name");
            let (turns, mut writers) = (Turns::of(size, PART), JoinSet::new());
            for _ in 0..WRITERS {
                writers.spawn(write(self.object.clone(), id.clone(), turns.clone()));
            }
            let mut parts = writers.join_all().await.concat();
            parts.sort_by_key(CompletedPart::part_number);
            let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
            let complete = client.complete_multipart_upload().bucket(bucket).key(key);
            complete.upload_id(id).multipart_upload(parts).send().await.expect("end an upload");
        });
    }
}

fn an_hour() -> PresigningConfig {
    PresigningConfig::expires_in(Duration::from_secs(3600)).expect("an hour is allowed")
}

async fn connect(address: &str) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("connect to the store");
    stream.set_nodelay(true).expect("a socket");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("speak HTTP");
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Response<Incoming> {
    sender.ready().await.expect("the connection stands");
    let answer = sender.send_request(request).await.expect("the store answers");
    assert!(answer.status().is_success(), "{answer:?}");
    answer
}

/// The request as it stands behind the name of the host.
fn path(uri: &str, address: &str) -> String {
    uri.split_once(address).expect("an address of the store").1.to_owned()
}

async fn read(address: String, uri: String, turns: Arc<Turns>) -> u64 {
    let (mut sender, mut read) = (connect(&address).await, 0);
    let mut bytes = Vec::with_capacity(RANGE as usize);
    while let Some(range) = turns.take() {
        let request = Request::get(path(&uri, &address))
            .header("host", &address)
            .header("range", format!("bytes={}-{}", range.start, range.end - 1));
        let request = request.body(Full::default()).expect("a request");
        let mut body = ask(&mut sender, request).await.into_body();
        bytes.clear();
        while let Some(frame) = body.frame().await {
            bytes.extend_from_slice(frame.expect("bytes").data_ref().map_or(&[][..], |data| data));
        }
        read += bytes.len() as u64;
    }
    read
}

async fn write(object: Object, id: String, turns: Arc<Turns>) -> Vec<CompletedPart> {
    let Object { client, address, bucket, key } = object;
    let (mut sender, mut parts) = (connect(&address).await, Vec::new());
    let bytes = Bytes::from(vec![7; PART as usize]);
    while let Some(range) = turns.take() {
        let number = (range.start / PART + 1) as i32;
        let part = client.upload_part().bucket(&bucket).key(&key).upload_id(&id).part_number(number);
        let signed = part.presigned(an_hour()).await.expect("sign");
        let body = bytes.slice(..(range.end - range.start) as usize);
        let request = Request::put(path(signed.uri(), &address)).header("host", &address);
        let request = signed.headers().fold(request, |request, (name, value)| request.header(name, value));
        let answer = ask(&mut sender, request.body(Full::new(body)).expect("a request")).await;
        let etag = answer.headers()["etag"].to_str().expect("text").to_owned();
        answer.into_body().collect().await.expect("the end of an answer");
        parts.push(CompletedPart::builder().part_number(number).e_tag(etag).build());
    }
    parts
}
