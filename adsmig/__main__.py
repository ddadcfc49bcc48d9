"""``python -m adsmig`` and the console scripts; imports little, for workers import it too."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and exits with its code."""
    from adsmig.cmdline import hide_secrets

    hide_secrets()  # first: what follows takes a moment

    from adsmig.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
