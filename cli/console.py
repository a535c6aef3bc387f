"""Where answers and progress are drawn."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_UNBOUNDED = 1_000_000


def console(*, stderr: bool = False) -> "Console":
    """Open the console; what is no terminal is so wide that nothing is cut or wrapped, whatever COLUMNS says."""
    from rich.console import Console

    opened = Console(stderr=stderr)
    return opened if opened.is_terminal else Console(stderr=stderr, width=_UNBOUNDED)
