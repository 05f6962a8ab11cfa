"""Text for reports and cards: tables in Markdown, and lists that stay short."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table."""
    return [line(head), f"|{'---|' * len(head)}", *map(line, rows)]


def line(cells: Sequence[object]) -> str:
    """One row; bars and line breaks within a cell are made harmless."""
    return f"| {' | '.join(str(cell).replace('|', BAR).replace(BREAK, ' ') for cell in cells)} |"


BAR, BREAK = "\\|", "\n"
#: Names that are said of one reason.
MOST_NAMED = 5


def by_reason(left_out: Mapping[str, str]) -> str:
    """Name -> why, the other way round: each reason with the first of its names and how many there are besides."""
    names = defaultdict(list)
    for name, why in sorted(left_out.items()):
        names[why].append(name)
    more = {why: f" and {len(own) - MOST_NAMED} more" if len(own) > MOST_NAMED else "" for why, own in names.items()}
    return "; ".join(f"{why}: {', '.join(own[:MOST_NAMED])}{more[why]}" for why, own in names.items())
