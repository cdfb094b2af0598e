"""Fuzzes one parser with what comes from outside: `python -m tests.fuzz TARGET --seconds N`.

Needs the extra `fuzz`. It begins with the seeds and ends after N seconds with the number of inputs, or at the first
input that breaks the parser, which it writes to the working directory as `crash-...`; `--replay FILE` runs one again.
"""

import argparse
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Read the arguments, lay out the seeds and give way to the fuzzer."""
    import atheris

    with atheris.instrument_imports(include=["watcher", "tarfile", "zipfile"]):
        from tests.fuzz.seeds import SEEDS, WORDS
        from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--corpus", type=Path, help="a folder that keeps what was found worth keeping")
    parser.add_argument("--replay", type=Path)
    asked = parser.parse_args()
    run = TARGETS[asked.target]
    if asked.replay:
        run(asked.replay.read_bytes())
        return
    scratch = Path(tempfile.mkdtemp(prefix=f"fuzz-{asked.target}-"))  # the fuzzer ends the process: nobody tidies up
    corpus: Path = asked.corpus or scratch / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[asked.target]()):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = scratch / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS[asked.target]), encoding="ascii")
    options = [f"-max_total_time={asked.seconds}", f"-dict={words}", "-max_len=16384", "-timeout=20",
               "-rss_limit_mb=1024", "-print_final_stats=1"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], run)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02X}" for byte in word)


if __name__ == "__main__":
    main()
