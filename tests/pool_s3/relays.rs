//! Connections to an endpoint that speaks TLS, as a VMDS gets them: one end of a relay, on which plain HTTP is spoken.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use controller::pool::s3::{Relays, S3Error};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tests::wait_until;
use tokio::net::UnixStream;

use crate::addresses::read_on;
use crate::{Bench, bytes, file_of};

const MINUTE: Duration = Duration::from_secs(60);

fn stream(socket: OwnedFd) -> UnixStream {
    UnixStream::from_std(socket.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_reads_through_a_relay_what_it_reads_elsewhere_and_nothing_else() {
    let bench = Bench::start_over_tls();
    let (pool, relays) = (bench.pool().await, Relays::default());
    pool.upload("1/a/1", file_of(1_000_000), 1_000_000).await.unwrap();
    pool.upload("1/a/2", file_of(10), 10).await.unwrap();
    let signed = pool.sign_get("1/a/1", None, MINUTE).await.unwrap();
    let socket = stream(pool.connect(&relays).await.unwrap());
    assert_eq!(read_on(socket, &pool, &signed, None).await, (200, bytes(1_000_000)));
    let mut other = signed.clone();
    other.path_and_query = other.path_and_query.replace("/1/a/1?", "/1/a/2?");
    let socket = stream(pool.connect(&relays).await.unwrap());
    assert_eq!(read_on(socket, &pool, &other, None).await.0, 403, "a relay lends nobody a signature");
    let mut unsigned = signed.clone();
    unsigned.path_and_query.truncate(unsigned.path_and_query.find('?').unwrap());
    let socket = stream(pool.connect(&relays).await.unwrap());
    assert_eq!(read_on(socket, &pool, &unsigned, None).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_only_so_many_relays_and_gets_back_what_it_closes() {
    let bench = Bench::start_over_tls();
    let (pool, relays, others) = (bench.pool().await, Relays::default(), Relays::default());
    let mut held = Vec::new();
    let refused = loop {
        match pool.connect(&relays).await {
            Ok(socket) => held.push(socket),
            Err(error) => break error,
        }
        assert!(held.len() <= 32);
    };
    assert!(matches!(refused, S3Error::TooMany), "{refused}");
    assert_eq!(held.len(), 32);
    drop(pool.connect(&others).await.unwrap());
    held.pop();
    tokio::task::block_in_place(|| {
        wait_until("a place is free", Duration::from_secs(20), || {
            tokio::runtime::Handle::current().block_on(pool.connect(&relays)).is_ok()
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_that_are_sent_into_a_relay_are_not_taken() {
    let bench = Bench::start_over_tls();
    let pool = bench.pool().await;
    let socket = pool.connect(&Relays::default()).await.unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = SendAncillaryBuffer::new(&mut room);
    let descriptors = [writer.as_fd()];
    assert!(along.push(SendAncillaryMessage::ScmRights(&descriptors)));
    rustix::net::sendmsg(&socket, &[IoSlice::new(b"G")], &mut along, SendFlags::empty()).unwrap();
    drop(writer);
    let ended = tokio::task::spawn_blocking(move || rustix::io::read(reader, &mut [0; 1]));
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
    assert_eq!(ended.expect("nobody holds the other end of the pipe").unwrap(), Ok(0));
}
