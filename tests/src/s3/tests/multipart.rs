//! Multipart uploads.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use super::{BUCKET, client, code, server_and_client};
use crate::s3::{S3Options, S3Server, User};

/// S3's smallest part.
const FIVE_MIB: usize = 5 << 20;

async fn begin(client: &Client, key: &str) -> String {
    let begun = client.create_multipart_upload().bucket(BUCKET).key(key).send().await.unwrap();
    begun.upload_id.unwrap()
}

/// Uploads a part, and gives what the completion needs of it.
async fn part(client: &Client, key: &str, id: &str, number: i32, bytes: Vec<u8>) -> CompletedPart {
    let part = client.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(number);
    let etag = part.body(ByteStream::from(bytes)).send().await.unwrap().e_tag.unwrap();
    CompletedPart::builder().part_number(number).e_tag(etag).build()
}

fn all(parts: &[CompletedPart]) -> CompletedMultipartUpload {
    CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build()
}

/// A server that takes parts of any size.
fn small_parts() -> (S3Server, Client) {
    let options = S3Options::new().bucket(BUCKET).user(User::new("root", "s").may_do_all()).min_part_size(0);
    let server = S3Server::start(options);
    let root = client(&server, "root", "s");
    (server, root)
}

#[tokio::test]
async fn an_upload_is_its_parts_sent_and_copied() {
    let (server, root) = server_and_client();
    server.bucket(BUCKET).put("source", vec![b's'; FIVE_MIB + 7]);
    let id = begin(&root, "k").await;
    let first = part(&root, "k", &id, 1, vec![b'a'; FIVE_MIB]).await;
    let copy = root.upload_part_copy().bucket(BUCKET).key("k").upload_id(&id).part_number(2);
    let copy = copy.copy_source(format!("{BUCKET}/source"));
    assert_eq!(code(copy.clone().copy_source_range("bytes=0-99999999").send().await), "InvalidArgument");
    assert_eq!(code(copy.clone().copy_source_if_match("\"another\"").send().await), "PreconditionFailed");
    let copied = copy.copy_source_range(format!("bytes=7-{}", FIVE_MIB + 6)).send().await.unwrap();
    let etag = copied.copy_part_result.unwrap().e_tag.unwrap();
    let second = CompletedPart::builder().part_number(2).e_tag(etag).build();
    let last = part(&root, "k", &id, 9, b"end".to_vec()).await;
    assert!(server.bucket(BUCKET).get("k").is_none());

    let listed = root.list_parts().bucket(BUCKET).key("k").upload_id(&id).send().await.unwrap();
    let sizes: Vec<_> =
        listed.parts().iter().map(|part| (part.part_number().unwrap(), part.size().unwrap())).collect();
    assert_eq!(sizes, [(1, FIVE_MIB as i64), (2, FIVE_MIB as i64), (9, 3)]);

    let complete = root.complete_multipart_upload().bucket(BUCKET).key("k").upload_id(&id);
    let complete = complete.multipart_upload(all(&[first, second, last]));
    let etag = complete.clone().send().await.unwrap().e_tag.unwrap();
    assert!(etag.ends_with("-3\""), "{etag}");
    let bytes = server.bucket(BUCKET).get("k").unwrap();
    assert_eq!(bytes.len(), 2 * FIVE_MIB + 3);
    assert!(bytes[..FIVE_MIB].iter().all(|byte| *byte == b'a'));
    assert!(bytes[FIVE_MIB..2 * FIVE_MIB].iter().all(|byte| *byte == b's'));
    assert!(bytes.ends_with(b"end"));
    // Over the border of two parts, from the border, within a later part, over the last border, and everything.
    let border = FIVE_MIB;
    for (first, last, expected) in [
        (border - 2, border + 1, b"aass".as_slice()),
        (border, border + 1, b"ss"),
        (2 * border + 1, 2 * border + 1, b"n"),
        (2 * border - 1, 2 * border + 2, b"send"),
        (0, 2 * border + 2, &bytes),
    ] {
        let get = root.get_object().bucket(BUCKET).key("k").range(format!("bytes={first}-{last}"));
        let got = get.send().await.unwrap().body.collect().await.unwrap();
        assert!(got.into_bytes() == expected, "bytes {first} to {last}");
    }

    assert_eq!(code(complete.send().await), "NoSuchUpload");
    assert!(server.bucket(BUCKET).uploads().is_empty());
}

#[tokio::test]
async fn the_etag_is_the_md5_of_the_md5s() {
    let (_server, root) = small_parts();
    let id = begin(&root, "k").await;
    let parts =
        [part(&root, "k", &id, 1, b"a".to_vec()).await, part(&root, "k", &id, 2, b"b".to_vec()).await];
    let complete = root.complete_multipart_upload().bucket(BUCKET).key("k").upload_id(&id);
    let done = complete.multipart_upload(all(&parts)).send().await.unwrap();
    // printf '0cc175b9c0f1b6a831c399e26977266192eb5ffee6ae2fec3ad71c777531578f' | xxd -r -p | md5sum
    assert_eq!(done.e_tag(), Some("\"96e024ba2074fe77e8e965ba43a704be-2\""));
}

#[tokio::test]
async fn a_completion_must_name_the_parts_as_they_are() {
    let (server, root) = server_and_client();
    let id = begin(&root, "k").await;
    let small = part(&root, "k", &id, 1, b"small".to_vec()).await;
    let last = part(&root, "k", &id, 2, b"last".to_vec()).await;
    let wrong = CompletedPart::builder().part_number(2).e_tag("\"another\"").build();
    let missing = CompletedPart::builder().part_number(3).e_tag("\"another\"").build();
    for (parts, error) in [
        (vec![small.clone(), last.clone()], "EntityTooSmall"),
        (vec![last.clone(), small.clone()], "InvalidPartOrder"),
        (vec![last.clone(), last.clone()], "InvalidPartOrder"),
        (vec![wrong], "InvalidPart"),
        (vec![missing], "InvalidPart"),
        (vec![], "MalformedXML"),
    ] {
        let complete = root.complete_multipart_upload().bucket(BUCKET).key("k").upload_id(&id);
        assert_eq!(code(complete.multipart_upload(all(&parts)).send().await), error);
    }
    assert_eq!(server.bucket(BUCKET).uploads()[0].parts, [(1, 5), (2, 4)]);
    let complete = root.complete_multipart_upload().bucket(BUCKET).key("k").upload_id(&id);
    complete.multipart_upload(all(&[last])).send().await.unwrap();
    assert_eq!(server.bucket(BUCKET).get("k").unwrap(), "last");
}

#[tokio::test]
async fn a_conditional_completion_that_loses_leaves_the_upload() {
    let (server, root) = small_parts();
    let id = begin(&root, "k").await;
    let part = part(&root, "k", &id, 1, b"late".to_vec()).await;
    server.bucket(BUCKET).put("k", "early");
    let complete = root.complete_multipart_upload().bucket(BUCKET).key("k").upload_id(&id);
    let complete = complete.multipart_upload(all(&[part])).if_none_match("*");
    assert_eq!(code(complete.clone().send().await), "PreconditionFailed");
    assert_eq!(server.bucket(BUCKET).get("k").unwrap(), "early");
    assert_eq!(server.bucket(BUCKET).uploads().len(), 1);
    server.bucket(BUCKET).remove("k");
    complete.send().await.unwrap();
    assert_eq!(server.bucket(BUCKET).get("k").unwrap(), "late");
}

#[tokio::test]
async fn open_uploads_are_listed_in_pages_until_they_are_aborted() {
    let (server, root) = small_parts();
    let mut expected = Vec::new();
    for key in ["a", "b/1", "b/1", "b/2", "c"] {
        expected.push((key.to_owned(), begin(&root, key).await));
    }
    let (mut found, mut markers) = (Vec::new(), (None, None));
    loop {
        let list = root.list_multipart_uploads().bucket(BUCKET).max_uploads(2);
        let page = list.set_key_marker(markers.0).set_upload_id_marker(markers.1).send().await.unwrap();
        let uploads = page.uploads().iter();
        found.extend(
            uploads.map(|upload| (upload.key().unwrap().to_owned(), upload.upload_id().unwrap().to_owned())),
        );
        if page.is_truncated() != Some(true) {
            break;
        }
        markers = (page.next_key_marker, page.next_upload_id_marker);
    }
    assert_eq!(found, expected);
    let under_b = root.list_multipart_uploads().bucket(BUCKET).prefix("b/").send().await.unwrap();
    assert_eq!(under_b.uploads().len(), 3);
    let after = root.list_multipart_uploads().bucket(BUCKET).key_marker("b/1").send().await.unwrap();
    assert_eq!(after.uploads().len(), 2);

    for (key, id) in &expected {
        root.abort_multipart_upload().bucket(BUCKET).key(key).upload_id(id).send().await.unwrap();
    }
    let (key, id) = &expected[0];
    let again = root.abort_multipart_upload().bucket(BUCKET).key(key).upload_id(id).send().await;
    assert_eq!(code(again), "NoSuchUpload");
    let late = root.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(1).send().await;
    assert_eq!(code(late), "NoSuchUpload");
    assert!(server.bucket(BUCKET).uploads().is_empty());
}
