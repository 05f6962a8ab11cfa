"""Tables in Markdown, for reports and cards."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table."""
    return [line(head), f"|{'---|' * len(head)}", *map(line, rows)]


def line(cells: Sequence[object]) -> str:
    """One row; bars and line breaks within a cell are made harmless."""
    return f"| {' | '.join(str(cell).replace('|', BAR).replace(BREAK, ' ') for cell in cells)} |"


BAR, BREAK = "\\|", "\n"
