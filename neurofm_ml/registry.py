"""Registry: a named table of one kind of thing (readers, tokenizers, models, jobs, ...).

One class, one instance per kind. Members register themselves with a decorator and each
package's ``__init__`` imports its members explicitly, so what exists is one screen of code.
"""

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Map from name to member. Duplicate names raise; unknown names raise with the nearest one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._members: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds a member under `name`."""

        def add(member: T) -> T:
            self.add(name, member)
            return member

        return add

    def add(self, name: str, member: T) -> None:
        """Add a member that is a value rather than a definition (a dataset card)."""
        if name in self._members:
            raise ValueError(f"{self.kind} {name!r} is already registered; choose another name.")
        self._members[name] = member

    def __getitem__(self, name: str) -> T:
        if name not in self._members:
            near = get_close_matches(name, self._members, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"Unknown {self.kind} {name!r}.{hint} Available: {', '.join(sorted(self._members))}.")
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members
