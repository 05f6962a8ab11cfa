"""What was heard, seen and said as series of features: sound files, videos, tables of still images, aligned words.

The home of PyAV. A card's signal of modality audio, video or language may name such a file; its
`variable` picks features by their name or the first part of it (default: all), or the tier of an alignment; `t0` is when
the stimulus began. Still images are listed in a table with the columns onset, duration (seconds) and stim_file.

    audio     envelope (root mean square), band.<centre>hz (power in mel bands from 50 to 8000 Hz, dB)
    video     luminance (mean), contrast (standard deviation), motion (mean absolute change since the last frame, 0 in the
              first), cell.<row>.<column> (means of 4 x 4 parts) of grey values from 0 to 1
    images    the same without motion, as long as each is shown, and shown (1, else all is 0)
    language  onset, rate, length: see ``speech.py``
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.data.readers.base import alone, naming, series_from_times
from neurofm_ml.data.readers.speech import SUFFIXES as ALIGNED
from neurofm_ml.data.readers.speech import read_tiers, tier_features
from neurofm_ml.data.readers.tables import read_table
from neurofm_ml.knowledge.cards import SignalSpec
from neurofm_ml.knowledge.roots import check_inside
from neurofm_ml.types import Array, Recording, Samples, Signal

SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
SUFFIXES = (*SOUNDS, *VIDEOS, *ALIGNED)

#: Rate of the features of a file that is read without a card, Hz.
FEATURES_HZ = 100.0
#: Seconds of sound that one sample of its features looks at.
FRAME_S = 0.025
N_BANDS, LOWEST_HZ, HIGHEST_HZ = 32, 50.0, 8000.0
#: Power of silence, dB below that of a full-scale square wave.
FLOOR_DB = -100.0
#: Frames of sound that are transformed at a time.
_CHUNK = 4096
N_CELLS = 4
_CELLS = tuple(f"cell.{row}.{column}" for row in range(N_CELLS) for column in range(N_CELLS))

Stimulus = Signal | Samples


def reader_of(path: Path, signal: SignalSpec) -> Callable[[Path, SignalSpec], Stimulus] | None:
    """What takes the features of the stimulus in `path`; None where the file holds the numbers of a series already."""
    suffix = path.suffix.lower()
    if signal.modality == "audio" and suffix in SOUNDS:
        return read_sound
    if signal.modality == "language" and suffix in ALIGNED:
        return read_words
    if signal.modality == "video" and suffix in VIDEOS:
        return read_video
    if signal.modality == "video" and suffix in (".csv", ".tsv") and "stim_file" in read_table(path).header:
        return read_images
    return None


def read_file(path: Path) -> Recording:
    """A sound or an alignment as its features at 100 Hz, a video as those of its frames. Tiers without entries have none."""
    suffix = path.suffix.lower()
    tiers = read_tiers(path) if suffix in ALIGNED else {}
    modality = "language" if tiers else "video" if suffix in VIDEOS else "audio"
    spec = SignalSpec(modality=modality, sfreq=None if modality == "video" else FEATURES_HZ)
    read = reader_of(path, spec)
    assert read is not None
    features = {name: read(path, replace(spec, variable=name)) for name, tier in tiers.items() if len(tier.start)}
    return alone(path, "media", features or {modality: read(path, spec)}, tiers)


def _rate(signal: SignalSpec) -> float:
    if signal.sfreq is None:
        raise ValueError("the card gives no sfreq, at which the features of a stimulus are taken; state it, for example sfreq: 100.")
    return signal.sfreq


def _placed(series: Stimulus, signal: SignalSpec) -> Stimulus:
    """`series`, whose clock begins with the stimulus, on that of the recording."""
    start = signal.t0 or 0.0
    return replace(series, t0=start) if isinstance(series, Signal) else replace(series, times=series.times + start)


def _picked(series: Stimulus, signal: SignalSpec) -> Stimulus:
    """The features that `variable` names."""
    names = (signal.variable,) if isinstance(signal.variable, str) else signal.variable
    if names == ("",):
        return _placed(series, signal)
    of_name = [[i for i, ch_name in enumerate(series.ch_names) if name in (ch_name, ch_name.split(".")[0])] for name in names]
    if unknown := [name for name, picks in zip(names, of_name, strict=True) if not picks]:
        raise ValueError(f"variable names {', '.join(unknown)}; the features are {', '.join(series.ch_names)}.")
    picks = [i for picks in of_name for i in picks]
    chosen = replace(series, values=series.values[:, picks], ch_names=tuple(series.ch_names[i] for i in picks))
    return _placed(chosen, signal)


def _opened(path: Path) -> Any:
    """The container of a file, which may not name streams elsewhere."""
    import av

    return av.open(f"file:{path}", options={"protocol_whitelist": "file"})


# ---------------------------------------------------------------- sound
def read_sound(path: Path, signal: SignalSpec) -> Stimulus:
    """Features of a sound at the card's sfreq, of the mean of its channels."""
    import av

    _check_riff(path)
    try:
        with _opened(path) as container:
            resampler = av.AudioResampler(format="fltp")
            parts = [part.to_ndarray() for frame in container.decode(audio=0) for part in resampler.resample(frame)]
            rate = container.streams.audio[0].rate
    except (av.FFmpegError, IndexError, TypeError, MemoryError) as error:  # time stamps or rates that are not there
        raise ValueError(f"{path} cannot be read as sound ({error}); it is damaged or holds no sound, get it again.") from None
    with naming(path):
        if not parts:
            raise ValueError("it holds no samples; get it again.")
        return _picked(sound_features(np.concatenate(parts, axis=1).mean(axis=0), rate, _rate(signal)), signal)


def _check_riff(path: Path) -> None:
    """A wav states its size; decoders read as much as there is. Recorders that stream write 0 or the largest number."""
    with path.open("rb") as file:
        head = file.read(12)
    stated = int.from_bytes(head[4:8], "little")
    if head[:4] == b"RIFF" and head[8:] == b"WAVE" and stated != 0xFFFFFFFF and stated + 8 > path.stat().st_size:
        raise ValueError(f"{path} is cut short: it states {stated + 8} bytes and has {path.stat().st_size}; get it again.")


def sound_features(sound: Array, rate: float, sfreq: float) -> Signal:
    """Envelope and mel bands (n_times, 1 + n_bands) at `sfreq` Hz of a sound (n_samples,) at `rate` Hz, 1 = full scale.

    Sample k looks at 25 ms around ``k / sfreq`` through a Hann window; before and after the sound is silence. Between the
    first centre and the last, the powers of the bands add up to the mean square. Bands that a low `rate` does not reach are left out.
    """
    width = round(FRAME_S * rate)
    window = np.hanning(width + 2)[1:-1]
    filters, centres = _mel_filters(np.fft.rfftfreq(width, 1 / rate))
    padded = np.pad(sound, width)
    starts = np.round(np.arange(int(np.floor(len(sound) / rate * sfreq + 1e-6))) / sfreq * rate).astype(int) + width - width // 2
    parts = []
    for some in np.split(starts, range(_CHUNK, len(starts), _CHUNK)):
        spectra = np.fft.rfft(padded[some[:, None] + np.arange(width)] * window)
        power = 2 * np.abs(spectra) ** 2 / (width * (window**2).sum())
        bands = 10 * np.log10(np.maximum(power @ filters.T, 10 ** (FLOOR_DB / 10)))
        parts.append(np.column_stack([np.sqrt(power.sum(axis=1)), bands]))
    names = ("envelope", *(f"band.{centre:.0f}hz" for centre in centres))
    return Signal(np.concatenate(parts).astype(np.float32), sfreq, "audio", 0.0, names)


def _mel_filters(frequencies: Array) -> tuple[Array, Array]:
    """Triangles (n_bands, n_frequencies) between centres that are equally spaced in mel (O'Shaughnessy 1987), and the centres."""
    lowest, highest = 1127 * np.log1p(np.array([LOWEST_HZ, HIGHEST_HZ]) / 700)
    mel = np.linspace(lowest, highest, N_BANDS + 2)
    corners = 700 * np.expm1(mel / 1127)
    reached = corners[2:] <= frequencies[-1] + 1e-6
    low, centre, high = (corners[k : k + N_BANDS][reached][:, None] for k in range(3))
    return np.clip(np.minimum((frequencies - low) / (centre - low), (high - frequencies) / (high - centre)), 0, None), centre[:, 0]


# ---------------------------------------------------------------- words
def read_words(path: Path, signal: SignalSpec) -> Stimulus:
    """Features of the tier that `variable` names, at the card's sfreq."""
    tiers = read_tiers(path)
    name = str(signal.variable) or (next(iter(tiers)) if len(tiers) == 1 else "")
    if name not in tiers:
        raise ValueError(f"{path} has no tier {name!r}; it has {', '.join(tiers)}. Name one of them in `variable`.")
    with naming(path):
        return _placed(tier_features(tiers[name], _rate(signal)), signal)


# ---------------------------------------------------------------- video and images
def read_video(path: Path, signal: SignalSpec) -> Stimulus:
    """Features of every frame, on the frames' own time stamps. Raises ValueError for a file that is damaged or cut short."""
    import av

    with naming(path):
        try:
            with _opened(path) as container:
                times, values = _frames(container)
        except (av.FFmpegError, IndexError, TypeError, MemoryError) as error:
            raise ValueError(
                f"it cannot be read as video ({error}); it is damaged, cut short or holds no pictures, get it again."
            ) from None
        series = series_from_times(times - times[0], values, "video", ("luminance", "contrast", "motion", *_CELLS), signal.unit)
        _check_rate(series, signal)
        return _picked(series, signal)


def _frames(container: Any) -> tuple[Array, Array]:
    """(times (n_frames,) seconds, values (n_frames, n_features)) of the first video stream.

    Raises ValueError where the packets, of sound too, end more than a frame before the file says that it does.
    """
    video = container.streams.video[0]
    video.thread_type = "AUTO"
    times, values, last, end = [], [], None, 0.0
    for packet in container.demux():
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        for frame in packet.decode() if packet.stream is video else ():
            grey = _grey(frame)
            luminance, contrast, *cells = picture_features(grey)
            times.append(float(frame.pts * frame.time_base))
            values.append([luminance, contrast, 0.0 if last is None else float(np.abs(grey - last).mean()), *cells])
            last = grey
    if not times:
        raise IndexError("no frames")
    missing = (container.duration or 0) / 1e6 - end
    if missing > 1.5 / float(video.average_rate):
        raise ValueError(f"it is cut short: the last {missing:.3g} s that it states are not there; get it again.")
    return np.array(times), np.array(values, np.float32).reshape(len(times), 3 + len(_CELLS))


def _grey(frame: Any) -> Array:
    """(height, width) from 0 to 1."""
    return np.asarray(frame.to_ndarray(format="gray"), np.float32) / 255


def _check_rate(series: Stimulus, signal: SignalSpec) -> None:
    rate = series.sfreq if isinstance(series, Signal) else None
    if signal.sfreq is not None and (rate is None or not np.isclose(rate, signal.sfreq, rtol=1e-3)):
        has = "no constant rate" if rate is None else f"{rate:g} frames a second"
        raise ValueError(
            f"the card states sfreq {signal.sfreq:g} Hz but the video has {has}; leave sfreq out to keep the video's own times."
        )


def picture_features(grey: Array) -> list[float]:
    """Luminance, contrast, then the cells row by row, of grey values (height, width) from 0 to 1."""
    cells = [cell for row in np.array_split(grey, N_CELLS) for cell in np.array_split(row, N_CELLS, axis=1)]
    return [float(grey.mean()), float(grey.std()), *(float(cell.mean()) for cell in cells)]


def read_images(path: Path, signal: SignalSpec) -> Stimulus:
    """Features of still images at the card's sfreq, from 0 to the end of the last; they lie beside their table."""
    table = read_table(path)
    onset, duration = table.numbers(("onset", "duration")).T
    with naming(path):
        rate = _rate(signal)
        named = {row[table.header.index("stim_file")] for row in table.rows}
        for name in named:
            check_inside("stim_file", name)
        features = {name: _picture(path.parent / name) for name in named}
        times = np.arange(int(np.floor((onset + duration).max() * rate + 1e-6))) / rate
        values = np.zeros((len(times), 3 + len(_CELLS)), np.float32)
        for row, start, seconds in zip(table.rows, onset, duration, strict=True):
            shown = (times > start - 1e-9) & (times < start + seconds - 1e-9)
            values[shown] = [1.0, *features[row[table.header.index("stim_file")]]]
        return _picked(Signal(values, rate, "video", 0.0, ("shown", "luminance", "contrast", *_CELLS)), signal)


def _picture(path: Path) -> list[float]:
    import av

    try:
        with _opened(path) as container:
            return picture_features(_grey(next(container.decode(video=0))))
    except (OSError, av.FFmpegError, StopIteration) as error:
        raise ValueError(f"image {path.name} cannot be read ({error}); put it beside its table.") from None
