"""The stages, one module each: scan, download, extract, submit, reconcile, collect, finish.

A stage asks the record what is due, does one small piece that may be repeated, and commits. Stages never call each
other; `runner` gives each due unit its turn, and `failures` decides what a failure leads to.
"""
