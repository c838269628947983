//! The store that is measured: the tests' server, or one that is there already and that the environment names.

use tests::OutsideStore;

use crate::server::{self, Server};

/// See the module.
pub(crate) enum Store {
    /// The tests' server, in a process of its own.
    Own(Server),
    /// Another one.
    Outside(OutsideStore),
}

/// Where its objects are, and who may use them.
pub(crate) struct Place {
    /// `http://ADDRESS:PORT`
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    /// What all keys begin with: nothing, or something that ends with a '/'.
    pub(crate) prefix: String,
    pub(crate) region: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

impl Store {
    pub(crate) fn start() -> Self {
        let Some(store) = OutsideStore::named() else { return Store::Own(Server::start()) };
        // Other mounts want their directory to be there.
        store.put("", "");
        Store::Outside(store)
    }

    pub(crate) fn place(&self) -> Place {
        match self {
            Store::Own(server) => Place {
                endpoint: server.endpoint().to_owned(),
                bucket: server::BUCKET.to_owned(),
                prefix: String::new(),
                region: server::REGION.to_owned(),
                access_key: server::ACCESS_KEY.to_owned(),
                secret_key: server::SECRET_KEY.to_owned(),
            },
            Store::Outside(store) => Place {
                endpoint: store.endpoint().to_owned(),
                bucket: store.bucket().to_owned(),
                prefix: store.prefix().to_owned(),
                region: store.region().to_owned(),
                access_key: store.access_key().to_owned(),
                secret_key: store.secret_key().to_owned(),
            },
        }
    }

    /// By how many milliseconds it can be moved away for small files: not at all, where a request to the tests' server
    /// costs next to nothing, and as far as the nearest real ones are.
    pub(crate) fn distances(&self) -> &'static [u32] {
        match self {
            Store::Own(_) => &[0, 10],
            Store::Outside(_) => &[0],
        }
    }

    /// From now on each answer comes so much later.
    pub(crate) fn be_away(&mut self, ms: u32) {
        match self {
            Store::Own(server) => server.be_away(ms),
            Store::Outside(_) => assert_eq!(ms, 0, "it is where it is"),
        }
    }

    /// What part of a plain client's speed is wanted in reading. On a store that costs nothing a mount shares the machine
    /// with its reader; a real one is slower than both.
    pub(crate) fn read_target(&self) -> f64 {
        match self {
            Store::Own(_) => 0.6,
            Store::Outside(_) => 0.95,
        }
    }
}

impl Place {
    /// `ADDRESS:PORT`
    pub(crate) fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    /// The whole key of an object of this run.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}
