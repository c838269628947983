//! Objects: what was put is got, in ranges and under conditions, and listed.

use std::collections::BTreeSet;

use aws_sdk_s3::primitives::ByteStream;

use super::{BUCKET, a_minute, client, code, send, send_as, server_and_client};
use crate::s3::{S3Options, S3Server, User};

/// MD5 of `0123456789`.
const MD5_OF_DIGITS: &str = "781e5e245d69b566979b86e28d23f2c7";

#[tokio::test]
async fn an_object_is_what_was_put_with_its_md5_for_etag() {
    let (server, root) = server_and_client();
    let put = root.put_object().bucket(BUCKET).key("k").content_type("text/plain");
    let put = put.metadata("colour", "red").body(ByteStream::from_static(b"0123456789"));
    let etag = put.send().await.unwrap().e_tag.unwrap();
    assert_eq!(etag, format!("\"{MD5_OF_DIGITS}\""));
    let head = root.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!((head.content_length(), head.e_tag()), (Some(10), Some(etag.as_str())));
    assert_eq!(head.content_type(), Some("text/plain"));
    assert_eq!(head.metadata().unwrap()["colour"], "red");
    assert!(head.last_modified().is_some());
    let info = server.bucket(BUCKET).info("k").unwrap();
    assert_eq!((info.length, info.etag.as_str()), (10, MD5_OF_DIGITS));

    root.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    root.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(code(root.get_object().bucket(BUCKET).key("k").send().await), "NoSuchKey");
    assert_eq!(code(root.get_object().bucket("nowhere").key("k").send().await), "NoSuchBucket");
}

#[tokio::test]
async fn etags_can_be_opaque() {
    let options = S3Options::new().bucket(BUCKET).user(User::new("root", "s").may_do_all()).opaque_etags();
    let server = S3Server::start(options);
    let root = client(&server, "root", "s");
    let put =
        || root.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"0123456789")).send();
    let first = put().await.unwrap().e_tag.unwrap();
    let second = put().await.unwrap().e_tag.unwrap();
    assert!(!first.contains(MD5_OF_DIGITS) && first != second);
    assert_eq!(
        code(root.get_object().bucket(BUCKET).key("k").if_match(first).send().await),
        "PreconditionFailed"
    );
}

#[tokio::test]
async fn ranges_are_cut_at_the_end_and_refused_beyond_it() {
    let (server, root) = server_and_client();
    server.bucket(BUCKET).put("k", "0123456789");
    server.bucket(BUCKET).put("empty", "");
    for (range, bytes, content_range) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=3-5", "345", "bytes 3-5/10"),
        ("bytes=8-100", "89", "bytes 8-9/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=-100", "0123456789", "bytes 0-9/10"),
    ] {
        let url = root.get_object().bucket(BUCKET).key("k").range(range).presigned(a_minute()).await.unwrap();
        let answer = send(&url, b"").await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (206, bytes), "{range}");
        assert_eq!(answer.headers["content-range"], content_range, "{range}");
        assert_eq!(answer.headers["content-length"], bytes.len().to_string(), "{range}");
    }
    for (key, range) in [
        ("k", "bytes=10-"),
        ("k", "bytes=10-20"),
        ("k", "bytes=-0"),
        ("empty", "bytes=0-0"),
        ("empty", "bytes=-1"),
    ] {
        let url = root.get_object().bucket(BUCKET).key(key).range(range).presigned(a_minute()).await.unwrap();
        let answer = send(&url, b"").await.unwrap();
        assert_eq!(answer.status, 416, "{key} {range}: {}", answer.text());
        assert!(answer.text().contains("InvalidRange"), "{}", answer.text());
    }
}

#[tokio::test]
async fn reads_obey_their_conditions() {
    let (server, root) = server_and_client();
    let etag = server.bucket(BUCKET).put("k", "bytes");
    let get = || root.get_object().bucket(BUCKET).key("k");
    get().if_match(format!("\"{etag}\"")).send().await.unwrap();
    get().if_match(&etag).range("bytes=1-2").send().await.unwrap();
    assert_eq!(code(get().if_match("\"another\"").send().await), "PreconditionFailed");
    assert_eq!(code(get().if_match("\"another\"").range("bytes=1-2").send().await), "PreconditionFailed");
    let known = get().if_none_match(&etag).send().await.unwrap_err();
    assert_eq!(known.raw_response().unwrap().status().as_u16(), 304);
    let head = root.head_object().bucket(BUCKET).key("k").if_match("\"another\"").send().await.unwrap_err();
    assert_eq!(head.raw_response().unwrap().status().as_u16(), 412);
}

#[tokio::test]
async fn writes_obey_their_conditions() {
    let (server, root) = server_and_client();
    let put =
        |bytes: &'static [u8]| root.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(bytes));
    assert_eq!(code(put(b"0").if_match("\"another\"").send().await), "NoSuchKey");
    let etag = put(b"1").if_none_match("*").send().await.unwrap().e_tag.unwrap();
    assert_eq!(code(put(b"2").if_none_match("*").send().await), "PreconditionFailed");
    assert_eq!(code(put(b"2").if_match("\"another\"").send().await), "PreconditionFailed");
    assert_eq!(server.bucket(BUCKET).get("k").unwrap(), "1");
    put(b"3").if_match(etag).send().await.unwrap();
    assert_eq!(server.bucket(BUCKET).get("k").unwrap(), "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_conditional_puts_one_wins() {
    let (server, root) = server_and_client();
    for round in 0..20 {
        let key = format!("k{round}");
        let racers = (0..8_u8).map(|racer| {
            let put = root.put_object().bucket(BUCKET).key(&key).if_none_match("*");
            tokio::spawn(put.body(vec![racer; 1000].into()).send())
        });
        let mut winners = Vec::new();
        for (racer, done) in racers.collect::<Vec<_>>().into_iter().enumerate() {
            match done.await.unwrap() {
                Ok(_) => winners.push(racer),
                refused => assert_eq!(code(refused), "PreconditionFailed"),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(server.bucket(BUCKET).get(&key).unwrap()[0] as usize, winners[0]);
    }
}

#[tokio::test]
async fn a_body_with_another_digest_is_refused() {
    let (server, root) = server_and_client();
    let put = || root.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"0123456789"));
    assert_eq!(code(put().content_md5("1B2M2Y8AsgTpgAmY7PhCfg==").send().await), "BadDigest");
    assert_eq!(code(put().checksum_crc32_c("AAAAAA==").send().await), "BadDigest");
    let sha256 = "0000000000000000000000000000000000000000000000000000000000000000";
    let url = root.put_object().bucket(BUCKET).key("k").presigned(a_minute()).await.unwrap();
    let answer = send_as("PUT", url.uri(), &[("x-amz-content-sha256", sha256)], b"0123456789").await.unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("XAmzContentSHA256Mismatch"), "{}", answer.text());
    assert!(server.bucket(BUCKET).keys().is_empty());

    put().content_md5("eB5eJF1ptWaXm4bijSPyxw==").checksum_crc32("poTHxg==").send().await.unwrap();
    let get = root.get_object().bucket(BUCKET).key("k");
    let got = get.checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(got.checksum_crc32(), Some("poTHxg=="));
}

#[tokio::test]
async fn a_list_has_every_key_once_in_order_whatever_the_size_of_its_pages() {
    let (server, root) = server_and_client();
    let bucket = server.bucket(BUCKET);
    let keys = ["a", "a/b", "a/b/c", "a-b", "b/1", "b/2", "b/3", "c", "c/é", "d/", "z"];
    keys.iter().for_each(|key| drop(bucket.put(key, *key)));
    for prefix in ["", "a", "a/", "b/", "nothing"] {
        for (delimiter, pages) in [(None, 1), (None, 3), (Some("/"), 1), (Some("/"), 2), (Some("/"), 1000)] {
            let list = root
                .list_objects_v2()
                .bucket(BUCKET)
                .prefix(prefix)
                .set_delimiter(delimiter.map(str::to_owned));
            let mut found = Vec::new();
            let mut stream = list.max_keys(pages).into_paginator().send();
            while let Some(page) = stream.next().await {
                let page = page.unwrap();
                assert!(page.contents().len() + page.common_prefixes().len() <= pages as usize);
                found.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
                found.extend(page.common_prefixes().iter().map(|common| common.prefix().unwrap().to_owned()));
            }
            let expected: BTreeSet<String> = keys
                .iter()
                .filter(|key| key.starts_with(prefix))
                .map(|key| match delimiter.and_then(|delimiter| key[prefix.len()..].find(delimiter)) {
                    Some(at) => key[..=prefix.len() + at].to_owned(),
                    None => (*key).to_owned(),
                })
                .collect();
            assert_eq!(found.len(), expected.len(), "{prefix} {delimiter:?} {pages}: {found:?}");
            assert_eq!(
                found.into_iter().collect::<BTreeSet<_>>(),
                expected,
                "{prefix} {delimiter:?} {pages}"
            );
        }
    }
    let rest = root.list_objects_v2().bucket(BUCKET).start_after("c").send().await.unwrap();
    let rest: Vec<_> = rest.contents().iter().map(|object| object.key().unwrap()).collect();
    assert_eq!(rest, ["c/é", "d/", "z"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_as_of_old_goes_on_behind_its_marker() {
    let (server, client) = server_and_client();
    for key in ["a/1", "a/2", "b", "c"] {
        server.bucket(BUCKET).put(key, "x");
    }
    let list = client.list_objects().bucket(BUCKET).delimiter("/").max_keys(1);
    let first = list.clone().send().await.unwrap();
    assert_eq!(first.common_prefixes()[0].prefix(), Some("a/"));
    assert_eq!((first.is_truncated(), first.next_marker()), (Some(true), Some("a/")));
    let second = list.marker("a/").send().await.unwrap();
    let keys: Vec<_> = second.contents().iter().filter_map(|object| object.key()).collect();
    assert_eq!((keys, second.common_prefixes().len()), (vec!["b"], 0));
    let nobody = super::client(&server, "root", "not the secret");
    assert!(nobody.list_objects().bucket(BUCKET).send().await.is_err());
}
