"""What a client learns of the database: objects at every depth, types, the driver's information."""

import unittest

import adbc_driver_manager.dbapi as dbapi
import pyarrow as pa

from served import ServedTest


class Metadata(ServedTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with cls.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE alpha (id INTEGER, name VARCHAR)")
            cursor.execute("CREATE VIEW beta AS SELECT id FROM alpha")
            cursor.adbc_ingest("gamma", pa.table({"x": [1.5]}))

    def objects(self, **filters):
        return self.connection.adbc_get_objects(**filters).read_all().to_pylist()

    def test_objects_at_every_depth(self):
        self.assertEqual(
            self.objects(depth="catalogs"), [{"catalog_name": "dovetail", "catalog_db_schemas": None}]
        )
        (catalog,) = self.objects(depth="db_schemas")
        self.assertEqual(
            catalog["catalog_db_schemas"], [{"db_schema_name": "main", "db_schema_tables": None}]
        )
        (catalog,) = self.objects(depth="tables")
        (schema,) = catalog["catalog_db_schemas"]
        kinds = {t["table_name"]: t["table_type"] for t in schema["db_schema_tables"]}
        self.assertEqual(kinds, {"alpha": "BASE TABLE", "beta": "VIEW", "gamma": "BASE TABLE"})
        self.assertTrue(all(t["table_columns"] is None for t in schema["db_schema_tables"]))
        (catalog,) = self.objects(depth="all")
        (schema,) = catalog["catalog_db_schemas"]
        columns = {
            t["table_name"]: [(c["column_name"], c["ordinal_position"], c["xdbc_type_name"]) for c in t["table_columns"]]
            for t in schema["db_schema_tables"]
        }
        self.assertEqual(
            columns,
            {
                "alpha": [("id", 1, "INTEGER"), ("name", 2, "VARCHAR")],
                "beta": [("id", 1, "INTEGER")],
                "gamma": [("x", 1, "DOUBLE")],
            },
        )

    def test_filters(self):
        def tables(**filters):
            found = self.objects(depth="tables", **filters)
            schemas = [s for c in found for s in c["catalog_db_schemas"]]
            return sorted(t["table_name"] for s in schemas for t in s["db_schema_tables"])

        self.assertEqual(tables(table_name_filter="%mm_b"), [])
        self.assertEqual(tables(table_name_filter="_amma"), ["gamma"])
        self.assertEqual(tables(table_types_filter=["VIEW"]), ["beta"])
        self.assertEqual(tables(catalog_filter="nowhere"), [])
        self.assertEqual(tables(db_schema_filter="ma%"), ["alpha", "beta", "gamma"])

    def test_schema_of_a_table(self):
        schema = self.connection.adbc_get_table_schema("alpha")
        self.assertEqual((schema.names, schema.types), (["id", "name"], [pa.int32(), pa.string()]))
        self.refused(dbapi.ProgrammingError, "", self.connection.adbc_get_table_schema, "nowhere")

    def test_kinds_and_information(self):
        self.assertEqual(self.connection.adbc_get_table_types(), ["BASE TABLE", "LOCAL TEMPORARY", "VIEW"])
        information = self.connection.adbc_get_info()
        self.assertEqual(information["vendor_name"], "Dovetail")
        self.assertTrue(information["vendor_version"] and information["vendor_arrow_version"])


if __name__ == "__main__":
    unittest.main()
