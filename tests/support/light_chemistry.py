"""The chemistry child without its table of fragments: reading it takes longer than most of the daemons live.

Only the SA scores are others.
"""

from unittest.mock import patch

from watcher.chemistry_child import main
from watcher.child import confine


def confine_and_lighten() -> None:
    confine()  # first, as ever: RDKit takes its time
    from rdkit.Contrib.SA_Score import sascorer

    sascorer._fscores = {}


if __name__ == "__main__":
    with patch("watcher.chemistry_child.confine", confine_and_lighten):
        main()
