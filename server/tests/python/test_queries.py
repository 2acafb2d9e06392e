"""Statements through the DB-API and through the calls below it."""

import unittest

import adbc_driver_flightsql
import adbc_driver_manager
import adbc_driver_manager.dbapi as dbapi
import pyarrow

from served import ServedTest


class Queries(ServedTest):
    def test_rows(self):
        self.assertEqual(self.rows("SELECT 1 AS a, 'x' AS b, NULL AS c"), [(1, "x", None)])
        self.assertEqual([column[0] for column in self.cursor.description], ["a", "b", "c"])
        self.cursor.execute("SELECT a FROM (VALUES (1), (2), (3)) t(a) ORDER BY a")
        self.assertEqual(self.cursor.fetchone(), (1,))
        self.assertEqual(self.cursor.fetchmany(5), [(2,), (3,)])
        self.assertIsNone(self.cursor.fetchone())

    def test_an_empty_result_has_its_columns(self):
        empty = self.table("SELECT 1 AS a, 'x' AS b WHERE 1 = 2")
        self.assertEqual((empty.num_rows, empty.column_names), (0, ["a", "b"]))
        self.assertEqual(empty.schema.field("a").type, pyarrow.int64())

    def test_a_command_runs_once(self):
        self.cursor.execute("CREATE OR REPLACE TABLE once (a INTEGER)")
        self.cursor.execute("INSERT INTO once VALUES (1), (2)")
        self.assertEqual(self.rows("SELECT count(*) FROM once"), [(2,)])
        self.cursor.executemany("INSERT INTO once VALUES (3)", None)
        self.assertEqual(self.cursor.rowcount, 1)
        self.assertEqual(self.rows("SELECT count(*) FROM once"), [(3,)])
        self.cursor.execute("DROP TABLE once")
        self.refused(dbapi.ProgrammingError, "once", self.cursor.execute, "SELECT * FROM once")

    def test_large_results_stream(self):
        reader_rows = 0
        digits = "(VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9))"
        self.cursor.execute(
            f"SELECT a.v AS a, repeat('x', 100) AS t FROM {digits} a(v), {digits} b(v), {digits} c(v),"
            f" {digits} d(v), {digits} e(v)"
        )
        reader = self.cursor.fetch_record_batch()
        for batch in reader:
            reader_rows += batch.num_rows
            self.assertLess(batch.nbytes, 2_100_000)
        self.assertEqual(reader_rows, 100_000)

    def test_schema_without_running(self):
        schema = self.cursor.adbc_execute_schema("SELECT 1 AS a, 'x' AS b")
        self.assertEqual(schema.types, [pyarrow.int64(), pyarrow.string()])
        command = "CREATE TABLE never_made (a INTEGER)"
        self.refused(dbapi.NotSupportedError, "schema", self.cursor.adbc_execute_schema, command)
        self.refused(dbapi.ProgrammingError, "never_made", self.cursor.execute, "SELECT * FROM never_made")

    def test_partitions(self):
        partitions, schema = self.cursor.adbc_execute_partitions("SELECT 7 AS a")
        self.assertEqual((len(partitions), schema.names), (1, ["a"]))
        self.cursor.adbc_read_partition(partitions[0])
        self.assertEqual(self.cursor.fetchall(), [(7,)])

    def test_the_calls_below(self):
        with adbc_driver_flightsql.connect(self.server.uri) as database:
            with adbc_driver_manager.AdbcConnection(database) as connection:
                with adbc_driver_manager.AdbcStatement(connection) as statement:
                    statement.set_sql_query("SELECT 42 AS a")
                    stream, rows = statement.execute_query()
                    reader = pyarrow.RecordBatchReader._import_from_c(stream.address)
                    self.assertEqual(reader.read_all().to_pylist(), [{"a": 42}])
                    self.assertEqual(rows, -1)
                    statement.set_sql_query("CREATE OR REPLACE TABLE below AS SELECT 1 AS a")
                    statement.execute_update()
                    statement.set_sql_query("INSERT INTO below VALUES (2), (3)")
                    self.assertEqual(statement.execute_update(), 2)


if __name__ == "__main__":
    unittest.main()
