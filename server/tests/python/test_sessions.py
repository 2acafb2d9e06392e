"""What belongs to one client: settings, temporary tables and views."""

import unittest

import adbc_driver_manager.dbapi as dbapi
import pyarrow as pa

from served import COOKIES, Server, ServedTest



class Sessions(ServedTest):
    def cursor_of_session(self):
        connection = self.server.connect(**COOKIES)
        self.addCleanup(connection.close)
        cursor = connection.cursor()
        self.addCleanup(cursor.close)
        return connection, cursor

    def test_temporary_tables_are_one_connections(self):
        (_, one), (_, another) = self.cursor_of_session(), self.cursor_of_session()
        one.execute("CREATE TEMP TABLE mine AS SELECT 1 AS a")
        one.execute("CREATE TEMP VIEW twice AS SELECT a * 2 AS b FROM mine")
        one.executemany("INSERT INTO mine VALUES (?)", [(2,), (3,)])
        one.execute("SELECT sum(b) FROM twice")
        self.assertEqual(one.fetchall(), [(12,)])
        self.refused(dbapi.ProgrammingError, "mine", another.execute, "SELECT * FROM mine")
        self.refused(dbapi.ProgrammingError, "mine", self.cursor.execute, "SELECT * FROM mine")
        one.execute("SELECT table_type FROM information_schema.tables WHERE table_name = 'mine'")
        self.assertEqual(one.fetchall(), [("LOCAL TEMPORARY",)])

    def test_ingest(self):
        (_, one), (_, another) = self.cursor_of_session(), self.cursor_of_session()
        for cursor, values in [(one, [1, 2]), (another, [10])]:
            cursor.adbc_ingest("passing", pa.table({"a": values}), temporary=True)
            cursor.adbc_ingest("passing", pa.table({"a": values}), mode="append", temporary=True)
            cursor.execute("SELECT sum(a) FROM passing")
            self.assertEqual(cursor.fetchall(), [(2 * sum(values),)])

    def test_settings(self):
        _, cursor = self.cursor_of_session()
        cursor.execute("SET max_result_rows = 2")
        cursor.execute("SHOW max_result_rows")
        self.assertEqual(cursor.fetchall(), [("max_result_rows", "2")])
        with self.assertRaises(dbapi.Error):
            cursor.execute("SELECT * FROM (VALUES (1), (2), (3)) t(a)")
            cursor.fetchall()
        self.assertEqual(self.rows("SELECT count(*) FROM (VALUES (1), (2), (3)) t(a)"), [(3,)])

    def test_without_cookies_it_is_told_what_to_do(self):
        for sql in ["SET partitions = 2", "CREATE TEMP TABLE t (a INTEGER)"]:
            self.refused(dbapi.Error, "with_cookie_middleware", self.cursor.execute, sql)

    def test_current_catalog_and_schema(self):
        connection, _ = self.cursor_of_session()
        self.assertEqual(connection.adbc_current_catalog, "dovetail")
        self.assertEqual(connection.adbc_current_db_schema, "main")
        connection.adbc_connection.set_options(**{"adbc.connection.catalog": "dovetail"})
        with self.assertRaises(Exception):
            connection.adbc_connection.set_options(**{"adbc.connection.catalog": "elsewhere"})


class Limits(unittest.TestCase):
    def test_rows(self):
        server = Server("--max-result-rows", "2")
        self.addCleanup(server.stop)
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM (VALUES (1), (2)) t(a)")
            self.assertEqual(len(cursor.fetchall()), 2)
            with self.assertRaises(dbapi.Error):
                cursor.execute("SELECT * FROM (VALUES (1), (2), (3)) t(a)")
                cursor.fetchall()


if __name__ == "__main__":
    unittest.main()
