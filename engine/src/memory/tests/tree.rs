//! Governors below governors: every byte is counted at each level, once; each level's limit holds.

use proptest::prelude::*;

use super::*;

/// The process, two users, and two sessions of each.
const PARENTS: [Option<usize>; 7] = [None, Some(0), Some(0), Some(1), Some(1), Some(2), Some(2)];
const LIMITS: [u64; 7] = [100_000, 60_000, 70_000, 30_000, 50_000, 40_000, 70_000];

fn tree() -> Vec<Governor> {
    let mut all = vec![Governor::new(LIMITS[0], SpillPolicy::AtLimit)];
    for node in 1..PARENTS.len() {
        let scope = if node < 3 { LimitScope::User } else { LimitScope::Session };
        let child = all[PARENTS[node].unwrap()].child(scope, LIMITS[node]);
        all.push(child);
    }
    all
}

/// A node and those above it.
fn chain(node: usize) -> Vec<usize> {
    std::iter::successors(Some(node), |node| PARENTS[*node]).collect()
}

enum Held {
    Operator(Reservation),
    Waiting(Charge),
}

struct Holder {
    node: usize,
    held: Held,
    spillable: usize,
    firm: usize,
}

/// What the holders at a node and below it hold.
fn sums(holders: &[Holder], node: usize) -> (usize, usize) {
    let below = holders.iter().filter(|h| chain(h.node).contains(&node));
    below.fold((0, 0), |(spillable, firm), h| (spillable + h.spillable, firm + h.firm))
}

#[derive(Debug, Clone)]
enum Step {
    Reserve(usize),
    Resize(usize, usize),
    ResizeFirm(usize, usize),
    Wait(usize),
    ToProcess(usize),
    Drop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (which, bytes) = (0..16usize, 0..45_000usize);
    let step = prop_oneof![
        2 => (0..PARENTS.len()).prop_map(Step::Reserve),
        4 => (which.clone(), bytes.clone()).prop_map(|(which, bytes)| Step::Resize(which, bytes)),
        4 => (which.clone(), bytes).prop_map(|(which, bytes)| Step::ResizeFirm(which, bytes)),
        1 => which.clone().prop_map(Step::Wait),
        1 => which.clone().prop_map(Step::ToProcess),
        1 => which.prop_map(Step::Drop),
    ];
    prop::collection::vec(step, 1..80)
}

/// One of the holders, whichever number was drawn.
fn one(holders: &mut [Holder], which: usize) -> Option<&mut Holder> {
    let count = holders.len();
    holders.get_mut(which % count.max(1))
}

fn take(governors: &[Governor], holders: &mut Vec<Holder>, step: Step) {
    match step {
        Step::Reserve(node) => {
            let held = Held::Operator(governors[node].reserve("a sort"));
            holders.push(Holder { node, held, spillable: 0, firm: 0 });
        }
        Step::Resize(which, bytes) => {
            let Some(Holder { node, held: Held::Operator(operator), spillable, .. }) = one(holders, which)
            else {
                return;
            };
            let told = operator.resize(bytes);
            *spillable = bytes;
            let is_over = |node: &usize| governors[*node].used_bytes() > LIMITS[*node] as usize / 100 * 70;
            assert!(!told || chain(*node).iter().any(is_over), "asked to spill below every limit");
            // An operator does as it is told.
            if told {
                operator.shrink(0);
                *spillable = 0;
            }
        }
        Step::ResizeFirm(which, bytes) => {
            let Some(index) = (!holders.is_empty()).then(|| which % holders.len()) else { return };
            let fits = chain(holders[index].node).into_iter().all(|node| {
                sums(holders, node).1 - holders[index].firm + bytes <= governors[node].limit_bytes()
            });
            let Holder { held: Held::Operator(operator), firm, .. } = &mut holders[index] else { return };
            let is_less = bytes <= *firm;
            assert_eq!(operator.resize_firm(bytes).is_ok(), fits || is_less);
            if fits || is_less {
                *firm = bytes;
            }
        }
        Step::Wait(which) => {
            let Some(index) = (!holders.is_empty()).then(|| which % holders.len()) else { return };
            let Holder { node, held, spillable, firm } = holders.swap_remove(index);
            // What can be spilled is gone with its operator. What waits is asked nothing, and may not stand
            // in the way of what cannot spill.
            let (held, spillable) = match held {
                Held::Operator(operator) => (Held::Waiting(operator.into_charge()), firm),
                waiting => (waiting, spillable),
            };
            holders.push(Holder { node, held, spillable, firm: 0 });
        }
        Step::ToProcess(which) => {
            let Some(index) = (!holders.is_empty()).then(|| which % holders.len()) else { return };
            if matches!(holders[index].held, Held::Waiting(_)) {
                let Holder { held: Held::Waiting(charge), spillable, firm, .. } = holders.swap_remove(index)
                else {
                    return;
                };
                holders.push(Holder { node: 0, held: Held::Waiting(charge.into_process()), spillable, firm });
            }
        }
        Step::Drop(which) => {
            if !holders.is_empty() {
                holders.swap_remove(which % holders.len());
            }
        }
    }
}

proptest! {
    #[test]
    fn each_byte_is_counted_at_each_level_once(steps in steps()) {
        let governors = tree();
        let mut holders = vec![];
        for step in steps {
            take(&governors, &mut holders, step.clone());
            for (node, governor) in governors.iter().enumerate() {
                let (spillable, firm) = sums(&holders, node);
                prop_assert_eq!(governor.used_bytes(), spillable + firm, "{:?} at {}", &step, node);
                prop_assert!(firm <= LIMITS[node] as usize, "{:?} at {}", &step, node);
            }
        }
        drop(holders);
        for governor in &governors {
            prop_assert_eq!(governor.used_bytes(), 0);
        }
        // Nothing is left of what could not spill either.
        let mut all = governors[0].reserve("a join");
        prop_assert!(all.resize_firm(LIMITS[0] as usize).is_ok());
    }
}

#[test]
fn a_child_spills_at_its_own_limit_and_at_its_parents() {
    // Spilling starts at 70 000, and at 14 000.
    let process = Governor::new(100_000, SpillPolicy::AtLimit);
    let of_anna = process.child(LimitScope::User, 20_000);
    let of_bert = process.child(LimitScope::User, 1 << 40);
    assert_eq!(of_bert.limit_bytes(), 100_000, "not more than the whole");
    let waiting = waiting(&of_anna, 10_000, false);
    let mut hers = of_anna.reserve("a sort");
    assert!(!hers.resize(4_000));
    assert!(!hers.resize(8_000), "what waits makes room");
    assert_eq!((waiting.0.spills.load(Ordering::Relaxed), of_anna.used_bytes()), (1, 8_000));
    assert!(hers.resize(14_001));
    hers.shrink(2_000);
    let mut his = of_bert.reserve("a sort");
    assert!(!his.resize(60_000), "hers is none of his");
    assert!(!hers.resize(13_000), "the process is short, and his is larger");
    assert!(his.resize(60_000), "he was asked");
    assert_eq!((of_anna.fair_share_bytes(), of_bert.fair_share_bytes()), (14_000, 35_000));
    hers.shrink(0);
    his.shrink(0);
    his.resize_firm(45_000).unwrap();
    assert_eq!((of_anna.firm_room_bytes(), of_bert.firm_room_bytes()), (5_000, 5_000));
    of_anna.note_spilled(7);
    assert_eq!((of_bert.spilled_bytes(), process.spilled_bytes()), (0, 7));
    drop((waiting, hers, his));
    assert_eq!((of_anna.used_bytes(), of_anna.peak_bytes(), process.used_bytes()), (0, 18_000, 0));
}

#[test]
fn what_cannot_spill_names_the_limit_that_it_does_not_fit() {
    let process = Governor::new(100 << 20, SpillPolicy::AtLimit);
    let of_user = process.child(LimitScope::User, 64 << 20);
    let of_session = of_user.child(LimitScope::Session, 32 << 20);
    let told = |error: EngineError| error.to_string();
    let mut operator = of_session.reserve("a join");
    assert_eq!(
        told(operator.resize_firm(33 << 20).unwrap_err()),
        "a join needs 33.0 MiB in memory at once and cannot spill it; the limit of a session is 32.0 MiB. Raise \
         --memory-per-session"
    );
    let mut beside = of_user.reserve("a sort");
    beside.resize_firm(60 << 20).unwrap();
    assert_eq!(
        told(operator.resize_firm(5 << 20).unwrap_err()),
        "a join needs 5.0 MiB in memory at once and cannot spill it; the limit of a user is 64.0 MiB, 60.0 MiB of \
         which other operators hold that cannot spill. Raise --memory-per-user"
    );
    // What was refused above is counted nowhere.
    assert_eq!(
        (of_session.used_bytes(), of_user.used_bytes(), process.used_bytes()),
        (0, 60 << 20, 60 << 20)
    );
    drop(beside);
    operator.resize_firm(32 << 20).unwrap();
}

#[test]
fn threads_of_two_users_end_at_zero_and_each_within_its_limit() {
    const LIMIT: usize = 1 << 20;
    let process = Governor::new(2 * LIMIT as u64, SpillPolicy::AtLimit);
    let users = [(); 2].map(|()| process.child(LimitScope::User, LIMIT as u64));
    std::thread::scope(|scope| {
        for thread in 0..8usize {
            let governor = users[thread % 2].child(LimitScope::Session, LIMIT as u64);
            scope.spawn(move || grow_and_spill(&governor, thread));
        }
    });
    for governor in &users {
        assert_eq!(governor.used_bytes(), 0);
        assert!(governor.peak_bytes() < 2 * LIMIT, "{}", governor.peak_bytes());
    }
    assert_eq!(process.used_bytes(), 0);
}
