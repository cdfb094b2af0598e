"""The record: the only place with SQL.

- What it holds: `schema`, `types`, `states`.
- The way in: `engine`, `connections`, `sqlite_files`, `lock`; `names` reads the names of the targets alone.
- As a whole: `migrate` brings it up to date, `copying` copies it, `backups` name the copies of each day, `restore` goes
  back to one; `invariants` say what must hold, `stored` what the disk should show.
- Queries, one module a subject: `instance`, `targets`, `legs`, `upload_queues`, `compounds`, `claims` and their
  `standing`, `profiles`, `allowance`, `purchases`, `batches`, `forgotten`, `results`, `settlement`, `conditions`,
  `transitions`, `outbox`, `due`, `waits`, `retention`; `chunks` cuts what they send.
- For people: `overview`, `target_views`, `batch_views`, `progress`, `export`, and `rehearsal` for the plan.
"""
