#!/usr/bin/env python3
"""Dovetail's server under many clients, and one large result, both over ADBC.

  pip install adbc-driver-flightsql adbc-driver-manager pyarrow duckdb
  cargo build --release
  python3 benchmarks/clients.py many                    100 clients for a minute, one more that reads slowly
  python3 benchmarks/clients.py stream                  60 million rows, beside DuckDB and a plain Flight server

`many`: each client has a connection of its own and runs short queries one after the other, on TPC-H at scale factor
1; their times, their number and what the server has in memory are printed at the end. One client reads a large result
batch by batch with pauses all the while.

`stream`: the same columns of TPC-H's lineitem at scale factor 10, from the same files: by a Dovetail server to ADBC,
by a Flight server of pyarrow that does nothing but to read Parquet and send it, and by DuckDB to Arrow inside one
process. Engine after engine, the best of the rounds counts.
"""
import argparse, multiprocessing, os, random, re, statistics, subprocess, sys, threading, time

from run import ROOT

SHORT = [
    "SELECT s_name, s_acctbal FROM supplier WHERE s_suppkey = {key}",
    "SELECT n_name, count(*) FROM supplier JOIN nation ON s_nationkey = n_nationkey GROUP BY n_name ORDER BY 2 DESC",
    "SELECT count(*), sum(c_acctbal) FROM customer WHERE c_nationkey = {nation}",
    "SELECT r_name, n_name FROM region JOIN nation ON r_regionkey = n_regionkey WHERE n_nationkey = {nation}",
]
COLUMNS = ["l_orderkey", "l_partkey", "l_quantity", "l_extendedprice", "l_shipdate"]
CLIENTS_PER_PROCESS = 25


def connect(url):
    import adbc_driver_flightsql.dbapi as flight_sql
    return flight_sql.connect(url, autocommit=True)


def tpch(a, scale_factor):
    """A folder with TPC-H's tables."""
    folder = a.data or os.path.join(ROOT, "target", f"tpch-sf{scale_factor}")
    if not os.path.isdir(folder):
        words = [a.binary, "demo", folder, "--scale-factor", str(scale_factor), "--data-only"]
        subprocess.run(words, check=True)
    return folder


class Server:
    """A server of ours on a free port, and what it has in memory, looked at ten times a second."""

    def __init__(self, binary, data, words=()):
        self.process = subprocess.Popen([binary, "server", data, "--listen", "127.0.0.1:0", *words],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.url = None
        for line in self.process.stdout:
            if found := re.search(r"grpc://(127\.0\.0\.1:\d+)", line):
                self.url = f"grpc://{found[1]}"
                break
        if not self.url:
            raise SystemExit("the server has not started")
        threading.Thread(target=lambda: [None for _ in self.process.stdout], daemon=True).start()
        self.samples = []
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while self.process.poll() is None:
            with open(f"/proc/{self.process.pid}/statm") as f:
                self.samples.append(int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)
            time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def client(url, until, seed, results):
    """Short queries until it is time; their seconds, and what went wrong."""
    chance = random.Random(seed)
    seconds, failures = [], []
    try:
        with connect(url) as connection:
            while time.time() < until:
                sql = chance.choice(SHORT).format(key=chance.randint(1, 10_000), nation=chance.randint(0, 24))
                start = time.perf_counter()
                try:
                    with connection.cursor() as cursor:
                        cursor.execute(sql)
                        cursor.fetch_arrow_table()
                    seconds.append(time.perf_counter() - start)
                except Exception as e:
                    failures.append(str(e)[:200])
    except Exception as e:
        failures.append(str(e)[:200])
    results.append((seconds, failures))


def some_clients(url, until, seeds, queue):
    results = []
    threads = [threading.Thread(target=client, args=(url, until, seed, results)) for seed in seeds]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    queue.put(results)


def slow_reader(url, until, queue):
    """Reads a large result, with pauses."""
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM lineitem")
        reader, rows = cursor.fetch_record_batch(), 0
        while time.time() < until and (batch := next(reader, None)) is not None:
            rows += batch.num_rows
            time.sleep(0.5)
    queue.put(rows)


def run_clients(url, clients, seconds):
    queue = multiprocessing.Queue()
    until = time.time() + seconds
    groups = [range(s, min(s + CLIENTS_PER_PROCESS, clients)) for s in range(0, clients, CLIENTS_PER_PROCESS)]
    processes = [multiprocessing.Process(target=some_clients, args=(url, until, g, queue)) for g in groups]
    for p in processes:
        p.start()
    results = [r for _ in processes for r in queue.get()]
    for p in processes:
        p.join()
    times = sorted(t for r, _ in results for t in r)
    failures = [f for _, r in results for f in r]
    share = lambda p: 1000 * times[min(len(times) - 1, int(p * len(times)))]
    print(f"{clients} clients, {seconds} s: {len(times)} queries, {len(times) / seconds:.0f} a second, median"
          f" {share(.5):.1f} ms, p99 {share(.99):.1f} ms, longest {share(1):.1f} ms, {len(failures)} failed", flush=True)
    for f in failures[:3]:
        print("  ", f)


def many(a):
    data = tpch(a, 1)
    with Server(a.binary, data) as server:
        run_clients(server.url, a.clients, 5)
        run_clients(server.url, a.clients, a.seconds)
        after = len(server.samples)
        queue = multiprocessing.Queue()
        slow = multiprocessing.Process(target=slow_reader, args=(server.url, time.time() + a.seconds, queue))
        slow.start()
        print("beside a client that reads slowly:", end=" ")
        run_clients(server.url, a.clients, a.seconds)
        print(f"it has had {queue.get()} rows")
        slow.join()
        steps = len(server.samples[50:after]) // 3
        parts = [statistics.median(server.samples[50 + i * steps:50 + (i + 1) * steps]) for i in range(3)]
        print("the server's memory: " + ", ".join(f"{m:.0f}" for m in parts) + " MB in the thirds of the first run,"
              f" {max(server.samples[:after]):.0f} MB at most; with the slow reader {max(server.samples[after:]):.0f} MB")


def drained(reader):
    rows = bytes_ = 0
    for batch in reader:
        rows, bytes_ = rows + batch.num_rows, bytes_ + batch.nbytes
    return rows, bytes_


PLAIN = """
import sys, pyarrow.dataset as d, pyarrow.flight as f
class Plain(f.FlightServerBase):
    def do_get(self, context, ticket):
        return f.RecordBatchStream(d.dataset(sys.argv[1]).scanner(columns=sys.argv[2:]).to_reader())
server = Plain("grpc://127.0.0.1:0")
print(server.port, flush=True)
server.serve()
"""


def stream(a):
    import duckdb, pyarrow.flight as flight
    data = tpch(a, 10)
    columns = ", ".join(COLUMNS)

    def files():
        """Where lineitem is, for pyarrow and for DuckDB."""
        one = os.path.join(data, "lineitem.parquet")
        folder = os.path.join(data, "lineitem")
        return (one, one) if os.path.exists(one) else (folder, os.path.join(folder, "*.parquet"))

    def ours():
        with Server(a.binary, data, ["--threads", str(a.threads)]) as server, connect(server.url) as connection:
            before = server.samples[-1] if server.samples else 0
            start = time.perf_counter()
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {columns} FROM lineitem")
                rows, bytes_ = drained(cursor.fetch_record_batch())
            seconds = time.perf_counter() - start
            return seconds, rows, bytes_, max(server.samples)

    def plain():
        words = [sys.executable, "-c", PLAIN, files()[0], *COLUMNS]
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        port = int(server.stdout.readline())
        start = time.perf_counter()
        rows, bytes_ = drained(c.data for c in flight.connect(f"grpc://127.0.0.1:{port}").do_get(flight.Ticket(b"")))
        seconds = time.perf_counter() - start
        with open(f"/proc/{server.pid}/status") as f:
            peak = int(re.search(r"VmHWM:\s+(\d+)", f.read())[1]) / 1e3
        server.kill()
        server.wait()
        return seconds, rows, bytes_, peak

    def duck():
        connection = duckdb.connect(config={"threads": a.threads})
        start = time.perf_counter()
        rows, bytes_ = drained(connection.execute(f"SELECT {columns} FROM '{files()[1]}'").to_arrow_reader(65536))
        return time.perf_counter() - start, rows, bytes_, float("nan")

    best = {}
    for _ in range(a.rounds):
        for name, run in ("dovetail, ADBC", ours), ("plain Flight server", plain), ("DuckDB, in process", duck):
            found = run()
            best[name] = min(best.get(name, found), found)
    for name, (seconds, rows, bytes_, peak) in best.items():
        print(f"{name:20} {seconds:6.2f} s  {rows} rows  {rows / seconds / 1e6:6.2f} million rows/s"
              f"  {bytes_ / seconds / 1e6:6.0f} MB/s  peak {peak:.0f} MB")


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["many", "stream"])
    p.add_argument("--binary", default=os.path.join(ROOT, "target/release/dovetail"))
    p.add_argument("--data", help="a folder with TPC-H's tables; by default they are generated")
    p.add_argument("--clients", type=int, default=100)
    p.add_argument("--seconds", type=int, default=60)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=2)
    a = p.parse_args()
    {"many": many, "stream": stream}[a.what](a)
