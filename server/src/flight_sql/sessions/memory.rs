//! What each user, and each session, may hold of the server's memory.
//!
//! What always holds: all sessions of a user that are there at a time are counted together; of a user who has none, and
//! nothing that is still held, nothing is kept.

use std::collections::HashMap;
use std::sync::Arc;

use dovetail_engine::LimitScope;
use dovetail_engine::memory::Governor;
use parking_lot::Mutex;

use super::Limits;

/// Hands out the governors of sessions.
pub struct UserMemory {
    database: Governor,
    per_user: Option<u64>,
    per_session: Option<u64>,
    /// Of users who may have sessions.
    users: Mutex<HashMap<Arc<str>, Governor>>,
}

impl UserMemory {
    /// Parts of the database's memory.
    pub fn new(database: Governor, limits: &Limits) -> UserMemory {
        let Limits { memory_per_user: per_user, memory_per_session: per_session, .. } = *limits;
        UserMemory { database, per_user, per_session, users: Mutex::default() }
    }

    /// What another session of a user reserves its memory of.
    pub fn of_session(&self, user: &Arc<str>) -> Governor {
        let of_user = self.per_user.map_or_else(|| self.database.clone(), |bytes| self.of_user(user, bytes));
        self.per_session.map_or_else(|| of_user.clone(), |bytes| of_user.child(LimitScope::Session, bytes))
    }

    fn of_user(&self, user: &Arc<str>, bytes: u64) -> Governor {
        let mut users = self.users.lock();
        users.retain(|_, memory| memory.is_shared());
        users.entry(user.clone()).or_insert_with(|| self.database.child(LimitScope::User, bytes)).clone()
    }
}

#[cfg(test)]
mod tests {
    use dovetail_engine::SpillPolicy;
    use dovetail_engine::memory::Charge;

    use super::*;

    #[test]
    fn sessions_of_a_user_share_and_nothing_is_kept_of_who_is_gone() {
        let database = Governor::new(1 << 30, SpillPolicy::AtLimit);
        let limits =
            Limits { memory_per_user: Some(1000), memory_per_session: Some(600), ..Limits::default() };
        let memory = UserMemory::new(database.clone(), &limits);
        let (one, another) = (memory.of_session(&"anna".into()), memory.of_session(&"anna".into()));
        let of_bert = memory.of_session(&"bert".into());
        let mut held = [one.reserve("a sort"), another.reserve("a sort"), of_bert.reserve("a sort")];
        held[0].resize_firm(600).unwrap();
        let told = |error: dovetail_engine::EngineError| error.to_string();
        assert!(told(held[0].resize_firm(601).unwrap_err()).ends_with("Raise --memory-per-session"));
        assert!(told(held[1].resize_firm(401).unwrap_err()).ends_with("Raise --memory-per-user"));
        held[1].resize_firm(400).unwrap();
        held[2].resize_firm(600).unwrap();
        assert_eq!(database.used_bytes(), 1600);
        let kept = Charge::of(&one, 10);
        drop((held, one, another, of_bert));
        memory.of_session(&"carl".into());
        let users = || memory.users.lock().keys().map(|user| user.to_string()).collect::<Vec<_>>();
        assert!(
            users().contains(&"anna".to_owned()) && !users().contains(&"bert".to_owned()),
            "{:?}",
            users()
        );
        drop(kept);
        memory.of_session(&"carl".into());
        assert_eq!((users(), database.used_bytes()), (vec!["carl".to_owned()], 0));
    }

    #[test]
    fn without_limits_there_is_one_governor() {
        let database = Governor::new(1 << 30, SpillPolicy::AtLimit);
        let of_session = UserMemory::new(database.clone(), &Limits::default()).of_session(&"anna".into());
        assert_eq!(of_session.scope(), LimitScope::Process);
        let _held = Charge::of(&of_session, 10);
        assert_eq!(database.used_bytes(), 10);
    }
}
