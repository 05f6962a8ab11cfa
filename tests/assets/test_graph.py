"""The whole graph in process, with light stand-ins for the jobs."""

import pytest
from neurofm_assets import demo


def test_the_demo_makes_everything_once(ran: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([]) == 0, capsys.readouterr().err
    print(capsys.readouterr().out)
    first = len(ran)
    assert demo.main([]) == 0
    assert len(ran) == first
