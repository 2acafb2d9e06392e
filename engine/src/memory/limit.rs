//! The memory limit as a person writes it: `512MB`, `2GiB`, `80%`; and whom limits are for.

use std::fmt;
use std::str::FromStr;

use super::readable;
use crate::error::{EngineError, Result};

/// The least limit that may be written: with less, what is never counted is more than what is. An
/// embedding program may set less ([`MemoryLimit::Bytes`]); tests do.
pub const MEMORY_LIMIT_BYTES_MIN: u64 = 32 << 20;

/// Of a machine that does not say how much memory it has.
const MACHINE_BYTES_UNKNOWN: u64 = 8 << 30;

/// How much memory a session's queries may hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    Bytes(u64),
    /// Of what the machine has, or the control group (container) that the process runs in; 1 to 100.
    Percent(u8),
}

/// Whom a limit bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitScope {
    /// All queries of a process together.
    Process,
    /// Those of a user of a server.
    User,
    /// Those of a session of a server's client.
    Session,
}

impl LimitScope {
    /// The flag that gives the limit.
    pub fn flag(self) -> &'static str {
        match self {
            LimitScope::Process => "--memory-limit",
            LimitScope::User => "--memory-per-user",
            LimitScope::Session => "--memory-per-session",
        }
    }

    /// What a message calls the limit.
    pub fn name(self) -> &'static str {
        match self {
            LimitScope::Process => "the limit",
            LimitScope::User => "the limit of a user",
            LimitScope::Session => "the limit of a session",
        }
    }
}

impl Default for MemoryLimit {
    fn default() -> Self {
        MemoryLimit::Percent(80)
    }
}

impl MemoryLimit {
    /// The limit in bytes, on this machine.
    pub fn bytes(self) -> u64 {
        match self {
            MemoryLimit::Bytes(bytes) => bytes,
            MemoryLimit::Percent(_) => self.bytes_of(machine_bytes().unwrap_or(MACHINE_BYTES_UNKNOWN)),
        }
    }

    /// The limit in bytes, where a share is one of so many.
    pub fn bytes_of(self, whole: u64) -> u64 {
        match self {
            MemoryLimit::Bytes(bytes) => bytes,
            MemoryLimit::Percent(percent) => (u128::from(whole) * u128::from(percent) / 100) as u64,
        }
    }
}

impl FromStr for MemoryLimit {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(percent) = text.trim().strip_suffix('%') {
            let percent = percent.trim().parse::<u8>().ok().filter(|p| (1..=100).contains(p));
            return percent.map(MemoryLimit::Percent).ok_or_else(|| {
                EngineError::Resources(format!("'{text}' is no share of the memory: write 1% to 100%"))
            });
        }
        let bytes = parse_size(text)?;
        if bytes < MEMORY_LIMIT_BYTES_MIN {
            return Err(EngineError::Resources(format!(
                "a memory limit of {text} is too low: {} is the least",
                readable(MEMORY_LIMIT_BYTES_MIN)
            )));
        }
        Ok(MemoryLimit::Bytes(bytes))
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryLimit::Bytes(bytes) => f.write_str(&readable(*bytes)),
            MemoryLimit::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// A size with its unit: `512MB` is 512 million bytes, `512MiB` is 512 · 2²⁰.
pub(super) fn parse_size(text: &str) -> Result<u64> {
    const UNITS: [(&str, u64); 9] = [
        ("b", 1),
        ("kb", 1000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
    ];
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let number = number.parse::<f64>().ok().filter(|n| n.is_finite());
    match (number, factor) {
        (Some(number), Some(factor)) if number * (factor as f64) < u64::MAX as f64 => {
            Ok((number * factor as f64) as u64)
        }
        _ => Err(EngineError::Resources(format!(
            "'{text}' is no size: write a number and a unit, such as 512MB or 2GiB"
        ))),
    }
}

/// Memory of the machine, or what the process's control group allows of it.
fn machine_bytes() -> Option<u64> {
    let all = physical_bytes();
    match (all, control_group_bytes()) {
        (Some(all), Some(allowed)) => Some(all.min(allowed)),
        (all, allowed) => all.or(allowed),
    }
}

#[cfg(not(target_os = "macos"))]
fn physical_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(target_os = "macos")]
fn physical_bytes() -> Option<u64> {
    let output = std::process::Command::new("sysctl").args(["-n", "hw.memsize"]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// The least limit of the process's control group and those above it, of version 2 or 1.
fn control_group_bytes() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut least = None;
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            c if c.split(',').any(|c| c == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // In a container the group's own path may not be there; its limit is at the root then.
        for group in std::path::Path::new(group.trim_start_matches('/')).ancestors() {
            let path = std::path::Path::new(root).join(group).join(file);
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            if let Ok(bytes) = text.trim().parse::<u64>() {
                least = Some(least.map_or(bytes, |l: u64| l.min(bytes)));
            }
        }
    }
    least
}
