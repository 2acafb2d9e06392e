use dovetail_engine::{MemoryLimit, QueryResult, Session, SessionOptions, SpillPolicy};
use dovetail_server::{Listening, cluster::SchedulerSide, security::Security, worker};
use std::sync::Arc;

fn rows(r: &QueryResult) -> Vec<String> {
    let text = arrow::util::pretty::pretty_format_batches(&r.batches).unwrap().to_string();
    text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let threads: usize = args[3].parse().unwrap();
    let workers: usize = args[4].parse().unwrap();
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let session =
        Arc::new(Session::open(&args[1], SessionOptions { threads: 2, ..Default::default() }).unwrap());
    let local = Session::open(&args[1], SessionOptions { threads: 2, ..Default::default() }).unwrap();
    let (_keep, _stop) = rt.block_on(async {
        let listening = Listening::bind("127.0.0.1:0", Security::default(), false).unwrap();
        let url = listening.url();
        let side = SchedulerSide::start(&session, &Security::default(), Default::default()).unwrap();
        let routes = Routes::new(
            FlightSql::new(session.clone()).with_tickets(side.tickets()).server(&Security::default()),
        )
        .add_service(side.control());
        tokio::spawn(listening.serve(routes, std::future::pending()));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        for _ in 0..workers {
            let l = Listening::bind("127.0.0.1:0", Security::default(), false).unwrap();
            let options = worker::WorkerOptions {
                scheduler: url.clone(),
                advertise: None,
                threads,
                memory_limit: MemoryLimit::Bytes(
                    std::env::var("LIMIT").ok().map_or(4 << 30, |l| l.parse().unwrap()),
                ),
                spill_directories: vec![],
                spill: SpillPolicy::AtLimit,
            };
            let stopped = stopped.clone();
            tokio::spawn(async move {
                if let Err(e) = worker::run(options, l, stopped).await {
                    eprintln!("worker: {e}");
                }
            });
        }
        while side.slots() < (workers * threads) as u32 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        (side, stop)
    });
    let mut files: Vec<_> = std::fs::read_dir(&args[2]).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let (mut a, mut b) = (0.0, 0.0);
    for f in files {
        let name = f.file_stem().unwrap().to_string_lossy().to_string();
        if args.len() > 5 && !args[5].split(',').any(|q| q == name) {
            continue;
        }
        let sql = std::fs::read_to_string(&f).unwrap();
        for sql in session.statements(&sql).unwrap() {
            let t = std::time::Instant::now();
            let l = local.execute(&sql);
            let lt = t.elapsed().as_secs_f64();
            let t = std::time::Instant::now();
            let c = session.execute(&sql);
            let ct = t.elapsed().as_secs_f64();
            a += lt;
            b += ct;
            match (l, c) {
                (Ok(l), Ok(c)) => {
                    let (mut l, mut c) = (rows(&l), rows(&c));
                    let same = l == c;
                    l.sort();
                    c.sort();
                    println!(
                        "{name} {lt:.3} {ct:.3} {:.2} {}",
                        ct / lt,
                        if same {
                            "same"
                        } else if l == c {
                            "same rows"
                        } else {
                            "DIFFERENT"
                        }
                    );
                }
                (l, c) => println!(
                    "{name} {:?} {:?}",
                    l.err().map(|e| e.to_string()),
                    c.err().map(|e| e.to_string())
                ),
            }
        }
    }
    println!("total {a:.2} {b:.2} {:.2}", b / a);
    std::process::exit(0);
}
