"""Prepared statements with parameters."""

import datetime
import decimal
import unittest

import adbc_driver_manager.dbapi as dbapi
import pyarrow as pa

from served import ServedTest


class Parameters(ServedTest):
    def setUp(self):
        super().setUp()
        self.cursor.execute("CREATE OR REPLACE TABLE people (id INTEGER, name VARCHAR, born DATE)")
        self.insert = "INSERT INTO people VALUES (?, ?, ?)"

    def test_values_of_python(self):
        for value in (7, 1.5, True, "text", b"bytes", None, datetime.date(2024, 2, 29), [1, 2], {"a": 1}):
            with self.subTest(value):
                self.assertEqual(self.rows("SELECT ? AS x", (value,)), [(value,)])
        amount = decimal.Decimal("12.50")
        self.assertEqual(self.rows("SELECT ? AS x", (amount,)), [(amount,)])
        moment = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)
        self.assertEqual(self.rows("SELECT ? AS x", (moment,)), [(moment,)])

    def test_both_spellings(self):
        self.assertEqual(self.rows("SELECT $2 AS a, $1 AS b, $2 AS c", (1, "x")), [("x", 1, "x")])
        self.assertEqual(self.rows("SELECT ? AS a, ? AS b", (1, "x")), [(1, "x")])
        self.refused(dbapi.ProgrammingError, "all numbered", self.cursor.execute, "SELECT ?, $1", (1, 2))

    def test_the_types_are_told(self):
        types = self.cursor.adbc_prepare("SELECT ? AS x FROM people WHERE id = ? AND born < ?").types
        self.assertEqual(types, [pa.null(), pa.int32(), pa.date32()])
        self.assertEqual(self.cursor.adbc_prepare(self.insert).types, [pa.int32(), pa.string(), pa.date32()])

    def test_one_statement_many_times(self):
        self.cursor.executemany(self.insert, [(i, f"name {i}", None) for i in range(50)])
        self.assertEqual(self.cursor.rowcount, 50)
        for i in (3, 33):
            self.assertEqual(self.rows("SELECT name FROM people WHERE id = ?", (i,)), [(f"name {i}",)])
        self.assertEqual(self.rows("SELECT id FROM people ORDER BY id LIMIT ? OFFSET ?", (2, 5)), [(5,), (6,)])

    def test_arrow_rows(self):
        rows = pa.table({"id": [1, 2, 3], "name": ["a", None, "c"], "born": [datetime.date(2000, 1, i) for i in (1, 2, 3)]})
        self.cursor.executemany(self.insert, rows)
        self.assertEqual(self.cursor.rowcount, 3)
        self.assertEqual(self.rows("SELECT count(*) FROM people WHERE name IS NULL"), [(1,)])
        self.cursor.executemany(self.insert, rows.slice(0, 0))
        self.assertEqual(self.rows("SELECT count(*) FROM people"), [(3,)])
        many = "row of parameters, and 3 are bound"
        self.refused(dbapi.ProgrammingError, many, self.cursor.execute, "SELECT ? + 1", rows.select(["id"]))

    def test_an_insert_by_execute(self):
        self.cursor.execute(self.insert, (1, "once", "1999-12-31"))
        self.assertEqual(self.rows("SELECT name FROM people WHERE born < ?", ("2000-01-01",)), [("once",)])

    def test_text_is_never_sql(self):
        evil = "x'; DROP TABLE people; --"
        self.cursor.execute(self.insert, (1, evil, None))
        self.assertEqual(self.rows("SELECT name FROM people WHERE name = ?", (evil,)), [(evil,)])

    def test_what_does_not_fit_is_refused_whole(self):
        for rows, words in [
            ([(1, "a", None), (2**40, "b", None)], "row 2 of the parameters"),
            ([(1, "a", "someday")], "row 1 of the parameters"),
            ([(1, "a")], "3 parameters, and 2 values were given"),
        ]:
            with self.subTest(words):
                self.refused(dbapi.Error, words, self.cursor.executemany, self.insert, rows)
        self.assertEqual(self.rows("SELECT count(*) FROM people"), [(0,)])
        self.refused(dbapi.ProgrammingError, "1 parameter and no values", self.cursor.execute, "SELECT ?")


if __name__ == "__main__":
    unittest.main()
