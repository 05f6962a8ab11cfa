"""Registry: what is registered is found, in order; what is not is refused with the nearest name."""

import pytest

from neurofm_ml.registry import Registry


@pytest.fixture
def tools() -> Registry:
    registry = Registry("tool")
    registry.add("saw", 1)
    registry.add("hammer", 2)
    return registry


def test_decorator_returns_what_it_registers(tools):
    @tools.register("drill")
    def drill() -> str:
        return "whirr"

    assert tools["drill"] is drill
    assert drill() == "whirr"


def test_behaves_like_a_mapping_in_order_of_registration(tools):
    assert list(tools) == ["saw", "hammer"]
    assert len(tools) == 2
    assert "saw" in tools
    assert "axe" not in tools


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hamer", r"Unknown tool 'hamer'\. Did you mean 'hammer'\? Available: hammer, saw\."),
        ("zzz", r"Unknown tool 'zzz'\. Available: hammer, saw\."),
    ],
)
def test_unknown_names_are_refused(tools, name, message):
    with pytest.raises(ValueError, match=message):
        tools[name]


def test_a_name_is_given_once(tools):
    with pytest.raises(ValueError, match="tool 'saw' is already registered; choose another name"):
        tools.register("saw")(3)
    assert tools["saw"] == 1
