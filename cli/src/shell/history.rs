//! Where the statements of earlier shells are kept.

use std::ffi::OsString;
use std::path::PathBuf;

/// `dovetail/history` in the folder for state: `$XDG_STATE_HOME`, or `~/.local/state`. The folder is
/// created; without a home there is no history.
pub fn path() -> Option<PathBuf> {
    let path = path_of(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"))?;
    std::fs::create_dir_all(path.parent()?).ok()?;
    Some(path)
}

fn path_of(state: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    // The specification has relative paths ignored.
    let state = state.map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || Some(PathBuf::from(home?).join(".local/state"));
    Some(state.or_else(home)?.join("dovetail/history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_home_before_home() {
        let path =
            |state: Option<&str>, home: Option<&str>| path_of(state.map(Into::into), home.map(Into::into));
        assert_eq!(path(Some("/s"), Some("/h")), Some("/s/dovetail/history".into()));
        assert_eq!(path(None, Some("/h")), Some("/h/.local/state/dovetail/history".into()));
        assert_eq!(path(Some("relative"), Some("/h")), Some("/h/.local/state/dovetail/history".into()));
        assert_eq!(path(None, None), None);
    }
}
