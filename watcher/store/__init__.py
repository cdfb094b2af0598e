"""The record: the only place with SQL.

`engine` opens it, `schema` says what it holds, `migrate` brings it up to date, `lock` keeps a second writer out. One
module of queries stands for each subject: `targets`, `compounds`, `claims`, `profiles`, `allowance`, `purchases`,
`batches`, `results`, `forgotten`, `conditions`, `transitions`; `overview` and `export` are for people.
"""
