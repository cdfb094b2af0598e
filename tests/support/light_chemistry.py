"""The chemistry child without its table of fragments: reading it takes longer than most of the daemons live.

Only the SA scores are others.
"""

from rdkit.Contrib.SA_Score import sascorer

from watcher.chemistry_child import main

if __name__ == "__main__":
    sascorer._fscores = {}
    main()
