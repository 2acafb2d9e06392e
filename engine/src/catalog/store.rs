//! Where files are: local paths and object stores behind one way to read byte ranges.
//!
//! Local files are read on the calling thread; remote ones by the runtime while the calling thread waits
//! on a channel, so that a task needs no async. Every read checks that the file is still the version the
//! plan was made with.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, ObjectStore};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use url::Url;

use crate::error::{EngineError, Result};
use crate::task::QueryContext;

/// Requests in flight for one read of many ranges.
const CONCURRENT_REQUESTS: usize = 8;

/// Between two looks whether a query that waits for a store was stopped.
const CANCELLED_EACH: Duration = Duration::from_millis(50);

/// A place that a user named: a local path or a URL of an object store.
#[derive(Debug, Clone, PartialEq)]
pub enum Location {
    Local(PathBuf),
    /// `base` is `s3://bucket`, `path` the key or prefix in it.
    Remote {
        base: String,
        path: ObjectPath,
    },
}

/// The object stores in use, one for each bucket.
pub struct Stores {
    runtime: Handle,
    remote: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

/// One version of one file, ready to be read by any number of threads.
#[derive(Debug, Clone)]
pub struct FileSource {
    pub url: String,
    pub size_bytes: u64,
    pub etag: Option<String>,
    kind: SourceKind,
}

#[derive(Debug, Clone)]
enum SourceKind {
    Local { path: Arc<PathBuf>, file: Arc<OnceLock<File>> },
    Remote { store: Arc<dyn ObjectStore>, path: ObjectPath, runtime: Handle },
}

impl Location {
    /// Reads a path, `file://` or `s3://` URL.
    pub fn parse(text: &str) -> Result<Location> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() || bucket.contains('@') {
                return Err(data(
                    text,
                    "write it as s3://bucket/prefix; credentials belong in the environment",
                ));
            }
            let path =
                ObjectPath::parse(path.trim_end_matches('/')).map_err(|e| data(text, e.to_string()))?;
            return Ok(Location::Remote { base: format!("s3://{bucket}"), path });
        }
        if text.starts_with("file://") {
            let path = Url::parse(text).ok().and_then(|u| u.to_file_path().ok());
            return path.map(Location::Local).ok_or_else(|| data(text, "is not a valid file:// URL"));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(EngineError::Unsupported(
                format!("the URL scheme '{scheme}'"),
                "Use a local path, file:///… or s3://bucket/prefix".into(),
            ));
        }
        let path = Path::new(text);
        std::path::absolute(path).map(Location::Local).map_err(|e| data(text, e.to_string()))
    }

    /// The place is on this machine's disks.
    pub fn is_local(&self) -> bool {
        matches!(self, Location::Local(_))
    }
}

impl Stores {
    /// No store yet; they are made at their first use.
    pub fn new(runtime: Handle) -> Stores {
        Stores { runtime, remote: Mutex::default() }
    }

    /// The store of a bucket, `base` being `s3://bucket`. Credentials, region and endpoint come from the
    /// usual AWS environment variables.
    pub fn store(&self, base: &str) -> Result<Arc<dyn ObjectStore>> {
        let mut remote = self.remote.lock();
        if let Some(store) = remote.get(base) {
            return Ok(store.clone());
        }
        let plain_http = std::env::var("AWS_ENDPOINT_URL").is_ok_and(|e| e.starts_with("http://"));
        let store = AmazonS3Builder::from_env()
            .with_url(base)
            .with_allow_http(plain_http)
            .build()
            .map_err(|e| data(base, format!("the bucket cannot be opened: {e}")))?;
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        remote.insert(base.to_string(), store.clone());
        Ok(store)
    }

    /// Uses `store` for `base` from now on.
    #[cfg(test)]
    pub fn register(&self, base: &str, store: Arc<dyn ObjectStore>) {
        self.remote.lock().insert(base.to_string(), store);
    }

    /// A file by its URL, in the version that `size_bytes` and `etag` name.
    pub fn source(&self, url: &str, size_bytes: u64, etag: Option<String>) -> Result<FileSource> {
        let kind = match Location::parse_url(url)? {
            Location::Local(path) => SourceKind::Local { path: Arc::new(path), file: Arc::default() },
            Location::Remote { base, path } => {
                SourceKind::Remote { store: self.store(&base)?, path, runtime: self.runtime.clone() }
            }
        };
        Ok(FileSource { url: url.to_string(), size_bytes, etag, kind })
    }

    /// Waits for a future that the runtime drives. Never call it on a thread of that runtime.
    pub fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
        wait(&self.runtime, work)
    }
}

impl Location {
    /// Reads a URL as [`file_url`] and the remote listing make them.
    fn parse_url(url: &str) -> Result<Location> {
        Location::parse(url)
    }
}

/// The URL of a local path, which must be absolute.
pub fn file_url(path: &Path) -> Result<String> {
    Url::from_file_path(path)
        .map(String::from)
        .map_err(|()| data(&path.display().to_string(), "is not an absolute path"))
}

/// What stands for an object store's etag on a local disk.
pub fn local_etag(metadata: &std::fs::Metadata) -> String {
    format!("{:x}-{:x}.{:x}-{:x}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len())
}

impl FileSource {
    /// The file is on this machine: reads are cheap and need no prefetch.
    pub fn is_local(&self) -> bool {
        matches!(self.kind, SourceKind::Local { .. })
    }

    /// Reads one range into a fresh buffer.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.check(&range)?;
        match &self.kind {
            SourceKind::Local { .. } => {
                let mut buffer = vec![0; (range.end - range.start) as usize];
                self.read_local(range.start, &mut buffer)?;
                Ok(buffer.into())
            }
            SourceKind::Remote { .. } => {
                let mut all = self.fetch(vec![range])?.wait()?;
                all.pop().ok_or_else(|| EngineError::internal("a read of one range without a result"))
            }
        }
    }

    /// Reads a range of a local file into `buffer`, whose length it is.
    pub fn read_local(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let file = self.open()?;
        file.read_exact_at(buffer, offset).map_err(|e| data(&self.url, format!("reading failed: {e}")))
    }

    /// Starts to read ranges of a remote file; the result waits until it is asked for.
    pub fn fetch(&self, ranges: Vec<Range<u64>>) -> Result<Fetch> {
        for range in &ranges {
            self.check(range)?;
        }
        let SourceKind::Remote { store, path, runtime } = &self.kind else {
            return Err(EngineError::internal("a local file is not fetched"));
        };
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let (store, path, etag) = (store.clone(), path.clone(), self.etag.clone());
        runtime.spawn(async move {
            let read = stream::iter(ranges.into_iter().map(|range| {
                let (store, path, etag) = (store.clone(), path.clone(), etag.clone());
                async move {
                    if range.is_empty() {
                        return Ok(Bytes::new());
                    }
                    let options = GetOptions {
                        range: Some(GetRange::Bounded(range)),
                        if_match: etag,
                        ..Default::default()
                    };
                    store.get_opts(&path, options).await?.bytes().await
                }
            }))
            .buffered(CONCURRENT_REQUESTS)
            .try_collect::<Vec<_>>()
            .await;
            // Nobody waits any more when the query was cancelled.
            let _ = sender.send(read);
        });
        Ok(Fetch { url: self.url.clone(), receiver })
    }

    /// Opens the file once, and checks that it is the version that was planned with.
    fn open(&self) -> Result<&File> {
        let SourceKind::Local { path, file } = &self.kind else {
            return Err(EngineError::internal("a remote file is not opened"));
        };
        if let Some(open) = file.get() {
            return Ok(open);
        }
        let opened =
            File::open(path.as_ref()).map_err(|e| data(&self.url, format!("cannot be opened: {e}")))?;
        let metadata = opened.metadata().map_err(|e| data(&self.url, e.to_string()))?;
        if metadata.len() != self.size_bytes
            || self.etag.as_ref().is_some_and(|e| *e != local_etag(&metadata))
        {
            return Err(changed(&self.url));
        }
        Ok(file.get_or_init(|| opened))
    }

    fn check(&self, range: &Range<u64>) -> Result<()> {
        if range.start > range.end || range.end > self.size_bytes {
            return Err(data(
                &self.url,
                format!(
                    "its footer points at bytes {}..{}, but the file has {}; it is truncated or damaged, write it again",
                    range.start, range.end, self.size_bytes
                ),
            ));
        }
        Ok(())
    }
}

/// Ranges on their way.
pub struct Fetch {
    url: String,
    receiver: std::sync::mpsc::Receiver<Result<Vec<Bytes>, object_store::Error>>,
}

impl Fetch {
    /// The bytes, in the order of the ranges.
    pub fn wait(self) -> Result<Vec<Bytes>> {
        match self.receiver.recv() {
            Ok(read) => self.read(read),
            Err(_) => Err(self.broken_off()),
        }
    }

    /// [`Self::wait`], until the query is stopped or its time is over: a store may let itself be waited for long.
    pub fn wait_for(self, query: &QueryContext) -> Result<Vec<Bytes>> {
        loop {
            match self.receiver.recv_timeout(CANCELLED_EACH) {
                Ok(read) => return self.read(read),
                Err(RecvTimeoutError::Timeout) => query.check_cancelled()?,
                Err(RecvTimeoutError::Disconnected) => return Err(self.broken_off()),
            }
        }
    }

    fn read(&self, read: Result<Vec<Bytes>, object_store::Error>) -> Result<Vec<Bytes>> {
        read.map_err(|e| match e {
            object_store::Error::Precondition { .. } => changed(&self.url),
            other => data(&self.url, format!("reading failed: {other}")),
        })
    }

    fn broken_off(&self) -> EngineError {
        data(&self.url, "reading was broken off")
    }
}

fn wait<T: Send + 'static>(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    runtime.spawn(async move {
        let _ = sender.send(work.await);
    });
    receiver.recv().map_err(|_| EngineError::internal("the I/O runtime has shut down"))
}

fn changed(url: &str) -> EngineError {
    data(url, "the file has changed since the query was planned; run the query again")
}

fn data(place: &str, message: impl Into<String>) -> EngineError {
    EngineError::Data { place: place.to_string(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that answers when it is told to.
    fn slow_store() -> (std::sync::mpsc::SyncSender<Result<Vec<Bytes>, object_store::Error>>, Fetch) {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        (sender, Fetch { url: "s3://bucket/slow.parquet".into(), receiver })
    }

    #[test]
    fn nobody_waits_for_a_slow_store_when_the_time_is_over_or_the_query_stopped() {
        let soon = Duration::from_millis(80);
        let start = std::time::Instant::now();
        let (_asked, fetch) = slow_store();
        let query = QueryContext::new(0).with_deadline(crate::task::Deadline::after(soon));
        let told = fetch.wait_for(&query).unwrap_err().to_string();
        assert!(told.contains("statement_timeout"), "{told}");
        let (_asked, fetch) = slow_store();
        let query = Arc::new(QueryContext::new(0));
        // An attempt of a task stops with its query.
        let attempt = query.attempt();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(soon);
                query.cancel();
            });
            assert!(matches!(fetch.wait_for(&attempt), Err(EngineError::Cancelled)));
        });
        assert!(start.elapsed() >= 2 * soon && start.elapsed() < Duration::from_secs(5));
        let (asked, fetch) = slow_store();
        asked.send(Ok(vec![Bytes::from_static(b"late")])).unwrap();
        assert_eq!(fetch.wait_for(&QueryContext::new(0)).unwrap(), [Bytes::from_static(b"late")]);
    }
}
