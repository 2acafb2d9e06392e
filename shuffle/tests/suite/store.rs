//! The spill store: quotas and fallback, files and folders that go with their handles or with their process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dovetail_shuffle::ShuffleError;
use dovetail_shuffle::store::{SpillDirectory, SpillStore};

fn directory(path: impl Into<PathBuf>, quota_bytes: Option<u64>) -> SpillDirectory {
    SpillDirectory { path: path.into(), quota_bytes }
}

fn store(dir: &Path) -> SpillStore {
    SpillStore::open(&[directory(dir, None)]).unwrap()
}

/// Everything below a folder, by name.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn files_and_folders_go_with_their_last_handle() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let query = store.query("query 7/../x");
    assert_eq!(names(dir.path()).len(), 2, "a lock and a folder");
    let mut writer = query.create("task 1").unwrap();
    writer.append(&[1; 1000]).unwrap();
    let sealed = writer.seal().unwrap();
    assert_eq!((sealed.bytes(), store.bytes_in_use(), store.files_alive()), (1000, 1000, 1));
    assert_eq!(fs::read(sealed.path()).unwrap(), [1; 1000]);
    assert!(sealed.path().to_str().unwrap().contains("query7x-"), "{}", sealed.path().display());

    #[cfg(unix)]
    for entry in fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap()).filter(|e| e.path().is_dir()) {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "others may look in");
    }

    let mut unfinished = query.create("task 2").unwrap();
    unfinished.append(&vec![2; 1 << 20]).unwrap();
    assert_eq!((store.bytes_in_use(), store.files_alive()), (1000 + (1 << 20), 2));
    drop(unfinished);
    assert_eq!((store.bytes_in_use(), store.files_alive()), (1000, 1));

    let query_folder = sealed.path().parent().unwrap().to_path_buf();
    drop(query);
    assert!(sealed.path().exists(), "a file that is still read outlives the query's handle");
    drop(sealed);
    assert!(!query_folder.exists());
    assert_eq!((store.bytes_in_use(), store.files_alive()), (0, 0));
    drop(store);
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
}

#[test]
fn a_file_moves_to_the_next_directory_when_its_own_is_full() {
    let (small, large) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store =
        SpillStore::open(&[directory(small.path(), Some(1_000_000)), directory(large.path(), None)]).unwrap();
    let query = store.query("q");
    let mut writer = query.create("task").unwrap();
    let mut expected = vec![];
    for i in 0..40u8 {
        let piece = vec![i; 70_000];
        writer.append(&piece).unwrap();
        expected.extend(piece);
    }
    assert_eq!(writer.position(), expected.len() as u64);
    let sealed = writer.seal().unwrap();
    assert!(sealed.path().starts_with(large.path()), "{}", sealed.path().display());
    assert!(fs::read(sealed.path()).unwrap() == expected);
    assert_eq!((store.bytes_in_use(), store.files_alive()), (expected.len() as u64, 1));
    // The first directory has its room back.
    let mut again = query.create("task").unwrap();
    again.append(&[0; 900_000]).unwrap();
    assert!(again.seal().unwrap().path().starts_with(small.path()));
}

#[test]
fn when_all_are_full_the_error_names_them_and_nothing_is_lost() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store =
        SpillStore::open(&[directory(a.path(), Some(500_000)), directory(b.path(), Some(600_000))]).unwrap();
    let query = store.query("q");
    let mut writer = query.create("task").unwrap();
    writer.append(&[1; 400_000]).unwrap();
    let error = writer.append(&[2; 300_000]).unwrap_err();
    assert!(
        matches!(&error, ShuffleError::DiskFull { dirs, bytes: 300_000 } if dirs.len() == 2),
        "{error:?}"
    );
    let text = error.to_string();
    for part in [a.path().to_str().unwrap(), b.path().to_str().unwrap(), "300000", "--temp-dir", "500000"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!error.is_loss());
    assert_eq!((store.bytes_in_use(), store.files_alive()), (400_000, 1));
    // A smaller piece still fits, after the bytes that were there.
    writer.append(&[3; 50_000]).unwrap();
    let bytes = fs::read(writer.seal().unwrap().path()).unwrap();
    assert!(bytes == [vec![1; 400_000], vec![3; 50_000]].concat());
    assert_eq!(store.bytes_in_use(), 0);
}

/// Tests may run as root, who may write anywhere; below a regular file nobody may.
#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    fs::write(&file, "text").unwrap();
    let error = SpillStore::open(&[directory(file.join("spill"), None)]).unwrap_err();
    assert!(matches!(error, ShuffleError::Directory { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("a-file") && text.contains("--temp-dir"), "{text}");
}

#[test]
fn without_directories_the_error_says_so() {
    let error = SpillStore::open(&[]).unwrap().query("q").create("task").unwrap_err();
    assert!(error.to_string().contains("none is set"), "{error}");
}

#[test]
fn folders_of_the_dead_are_removed_and_those_of_the_living_kept() {
    let dir = tempfile::tempdir().unwrap();
    let dead = dir.path().join("dovetail-1-00");
    fs::create_dir_all(dead.join("q-1")).unwrap();
    fs::write(dead.join("q-1/task-1"), "left over").unwrap();
    fs::write(dir.path().join("dovetail-1-00.lock"), "").unwrap();
    let living = dir.path().join("dovetail-2-00");
    fs::create_dir_all(&living).unwrap();
    let lock = File::create(dir.path().join("dovetail-2-00.lock")).unwrap();
    lock.try_lock().unwrap();
    fs::write(dir.path().join("someone-else.lock"), "").unwrap();
    fs::create_dir(dir.path().join("someone-else")).unwrap();

    let store = store(dir.path());
    assert!(!dead.exists() && !dir.path().join("dovetail-1-00.lock").exists());
    assert!(living.exists() && dir.path().join("someone-else").exists());
    drop((store, lock));
    drop(SpillStore::open(&[directory(dir.path(), None)]).unwrap());
    assert_eq!(names(dir.path()), ["someone-else", "someone-else.lock"]);
}

const CHILD_DIRECTORY: &str = "DOVETAIL_TEST_SPILL_DIRECTORY";

/// The other process of the next test; does nothing when it runs by itself.
#[test]
fn child_that_spills_and_waits() {
    let Some(dir) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let store = store(Path::new(&dir));
    let mut writer = store.query("q").create("task").unwrap();
    writer.append(&vec![1; 1 << 20]).unwrap();
    println!("\nspilled");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn what_a_killed_process_leaves_is_removed_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::child_that_spills_and_waits", "--nocapture"])
        .env(CHILD_DIRECTORY, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map(|l| l.unwrap()).any(|line| line == "spilled"), "the child has not spilled");
    let of_child = names(dir.path());
    assert_eq!(of_child.len(), 2);
    drop(store(dir.path()));
    assert_eq!(names(dir.path()), of_child, "the child lives");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(dir.path()), of_child, "the child could not clean up");
    drop(store(dir.path()));
    assert!(names(dir.path()).is_empty());
}

#[test]
fn processes_that_start_together_do_not_remove_each_other() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let store = store(dir.path());
                    let mut writer = store.query("q").create("task").unwrap();
                    writer.append(b"bytes").unwrap();
                    assert_eq!(fs::read(writer.seal().unwrap().path()).unwrap(), b"bytes");
                }
            });
        }
    });
    assert!(names(dir.path()).is_empty());
}
