"""A Dockerfile as its stages: what each starts from and its instructions."""

import re
from dataclasses import dataclass

WORDS = "FROM|ARG|ENV|RUN|COPY|WORKDIR|USER|EXPOSE|HEALTHCHECK|CMD|ENTRYPOINT"


@dataclass
class Stage:
    """One FROM of a Dockerfile: its name, what it starts from, its instructions."""

    name: str
    parent: str
    steps: list[tuple[str, str]]

    def last(self, word: str) -> str:
        return next((rest for said, rest in reversed(self.steps) if said == word), "")


def stages(text: str) -> dict[str, Stage]:
    """The stages of a Dockerfile. Raises ValueError for an unknown instruction."""
    lines = re.sub(r"\\\n", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    found: dict[str, Stage] = {}
    for line in filter(None, lines):
        word, _, rest = line.partition(" ")
        if not re.fullmatch(WORDS, word):
            raise ValueError(f"{word!r} is no instruction.")
        if word == "FROM":
            parent, _, name = rest.partition(" AS ")
            found[name] = stage = Stage(name, parent, list(found[parent].steps) if parent in found else [])
        else:
            stage.steps.append((word, rest.strip()))
    return found
