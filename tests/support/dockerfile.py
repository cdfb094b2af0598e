"""Reads as much of the Dockerfile language as the project's Dockerfile uses; standard library only."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: its name in capitals, its options, and what follows."""

    name: str
    options: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """What follows, as a list: the exec form as it is, all else split as a shell would."""
        return self.exec_form or shlex.split(self.text)

    @property
    def exec_form(self) -> list[str] | None:
        """The list of the exec form (of HEALTHCHECK: of its command); None for the shell form."""
        text = self.text.removeprefix("CMD ") if self.name == "HEALTHCHECK" else self.text
        return [str(word) for word in json.loads(text)] if text.startswith("[") else None


@dataclass(slots=True)
class Stage:
    """One stage: its base, its name, its steps in order."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def all(self, name: str) -> list[Step]:
        """Return the steps of that instruction."""
        return [step for step in self.steps if step.name == name]

    def last(self, name: str) -> Step:
        """Return the step of that instruction which counts. Raises IndexError when there is none."""
        return self.all(name)[-1]

    @property
    def environment(self) -> dict[str, str]:
        """The values of ENV, not yet expanded."""
        return dict(word.split("=", 1) for step in self.all("ENV") for word in step.words)

    @property
    def labels(self) -> dict[str, str]:
        """The values of LABEL, with the defaults of the stage's ARGs filled in."""
        defaults = {name: value for step in self.all("ARG") for name, _, value in [step.words[0].partition("=")]}
        return {
            name: expanded(value, defaults)
            for step in self.all("LABEL")
            for name, value in (word.split("=", 1) for word in step.words)
        }


def expanded(text: str, values: dict[str, str]) -> str:
    """Fill in `$NAME` and `${NAME}`; a name without a value gives nothing."""
    return _VARIABLE.sub(lambda match: values.get(match[1], ""), text)


def stages(path: Path) -> list[Stage]:
    """Return the stages of a Dockerfile. Raises ValueError for what this reader does not know."""
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for step in _steps(path.read_text(encoding="utf-8")):
        if step.name == "FROM":
            base, *rest = expanded(step.text, arguments).split()
            found.append(Stage(base, rest[1] if rest else ""))
        elif found:
            found[-1].steps.append(step)
        elif step.name == "ARG":
            name, _, value = step.text.partition("=")
            arguments[name] = value
        else:
            raise ValueError(f"{step.name} before the first FROM")
    return found


def _steps(text: str) -> Iterator[Step]:
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in lines.replace("\\\n", "").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        options = {}
        while (match := re.match(r"--([\w-]+)=(\S+)\s+", rest)) is not None:
            options[match[1]] = match[2]
            rest = rest[match.end() :]
        yield Step(name.upper(), options, rest.strip())


def context(root: Path) -> list[Path]:
    """Return the files under `root` that its `.dockerignore` lets into a build, relative to it."""
    patterns = [line for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.strip()]
    wanted = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    candidates = (path for name in wanted for path in ((root / name), *(root / name).rglob("*")) if path.is_file())
    return sorted(path.relative_to(root) for path in candidates if not _ignored(path.relative_to(root), patterns))


def _ignored(path: Path, patterns: list[str]) -> bool:
    """Tell whether the last pattern that fits the path, or a folder above it, is one that ignores."""
    places = [path, *path.parents][:-1]
    ignored = False
    for pattern in patterns:
        form = pattern.removeprefix("!")
        fits = any(
            fnmatchcase(place.name, form[3:]) if form.startswith("**/") else fnmatchcase(str(place), form)
            for place in places
        )
        ignored = not pattern.startswith("!") if fits else ignored
    return ignored
