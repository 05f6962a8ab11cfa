"""What goes wrong with recordings, done to clean ones: each corruption names the check that must find it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from neurofm_ml.types import Intervals, Recording, Samples, Series, Signal, SpikeTrain

Change = Callable[[Series], Series]


class Corruption(NamedTuple):
    """`check` fails once `change` was done to the series `signal` of a recording."""

    what: str
    signal: str
    change: Change
    check: str


def corrupted(recording: Recording, corruption: Corruption) -> Recording:
    series = corruption.change(recording.signals[corruption.signal])
    return recording.with_signals({**recording.signals, corruption.signal: series}, corruption.what)


# ---------------------------------------------------------------- ways of going wrong
def values(change: Callable[[np.ndarray], object]) -> Change:
    """Change a float64 copy of the values in place."""

    def corrupt(series: Series) -> Series:
        assert isinstance(series, (Signal, Samples))
        copy = np.array(series.values, np.float64)
        change(copy)
        return dataclasses.replace(series, values=copy.astype(np.float32))

    return corrupt


def put(rows: object, columns: object, value: object) -> Change:
    return values(lambda v: v.__setitem__((rows, columns), value))


def scaled(factor: float) -> Change:
    return values(lambda v: np.multiply(v, factor, out=v))


def white(channel: int, sds: float) -> Change:
    """A channel that is noise, `sds` typical deviations large."""
    rng = np.random.default_rng(0)
    return values(lambda v: v.__setitem__((slice(None), channel), np.median(v.std(axis=0)) * sds * rng.normal(size=len(v))))


def clipped(v: np.ndarray) -> None:
    low, high = np.percentile(v[:, 0], (35, 65))
    np.clip(v[:, 0], low, high, out=v[:, 0])


def repeated(v: np.ndarray) -> None:
    v[:, 1] = 3 - 2 * v[:, 0]


def stated(**fields: object) -> Change:
    """The same numbers with something else said about them."""
    return lambda series: dataclasses.replace(series, **fields)  # type: ignore[arg-type]


def rate(factor: float) -> Change:
    return lambda s: dataclasses.replace(s, sfreq=s.sfreq * factor) if isinstance(s, Signal) else s


def later(seconds: float) -> Change:
    return lambda s: dataclasses.replace(s, t0=s.t0 + seconds) if isinstance(s, Signal) else s


def shorter(share: float) -> Change:
    return lambda s: s.slice(s.span[0], s.span[0] + share * (s.span[1] - s.span[0]))


def mains(hz: float, sds: float, stretch: float = 1.0) -> Change:
    """A hum of `hz` in all channels, of a recording whose clock runs at `stretch` times the rate that is stated."""

    def corrupt(series: Series) -> Series:
        assert isinstance(series, Signal)
        hum = np.sin(2 * np.pi * hz * stretch * series.times)[:, None]
        return dataclasses.replace(series, values=(series.values + sds * np.std(series.values, axis=0) * hum).astype(np.float32))

    return corrupt


def upsampled(series: Series) -> Series:
    """Half of the samples, brought back to the rate by a band-limited interpolation."""
    from scipy.signal import resample

    assert isinstance(series, Signal)
    n = len(series.values) // 4 * 4
    half = resample(np.asarray(series.values[:n], np.float64), n // 2)
    return dataclasses.replace(series, values=resample(half, n).astype(np.float32))


def in_millimetres(series: Series) -> Series:
    assert isinstance(series, Signal)
    assert series.positions is not None
    return dataclasses.replace(series, positions=series.positions * 1000)


def longer(rows: int) -> Change:
    return lambda s: dataclasses.replace(s, values=np.concatenate([s.values, s.values[-rows:]])) if isinstance(s, Signal) else s


def jumping(v: np.ndarray) -> None:
    """For a third of the scan the head is turned in every other volume."""
    v[len(v) // 3 : 2 * len(v) // 3 : 2] += 4 * v.std(axis=0) * np.random.default_rng(0).choice([-1, 1], v.shape[1])


def restless(v: np.ndarray) -> None:
    v[:, :3] += np.random.default_rng(0).normal(0, 1, (len(v), 3))


def leaked(target: Series, split: bool) -> Change:
    """Channel 0 becomes the target's first column, or channels 0 and 1 add up to it."""

    def corrupt(series: Series) -> Series:
        assert isinstance(series, Signal)
        assert not isinstance(target, SpikeTrain)
        told = np.interp(series.times, target.times, np.asarray(target.values[:, 0], np.float64))
        copy = np.array(series.values, np.float64)
        if split:
            copy[:, 1] = 2 * told - copy[:, 0]
        else:
            copy[:, 0] = 7 - 3 * told
        return dataclasses.replace(series, values=copy.astype(np.float32))

    return corrupt


# ---------------------------------------------------------------- time stamps
def gap(start: float, end: float) -> Change:
    """Samples between these seconds after the first are lost."""

    def corrupt(series: Series) -> Series:
        assert isinstance(series, Samples)
        since = series.times - series.times[0]
        keep = (since < start) | (since > end)
        return dataclasses.replace(series, times=series.times[keep], values=series.values[keep])

    return corrupt


def late_stamp(series: Series) -> Series:
    assert isinstance(series, Samples)
    return dataclasses.replace(series, times=np.concatenate([series.times[:-1], [2e9]]))


def slowing(series: Series) -> Series:
    """A clock that loses two per cent towards the end."""
    assert isinstance(series, Samples)
    since = series.times - series.times[0]
    return dataclasses.replace(series, times=series.times[0] + since * (1 + 0.01 * since / since[-1]))


# ---------------------------------------------------------------- spikes
def without(unit: int) -> Change:
    def corrupt(series: Series) -> Series:
        assert isinstance(series, SpikeTrain)
        keep = series.unit_index != unit
        return SpikeTrain(series.times[keep], series.unit_index[keep], series.unit_ids)

    return corrupt


def also(times: Callable[[SpikeTrain], np.ndarray], units: Sequence[int]) -> Change:
    """Further spikes at these times in each of the units."""

    def corrupt(series: Series) -> Series:
        assert isinstance(series, SpikeTrain)
        more = times(series)
        every = np.concatenate([series.times, *[more] * len(units)])
        index = np.concatenate([series.unit_index, np.repeat(np.asarray(units, np.int32), len(more))])
        order = np.argsort(every, kind="stable")
        return SpikeTrain(every[order], index[order], series.unit_ids)

    return corrupt


def of_unit(train: SpikeTrain, unit: int) -> np.ndarray:
    return np.asarray(train.times[train.unit_index == unit])


def throughout(hz: float) -> Callable[[SpikeTrain], np.ndarray]:
    return lambda train: np.arange(train.times[0], train.times[-1], 1 / hz)


def busiest(train: SpikeTrain) -> int:
    return int(np.bincount(train.unit_index).argmax())


def mixed(series: Series) -> Series:
    """The busiest unit holds a second neuron that fires in its refractory period."""
    assert isinstance(series, SpikeTrain)
    unit = busiest(series)
    return also(lambda train: of_unit(train, unit)[::4] + 4e-4, [unit])(series)


def sorted_twice(series: Series) -> Series:
    """The spikes of the busiest unit come as another unit as well, a sample later."""
    assert isinstance(series, SpikeTrain)
    unit = busiest(series)
    other = (unit + 1) % len(series.unit_ids)
    return also(lambda train: of_unit(train, unit) + 2e-5, [other])(without(other)(series))


def shocked(series: Series) -> Series:
    """Every half second a shock is sorted into all units."""
    assert isinstance(series, SpikeTrain)
    return also(throughout(2.0), range(len(series.unit_ids)))(series)


def rounded(step: float) -> Change:
    return lambda s: dataclasses.replace(s, times=np.round(s.times / step) * step) if isinstance(s, SpikeTrain) else s


def overlapping(width: int) -> Change:
    """Each row sums `width` rows."""

    def corrupt(series: Series) -> Series:
        assert isinstance(series, Signal)
        sums = np.lib.stride_tricks.sliding_window_view(np.asarray(series.values), width, axis=0).sum(axis=-1)
        return dataclasses.replace(series, values=sums)

    return corrupt


# ---------------------------------------------------------------- intervals
def with_intervals(recording: Recording, intervals: Intervals) -> Recording:
    return dataclasses.replace(recording, intervals={"trials": intervals})


def trials(recording: Recording, labels: Sequence[str], unit_s: float = 1.0, shift_s: float = 0.0) -> Intervals:
    """A trial per label, evenly over the recording, its times in units of `unit_s`."""
    start, end = recording.bounds
    edges = (np.linspace(start, end, len(labels) + 1) + shift_s) / unit_s
    return Intervals(edges[:-1], edges[:-1] + 0.5 * np.diff(edges), tuple(labels))


def shuffled(n: int = 60) -> list[str]:
    return [str(label) for label in np.random.default_rng(0).permutation(np.repeat(["left", "right", "up"], n // 3))]


# ---------------------------------------------------------------- which of them each kind of signal can have
def electric(name: str) -> list[Corruption]:
    """EEG and its kin: an array in volts, at 140 Hz or more."""
    return [
        Corruption("a NaN", name, put(100, 2, np.nan), "values_are_finite"),
        Corruption("an infinity", name, put(5, 0, -np.inf), "values_are_finite"),
        Corruption("Unix time", name, later(1.7e9), "clock_is_sane"),
        Corruption("a hugely negative time", name, later(-1.5e9), "clock_is_sane"),
        Corruption("the step for the rate", name, lambda s: rate(s.sfreq**-2)(s) if isinstance(s, Signal) else s, "sampling_rates_fit"),
        Corruption("most channels flat", name, values(lambda v: v.__setitem__((slice(None), slice(v.shape[1] // 3, None)), 1.0)), "channels_vary"),
        Corruption("one channel off", name, put(slice(None), 3, 0.0), "no_channel_is_flat"),
        Corruption("a signal that ends early", name, shorter(0.7), "signals_cover_the_recording"),
        Corruption("a dropout filled with zeros", name, put(slice(100, 1000), slice(None), 0.0), "nothing_is_frozen"),
        Corruption("clipping", name, values(clipped), "nothing_is_clipped"),
        Corruption("-9999 for no value", name, put(slice(10, 20), 1, -9999.0), "no_value_stands_for_missing"),
        Corruption("volts called microvolts", name, scaled(1e-6), "amplitudes_are_plausible"),
        Corruption("picovolts called microvolts", name, scaled(1e6), "amplitudes_are_plausible"),
        Corruption("a channel twice", name, values(repeated), "no_channel_is_repeated"),
        Corruption("hum in every channel", name, mains(60, 3.0), "mains_are_quiet"),
        Corruption("a rate stated 2.5 % too high", name, mains(50, 1.0, 1.025), "mains_are_in_place"),
        Corruption("sampled up", name, upsampled, "spectra_reach_nyquist"),
    ]  # fmt: skip


def sensors(name: str) -> list[Corruption]:
    """An array of at least eight sensors that see one field, with positions."""
    return [
        Corruption("a loose electrode", name, white(2, 100.0), "no_channel_is_noisy"),
        Corruption("positions in millimetres", name, in_millimetres, "positions_are_plausible"),
    ]


def scans(name: str) -> list[Corruption]:
    """Parcels of fMRI."""
    return [
        Corruption("a repetition time in milliseconds", name, rate(1e-3), "sampling_rates_fit"),
        Corruption("an empty parcel", name, put(slice(None), 3, 0.0), "no_channel_is_flat"),
        Corruption("a scan of zeros", name, put(slice(None), slice(None), 0.0), "channels_vary"),
        Corruption("a head that turns", name, values(jumping), "volumes_are_steady"),
        Corruption("a NaN", name, put(7, 7, np.nan), "values_are_finite"),
        Corruption("a parcel twice", name, values(repeated), "no_channel_is_repeated"),
    ]


def trains(name: str) -> list[Corruption]:
    return [
        Corruption("a silent unit", name, without(7), "units_fire"),
        Corruption("two neurons in one unit", name, mixed, "refractory_periods_hold"),
        Corruption("noise taken for spikes", name, also(throughout(300.0), [0]), "rates_are_plausible"),
        Corruption("a unit sorted twice", name, sorted_twice, "no_channel_is_repeated"),
        Corruption("shocks in all units", name, shocked, "no_artefact_is_sorted"),
        Corruption("times of two digits", name, rounded(0.01), "spike_times_are_precise"),
    ]


def counts(name: str) -> list[Corruption]:
    return [
        Corruption("negative counts", name, put(3, 1, -1), "counts_are_whole"),
        Corruption("rates called counts", name, scaled(0.3), "counts_are_whole"),
        Corruption("a rate no neuron has", name, put(slice(None), 0, 300.0), "rates_are_plausible"),
        Corruption("counts in overlapping windows", name, overlapping(5), "counts_do_not_overlap"),
        Corruption("overlap beyond the gap", name, overlapping(20), "gap_covers_the_overlap"),
    ]


def behaviours(name: str) -> list[Corruption]:
    return [
        Corruption("missing behaviour", name, values(lambda v: v.__setitem__(slice(0, len(v) // 6), np.nan)), "behaviour_is_complete"),
        Corruption("an infinity in behaviour", name, put(5, 0, np.inf), "nothing_is_infinite"),
        Corruption("1023 for no value", name, put(slice(50, 60), 0, 10230.0), "no_value_stands_for_missing"),
    ]


def clocks(name: str) -> list[Corruption]:
    """Samples with time stamps."""
    return [
        Corruption("a gap of two seconds", name, gap(10, 12), "no_long_gaps"),
        Corruption("one late stamp", name, late_stamp, "clock_is_sane"),
        Corruption("a clock that slows", name, slowing, "clocks_hold"),
    ]
