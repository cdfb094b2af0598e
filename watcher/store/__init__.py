"""The record: the only place with SQL.

`engine` opens it, `schema` says what it holds, `migrate` brings it up to date, `lock` keeps a second writer out, and
one module of queries stands for each aggregate: `targets`, `compounds`, `claims`, `batches`, `conditions`, `overview`.
"""
