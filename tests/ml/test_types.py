"""What flows refuses to be wrong, and stays what it is when it is cut."""

import numpy as np
import pytest
import torch

from neurofm_ml.types import Foci, Intervals, Latents, Recording, Samples, Signal, SpikeTrain, Subject, Table, TokenizedSequence

X = np.zeros((4, 2), np.float32)
T = np.arange(4.0)
I4 = np.zeros(4, int)


def recording(**changes) -> Recording:
    fields = {"id": "r", "dataset": "d", "subject": Subject("s"), "session": "a", "species": "", "licence": "", "signals": {"x": signal()}}
    return Recording(**{**fields, **changes})


def signal(n: int = 40, sfreq: float = 4.0, t0: float = 10.0) -> Signal:
    return Signal(np.arange(n, dtype=np.float32)[:, None] * (1, -1), sfreq, "lfp", t0, ("a", "b"), np.ones((2, 3)), "uV")


def samples() -> Samples:
    return Samples(np.array([10.0, 10.2, 11.0, 11.0, 13.5]), np.arange(5.0)[:, None], "eye", ("gaze",), "deg")


def train() -> SpikeTrain:
    return SpikeTrain(np.array([10.0, 10.2, 11.0, 11.0, 13.5]), np.array([0, 1, 1, 0, 2]), ("u", "v", "w"))


def intervals() -> Intervals:
    start = np.array([10.0, 10.5, 11.0, 12.0])
    return Intervals(start, start + np.array([0.5, 1.0, 0.0, 1.0]), ("p", "q", "r", "s"), {"reward": np.arange(4)})


WRONG = [
    (lambda: Signal(X, 4, "brain"), "modality is 'brain'; allowed: spikes, intracellular"),
    (lambda: Signal(X, 0, "eeg"), "sfreq is 0 Hz; it needs a positive finite rate"),
    (lambda: Signal(X, np.nan, "eeg"), "sfreq is nan Hz"),
    (lambda: Signal(X, 4, "eeg", np.inf), "t0 is inf; it needs a finite time"),
    (lambda: Signal(X[:, 0], 4, "eeg"), r"values need shape \(n_times, n_chans\), got \(4,\)"),
    (lambda: Signal(X, 4, "eeg", ch_names=("a",)), "values have 2 channels but ch_names has 1"),
    (lambda: Signal(X, 4, "eeg", ch_names=("a", "a")), "ch_names has repeated names"),
    (lambda: Signal(X, 4, "eeg", positions=np.zeros((3, 3))), r"positions need shape \(2, 3\), got \(3, 3\)"),
    (lambda: Samples(T[::-1], X, "eye"), "times is not sorted: entry 1 is 2 after 3; sort it or split the recording there"),
    (lambda: Samples(np.array([0, 1, np.nan, 3]), X, "eye"), "times has NaN or infinite entries"),
    (lambda: Samples(T[:, None], X, "eye"), r"times needs shape \(n,\), got \(4, 1\)"),
    (lambda: Samples(T[:3], X, "eye"), "times has 3 entries but values 4"),
    (lambda: SpikeTrain(T, I4[:3], ("u",)), r"unit_index has shape \(3,\), times \(4,\)"),
    (lambda: SpikeTrain(T, I4 + 1, ("u",)), "unit_index spans 1..1 but there are 1 unit_ids"),
    (lambda: SpikeTrain(T, I4 - 1, ("u",)), "unit_index spans -1..-1"),
    (lambda: SpikeTrain(T, I4, ("u", "u")), "unit_ids has repeated names"),
    (lambda: SpikeTrain(-T, I4, ("u",)), "spike times is not sorted"),
    (lambda: Intervals(T, T - 1), "interval 0 ends at -1 before it starts at 0"),
    (lambda: Intervals(T, np.full(4, np.nan)), "interval 0 ends at nan before it starts"),
    (lambda: Intervals(T, T[:2]), r"end has shape \(2,\), start \(4,\)"),
    (lambda: Intervals(T, T, ("a",)), "column 'labels' has 1 entries for 4 intervals"),
    (lambda: Intervals(T, T, (), {"c": T[:2]}), "column 'c' has 2 entries for 4 intervals"),
    (lambda: recording(signals={}), "recording 'r' has no signals"),
    (lambda: recording(span=(2.0, 1.0)), "recording 'r' spans 2.0 to 1.0; the end must follow the start"),
    (lambda: recording(span=(0.0, np.inf)), "recording 'r' spans 0.0 to inf"),
    (lambda: Foci(X, I4, I4, I4, I4, "x"), r"xyz needs shape \(n, 3\), got \(4, 2\)"),
    (lambda: Foci(np.zeros((4, 3)), I4, I4[:2], I4, I4, "x"), "contrast has 2 entries for 4 peaks"),
    (lambda: Table({"a": T, "b": T[:1]}, "x"), "columns differ in length: {'a': 4, 'b': 1}"),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[m for _, m in WRONG])
def test_wrong_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


BOUNDS = [(10.0, 20.0), (10.3, 11.0), (10.2, 11.01), (-5.0, 10.0), (15.0, 99.0), (12.0, 12.0), (30.0, 40.0)]


@pytest.mark.parametrize(("start", "end"), BOUNDS)
@pytest.mark.parametrize("series", [signal(), samples(), train()], ids=["Signal", "Samples", "SpikeTrain"])
def test_slices_keep_times_values_and_type(series, start, end):
    cut = series.slice(start, end)
    keep = (series.times >= start) & (series.times < end)
    assert type(cut) is type(series)
    assert np.allclose(cut.times, series.times[keep])
    name = "unit_index" if isinstance(series, SpikeTrain) else "values"
    assert np.array_equal(getattr(cut, name), getattr(series, name)[keep])
    kept = ("modality", "unit_ids") if isinstance(series, SpikeTrain) else ("modality", "ch_names", "unit")
    assert all(getattr(cut, field) == getattr(series, field) for field in kept)


def test_slices_on_a_rate_that_no_binary_fraction_holds():
    """0.1 s steps: the rounding of times must neither drop nor double a sample."""
    whole = Signal(np.arange(1000.0)[:, None], 10.0, "eeg", 0.3)
    parts = [whole.slice(0.3 + 0.7 * k, 0.3 + 0.7 * (k + 1)) for k in range(143)]
    assert np.array_equal(np.concatenate([p.values for p in parts]), whole.values)
    assert all(len(p.values) == 7 for p in parts[:-1])


@pytest.mark.parametrize(("start", "end"), BOUNDS)
def test_a_slice_of_intervals_holds_those_that_overlap(start, end):
    whole = intervals()
    cut = whole.slice(start, end)
    keep = [i for i in range(4) if whole.start[i] < end and (whole.end[i] > start or whole.start[i] >= start)]
    assert cut.labels == tuple(whole.labels[i] for i in keep)
    assert np.array_equal(cut.start, whole.start[keep])
    assert np.array_equal(cut.end, whole.end[keep])
    assert np.array_equal(cut.columns["reward"], whole.columns["reward"][keep])


def test_a_slice_of_a_recording_is_a_recording():
    whole = recording(signals={"x": signal(), "gaze": samples(), "units": train()}, intervals={"trials": intervals()}, history=("read",))
    cut = whole.slice(10.2, 11.5)
    assert isinstance(cut, Recording)
    assert (cut.bounds, cut.duration, cut.id, cut.history) == ((10.2, 11.5), pytest.approx(1.3), "r", ("read",))
    for name, series in whole.signals.items():
        assert np.array_equal(cut.signals[name].times, series.slice(10.2, 11.5).times)
    assert cut.intervals["trials"].labels == ("p", "q", "r")
    assert cut.modalities == ("spikes", "lfp", "eye")


def test_the_span_of_a_recording_is_that_of_its_series():
    assert recording(signals={"x": signal(), "y": signal(8, 1.0, 18.0)}).bounds == (10.0, 26.0)
    silent = SpikeTrain(np.zeros(0), np.zeros(0, int), ("u",))
    assert recording(signals={"x": signal(), "units": silent}).bounds == (10.0, 20.0)
    assert recording(signals={"units": silent}).bounds == (0.0, 0.0)


def test_new_signals_are_noted():
    changed = recording(history=("read",)).with_signals({"gaze": samples()}, "tracked")
    assert list(changed.signals) == ["gaze"]
    assert changed.history == ("read", "tracked")


REPRS = [
    (signal(), "Signal(lfp, 10 s at 4 Hz, 2 channels, 0.0 MB)"),
    (samples(), "Samples(eye, 3.5 s, 5 samples, 1 channels)"),
    (train(), "SpikeTrain(3.5 s, 3 units, 5 spikes)"),
    (intervals(), "Intervals(4, columns reward)"),
    (recording(), "Recording(d/r, 10 s, x: Signal(lfp, 10 s at 4 Hz, 2 channels, 0.0 MB))"),
    (Foci(np.zeros((4, 3)), I4, I4, I4, np.array(["MNI"] * 4), "pain"), "Foci(pain, 1 studies, 4 peaks, MNI)"),
    (Table({"age": T, "sex": T}, "ABIDE"), "Table(ABIDE, 4 rows, 2 columns)"),
]


@pytest.mark.parametrize(("item", "line"), REPRS, ids=[type(item).__name__ for item, _ in REPRS])
def test_repr_is_one_line(item, line):
    assert repr(item) == line


def test_an_embedding_shifts_valid_tokens_alone():
    mask = torch.tensor([[True, False]])
    sequence = TokenizedSequence(torch.zeros(1, 2, 3), mask, torch.zeros(1, 2), torch.zeros(1), torch.ones(1), "eeg")
    assert sequence.shifted(torch.ones(3)).tokens.tolist() == [[[1.0] * 3, [0.0] * 3]]


@pytest.mark.parametrize("item", [signal(), recording(), Latents(torch.zeros(1), torch.zeros(1), torch.zeros(1))])
def test_nothing_can_be_changed(item):
    with pytest.raises(AttributeError, match="cannot assign to field"):
        item.modality = "eeg"
