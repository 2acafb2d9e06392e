#!/usr/bin/env python3
"""Fills in what the conformance suite expects, from DuckDB.

  python3 sqllogictests/generate.py [FILE ...]           writes types, sort modes and rows into the files
  python3 sqllogictests/generate.py --check [FILE ...]   writes nothing; fails if a file would change

Without files: all of slt/**/*.slt. Needs the duckdb package (pip install duckdb). Files below slt/tpch
see TPC-H at scale factor 0.01; the test run writes it: cargo test -p dovetail-sqllogictests.

To add a test, write the word `query` and the SQL below it, a blank line after, and run this script:

    query
    SELECT 1 + 1

Records are apart by blank lines. `statement ok` is run here too; `statement error REGEX` must fail here
too. A query without ORDER BY at its outermost level becomes `rowsort`. A comment directly above a
record says where the expected result comes from, if not from DuckDB running the very same SQL:

    # duckdb: SQL          the same question as DuckDB spells it; `# duckdb: nothing` runs nothing
    # types: LETTERS       the same values, but other column types than DuckDB's
    # by hand: REASON      the record is left as it is; for what SQL engines disagree about

Values are written as sqllogictests/src/cells.rs describes.
"""
import datetime, decimal, glob, json, math, os, re, sys

HERE = os.path.dirname(os.path.abspath(__file__))
TPCH = os.path.join(os.path.dirname(HERE), "target", "tmp", "tpch-sf0.01")
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT",
            "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")


# ---- values as text ------------------------------------------------------------------------------

def letter(type_name):
    if type_name in INTEGERS:
        return "I"
    return "R" if type_name in ("DOUBLE", "FLOAT") or type_name.startswith("DECIMAL(") and "[" not in type_name else "T"


def strip_zeros(text):
    return text.rstrip("0").rstrip(".") if "." in text else text


def float_text(v):
    if math.isnan(v):
        return "NaN"
    if math.isinf(v):
        return "Infinity" if v > 0 else "-Infinity"
    if v == 0:
        return "0"
    digits, exponent = f"{v:.9e}".split("e")
    exponent = int(exponent)
    if not -5 <= exponent < 16:
        return f"{strip_zeros(digits)}e{exponent}"
    return strip_zeros(f"{float(f'{v:.9e}'):.{max(0, 9 - exponent)}f}")


def cell(v):
    if v is None:
        return "NULL"
    if isinstance(v, float):
        return float_text(v)
    if isinstance(v, decimal.Decimal):
        return strip_zeros(f"{v:f}")
    text = nested(v)
    if text == "":
        return "(empty)"
    if text[0] == " " or text[-1] == " " or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
        return json.dumps(text, ensure_ascii=False)
    return text


def nested(v, inside=False):
    if v is None:
        return "NULL"
    if isinstance(v, bool):
        return str(v).lower()
    if isinstance(v, float):
        return repr(v).replace("e+", "e").replace("nan", "NaN")
    if isinstance(v, decimal.Decimal):
        return f"{v:f}"
    if isinstance(v, (bytes, bytearray)):
        return v.hex()
    if isinstance(v, datetime.datetime):
        return v.isoformat(sep=" ")
    if isinstance(v, (datetime.date, datetime.time)):
        return v.isoformat()
    if isinstance(v, (list, tuple)):
        return "[" + ", ".join(nested(x, True) for x in v) + "]"
    if isinstance(v, dict):
        return "{" + ", ".join(f"{nested(k, True)}: {nested(x, True)}" for k, x in v.items()) + "}"
    text = str(v)
    if inside and isinstance(v, str) and (text == "" or text.lower() == "null" or text != text.strip(" ")
                                          or re.search(r"""['",:\[\]{}()\n\t]""", text)):
        return "'" + text.replace("'", "''") + "'"
    return text


# ---- records -------------------------------------------------------------------------------------

class Record:
    """One block of a file: comments, a header, SQL, and what is expected below `----`."""

    def __init__(self, lines):
        self.comments = [l for l in lines if l.startswith("#")]
        rest = [l for l in lines if not l.startswith("#")]
        self.header, body = (rest[0] if rest else ""), rest[1:]
        cut = body.index("----") if "----" in body else len(body)
        self.sql, self.expected = "\n".join(body[:cut]), body[cut:]
        notes = [c[1:].strip() for c in self.comments]
        self.by_hand = any(n.startswith("by hand:") for n in notes)
        own = " ".join(n[len("duckdb:"):].strip() for n in notes if n.startswith("duckdb:"))
        self.duckdb = own or self.sql
        self.types = next((n[len("types:"):].strip() for n in notes if n.startswith("types:")), None)

    def text(self):
        parts = self.comments + ([self.header] if self.header else []) + ([self.sql] if self.sql else [])
        return "\n".join(parts + self.expected)


def ordered(sql):
    """Whether the outermost query has an ORDER BY."""
    sql = re.sub(r"--[^\n]*", " ", re.sub(r"'(?:[^']|'')*'", "''", sql))
    while (inner := re.sub(r"\([^()]*\)", "", sql)) != sql:
        sql = inner
    return re.search(r"\border\s+by\b", sql, re.I) is not None


def run(connection, sql):
    """Types and rows of a query as text."""
    cursor = connection.execute(sql)
    types = [str(d[1]) for d in cursor.description]
    rows = cursor.fetchall()
    if any("INTERVAL" in t for t in types):
        # The Python package turns months into days; DuckDB's own text keeps them.
        names = [f"c{i}" for i in range(len(types))]
        connection.execute(f"CREATE OR REPLACE TEMP TABLE interval_rows AS WITH q({', '.join(names)}) AS ({sql}) SELECT * FROM q")
        columns = [f"CAST({n} AS VARCHAR)" if "INTERVAL" in t else n for n, t in zip(names, types)]
        rows = connection.execute(f"SELECT {', '.join(columns)} FROM interval_rows ORDER BY rowid").fetchall()
    return "".join(map(letter, types)), [[cell(v) for v in row] for row in rows]


def fill(connection, record):
    """Brings one record up to date; a string says what is wrong with it."""
    words = record.header.split()
    if not words or words[0] not in ("statement", "query") or record.duckdb == "nothing":
        return None
    fails = words[1:2] == ["error"]
    try:
        if fails or words[0] == "statement":
            connection.execute(record.duckdb).fetchall()
            return "DuckDB does not fail here" if fails and not record.by_hand else None
        if record.by_hand:
            return None
        types, rows = run(connection, record.duckdb)
    except Exception as e:
        return None if fails else f"{type(e).__name__}: {e}"
    mode = words[2:3] if words[2:3] and words[2] in ("rowsort", "nosort", "valuesort") else []
    if not mode and len(rows) > 1 and not ordered(record.sql):
        mode = ["rowsort"]
    elif mode == ["rowsort"] and (len(rows) < 2 or ordered(record.sql)):
        mode = []
    if mode == ["rowsort"]:
        rows.sort()
    record.header = " ".join(["query", record.types or types] + mode)
    record.expected = ["----"] + ["\t".join(r) for r in rows]
    return None


def generate(path):
    """The file's new text, and complaints."""
    import duckdb
    connection = duckdb.connect()
    if "/slt/tpch" in path:
        if not os.path.exists(TPCH + "/_READY"):
            sys.exit(f"no {TPCH}: run `cargo test -p dovetail-sqllogictests` first")
        for f in sorted(os.listdir(TPCH)):
            if not f.startswith("_"):
                files = f"{TPCH}/{f}" + ("" if f.endswith(".parquet") else "/*.parquet")
                connection.execute(f"CREATE VIEW {f.split('.')[0]} AS SELECT * FROM read_parquet('{files}')")
    complaints, texts = [], []
    for block in re.split(r"\n(?:[ \t]*\n)+", open(path).read().strip("\n")):
        record = Record(block.split("\n"))
        if wrong := fill(connection, record):
            complaints.append(f"{path}: {wrong}\n    {record.sql}")
        texts.append(record.text())
    return "\n\n".join(texts) + "\n", complaints


def main():
    check = "--check" in sys.argv
    paths = [os.path.abspath(a) for a in sys.argv[1:] if not a.startswith("--")]
    bad, queries = 0, 0
    for path in paths or sorted(glob.glob(HERE + "/slt/**/*.slt", recursive=True)):
        text, complaints = generate(path)
        bad += len(complaints)
        print("\n".join(complaints), end="\n" if complaints else "")
        queries += len(re.findall(r"^query ", text, re.M))
        if text != open(path).read():
            if check:
                bad += 1
                print(f"{path}: out of date")
            else:
                open(path, "w").write(text)
    print(f"{queries} queries; {bad} problems")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
