"""`watcher config`: the settings file."""

import os
from pathlib import Path
from typing import Annotated

import typer

from watcher.cli.common import settings_of
from watcher.cli.output import UsageProblem, say
from watcher.errors import Ours

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write an example of the settings, or show them.")


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; `-` prints it.")] = Path(
        "config.toml"
    ),
) -> None:
    """Write an example of the settings.

    Every setting stands there with its meaning, at its default. A file that is there already is left alone.
    """
    from watcher.settings_text import example

    if str(file) == "-":
        typer.echo(example(), nl=False)
        return
    try:
        # for the owner only: it is where tokens are going to be written
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise UsageProblem(f"{file} is there already and is left as it is; name another file, or remove it") from None
    except OSError as error:
        raise Ours(
            f"{file} cannot be written: {(error.strerror or '').lower()}", action="name a file in a writable folder"
        ) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as written:
        written.write(example())
    say(f"{file} is written. Set fragalysis.token (for private targets) and molecule_one.token, then `watcher check`.")


@app.command()
def show(context: typer.Context) -> None:
    """Print the settings in force, with secrets hidden."""
    from watcher.settings_files import find_config
    from watcher.settings_text import show as text_of

    settings = settings_of(context)
    found = find_config(context.find_root().obj.config, os.environ)
    say(f"# from {found} and the environment" if found else "# no settings file is found: defaults and the environment")
    typer.echo(text_of(settings), nl=False)
