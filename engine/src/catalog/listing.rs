//! Which files make which table: folders into names.
//!
//! Names that begin with `.` or `_` are passed over, as writers put their bookkeeping there. Listing
//! reads no file; a table that is known to be wrong from its paths alone carries the reason.

use std::collections::BTreeMap;
use std::path::Path;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::catalog::store::{Location, Stores, file_url, local_etag};
use crate::error::{EngineError, Result};

/// The tables of one folder, by lower-case name.
#[derive(Debug, Default, PartialEq)]
pub struct Listing {
    pub tables: BTreeMap<String, ListedTable>,
}

/// The files of one table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListedTable {
    /// The file or folder, for messages.
    pub place: String,
    /// Sorted by URL.
    pub files: Vec<ListedFile>,
    /// Why the table cannot be read at all.
    pub problem: Option<String>,
}

/// A file, not opened yet.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedFile {
    pub url: String,
    pub size_bytes: u64,
    pub etag: Option<String>,
}

/// A file with its path below the root.
struct Found {
    parts: Vec<String>,
    file: ListedFile,
}

/// Lists a folder, a single file, or a prefix.
pub fn list(stores: &Stores, root: &Location) -> Result<Listing> {
    let mut listing = Listing::default();
    let found = find(stores, root)?;
    for Found { parts, file } in found {
        let (first, rest) = parts.split_first().expect("invariant: a found file has a name");
        let direct = rest.is_empty();
        let name = if direct { table_name(first) } else { first.to_lowercase() };
        let place = if direct { file.url.clone() } else { folder_url(&file.url, rest.len()) };
        let table = listing
            .tables
            .entry(name.clone())
            .or_insert_with(|| ListedTable { place: place.clone(), ..Default::default() });
        if table.place != place {
            table.problem = Some(format!(
                "two sources would both be table '{name}': this and {place}; rename one of them"
            ));
        }
        if let Some(hive) = parts[..parts.len() - 1].iter().find(|p| p.contains('=')) {
            table.problem = Some(format!(
                "folders of the form key=value ('{hive}') are not supported yet; give the folder below it, \
                 or write the files with the key as a column"
            ));
        }
        table.files.push(file);
    }
    for table in listing.tables.values_mut() {
        table.files.sort_by(|a, b| a.url.cmp(&b.url));
    }
    Ok(listing)
}

/// The files of a file, folder or pattern: all of one table.
pub fn files_at(stores: &Stores, location: &Location) -> Result<Vec<ListedFile>> {
    let (base, pattern) = split_pattern(location)?;
    let mut files: Vec<_> = find(stores, &base)?
        .into_iter()
        .filter(|f| match &pattern {
            Some(p) => f.parts.len() == 1 && matches_pattern(p, &f.parts[0]),
            None => true,
        })
        .map(|f| f.file)
        .collect();
    files.sort_by(|a, b| a.url.cmp(&b.url));
    Ok(files)
}

fn find(stores: &Stores, root: &Location) -> Result<Vec<Found>> {
    match root {
        Location::Local(path) => {
            let metadata = std::fs::metadata(path).map_err(|e| EngineError::Data {
                place: path.display().to_string(),
                message: match e.kind() {
                    std::io::ErrorKind::NotFound => "there is no such file or folder; check the path".into(),
                    _ => format!("cannot be read: {e}"),
                },
            })?;
            let mut found = vec![];
            if metadata.is_dir() {
                walk(path, &mut vec![], &mut found)?;
            } else {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.push(Found { parts: vec![name], file: local_file(path, &metadata)? });
            }
            Ok(found)
        }
        Location::Remote { base, path } => find_remote(stores, base, path),
    }
}

fn walk(folder: &Path, parts: &mut Vec<String>, found: &mut Vec<Found>) -> Result<()> {
    let failed = |e: std::io::Error| EngineError::Data {
        place: folder.display().to_string(),
        message: format!("the folder cannot be listed: {e}"),
    };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_hidden(&name) {
            continue;
        }
        let path = entry.path();
        // Through symbolic links; a dangling one, or a file deleted meanwhile, is no table.
        let Ok(metadata) = std::fs::metadata(&path) else {
            continue;
        };
        parts.push(name);
        if metadata.is_dir() {
            // Deeper than any real layout: a loop of links.
            if parts.len() < 32 {
                walk(&path, parts, found)?;
            }
        } else if is_parquet(parts.last().expect("invariant: just pushed")) {
            found.push(Found { parts: parts.clone(), file: local_file(&path, &metadata)? });
        }
        parts.pop();
    }
    Ok(())
}

fn local_file(path: &Path, metadata: &std::fs::Metadata) -> Result<ListedFile> {
    Ok(ListedFile { url: file_url(path)?, size_bytes: metadata.len(), etag: Some(local_etag(metadata)) })
}

fn find_remote(stores: &Stores, base: &str, path: &object_store::path::Path) -> Result<Vec<Found>> {
    let store = stores.store(base)?;
    let prefix = path.clone();
    let place = format!("{base}/{path}");
    let failed = |e: object_store::Error| EngineError::Data {
        place: place.clone(),
        message: format!(
            "listing failed: {e}; check the bucket, AWS_REGION, AWS_ENDPOINT_URL and the credentials"
        ),
    };
    let objects = stores
        .wait(async move {
            if is_parquet(prefix.filename().unwrap_or_default())
                && let Ok(one) = store.head(&prefix).await
            {
                return Ok(vec![one]);
            }
            store.list(Some(&prefix)).try_collect::<Vec<_>>().await
        })?
        .map_err(failed)?;
    let mut found = vec![];
    for object in objects {
        let parts: Vec<String> = match object.location.prefix_match(path) {
            Some(parts) => parts.map(|p| p.as_ref().to_string()).collect(),
            None => vec![],
        };
        let parts = match (parts.is_empty(), object.location.filename()) {
            (true, Some(name)) => vec![name.to_string()],
            _ => parts,
        };
        let Some(name) = parts.last() else { continue };
        if !is_parquet(name) || parts.iter().any(|p| is_hidden(p)) {
            continue;
        }
        let file = ListedFile {
            url: format!("{base}/{}", object.location),
            size_bytes: object.size,
            etag: object.e_tag.clone(),
        };
        found.push(Found { parts, file });
    }
    Ok(found)
}

/// A location with `*` in its last part as folder and pattern.
fn split_pattern(location: &Location) -> Result<(Location, Option<String>)> {
    let (folder, last) = match location {
        Location::Local(path) => (
            path.parent().map(|p| Location::Local(p.to_path_buf())),
            path.file_name().map(|n| n.to_string_lossy().into_owned()),
        ),
        Location::Remote { base, path } => {
            let parts: Vec<_> = path.parts().collect();
            let parent = parts.iter().take(parts.len().saturating_sub(1)).cloned().collect();
            (Some(Location::Remote { base: base.clone(), path: parent }), path.filename().map(str::to_string))
        }
    };
    match (folder, last) {
        (Some(folder), Some(last)) if last.contains('*') => Ok((folder, Some(last))),
        _ => Ok((location.clone(), None)),
    }
}

/// `*` stands for any run of characters.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(pieces.next().unwrap_or_default()) else {
        return false;
    };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else {
        return rest.is_empty();
    };
    for piece in middle {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name.starts_with('_')
}

fn is_parquet(name: &str) -> bool {
    name.len() > 8 && name.get(name.len() - 8..).is_some_and(|end| end.eq_ignore_ascii_case(".parquet"))
}

fn table_name(file: &str) -> String {
    if is_parquet(file) { file[..file.len() - 8].to_lowercase() } else { file.to_lowercase() }
}

/// The URL without its last `depth` parts.
fn folder_url(url: &str, depth: usize) -> String {
    let mut end = url.len();
    for _ in 0..depth {
        end = url[..end].rfind('/').unwrap_or(0);
    }
    url[..end].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches_pattern("*.parquet", "a.parquet"));
        assert!(matches_pattern("a*b*.parquet", "a-x-b1.parquet"));
        assert!(!matches_pattern("a*b*.parquet", "a-x.parquet"));
        assert!(!matches_pattern("a*a", "a"));
        assert!(matches_pattern("plain", "plain") && !matches_pattern("plain", "plainer"));
    }

    #[test]
    fn names() {
        assert_eq!(table_name("Orders.PARQUET"), "orders");
        assert!(!is_parquet(".parquet"));
        assert_eq!(folder_url("file:///d/t/x/y.parquet", 2), "file:///d/t");
    }
}
