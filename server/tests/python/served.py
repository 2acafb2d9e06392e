"""A real server process on a free port, for one test class.

The binary is named by DOVETAIL; DOVETAIL_CERTIFICATES is a folder with authority.pem, server.pem and server-key.pem,
which is for the name localhost. `cargo test` sets both; by hand:

    DOVETAIL=target/debug/dovetail python -m unittest discover -s server/tests/python
"""

import os
import shutil
import subprocess
import tempfile
import unittest

import adbc_driver_flightsql.dbapi

# A query that takes minutes.
# With these a client has a session.
COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}

SLOW = """WITH d AS (SELECT v FROM (VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)) t(v))
SELECT sum(a.v + b.v * c.v - d.v + e.v * f.v - g.v + h.v * i.v - j.v)
FROM d a, d b, d c, d d, d e, d f, d g, d h, d i, d j"""


class Server:
    """A server that is killed when it is stopped."""

    def __init__(self, *words):
        command = [os.environ["DOVETAIL"], "server", "--listen", "127.0.0.1:0", "--threads", "2", *words]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        line = self.process.stderr.readline().strip()
        prefix = "listening on "
        assert line.startswith(prefix), line
        self.uri = line[len(prefix) :]

    def connect(self, **options):
        return adbc_driver_flightsql.dbapi.connect(self.uri, db_kwargs=options or None, autocommit=True)

    def memory_bytes_max(self):
        """The most memory that the process has had."""
        with open(f"/proc/{self.process.pid}/status") as status:
            line = next(line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


class ServedTest(unittest.TestCase):
    """Tests that share a server with a warehouse; each has a connection and a cursor."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="dovetail-python-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.warehouse = os.path.join(cls.folder, "warehouse")
        cls.server = Server("--warehouse", cls.warehouse)
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        self.connection = self.server.connect()
        self.addCleanup(self.connection.close)
        self.cursor = self.connection.cursor()
        self.addCleanup(self.cursor.close)

    def rows(self, sql, parameters=None):
        self.cursor.execute(sql, parameters)
        return self.cursor.fetchall()

    def table(self, sql, parameters=None):
        self.cursor.execute(sql, parameters)
        return self.cursor.fetch_arrow_table()

    def refused(self, error, words, call, *args, **kwargs):
        """The error that a call ends in, whose text has the words."""
        with self.assertRaises(error) as raised:
            call(*args, **kwargs)
        self.assertIn(words, str(raised.exception))
        return raised.exception
