//! Damaged files: rows or an error, never a panic.

use super::data::{self, Random};
use super::*;

#[test]
fn flipped_bits_are_errors_or_other_values() {
    for seed in 0..6 {
        let mut random = Random(1000 + seed);
        let batch = data::table(&mut random, 600);
        let database = Database::new();
        let path = database.path("t.parquet");
        let properties = data::properties(&mut random, &batch);
        write(&path, &batch, properties);
        let whole = std::fs::read(&path).unwrap();
        let footer = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap()) as usize;
        let body = whole.len() - 8 - footer;
        let ask = Ask { output: (0..batch.num_columns()).collect(), ..Default::default() };
        for _ in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(body as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
            std::fs::write(&path, &bytes).unwrap();
            let catalog = database.catalog();
            if let Ok(Some(table)) = catalog.table("t")
                && let Err(error) = run(&catalog, &table, &ask, Published::default())
            {
                let text = error.to_string();
                assert!(text.contains("t.parquet"), "{text}");
                assert!(matches!(error, crate::EngineError::Data { .. }), "{text}");
            }
        }
    }
}
