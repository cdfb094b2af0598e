"""A database as it can be seen from outside: its schema, and what is in it."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, inspect

Rows = list[dict[str, Any]]


def shape(connection: Connection) -> dict[str, Any]:
    """Return all that can be seen of a schema, in an order of its own."""
    seen = inspect(connection)
    tables = {}
    for table in sorted(seen.get_table_names()):
        columns = seen.get_columns(table)
        indexes = seen.get_indexes(table)
        tables[table] = {
            "columns": {c["name"]: (str(c["type"]), c["nullable"], c["default"]) for c in columns},
            "primary key": seen.get_pk_constraint(table)["constrained_columns"],
            "foreign keys": sorted(
                (str(k["name"]), k["constrained_columns"], k["referred_table"]) for k in seen.get_foreign_keys(table)
            ),
            "unique": sorted((str(u["name"]), u["column_names"]) for u in seen.get_unique_constraints(table)),
            "checks": sorted((str(c["name"]), str(c["sqltext"])) for c in seen.get_check_constraints(table)),
            "indexes": sorted(
                (str(i["name"]), i["column_names"], bool(i["unique"]), _where_of(i.get("dialect_options", {})))
                for i in indexes
            ),
        }
    return tables


def _where_of(options: Any) -> str:
    return " ".join(str(value) for name, value in options.items() if name.endswith("_where")).strip("()")


def content(connection: Connection) -> dict[str, Rows]:
    """Return every row of every table, whatever its schema, in the same form for both databases."""
    return {table.name: _rows(connection, table) for table in _tables(connection)}


def fill(connection: Connection, rows: dict[str, Rows]) -> None:
    """Put rows into the tables that are there, whatever their schema."""
    for table in _tables(connection):
        if found := rows.get(table.name):
            connection.execute(
                table.insert(), [{name: _with_zone(value) for name, value in row.items()} for row in found]
            )


def _tables(connection: Connection) -> list[sa.Table]:
    metadata = sa.MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def _rows(connection: Connection, table: sa.Table) -> Rows:
    found = connection.execute(table.select().order_by(*table.primary_key)).mappings()
    return [{name: _without_zone(value) for name, value in row.items()} for row in found]


def _without_zone(value: Any) -> Any:
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value


def _with_zone(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
