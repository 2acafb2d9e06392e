"""Values of every type: out of SQL, in as parameters, and through a table and back."""

import datetime
import decimal
import unittest

import adbc_driver_manager.dbapi as dbapi
import pyarrow as pa

from served import COOKIES, ServedTest

DATE = datetime.date(2024, 2, 29)
TIMES = {"s": 3661, "ms": 3_661_001, "us": 3_661_000_001, "ns": 3_661_000_000_000}

# A name, an array with a null, and the type that comes back where it is another one.
ARRAYS = [
    ("null", pa.nulls(2), None),
    ("bool", pa.array([True, None]), None),
    *[(f"int{n}", pa.array([-5, None], getattr(pa, f"int{n}")()), None) for n in (8, 16, 32, 64)],
    *[(f"uint{n}", pa.array([200, None], getattr(pa, f"uint{n}")()), None) for n in (8, 16, 32, 64)],
    ("float16", pa.array([1.5, None], pa.float32()).cast(pa.float16()), None),
    ("float32", pa.array([1.5, None], pa.float32()), None),
    ("float64", pa.array([float("inf"), None]), None),
    ("text", pa.array(["ä €", None]), None),
    ("large_text", pa.array(["ä", None], pa.large_string()), pa.string()),
    ("text_view", pa.array(["longer than twelve bytes", None], pa.string_view()), pa.string()),
    ("binary", pa.array([b"\0\xff", None]), None),
    ("large_binary", pa.array([b"a", None], pa.large_binary()), pa.binary()),
    ("fixed_binary", pa.array([b"abc", None], pa.binary(3)), None),
    ("date32", pa.array([DATE, None]), None),
    ("date64", pa.array([DATE, None], pa.date64()), None),
    *[(f"time32_{u}", pa.array([TIMES[u], None], pa.time32(u)), None) for u in ("s", "ms")],
    *[(f"time64_{u}", pa.array([TIMES[u], None], pa.time64(u)), None) for u in ("us", "ns")],
    *[(f"timestamp_{u}", pa.array([TIMES[u], None], pa.timestamp(u)), None) for u in TIMES],
    ("zoned", pa.array([1, None], pa.timestamp("us", "Europe/Berlin")), None),
    ("utc", pa.array([1, None], pa.timestamp("ns", "UTC")), None),
    *[(f"duration_{u}", pa.array([7, None], pa.duration(u)), None) for u in TIMES],
    ("decimal", pa.array([decimal.Decimal("-1.23"), None], pa.decimal128(10, 2)), None),
    ("decimal38", pa.array([decimal.Decimal("9" * 28 + ".1234567890"), None], pa.decimal128(38, 10)), None),
    ("decimal256", pa.array([decimal.Decimal("1.23"), None], pa.decimal256(60, 2)), None),
    ("decimal32", pa.array([decimal.Decimal("1.23"), None], pa.decimal32(5, 2)), pa.decimal128(5, 2)),
    ("list", pa.array([[1, None], None]), None),
    ("list_of_text", pa.array([["a", None, "longer than twelve bytes"], []]), None),
    ("large_list", pa.array([[1], None], pa.large_list(pa.int64())), pa.list_(pa.int64())),
    ("fixed_list", pa.array([[1, 2], None], pa.list_(pa.int64(), 2)), None),
    ("struct", pa.array([{"a": 1, "b": "x"}, None]), None),
    ("map", pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), None),
    ("nested", pa.array([[{"a": 1, "b": ["x", None]}], None]), None),
    ("dictionary", pa.array(["k", None]).dictionary_encode(), pa.string()),
]


class Types(ServedTest):
    def check(self, array, expected, back):
        self.assertEqual(back.type, expected or array.type)
        self.assertTrue(back.combine_chunks().equals(pa.array(array).cast(back.type)), back)

    def test_through_a_table_and_back(self):
        for name, array, expected in ARRAYS:
            with self.subTest(name):
                count = self.cursor.adbc_ingest(f"types_{name}", pa.table({"x": array}))
                self.assertEqual(count, len(array))
                self.check(array, expected, self.table(f"SELECT x FROM types_{name}")["x"])
                nulls = self.rows(f"SELECT count(*) - count(x) FROM types_{name}")
                self.assertEqual(nulls, [(array.null_count,)])

    def test_through_memory_and_back(self):
        for name, array, expected in ARRAYS:
            with self.subTest(name):
                with self.server.connect(**COOKIES) as connection, connection.cursor() as cursor:
                    cursor.adbc_ingest(f"memory_{name}", pa.table({"x": array}), temporary=True)
                    cursor.execute(f"SELECT x FROM memory_{name}")
                    self.check(array, expected, cursor.fetch_arrow_table()["x"])

    def test_as_a_parameter(self):
        for name, array, expected in ARRAYS:
            for row in range(2):
                with self.subTest(name, row=row):
                    one = array.slice(row, 1)
                    self.check(one, expected, self.table("SELECT ? AS x", pa.table({"x": one}))["x"])

    def test_what_sql_makes(self):
        cases = [
            ("true", pa.bool_(), True),
            ("CAST(1 AS TINYINT)", pa.int8(), 1),
            ("CAST(1 AS SMALLINT)", pa.int16(), 1),
            ("CAST(1 AS INTEGER)", pa.int32(), 1),
            ("1", pa.int64(), 1),
            ("CAST(1 AS BIGINT UNSIGNED)", pa.uint64(), 1),
            ("CAST(1.5 AS REAL)", pa.float32(), 1.5),
            ("1e300", pa.float64(), 1e300),
            ("CAST(1.25 AS DECIMAL(10, 2))", pa.decimal128(10, 2), decimal.Decimal("1.25")),
            ("'text'", pa.string(), "text"),
            ("DATE '2024-02-29'", pa.date32(), DATE),
            ("[1, NULL, 3]", pa.list_(pa.int64()), [1, None, 3]),
            ("[['a'], []]", pa.list_(pa.list_(pa.string())), [["a"], []]),
            ("arrow_cast('k', 'Dictionary(Int32, Utf8)')", pa.string(), "k"),
        ]
        for sql, type_, value in cases:
            with self.subTest(sql):
                column = self.table(f"SELECT {sql} AS x")["x"]
                self.assertEqual((column.type, column.to_pylist()), (type_, [value]))
        struct = self.table("SELECT {'a': 1, 'b': 'x'} AS x")["x"]
        self.assertEqual(struct.to_pylist(), [{"a": 1, "b": "x"}])
        zoned = self.table("SELECT arrow_cast(TIMESTAMP '2024-01-01', 'Timestamp(Second, Some(\"UTC\"))') AS x")
        self.assertEqual(zoned["x"].type, pa.timestamp("s", "UTC"))
        day = self.table("SELECT INTERVAL '1' DAY AS x")["x"]
        self.assertEqual(day.type, pa.month_day_nano_interval())

    def test_what_files_cannot_hold_is_refused(self):
        days = pa.array([(1, 2, 3000)], pa.month_day_nano_interval())
        self.refused(
            dbapi.NotSupportedError, "Cast", self.cursor.adbc_ingest, "intervals", pa.table({"x": days})
        )
        self.refused(dbapi.ProgrammingError, "intervals", self.cursor.execute, "SELECT * FROM intervals")

    def test_columns_tell_their_sql_types(self):
        field = self.table("SELECT CAST(1.25 AS DECIMAL(10, 2)) AS x").schema.field("x")
        self.assertEqual(field.metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"], b"DECIMAL")
        self.assertEqual(field.metadata[b"ARROW:FLIGHT:SQL:PRECISION"], b"10")


if __name__ == "__main__":
    unittest.main()
