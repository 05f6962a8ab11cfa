"""Terraform modules as their blocks."""

from pathlib import Path
from typing import Any

import hcl2


def blocks(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Blocks of all files of a module by kind. Raises ValueError naming the file that is no HCL."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.tf")):
        try:
            parsed = hcl2.loads(path.read_text())
        except Exception as error:
            raise ValueError(f"{path.name}: {error}") from error
        for kind, more in parsed.items():
            found.setdefault(kind, []).extend(plain(block) for block in more)
    return found


def plain(value: Any) -> Any:
    """A parsed value without the parser's marks: quotes around strings, and `__is_block__`."""
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items() if key != "__is_block__"}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.strip('"') if isinstance(value, str) else value
