"""The stages, one module each.

They are scan, reconcile, verify, download, extract, submit, collect, finish, notify, prune and backup. A stage asks the
record what is due, does one small piece that may be repeated, and commits. Stages never call each other; `runner` gives
each due unit its turn, `settle` goes on with turns until nothing can move, and `failures` decides what a failure leads
to.
"""
