"""Text of reports: tables that hold whatever their cells hold, lists that stay short."""

from neurofm_ml import markdown


def test_a_cell_cannot_break_its_table() -> None:
    assert markdown.table(("a", "b"), [("x|y", 1), ("two\nlines", None)]) == [
        "| a | b |",
        "|---|---|",
        "| x\\|y | 1 |",
        "| two lines | None |",
    ]


def test_many_names_of_one_reason_are_counted() -> None:
    left_out = {f"p{k}": "no rows" for k in range(9)} | {"q": "one answer"}
    assert markdown.by_reason(left_out) == "no rows: p0, p1, p2, p3, p4 and 4 more; one answer: q"
    assert markdown.by_reason({}) == ""
