//! TPC-H tables as Parquet files, by the generator that gives every engine the same rows.
//!
//! `lineitem` and `orders` become folders of several files, the rest one file each. What always holds: a
//! folder that has its name is whole. The files are written under a temporary name beside it, with the
//! marker as the last of them, and the folder is renamed when all is there.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tpchgen::generators::*;
use tpchgen_arrow::*;

/// Holds the scale factor; engines skip files whose name begins with an underscore.
const MARKER: &str = "_READY";
/// Small enough that a few threads share the work on a single file.
const ROW_GROUP_ROWS: usize = 100_000;

/// One file to write: part `part` of `parts`, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    table: &'static str,
    part: i32,
    parts: i32,
}

/// Whether `dir` holds the whole dataset. A folder with anything else in it is an error, so that nothing
/// of the user's is overwritten.
pub fn is_ready(dir: &Path, scale_factor: f64) -> Result<bool> {
    match fs::read_to_string(dir.join(MARKER)) {
        Ok(found) if found.trim() == scale_factor.to_string() => return Ok(true),
        Ok(found) => bail!(
            "{} holds scale factor {}; name another folder for {scale_factor}, or delete that one",
            dir.display(),
            found.trim()
        ),
        Err(_) => {}
    }
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).with_context(|| format!("cannot use {} for the demo's data", dir.display())),
    };
    if entries.next().is_some() {
        bail!("{} holds other files; name a new or empty folder for the demo's data", dir.display());
    }
    Ok(false)
}

/// Writes the dataset with `threads` threads, unless `cancelled` says to stop, and then names it `dir`.
pub fn write(
    dir: &Path,
    scale_factor: f64,
    threads: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<()> {
    if is_ready(dir, scale_factor)? {
        return Ok(());
    }
    let partial = partial_name(dir)?;
    let written =
        write_files(&partial, scale_factor, threads, cancelled).and_then(|()| publish(&partial, dir));
    if written.is_err() {
        // The first error is the one to tell; leftovers have a name that no one takes for the data.
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

/// `.NAME.partial-PID` beside the folder, so that the rename stays within one file system.
fn partial_name(dir: &Path) -> Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        bail!("{} cannot hold the demo's data", dir.display());
    };
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    Ok(parent.join(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id())))
}

fn publish(partial: &Path, dir: &Path) -> Result<()> {
    match fs::rename(partial, dir) {
        // Somebody else was faster, with the same data.
        Err(_) if dir.join(MARKER).exists() => Ok(fs::remove_dir_all(partial)?),
        renamed => renamed.with_context(|| format!("cannot create {}", dir.display())),
    }
}

fn write_files(
    folder: &Path,
    scale_factor: f64,
    threads: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let queue = Mutex::new(VecDeque::from(pieces(scale_factor)));
    let next = || queue.lock().ok().and_then(|mut q| q.pop_front());
    let work = || -> Result<()> {
        while let Some(piece) = next() {
            let path = path_of(folder, &piece);
            write_piece(&path, &piece, scale_factor, cancelled)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    fs::write(folder.join(MARKER), format!("{scale_factor}\n"))?;
    Ok(())
}

/// All files of the dataset, the largest first, so that no thread ends with a large one.
fn pieces(scale_factor: f64) -> Vec<Piece> {
    // Files of some ten megabytes, but always several: partitions are what the demo is about.
    let parts = (scale_factor * 8.0).ceil().clamp(4.0, 256.0) as i32;
    let many = ["lineitem", "orders"]
        .into_iter()
        .flat_map(|table| (1..=parts).map(move |part| Piece { table, part, parts }));
    let single = ["partsupp", "part", "customer", "supplier", "nation", "region"];
    many.chain(single.into_iter().map(|table| Piece { table, part: 1, parts: 1 })).collect()
}

fn path_of(folder: &Path, piece: &Piece) -> PathBuf {
    match piece.parts {
        1 => folder.join(format!("{}.parquet", piece.table)),
        _ => folder.join(piece.table).join(format!("part-{:03}.parquet", piece.part)),
    }
}

fn write_piece(
    path: &Path,
    piece: &Piece,
    scale_factor: f64,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let batches = batches(piece, scale_factor)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, batches.schema().clone(), Some(properties))?;
    for batch in batches {
        if cancelled() {
            bail!("interrupted");
        }
        writer.write(&batch)?;
    }
    writer.close()?;
    Ok(())
}

fn batches(piece: &Piece, scale_factor: f64) -> Result<Box<dyn RecordBatchIterator>> {
    let Piece { table, part, parts } = *piece;
    Ok(match table {
        "lineitem" => Box::new(LineItemArrow::new(LineItemGenerator::new(scale_factor, part, parts))),
        "orders" => Box::new(OrderArrow::new(OrderGenerator::new(scale_factor, part, parts))),
        "partsupp" => Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale_factor, part, parts))),
        "part" => Box::new(PartArrow::new(PartGenerator::new(scale_factor, part, parts))),
        "customer" => Box::new(CustomerArrow::new(CustomerGenerator::new(scale_factor, part, parts))),
        "supplier" => Box::new(SupplierArrow::new(SupplierGenerator::new(scale_factor, part, parts))),
        "nation" => Box::new(NationArrow::new(NationGenerator::new(scale_factor, part, parts))),
        "region" => Box::new(RegionArrow::new(RegionGenerator::new(scale_factor, part, parts))),
        other => bail!("there is no TPC-H table {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_tables_are_folders_and_small_ones_files() {
        let pieces = pieces(0.1);
        let paths: Vec<_> = pieces.iter().map(|p| path_of(Path::new("d"), p)).collect();
        assert!(paths.contains(&PathBuf::from("d/lineitem/part-004.parquet")));
        assert!(paths.contains(&PathBuf::from("d/nation.parquet")));
        assert_eq!(paths.len(), 4 + 4 + 6);
    }

    #[test]
    fn other_peoples_folders_are_left_alone() {
        let scratch = std::env::temp_dir().join(format!("dovetail-demo-test-{}", std::process::id()));
        fs::create_dir_all(&scratch).unwrap();
        assert!(!is_ready(&scratch, 0.1).unwrap());
        fs::write(scratch.join("thesis.txt"), "x").unwrap();
        assert!(is_ready(&scratch, 0.1).unwrap_err().to_string().contains("other files"));
        fs::write(scratch.join(MARKER), "0.1\n").unwrap();
        assert!(is_ready(&scratch, 0.1).unwrap());
        assert!(is_ready(&scratch, 0.2).unwrap_err().to_string().contains("scale factor 0.1"));
        fs::remove_dir_all(&scratch).unwrap();
    }

    #[test]
    fn a_cancelled_write_leaves_nothing() {
        let scratch = std::env::temp_dir().join(format!("dovetail-demo-cancel-{}", std::process::id()));
        let dir = scratch.join("tpch");
        let e = write(&dir, 0.001, 2, &|| true).unwrap_err();
        assert!(format!("{e:#}").contains("interrupted"), "{e:#}");
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
        fs::remove_dir_all(&scratch).unwrap();
    }
}
