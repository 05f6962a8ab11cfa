"""What every test may use: reference values in tests/golden."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--refresh-golden", action="store_true", help="write what the code gives now to tests/golden")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Any], Any]:
    """`golden(name, value)`: the reference kept as tests/golden/<name>.json; `make golden` writes `value` there first."""

    def reference(name: str, value: Any) -> Any:
        path = Path(__file__).parent / "golden" / f"{name}.json"
        if request.config.getoption("--refresh-golden"):
            path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
        return json.loads(path.read_text())

    return reference
