"""Errors with their status, cancelling, and who is let in."""

import os
import subprocess
import tempfile
import threading
import time
import unittest

import adbc_driver_manager
import adbc_driver_manager.dbapi as dbapi

from served import SLOW, Server, ServedTest

TOKEN = "a-token-that-nobody-guesses"
HEADER = "adbc.flight.sql.authorization_header"
Status = adbc_driver_manager.AdbcStatusCode


class Errors(ServedTest):
    def test_each_has_its_status_and_the_users_words(self):
        for sql, error, status, words in [
            ("SELEC 1", dbapi.ProgrammingError, Status.INVALID_ARGUMENT, "line 1"),
            ("SELECT a FROM nowhere", dbapi.ProgrammingError, Status.INVALID_ARGUMENT, "nowhere"),
            ("SELECT 1; SELECT 2", dbapi.ProgrammingError, Status.INVALID_ARGUMENT, "one statement"),
            ("SELECT 1 / 0", dbapi.ProgrammingError, Status.INVALID_ARGUMENT, "division by zero"),
        ]:
            with self.subTest(sql):
                raised = self.refused(error, words, self.rows, sql)
                self.assertEqual(raised.status_code, status)
        # And goes on.
        self.assertEqual(self.rows("SELECT 1"), [(1,)])

    def test_transactions_are_refused(self):
        connection = self.connection.adbc_connection
        self.refused(adbc_driver_manager.NotSupportedError, "", connection.set_autocommit, False)


class Cancel(ServedTest):
    def cancelled_soon(self, cancel):
        """How a slow query ends when another thread cancels it."""
        timer = threading.Timer(1.0, cancel)
        timer.start()
        start = time.monotonic()
        with self.assertRaises(dbapi.Error) as raised:
            self.cursor.execute(SLOW)
            self.cursor.fetchall()
        timer.join()
        self.assertLess(time.monotonic() - start, 10)
        self.assertEqual(raised.exception.status_code, Status.CANCELLED)

    def test_from_another_thread(self):
        self.cancelled_soon(self.cursor.adbc_cancel)
        self.server_is_idle()
        self.assertEqual(self.rows("SELECT 1"), [(1,)])

    def server_is_idle(self):
        """The query's threads stop too, not only the client."""

        def ticks():
            with open(f"/proc/{self.server.process.pid}/stat") as stat:
                return sum(int(n) for n in stat.read().rsplit(")", 1)[1].split()[11:13])

        deadline = time.monotonic() + 20
        while True:
            before = ticks()
            time.sleep(0.5)
            # Two busy threads take about a hundred.
            if ticks() - before < 10:
                return
            self.assertLess(time.monotonic(), deadline, "the query still runs")


class Tokens(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.token_file = os.path.join(cls.folder.name, "token")
        with open(cls.token_file, "w") as file:
            file.write(TOKEN)

    def one(self, server, **options):
        with server.connect(**options) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return cursor.fetchall()

    def check(self, server, **options):
        bearer = {HEADER: f"Bearer {TOKEN}"}
        self.assertEqual(self.one(server, **bearer, **options), [(1,)])
        # A name and a password, in the handshake.
        self.assertEqual(self.one(server, username="anybody", password=TOKEN, **options), [(1,)])
        wrong = [{HEADER: "Bearer something-else"}, {"username": "anybody", "password": "wrong"}, {}]
        for credentials in wrong:
            with self.subTest(credentials), self.assertRaises(dbapi.Error) as raised:
                self.one(server, **credentials, **options)
            self.assertEqual(raised.exception.status_code, Status.UNAUTHENTICATED)
            self.assertNotIn(TOKEN, str(raised.exception))

    def test_in_the_clear(self):
        server = Server("--token-file", self.token_file)
        self.addCleanup(server.stop)
        self.check(server)

    def test_with_tls(self):
        folder = os.environ.get("DOVETAIL_CERTIFICATES")
        if folder is None:
            self.skipTest("DOVETAIL_CERTIFICATES names no folder")
        path = lambda name: os.path.join(folder, name)
        server = Server(
            "--token-file", self.token_file, "--tls-cert", path("server.pem"), "--tls-key", path("server-key.pem")
        )
        self.addCleanup(server.stop)
        server.uri = server.uri.replace("127.0.0.1", "localhost")
        with open(path("authority.pem")) as file:
            authority = {"adbc.flight.sql.client_option.tls_root_certs": file.read()}
        self.check(server, **authority)
        with self.assertRaises(dbapi.Error):
            self.one(server, **{HEADER: f"Bearer {TOKEN}"})
        clear = {HEADER: f"Bearer {TOKEN}"}
        server.uri = server.uri.replace("grpc+tls", "grpc")
        with self.assertRaises(dbapi.Error):
            self.one(server, **clear)


class Users(unittest.TestCase):
    def test_roles(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        users, token = os.path.join(folder.name, "users"), os.path.join(folder.name, "token")
        with open(token, "w") as file:
            file.write(TOKEN)
        for name, role in [("reader", "read-only"), ("writer", "read-write")]:
            command = [os.environ["DOVETAIL"], "user", "add", name, "--users", users, "--role", role]
            subprocess.run(command, input=f"password of {name}\n", text=True, check=True, capture_output=True)
        server = Server("--users", users, "--token-file", token)
        self.addCleanup(server.stop)

        def run(name, sql, password=None):
            credentials = {"username": name, "password": password or f"password of {name}"}
            with server.connect(**credentials) as connection, connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()

        run("writer", "CREATE TABLE t AS SELECT 1 AS a")
        self.assertEqual(run("reader", "SELECT * FROM t"), [(1,)])
        for name, sql, password, status in [
            ("reader", "DROP TABLE t", None, Status.UNAUTHORIZED),
            ("reader", "SELECT 1", "wrong", Status.UNAUTHENTICATED),
            ("nobody", "SELECT 1", None, Status.UNAUTHENTICATED),
        ]:
            with self.subTest(name, sql=sql), self.assertRaises(dbapi.Error) as raised:
                run(name, sql, password)
            self.assertEqual(raised.exception.status_code, status)


if __name__ == "__main__":
    unittest.main()
