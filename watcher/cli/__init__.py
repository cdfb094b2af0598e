"""The command line: thin faces over the program."""


def main() -> None:
    """Run the command line."""
