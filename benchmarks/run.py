#!/usr/bin/env python3
"""Dovetail beside DuckDB and Polars on TPC-H over Parquet: the same files, threads, machine and minute.

  pip install duckdb polars
  cargo build --release
  python3 benchmarks/run.py                       scale factor 1, all queries
  python3 benchmarks/run.py --scale-factor 10 --threads 4 --rounds 5 --only 1,9,18
  python3 benchmarks/run.py --check-only          compares answers with DuckDB's, times nothing

The data is written once by `dovetail demo --data-only` into --data (default target/tpch-sfF). The queries are
those of the conformance suite, sqllogictests/slt/tpch/queries.slt. Every answer is compared with DuckDB's
first. Then each round lets every engine run every query twice, one engine after the other on the same
query, so that whatever else the machine does meets all of them; the best time of all rounds counts. An
engine that cannot run a query is shown with a dash and left out of that query's ratio.

The last column is Dovetail's time over that of the fastest peer: below 1 is faster.
"""
import argparse, csv, datetime, decimal, io, json, math, os, re, subprocess, sys, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
QUERIES = os.path.join(ROOT, "sqllogictests", "slt", "tpch", "queries.slt")


def queries():
    """SQL by number, from the conformance suite."""
    records = re.findall(r"^# Query (\d+)\n\nquery[^\n]*\n(.*?)\n----\n", open(QUERIES).read(), re.S | re.M)
    return {int(number): sql for number, sql in records}


def tables(folder):
    """Table names and what to scan for each."""
    found = {}
    for entry in sorted(os.listdir(folder)):
        path = os.path.join(folder, entry)
        if entry.endswith(".parquet"):
            found[entry[:-8]] = path
        elif os.path.isdir(path):
            found[entry] = os.path.join(path, "*.parquet")
    return found


# ---- the engines: each has run(sql) -> best of two runs in seconds, or raises ----------------------

class Dovetail:
    def __init__(self, binary, folder, threads):
        self.command = [binary, folder, "--threads", str(threads), "--format", "csv", "--timing", "-f", "/dev/stdin"]

    def script(self, sql):
        done = subprocess.run(self.command, input=sql, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[0])
        return done

    def run(self, sql):
        times = re.findall(r"^time: ([0-9.]+) s$", self.script(f"{sql};\n{sql};\n").stderr, re.M)
        return min(map(float, times))

    def rows(self, sql):
        return list(csv.reader(io.StringIO(self.script(sql).stdout)))[1:]


class Peer:
    """An engine in a process of its own, which stays, so that its caches are warm."""

    def __init__(self, name, folder, threads):
        words = [sys.executable, os.path.abspath(__file__), "--peer", name, "--data", folder, "--threads", str(threads)]
        environment = dict(os.environ, POLARS_MAX_THREADS=str(threads))
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def run(self, sql):
        self.process.stdin.write(json.dumps(sql) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the engine's process ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["seconds"]


def duckdb_runner(folder, threads):
    import duckdb
    connection = duckdb.connect(config={"threads": threads})
    for name, path in tables(folder).items():
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{path}')")
    return lambda sql: connection.execute(sql).fetchall()


def polars_runner(folder, _threads):
    import polars
    context = polars.SQLContext()
    for name, path in tables(folder).items():
        context.register(name, polars.scan_parquet(path))
    return lambda sql: context.execute(sql, eager=False).collect(engine="streaming").rows()


PEERS = {"duckdb": duckdb_runner, "polars": polars_runner}


def serve(name, folder, threads):
    """The peer's process: a query as a line of JSON in, its time as a line of JSON out."""
    run = PEERS[name](folder, threads)
    for line in sys.stdin:
        try:
            times = []
            for _ in range(2):
                start = time.perf_counter()
                run(json.loads(line))
                times.append(time.perf_counter() - start)
            answer = {"seconds": min(times)}
        except Exception as e:
            answer = {"error": f"{type(e).__name__}: {e}".splitlines()[0]}
        print(json.dumps(answer), flush=True)


# ---- answers ---------------------------------------------------------------------------------------

def value(v):
    """A value of either engine in one form: numbers as floats, everything else as text."""
    if v is None or v == "":
        return ""
    if isinstance(v, (int, float, decimal.Decimal)) and not isinstance(v, bool):
        return float(v)
    if isinstance(v, (datetime.date, datetime.datetime)):
        return str(v)
    try:
        return float(v)
    except ValueError:
        return str(v)


def difference(got, want):
    """What is different between two results, or None; order does not count where numbers are rounded."""
    if len(got) != len(want):
        return f"{len(got)} rows instead of {len(want)}"
    order = lambda row: [f"{v:.6g}" if isinstance(v, float) else v for v in row]
    for a, b in zip(sorted(([value(v) for v in row] for row in got), key=order),
                    sorted(([value(v) for v in row] for row in want), key=order)):
        close = lambda x, y: x == y or (isinstance(x, float) and isinstance(y, float) and math.isclose(x, y, rel_tol=1e-6, abs_tol=1e-4))
        if len(a) != len(b) or not all(map(close, a, b)):
            return f"{a} instead of {b}"
    return None


def check(dovetail, folder, threads, todo):
    oracle = duckdb_runner(folder, threads)
    wrong = 0
    for number, sql in todo.items():
        try:
            problem = difference(dovetail.rows(sql), oracle(sql))
        except RuntimeError as e:
            problem = str(e)
        if problem:
            wrong += 1
            print(f"query {number}: {problem}")
    print(f"{len(todo) - wrong} of {len(todo)} answers are DuckDB's")
    return wrong


# ---- times -----------------------------------------------------------------------------------------

def measure(engines, todo, rounds):
    """Best seconds by engine and query; None where an engine failed, which is told once."""
    best = {name: {} for name in engines}
    for round_ in range(rounds):
        for number, sql in todo.items():
            for name, engine in engines.items():
                if best[name].get(number, 0) is None:
                    continue
                try:
                    seconds = engine.run(sql)
                    best[name][number] = min(seconds, best[name].get(number, math.inf))
                except RuntimeError as e:
                    best[name][number] = None
                    print(f"{name}, query {number}: {e}", file=sys.stderr)
            if sys.stderr.isatty():
                print(f"\rround {round_ + 1} of {rounds}, query {number}   ", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    return best


def report(best, todo):
    names = list(best)
    print("query " + "".join(f"{name:>11}" for name in names) + "    ratio")
    ratios, totals = [], {name: 0.0 for name in names}
    for number in todo:
        times = [best[name][number] for name in names]
        peers = [t for name, t in zip(names, times) if name != "dovetail" and t is not None]
        ratio = ""
        if times[0] is not None and peers:
            ratios.append(times[0] / min(peers))
            ratio = f"{ratios[-1]:9.2f}"
        if None not in times:
            for name, t in zip(names, times):
                totals[name] += t
        print(f"{number:5} " + "".join("          -" if t is None else f"{t:11.3f}" for t in times) + ratio)
    peers = [t for name, t in totals.items() if name != "dovetail"]
    ratio = f"{totals['dovetail'] / min(peers):9.2f}" if peers and min(peers) > 0 else ""
    print("total " + "".join(f"{t:11.3f}" for t in totals.values()) + ratio + "   of the queries that all ran")
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"ratio to the fastest peer of each query: geometric mean {mean:.2f}, worst {max(ratios):.2f}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scale-factor", default="1")
    p.add_argument("--data", help="folder for the data")
    p.add_argument("--binary", default=os.path.join(ROOT, "target", "release", "dovetail"))
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", help="numbers of queries, with commas")
    p.add_argument("--peers", default="duckdb,polars")
    p.add_argument("--check-only", action="store_true")
    p.add_argument("--json", help="file for the times")
    p.add_argument("--peer", help=argparse.SUPPRESS)
    a = p.parse_args()
    folder = a.data or os.path.join(ROOT, "target", f"tpch-sf{a.scale_factor}")
    if a.peer:
        return serve(a.peer, folder, a.threads)
    if not os.path.exists(a.binary):
        sys.exit(f"no {a.binary}: run `cargo build --release` first")
    if not a.data:
        subprocess.run([a.binary, "demo", folder, "--scale-factor", a.scale_factor, "--data-only"], check=True)
    todo = queries()
    if a.only:
        todo = {number: todo[number] for number in map(int, a.only.split(","))}
    dovetail = Dovetail(a.binary, folder, a.threads)
    wrong = check(dovetail, folder, a.threads, todo)
    if a.check_only or wrong:
        sys.exit(wrong > 0)
    engines = {"dovetail": dovetail} | {name: Peer(name, folder, a.threads) for name in a.peers.split(",") if name}
    best = measure(engines, todo, a.rounds)
    report(best, todo)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(best, f, indent=1)


if __name__ == "__main__":
    main()
