"""Bulk ingestion, and what it leaves."""

import glob
import os
import tempfile
import unittest

import adbc_driver_manager.dbapi as dbapi
import pyarrow as pa
import pyarrow.compute as compute

from served import COOKIES, Server, ServedTest

MILLION = 1_000_000


def batches(rows, size=50_000):
    """Many rows, made as they are asked for."""
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("half", pa.float64())])

    def make():
        for start in range(0, rows, size):
            ids = pa.array(range(start, min(start + size, rows)), pa.int64())
            text = compute.binary_join_element_wise("row", ids.cast(pa.string()), " ")
            yield pa.record_batch([ids, text, compute.divide(ids.cast(pa.float64()), 2)], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, make())


class Ingest(ServedTest):
    def test_a_million_rows_and_back(self):
        self.assertEqual(self.cursor.adbc_ingest("million", batches(MILLION)), MILLION)
        back = self.table("SELECT * FROM million ORDER BY id")
        self.assertTrue(back.cast(back.schema.remove_metadata()).equals(batches(MILLION).read_all()))

    def test_modes(self):
        ten = batches(10).read_all()
        missing = "no table 'modes'"
        self.refused(dbapi.ProgrammingError, missing, self.cursor.adbc_ingest, "modes", ten, mode="append")
        self.cursor.adbc_ingest("modes", ten)
        self.refused(dbapi.ProgrammingError, "exists already", self.cursor.adbc_ingest, "modes", ten)
        self.cursor.adbc_ingest("modes", ten, mode="append")
        self.cursor.adbc_ingest("modes", ten, mode="create_append")
        self.assertEqual(self.rows("SELECT count(*), sum(id) FROM modes"), [(30, 135)])
        self.cursor.adbc_ingest("modes", pa.table({"other": ["x"]}), mode="replace")
        self.assertEqual(self.rows("SELECT * FROM modes"), [("x",)])
        self.assertEqual(len(glob.glob(os.path.join(self.warehouse, "modes", "*.parquet"))), 1)
        self.cursor.execute("DROP TABLE modes")
        self.assertFalse(os.path.exists(os.path.join(self.warehouse, "modes")))

    def test_statements_write_to_it_too(self):
        self.cursor.adbc_ingest("both", pa.table({"a": pa.array([1], pa.int32())}))
        self.cursor.executemany("INSERT INTO both VALUES (?)", [(2,), (3,)])
        self.cursor.execute("INSERT INTO both SELECT a + 10 FROM both")
        self.assertEqual(self.rows("SELECT count(*), max(a) FROM both"), [(6, 13)])

    def test_temporary_tables_leave_no_file(self):
        with self.server.connect(**COOKIES) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("passing", batches(10), temporary=True)
            cursor.execute("SELECT count(*) FROM passing")
            self.assertEqual(cursor.fetchall(), [(10,)])
        self.assertFalse(os.path.exists(os.path.join(self.warehouse, "passing")))

    def test_without_rows(self):
        none = pa.RecordBatch.from_pylist([], schema=batches(0).schema)
        self.assertEqual(self.cursor.adbc_ingest("empty", none), 0)
        self.assertEqual(self.table("SELECT * FROM empty").column_names, ["id", "text", "half"])

    def test_refusals(self):
        ten = batches(10).read_all()
        self.refused(dbapi.ProgrammingError, "cannot be the name", self.cursor.adbc_ingest, "../up", ten)
        twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
        self.refused(dbapi.ProgrammingError, "two columns", self.cursor.adbc_ingest, "twice", twice)
        self.refused(
            dbapi.Error, "no schema 'else'", self.cursor.adbc_ingest, "t", ten, db_schema_name="else"
        )
        self.assertEqual(os.listdir(os.path.dirname(self.warehouse)), ["warehouse"])

    def test_a_stream_that_fails_leaves_nothing(self):
        def fails():
            yield from batches(100_000)
            raise RuntimeError("the source is gone")

        reader = pa.RecordBatchReader.from_batches(batches(0).schema, fails())
        with self.assertRaises(dbapi.Error):
            self.cursor.adbc_ingest("failing", reader)
        self.refused(dbapi.ProgrammingError, "failing", self.cursor.execute, "SELECT * FROM failing")
        self.assertFalse(os.path.exists(os.path.join(self.warehouse, "failing")))

    def test_no_warehouse(self):
        server = Server()
        self.addCleanup(server.stop)
        with server.connect(**COOKIES) as connection, connection.cursor() as cursor:
            self.refused(dbapi.NotSupportedError, "--warehouse", cursor.adbc_ingest, "t", batches(1))
            self.assertEqual(cursor.adbc_ingest("t", batches(5), temporary=True), 5)


class Memory(unittest.TestCase):
    def test_it_stays_flat(self):
        with tempfile.TemporaryDirectory() as folder:
            server = Server("--warehouse", folder)
            self.addCleanup(server.stop)
            with server.connect() as connection, connection.cursor() as cursor:
                cursor.adbc_ingest("few", batches(300_000))
                before = server.memory_bytes_max()
                self.assertEqual(cursor.adbc_ingest("many", batches(2 * MILLION)), 2 * MILLION)
                self.assertLess(server.memory_bytes_max(), before + (64 << 20))


if __name__ == "__main__":
    unittest.main()
