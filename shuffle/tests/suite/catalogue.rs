//! The catalogue: its story told once, then random events against a model that remembers every event.

use dovetail_shuffle::ShuffleError;
use dovetail_shuffle::catalogue::{Catalogue, ExchangeId, MapAttempt, PartitionSizes, Reading, Verdict};

use crate::samples::Random;

const EXCHANGE: ExchangeId = ExchangeId(7);

fn attempt(task: usize, attempt: u32) -> MapAttempt {
    MapAttempt { exchange: EXCHANGE, task, attempt }
}

fn sizes(rows: &[u64]) -> PartitionSizes {
    PartitionSizes { rows: rows.to_vec(), bytes: rows.iter().map(|r| r * 8).collect() }
}

#[test]
fn the_first_commit_wins_and_a_lost_attempt_never_returns() {
    let mut catalogue = Catalogue::default();
    catalogue.register(EXCHANGE, 2, 1, Reading::Whole);
    assert_eq!(catalogue.committed(attempt(0, 1), sizes(&[5])), Verdict::Keep);
    assert_eq!(catalogue.committed(attempt(0, 0), sizes(&[5])), Verdict::Discard);
    assert_eq!(catalogue.committed(attempt(0, 1), sizes(&[5])), Verdict::Keep, "a repeated message");
    assert_eq!(catalogue.missing(EXCHANGE), [1]);
    assert!(!catalogue.lost(attempt(0, 0)), "it was not the output");
    assert!(catalogue.lost(attempt(0, 1)));
    assert!(!catalogue.lost(attempt(0, 1)));
    assert_eq!(catalogue.committed(attempt(0, 1), sizes(&[5])), Verdict::Discard);
    assert_eq!(catalogue.committed(attempt(0, 2), sizes(&[5])), Verdict::Keep);
    assert!(!catalogue.lost(attempt(1, 0)), "lost before its commit arrived");
    assert_eq!(catalogue.committed(attempt(1, 0), sizes(&[2])), Verdict::Discard);
    assert_eq!(catalogue.committed(attempt(1, 1), sizes(&[2])), Verdict::Keep);
    assert_eq!(catalogue.sizes(attempt(1, 1)), Some(&sizes(&[2])));
    assert_eq!(catalogue.released(EXCHANGE), [attempt(0, 2), attempt(1, 1)]);
    assert_eq!(catalogue.committed(attempt(0, 3), sizes(&[5])), Verdict::Discard);
    assert!(!catalogue.lost(attempt(0, 2)));
}

#[test]
fn rows_must_be_conserved() {
    let mut catalogue = Catalogue::default();
    catalogue.register(EXCHANGE, 2, 2, Reading::Whole);
    catalogue.committed(attempt(0, 0), sizes(&[10, 0]));
    catalogue.committed(attempt(1, 0), sizes(&[7, 0]));
    let error = catalogue.check_conservation(EXCHANGE).unwrap_err();
    assert!(matches!(error, ShuffleError::Conservation { exchange: 7, partition: 0, written: 17, read: 0 }));
    catalogue.read(EXCHANGE, 0, 0, 16);
    let text = catalogue.check_conservation(EXCHANGE).unwrap_err().to_string();
    assert!(text.contains("exchange 7") && text.contains("17") && text.contains("16"), "{text}");
    // The reader runs again, after a loss: what it read last counts, and so do the rows of the lost output.
    catalogue.lost(attempt(1, 0));
    catalogue.read(EXCHANGE, 0, 0, 17);
    catalogue.check_conservation(EXCHANGE).unwrap();
    // Of a broadcast every reader reads all.
    catalogue.read(EXCHANGE, 0, 1, 17);
    catalogue.check_conservation(EXCHANGE).unwrap();
    catalogue.read(EXCHANGE, 0, 2, 18);
    assert!(catalogue.check_conservation(EXCHANGE).is_err());
}

#[test]
fn divided_partitions_are_conserved_together() {
    let mut catalogue = Catalogue::default();
    catalogue.register(EXCHANGE, 1, 1, Reading::Divided);
    catalogue.committed(attempt(0, 0), sizes(&[10]));
    catalogue.read(EXCHANGE, 0, 3, 4);
    assert!(catalogue.check_conservation(EXCHANGE).is_err());
    catalogue.read(EXCHANGE, 0, 4, 6);
    catalogue.check_conservation(EXCHANGE).unwrap();
}

/// Everything that happened to one exchange, in order; every answer is found by going through it.
#[derive(Default)]
struct Model {
    registered: bool,
    events: Vec<Event>,
}

#[derive(Clone, Copy)]
enum Event {
    Committed { task: usize, attempt: u32, rows: [u64; PARTITIONS] },
    Lost { task: usize, attempt: u32 },
    Read { partition: usize, reader: usize, rows: u64 },
}

const TASKS: usize = 3;
const PARTITIONS: usize = 2;

impl Model {
    /// The attempt whose output may be read, and the rows of the one kept last.
    fn kept(&self, of: usize) -> (Option<u32>, [u64; PARTITIONS]) {
        let (mut kept, mut last) = (None, [0; PARTITIONS]);
        for (at, event) in self.events.iter().enumerate() {
            match *event {
                Event::Committed { task, attempt, rows } if task == of => {
                    let was_lost = self.events[..at].iter().any(
                        |e| matches!(e, Event::Lost { task: t, attempt: a } if (*t, *a) == (task, attempt)),
                    );
                    if kept.is_none() && !was_lost {
                        (kept, last) = (Some(attempt), rows);
                    }
                }
                Event::Lost { task, attempt } if task == of && kept == Some(attempt) => kept = None,
                _ => {}
            }
        }
        (kept, last)
    }

    fn is_conserved(&self, reading: Reading) -> bool {
        (0..PARTITIONS).all(|of| {
            let written: u64 = (0..TASKS).map(|task| self.kept(task).1[of]).sum();
            let last_of = |who| {
                self.events.iter().rev().find_map(|e| match *e {
                    Event::Read { partition, reader, rows } if (partition, reader) == (of, who) => Some(rows),
                    _ => None,
                })
            };
            let reads: Vec<u64> = (0..READERS).filter_map(last_of).collect();
            match reading {
                Reading::Divided => reads.iter().sum::<u64>() == written,
                Reading::Whole if reads.is_empty() => written == 0,
                Reading::Whole => reads.iter().all(|rows| *rows == written),
            }
        })
    }
}

const READERS: usize = 2;

#[test]
fn random_events_give_what_a_model_gives() {
    let mut conserved = 0;
    for seed in 0..3_000 {
        let mut random = Random(seed);
        let mut catalogue = Catalogue::default();
        let reading = if seed % 2 == 0 { Reading::Whole } else { Reading::Divided };
        let mut model = Model::default();
        // Released exchanges never return, so each life has its number.
        let mut exchange = ExchangeId(0);
        for _ in 0..60 {
            let (task, number) = (random.below(TASKS), random.below(3) as u32);
            let attempt = MapAttempt { exchange, task, attempt: number };
            match random.below(12) {
                0 if !model.registered => {
                    catalogue.register(exchange, TASKS, PARTITIONS, reading);
                    model.registered = true;
                }
                1 if random.below(4) == 0 => {
                    let kept = (0..TASKS).filter(|_| model.registered).filter_map(|task| {
                        model.kept(task).0.map(|attempt| MapAttempt { exchange, task, attempt })
                    });
                    assert_eq!(catalogue.released(exchange), kept.collect::<Vec<_>>(), "seed {seed}");
                    model = Model::default();
                    exchange.0 += 1;
                }
                2..=6 => {
                    let rows = [random.below(2) as u64, random.below(2) as u64];
                    let verdict = catalogue.committed(attempt, sizes(&rows));
                    if model.registered {
                        model.events.push(Event::Committed { task, attempt: number, rows });
                    }
                    let keep = model.kept(task).0 == Some(number);
                    assert_eq!(verdict, if keep { Verdict::Keep } else { Verdict::Discard }, "seed {seed}");
                }
                7 | 8 => {
                    let was_kept = model.kept(task).0 == Some(number);
                    if model.registered {
                        model.events.push(Event::Lost { task, attempt: number });
                    }
                    assert_eq!(catalogue.lost(attempt), was_kept, "seed {seed}");
                }
                _ => {
                    let (partition, reader) = (random.below(PARTITIONS), random.below(READERS));
                    let rows = random.below(3) as u64;
                    catalogue.read(exchange, partition, reader, rows);
                    if model.registered {
                        model.events.push(Event::Read { partition, reader, rows });
                    }
                }
            }
            if model.registered {
                let missing = |task: &usize| model.kept(*task).0.is_none();
                let missing: Vec<usize> = (0..TASKS).filter(missing).collect();
                assert_eq!(catalogue.missing(exchange), missing, "seed {seed}");
                assert_eq!(catalogue.outputs(exchange).len(), TASKS - missing.len());
                let right = model.is_conserved(reading);
                assert_eq!(catalogue.check_conservation(exchange).is_ok(), right, "seed {seed}");
                conserved += usize::from(right);
            }
        }
    }
    assert!(conserved > 1_000, "rows were conserved {conserved} times only: the check is hardly tested");
}
