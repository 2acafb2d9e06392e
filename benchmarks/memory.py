#!/usr/bin/env python3
"""Dovetail beside DuckDB with less memory than the queries' groups, hash tables and sorts need.

  pip install duckdb
  cargo build --release
  python3 benchmarks/memory.py                          TPC-H at scale factor 10, 512 MB
  python3 benchmarks/memory.py --scale-factor 1 --memory-limit 128MB --rounds 3 --only sort

Both engines get the same files, threads and limit, and spill to the same disk. Every query reduces what it has
computed to a row or a thousand, so that printing is not what is measured; the answers are compared. Each
round lets one engine after the other run each query in a process of its own; the best time counts. A query
that an engine cannot finish is shown as such; the ratios are of those that both finish.

The peak is the most that the process had in memory, code included.
"""
import argparse, csv, io, json, math, os, re, subprocess, sys, tempfile, time

from run import ROOT, difference, tables

QUERIES = {
    "group": """SELECT count(*), sum(n), sum(k), max(p), max(s)
        FROM (SELECT l_orderkey k, l_partkey p, l_suppkey s, count(*) n FROM lineitem GROUP BY 1, 2, 3)""",
    "distinct": """SELECT count(*), sum(k), sum(p), sum(s)
        FROM (SELECT DISTINCT l_orderkey k, l_partkey p, l_suppkey s FROM lineitem)""",
    "join": """SELECT count(*), sum(a.l_extendedprice * b.l_tax), max(a.l_comment), min(b.l_comment), max(b.l_shipmode)
        FROM lineitem a JOIN lineitem b ON a.l_orderkey = b.l_orderkey AND a.l_linenumber = b.l_linenumber""",
    "sort": """SELECT l_shipdate, o_totalprice, l_extendedprice, l_comment, o_orderdate, l_quantity
        FROM orders JOIN lineitem ON o_orderkey = l_orderkey
        ORDER BY l_shipdate, o_totalprice DESC, l_extendedprice, l_comment LIMIT 1000 OFFSET {most}""",
    "count distinct": "SELECT count(DISTINCT l_comment) FROM lineitem",
    "window": """SELECT sum(r), max(t), count(*) FROM (
        SELECT rank() OVER (PARTITION BY l_suppkey ORDER BY l_shipdate) r,
               sum(l_extendedprice) OVER (PARTITION BY l_suppkey ORDER BY l_shipdate) t FROM lineitem)""",
}


def peak_mb(words, environment=None, text=None):
    """Runs a command; its output, errors and peak memory in MB.

    A small process starts it, because Linux counts the memory of whoever starts a process as that process's own.
    """
    starter = ("import os, resource, subprocess, sys; p = subprocess.run(sys.argv[1:]);"
               "print('peak:', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, file=sys.stderr);"
               "sys.exit(p.returncode)")
    done = subprocess.run([sys.executable, "-c", starter, *words], input=text, capture_output=True, text=True)
    peak = re.search(r"^peak: (\d+)$", done.stderr, re.M)
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("peak:", "time:"))]
    if done.returncode or not peak:
        raise RuntimeError((errors or ["it ended without a word"])[-1][:120])
    return done.stdout, done.stderr, int(peak[1])


def dovetail(a, sql):
    words = [a.binary, a.data, "--threads", str(a.threads), "--memory-limit", a.memory_limit,
             "--temp-dir", a.temp, "--format", "csv", "--timing", "-c", sql]
    out, errors, peak = peak_mb(words)
    seconds = float(re.search(r"^time: ([0-9.]+) s$", errors, re.M)[1])
    return seconds, peak, list(csv.reader(io.StringIO(out)))[1:]


def duckdb(a, sql):
    words = [sys.executable, os.path.abspath(__file__), "--peer", sql, "--data", a.data, "--temp", a.temp,
             "--threads", str(a.threads), "--memory-limit", a.memory_limit]
    out, _, peak = peak_mb(words)
    answer = json.loads(out)
    return answer["seconds"], peak, answer["rows"]


def peer(a):
    """DuckDB's process."""
    import duckdb
    connection = duckdb.connect(config={"threads": a.threads, "memory_limit": a.memory_limit,
                                        "temp_directory": a.temp, "preserve_insertion_order": False})
    for name, path in tables(a.data).items():
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{path}')")
    start = time.perf_counter()
    rows = connection.execute(a.peer).fetchall()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "rows": [[v if isinstance(v, (int, float)) else str(v) for v in r] for r in rows]}))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scale-factor", type=float, default=10)
    p.add_argument("--data", help="a folder of TPC-H tables; written if it is not there")
    p.add_argument("--binary", default=os.path.join(ROOT, "target", "release", "dovetail"))
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--memory-limit", default="512MB")
    p.add_argument("--temp", help="where both spill to; default: a new folder for temporary files")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--only", help="names of queries, with commas")
    p.add_argument("--peer", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.peer:
        return peer(a)
    a.data = a.data or os.path.join(ROOT, "target", f"tpch-sf{a.scale_factor:g}")
    if not os.path.isdir(a.data):
        subprocess.run([a.binary, "demo", a.data, "--scale-factor", f"{a.scale_factor:g}", "--data-only"], check=True)
    queries = {name: sql.format(most=int(5_900_000 * a.scale_factor)) for name, sql in QUERIES.items()}
    if a.only:
        queries = {name: queries[name] for name in a.only.split(",")}
    with tempfile.TemporaryDirectory(prefix="spill-") as folder:
        a.temp = a.temp or folder
        compare(a, queries)


def compare(a, queries):
    engines = {"dovetail": dovetail, "duckdb": duckdb}
    best, answers = {}, {}
    for _ in range(a.rounds):
        for query, sql in queries.items():
            for engine, run in engines.items():
                try:
                    seconds, peak, rows = run(a, sql)
                except (RuntimeError, json.JSONDecodeError) as e:
                    best.setdefault((query, engine), str(e))
                    continue
                before = best.get((query, engine))
                if isinstance(before, tuple):
                    seconds, peak = min(before[0], seconds), max(before[1], peak)
                best[query, engine], answers[query, engine] = (seconds, peak), rows
    print(f"{a.memory_limit}, {a.threads} threads, best of {a.rounds}")
    print(f"{'query':<16}{'dovetail':>10}{'duckdb':>10}{'ratio':>8}   peak MB")
    total, wrong = {"dovetail": 0.0, "duckdb": 0.0}, 0
    for query in queries:
        found = [best[query, engine] for engine in engines]
        times = [f"{f[0]:.2f} s" if isinstance(f, tuple) else "fails" for f in found]
        peaks = [str(f[1]) if isinstance(f, tuple) else "-" for f in found]
        ratio = ""
        if all(isinstance(f, tuple) for f in found):
            ratio = f"{found[0][0] / found[1][0]:.2f}"
            total = {engine: total[engine] + f[0] for engine, f in zip(engines, found)}
        print(f"{query:<16}{times[0]:>10}{times[1]:>10}{ratio:>8}   {peaks[0]} and {peaks[1]}")
        for engine, f in zip(engines, found):
            if not isinstance(f, tuple):
                print(f"    {engine}: {f}")
        both = [answers.get((query, engine)) for engine in engines]
        if None not in both and (what := difference(*both)):
            wrong += 1
            print(f"    WRONG: {what}")
    if total["duckdb"]:
        print(f"total of what both finish: {total['dovetail']:.2f} s and {total['duckdb']:.2f} s, "
              f"ratio {total['dovetail'] / total['duckdb']:.3f}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
