"""Stimuli: a tone lands in its band with its power, a click at its time, grey values of a lossless video are exact; what is
cut short is refused."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from scipy.io import wavfile
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from neurofm_ml.data import read
from neurofm_ml.data.readers.media import FLOOR_DB, sound_features
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec
from neurofm_ml.types import Recording, Samples, Signal

Array = np.ndarray[Any, np.dtype[Any]]
RATE = 16000
AUDIO = SignalSpec(modality="audio", sfreq=100)
VIDEO = SignalSpec(modality="video")
RNG = np.random.default_rng(0)


def read_signal(path: Path, spec: SignalSpec) -> Signal:
    recording = read(path, spec)
    assert isinstance(recording, Recording)
    (series,) = recording.signals.values()
    assert isinstance(series, Signal)
    return series


# ---------------------------------------------------------------- sound
def tone(hz: float, amplitude: float = 0.5, seconds: float = 1.0) -> Array:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)


@pytest.mark.parametrize("hz", [200.0, 440.0, 1000.0, 3000.0, 6500.0])
def test_a_tone_lands_in_its_band_with_its_power(hz: float) -> None:
    features = sound_features(tone(hz), RATE, 100)
    middle = features.values[10:-10]
    envelope, bands = middle[:, 0], middle[:, 1:]
    np.testing.assert_allclose(envelope, 0.5 / np.sqrt(2), rtol=0.02)
    centres = np.array([float(name.removeprefix("band.").removesuffix("hz")) for name in features.ch_names[1:]])
    loudest = np.argsort(bands.mean(axis=0))[-2:]
    assert centres[loudest].min() - 15 <= hz <= centres[loudest].max() + 15
    power = (10 ** (bands / 10)).sum(axis=1)
    np.testing.assert_allclose(10 * np.log10(power), 10 * np.log10(0.125), atol=0.35)


def test_bands_against_scipy() -> None:
    """The same frames through scipy's short-time Fourier transform add up to the envelope."""
    sound = RNG.normal(size=RATE) * 0.1
    width = 400
    stft = ShortTimeFFT(hann(width + 2)[1:-1], hop=160, fs=RATE, mfft=width)
    power = np.abs(stft.stft(sound, p0=0, p1=100)) ** 2 * 2 / (width * (stft.win**2).sum())
    np.testing.assert_allclose(sound_features(sound, RATE, 100).values[:, 0], np.sqrt(power.sum(axis=0)), rtol=1e-4)


def test_a_click_is_at_its_time_and_silence_is_the_floor() -> None:
    sound = np.zeros(3 * RATE)
    sound[round(1.37 * RATE)] = 1
    features = sound_features(sound, RATE, 50)
    assert len(features.values) == 150
    assert np.argmax(features.values[:, 0]) in (68, 69)
    assert (features.values[:67, 1:] == FLOOR_DB).all()
    assert not features.values[:67, 0].any()


def test_long_sounds_are_taken_in_parts() -> None:
    """Frames beyond the first chunk are those of the sound that starts there."""
    sound = RNG.normal(size=60 * RATE)
    whole = sound_features(sound, RATE, 100).values
    part = sound_features(sound[45 * RATE :], RATE, 100).values
    np.testing.assert_allclose(whole[4510:], part[10:], rtol=1e-4, atol=1e-4)


def test_low_rates_have_fewer_bands() -> None:
    high, low = (sound_features(np.zeros(rate), rate, 10).ch_names for rate in (16000, 8000))
    assert len(high) == 33
    assert low == high[: len(low)]
    assert 20 < len(low) < 33


def test_sound_files(tmp_path: Path) -> None:
    """Channels are averaged, `variable` picks features, `t0` places the stimulus on the recording's clock."""
    left, right = tone(440), tone(440, 0.1)
    wavfile.write(tmp_path / "a.wav", RATE, np.round(np.stack([left, right], axis=1) * 32768).astype(np.int16))
    series = read_signal(tmp_path / "a.wav", SignalSpec(modality="audio", variable=("envelope",), sfreq=50, t0=12.5))
    assert (series.ch_names, series.sfreq, series.t0, series.modality) == (("envelope",), 50, 12.5, "audio")
    np.testing.assert_allclose(series.values[2:-2, 0], 0.3 / np.sqrt(2), rtol=0.01)
    assert read_signal(tmp_path / "a.wav", AUDIO).ch_names == sound_features(left, RATE, 100).ch_names
    with pytest.raises(ValueError, match=r"variable names loudness; the features are envelope, band.108hz"):
        read(tmp_path / "a.wav", SignalSpec(modality="audio", variable="loudness", sfreq=50))


def test_damaged_sounds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    wavfile.write(path, RATE, np.zeros(RATE, np.int16))
    whole = path.read_bytes()
    for content, match in (
        (whole[:1000], r"a.wav is cut short: it states 32044 bytes and has 1000"),
        (b"noise" * 100, r"a.wav cannot be read as sound"),
        (whole[:40] + bytes(4), r"cut short"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            read(path, AUDIO)
    wavfile.write(path, RATE, np.zeros(0, np.int16))
    with pytest.raises(ValueError, match=r"a.wav.*(holds no samples|cannot be read)"):
        read(path, AUDIO)


# ---------------------------------------------------------------- video
def write_video(path: Path, frames: Array, codec: str = "ffv1", pix_fmt: str = "gray", pts: Any = None, **options: str) -> Path:
    """frames (n, height, width) uint8 at 25 frames a second, or at the `pts` given in 1/25 s."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:], pix_fmt
        for k, grey in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(grey, format="gray")
            frame.pts = k if pts is None else pts[k]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_grey_values_of_a_lossless_video_are_exact(tmp_path: Path) -> None:
    frames = RNG.integers(0, 256, (30, 48, 64)).astype(np.uint8)
    series = read_signal(write_video(tmp_path / "a.mkv", frames), VIDEO)
    grey = frames / 255
    assert (series.sfreq, series.modality, series.values.shape) == (25, "video", (30, 19))
    np.testing.assert_allclose(series.values[:, 0], grey.mean(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(series.values[:, 1], grey.std(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(series.values[1:, 2], np.abs(np.diff(grey, axis=0)).mean(axis=(1, 2)), rtol=1e-4)
    assert series.values[0, 2] == 0
    cell = series.ch_names.index("cell.2.1")
    np.testing.assert_allclose(series.values[:, cell], grey[:, 24:36, 16:32].mean(axis=(1, 2)), rtol=1e-4)


def moving_bar(n: int = 50) -> Array:
    frames = np.zeros((n, 48, 64), np.uint8)
    for k in range(n):
        frames[k, :, k : k + 12] = 235
    return frames


def test_an_ordinary_mp4(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_bar(), "mpeg4", "yuv420p")
    series = read_signal(path, SignalSpec(modality="video", variable=("luminance", "motion"), t0=3.0))
    assert (series.ch_names, series.t0, series.sfreq, len(series.values)) == (("luminance", "motion"), 3.0, 25, 50)
    np.testing.assert_allclose(series.values[:, 0], 12 / 64, atol=0.03)
    np.testing.assert_allclose(series.values[1:, 1], 2 / 64, atol=0.02)


def test_frames_keep_their_own_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", moving_bar(5), pts=[0, 1, 5, 6, 20])
    recording = read(path, VIDEO)
    assert isinstance(recording, Recording)
    series = recording.signals["video"]
    assert isinstance(series, Samples)
    np.testing.assert_allclose(series.times, np.array([0, 1, 5, 6, 20]) / 25)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "faststart.mp4"])
def test_videos_cut_short_are_refused(tmp_path: Path, suffix: str) -> None:
    options = {"movflags": "faststart"} if "faststart" in suffix else {}
    path = write_video(tmp_path / f"a.{suffix}", moving_bar(), "mpeg4", "yuv420p", **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    with pytest.raises(ValueError, match=rf"a.{suffix}.*cut short"):
        read(path, VIDEO)


def test_a_stated_rate_is_checked(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", moving_bar(5))
    with pytest.raises(ValueError, match="states sfreq 30 Hz but the video has 25 frames a second"):
        read(path, SignalSpec(modality="video", sfreq=30))
    path.write_bytes(b"not a video")
    with pytest.raises(ValueError, match="cannot be read as video"):
        read(path, VIDEO)


# ---------------------------------------------------------------- images
def write_images(folder: Path, rows: str) -> Path:
    from matplotlib.image import imsave

    imsave(folder / "dark.png", np.full((8, 8, 3), 51, np.uint8))
    half = np.zeros((8, 8, 3), np.uint8)
    half[:, 4:] = 255
    imsave(folder / "half.png", half)
    (folder / "shown.csv").write_text("onset,duration,stim_file\n" + rows)
    return folder / "shown.csv"


def test_images_are_held_as_long_as_they_are_shown(tmp_path: Path) -> None:
    path = write_images(tmp_path, "0.5,1,dark.png\n2,0.5,half.png\n")
    series = read_signal(path, SignalSpec(modality="video", sfreq=10))
    assert (series.values.shape, series.ch_names[:3]) == ((25, 19), ("shown", "luminance", "contrast"))
    np.testing.assert_array_equal(series.values[:, 0], [0] * 5 + [1] * 10 + [0] * 5 + [1] * 5)
    np.testing.assert_allclose(series.values[:, 1], [0] * 5 + [0.2] * 10 + [0] * 5 + [0.5] * 5, atol=1e-2)
    np.testing.assert_allclose(series.values[20:, 2], 0.5, atol=1e-2)
    assert series.values[-1, series.ch_names.index("cell.0.3")] == pytest.approx(1, abs=1e-2)


def test_an_image_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write_images(tmp_path, "0.5,1,gone.png\n")
    with pytest.raises(ValueError, match=r"image gone.png cannot be read .*; put it beside its table"):
        read(path, SignalSpec(modality="video", sfreq=10))


# ---------------------------------------------------------------- together
def test_a_stimulus_beside_a_recording(tmp_path: Path) -> None:
    """One card: EEG in an array, the sound that was heard from 1 s on; the windows are where both are."""
    from neurofm_ml.data.grid import to_grid

    np.save(tmp_path / "s1.npy", RNG.normal(size=(1000, 3)))
    wavfile.write(tmp_path / "s1.wav", RATE, np.round(tone(440, seconds=4) * 32768).astype(np.int16))
    card = DatasetCard(
        name="heard", title="", species="", licence="", source="", reader="arrays", root=str(tmp_path), pattern="{id}.npy",
        signals={
            "eeg": SignalSpec(modality="eeg", sfreq=200),
            "sound": SignalSpec(modality="audio", file="{id}.wav", variable="envelope", sfreq=50, t0=0.5),
        },
        grid_hz=50, window_s=1, stride_s=1,
    )  # fmt: skip
    (recording,) = read(card)  # type: ignore[misc]
    gridded = to_grid(recording, card)
    assert gridded.bounds == (0.5, 4.5)
    eeg, sound = gridded.signals["eeg"], gridded.signals["sound"]
    assert isinstance(eeg, Signal)
    assert isinstance(sound, Signal)
    assert (eeg.values.shape, eeg.sfreq, sound.values.shape, sound.sfreq) == ((800, 3), 200, (200, 1), 50)
