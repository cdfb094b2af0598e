"""Fragalysis Watcher: from an upload on Fragalysis to a Molecule.one score on the user's disk, paid once."""

from importlib.metadata import version

__version__ = version("fragalysis-watcher")
