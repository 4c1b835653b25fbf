"""The text of --help: what a command does, and every option with its meaning and default."""

import argparse
import textwrap
from typing import Any

from .options import CONFIG, options_of

_PLACEHOLDERS = {str: "TEXT", int: "INTEGER", float: "NUMBER", bool: "true|false"}


def explanation(settings: type, program: str, *, description: str, example: str) -> str:
    """The whole text, of a command that is called as in "tad collect". argparse only writes it."""
    parser = argparse.ArgumentParser(
        prog=program,
        usage=f"{program} [--config FILE] [--key value ...]",
        description=textwrap.fill(description, width=100),
        epilog=f"example:\n  {example}",
        formatter_class=lambda prog: _Formatter(prog, max_help_position=34, width=110),
    )
    for option in [CONFIG, *options_of(settings)]:
        value = "FILE" if option is CONFIG else "|".join(option.kind.words) or _PLACEHOLDERS[option.kind.type]
        more: dict[str, Any] = {"metavar": value, "nargs": "+" if option.kind.is_list else None}
        if option.negation:
            more = {"action": "store_true"}  # is shown without a value, which it may have
        shown = "required" if option.required else f"default: {_shown(option.default)}"
        parser.add_argument(*option.flags, help=f"{option.help} ({shown})".replace("%", "%%"), **more)
    return parser.format_help().rstrip("\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def _split_lines(self, text: str, width: int) -> list[str]:
        """Leaves options that a text names in one piece, to be copied."""
        return textwrap.wrap(text, width, break_on_hyphens=False)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
