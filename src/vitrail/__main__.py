"""The entry point `vitrail`, and `python -m vitrail`: an interrupt is heard before the command line is imported."""

from __future__ import annotations

from vitrail import interrupt


def _verb() -> None:
    from vitrail.cli import main

    main()


def main() -> None:
    """Run the verb that the arguments name."""
    interrupt.run(_verb)


if __name__ == "__main__":
    main()
