//! Who may do what: signatures, presigned URLs, and the rights of users.

use aws_sdk_s3::presigning::PresignedRequest;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use super::{BUCKET, a_minute, client, code, long_ago, send, send_as, server_and_client};
use crate::s3::{RequestKind, S3Options, S3Server, User};

#[tokio::test]
async fn only_who_has_the_secret_is_served() {
    let (server, root) = server_and_client();
    root.put_object().bucket(BUCKET).key("k").body(b"bytes".to_vec().into()).send().await.unwrap();
    let got = root.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(got.body.collect().await.unwrap().to_vec(), b"bytes");

    let forger = client(&server, "root", "a guess");
    assert_eq!(code(forger.get_object().bucket(BUCKET).key("k").send().await), "SignatureDoesNotMatch");
    let stranger = client(&server, "nobody", "root-secret");
    assert_eq!(code(stranger.get_object().bucket(BUCKET).key("k").send().await), "InvalidAccessKeyId");
    let unsigned = send_as("GET", &format!("{}/{BUCKET}/k", server.endpoint()), &[], b"").await.unwrap();
    assert_eq!(unsigned.status, 403, "{}", unsigned.text());
}

#[tokio::test]
async fn a_presigned_url_is_good_for_what_was_signed_and_nothing_else() {
    let (server, root) = server_and_client();
    server.bucket(BUCKET).put("k", "bytes");
    server.bucket(BUCKET).put("other", "secret");
    let url = root.get_object().bucket(BUCKET).key("k").presigned(a_minute()).await.unwrap();
    assert_eq!(send(&url, b"").await.unwrap().body, b"bytes");

    for tampered in [
        url.uri().replace("/k?", "/other?"),
        url.uri().replace("X-Amz-Expires=60", "X-Amz-Expires=61"),
        format!("{}&partNumber=1", url.uri()),
        url.uri().replace("X-Amz-Credential=root", "X-Amz-Credential=toor"),
    ] {
        assert_ne!(tampered, url.uri());
        let answer = send_as("GET", &tampered, &[], b"").await.unwrap();
        assert_eq!(answer.status, 403, "{tampered}: {}", answer.text());
    }
    assert_eq!(send_as("DELETE", url.uri(), &[], b"").await.unwrap().status, 403);
    assert_eq!(send_as("PUT", url.uri(), &[], b"mine").await.unwrap().status, 403);
    assert_eq!(server.bucket(BUCKET).get("k").unwrap(), "bytes");
}

#[tokio::test]
async fn a_presigned_url_expires() {
    let (server, root) = server_and_client();
    server.bucket(BUCKET).put("k", "bytes");
    let url = root.get_object().bucket(BUCKET).key("k").presigned(long_ago()).await.unwrap();
    let answer = send(&url, b"").await.unwrap();
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("expired"), "{}", answer.text());
}

#[tokio::test]
async fn a_signed_range_is_the_only_one() {
    let (server, root) = server_and_client();
    server.bucket(BUCKET).put("k", "0123456789");
    let get = root.get_object().bucket(BUCKET).key("k").range("bytes=2-4");
    let url = get.presigned(a_minute()).await.unwrap();
    let answer = send(&url, b"").await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (206, &b"234"[..]));
    assert_eq!(send_as("GET", url.uri(), &[("range", "bytes=0-9")], b"").await.unwrap().status, 403);
    assert_eq!(send_as("GET", url.uri(), &[], b"").await.unwrap().status, 403);
}

#[tokio::test]
async fn a_signed_length_is_the_only_one() {
    let (server, root) = server_and_client();
    let put = root.put_object().bucket(BUCKET).key("k").content_length(5);
    let url = put.presigned(a_minute()).await.unwrap();
    assert!(url.headers().any(|(name, _)| name == "content-length"), "the length is signed");
    assert_eq!(send_as("PUT", url.uri(), &[], b"more than five").await.unwrap().status, 403);
    assert!(server.bucket(BUCKET).keys().is_empty());
    assert_eq!(send_as("PUT", url.uri(), &[], b"bytes").await.unwrap().status, 200);
    assert_eq!(server.bucket(BUCKET).get("k").unwrap(), "bytes");
}

#[tokio::test]
async fn an_unsigned_header_cannot_turn_a_presigned_put_into_a_copy() {
    let (server, root) = server_and_client();
    server.bucket(BUCKET).put("secret", "of another");
    let upload = root.create_multipart_upload().bucket(BUCKET).key("k").send().await.unwrap();
    let part = root.upload_part().bucket(BUCKET).key("k").upload_id(upload.upload_id().unwrap());
    let url = part.part_number(1).presigned(a_minute()).await.unwrap();
    let copy = [("x-amz-copy-source", "data/secret")];
    let answer = send_as("PUT", url.uri(), &copy, b"").await.unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(server.bucket(BUCKET).uploads()[0].parts, []);
    assert_eq!(send_as("PUT", url.uri(), &[], b"mine").await.unwrap().status, 200);
}

/// A server with the users `a`, who may write under `a/` and read under `shared/`, and `b`, who has bucket `other`.
fn two_users() -> S3Server {
    let a = User::new("a", "a-secret").may_write(BUCKET, "a/").may_read(BUCKET, "shared/");
    let b = User::new("b", "b-secret").may_write("other", "");
    S3Server::start(S3Options::new().bucket(BUCKET).bucket("other").user(a).user(b))
}

#[tokio::test]
async fn a_user_may_do_what_is_granted_and_nothing_else() {
    let server = two_users();
    server.bucket(BUCKET).put("shared/k", "shared");
    server.bucket("other").put("k", "of b");
    let a = client(&server, "a", "a-secret");
    a.put_object().bucket(BUCKET).key("a/k").send().await.unwrap();
    a.get_object().bucket(BUCKET).key("shared/k").send().await.unwrap();
    a.head_bucket().bucket(BUCKET).send().await.unwrap();
    a.list_objects_v2().bucket(BUCKET).prefix("a/").send().await.unwrap();

    let denied = "AccessDenied";
    assert_eq!(code(a.put_object().bucket(BUCKET).key("shared/k").send().await), denied);
    assert_eq!(code(a.delete_object().bucket(BUCKET).key("shared/k").send().await), denied);
    assert_eq!(code(a.get_object().bucket(BUCKET).key("b/k").send().await), denied);
    assert_eq!(code(a.get_object().bucket("other").key("k").send().await), denied);
    assert_eq!(code(a.list_objects_v2().bucket(BUCKET).send().await), denied);
    assert_eq!(code(a.list_objects_v2().bucket("other").send().await), denied);
    assert_eq!(code(a.list_multipart_uploads().bucket(BUCKET).send().await), denied);
    assert_eq!(code(a.get_object().bucket("nowhere").key("k").send().await), denied);
    assert!(a.head_bucket().bucket("other").send().await.is_err());
    assert_eq!(server.bucket(BUCKET).get("shared/k").unwrap(), "shared");
}

#[tokio::test]
async fn rights_hold_for_copies_and_deletions_in_bulk() {
    let server = two_users();
    server.bucket("other").put("k", "of b");
    server.bucket(BUCKET).put("a/k", "of a");
    server.bucket(BUCKET).put("shared/k", "shared");
    let a = client(&server, "a", "a-secret");
    let upload = a.create_multipart_upload().bucket(BUCKET).key("a/up").send().await.unwrap();
    let copy = a.upload_part_copy().bucket(BUCKET).key("a/up").part_number(1);
    let copy = copy.upload_id(upload.upload_id().unwrap());
    assert_eq!(code(copy.clone().copy_source("other/k").send().await), "AccessDenied");
    copy.copy_source(format!("{BUCKET}/shared/k")).send().await.unwrap();

    let keys = ["a/k", "shared/k"].map(|key| ObjectIdentifier::builder().key(key).build().unwrap());
    let delete = Delete::builder().set_objects(Some(keys.to_vec())).build().unwrap();
    let done = a.delete_objects().bucket(BUCKET).delete(delete).send().await.unwrap();
    assert_eq!(done.deleted()[0].key(), Some("a/k"));
    assert_eq!(done.errors()[0].key(), Some("shared/k"));
    assert_eq!(server.bucket(BUCKET).keys(), ["shared/k"]);
}

#[tokio::test]
async fn a_removed_user_is_refused_with_the_urls_they_signed() {
    let server = two_users();
    server.bucket(BUCKET).put("a/k", "bytes");
    let a = client(&server, "a", "a-secret");
    let url: PresignedRequest = a.get_object().bucket(BUCKET).key("a/k").presigned(a_minute()).await.unwrap();
    assert_eq!(send(&url, b"").await.unwrap().status, 200);
    server.remove_user("a");
    assert_eq!(send(&url, b"").await.unwrap().status, 403);
    server.set_user(User::new("a", "a new secret").may_do_all());
    assert_eq!(send(&url, b"").await.unwrap().status, 403);
}

#[tokio::test]
async fn the_record_tells_who_asked_for_what_but_no_secret() {
    let (server, root) = server_and_client();
    server.bucket(BUCKET).put("dir/a key", "0123456789");
    let get = root.get_object().bucket(BUCKET).key("dir/a key").range("bytes=2-4");
    send(&get.clone().presigned(a_minute()).await.unwrap(), b"").await.unwrap();
    get.send().await.unwrap();

    let requests = server.requests_of(RequestKind::GetObject);
    let [presigned, signed] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(presigned.presigned && !signed.presigned);
    assert_ne!(presigned.connection, signed.connection);
    for request in [presigned, signed] {
        assert_eq!((request.bucket.as_str(), request.key.as_str()), (BUCKET, "dir/a key"));
        assert_eq!(request.range(), Some(2..=4));
        assert_eq!(request.access_key.as_deref(), Some("root"));
        assert_eq!(request.status, Some(206));
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.parameter("X-Amz-Signature"), None);
    }
    assert_eq!(server.count(RequestKind::GetObject), 2);
    server.forget_requests();
    assert_eq!((server.count(RequestKind::GetObject), server.requests().len()), (0, 0));
}
