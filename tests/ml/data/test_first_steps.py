"""What a newcomer does wrong first: each message names the file, the field and the remedy."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from neurofm_ml.data import SignalSpec, read
from neurofm_ml.data.ingest import ingest
from neurofm_ml.presets import IngestConfig

CARD = """
name: mine
title: Reaches of two rats
species: Rattus norvegicus
licence: unpublished
source: our lab
reader: arrays
root: rig
pattern: "{subject}_{day}_*"
signals:
  counts: {modality: spikes, file: "{subject}_{day}_spikes.mat", variable: counts, sfreq: 20}
  hand: {modality: pose, file: "{subject}_{day}_hand.npz", variable: velocity, sfreq: 20, ch_names: [vx, vy], unit: m/s}
intervals:
  trials: {file: "{subject}_{day}_trials.csv", duration: duration, label: kind}
grid_hz: 20
window_s: 3.2
stride_s: 0.4
tasks:
  - {name: velocity, target: hand, inputs: [counts]}
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two animals' days, mat and npz and csv side by side, and a card above it."""
    monkeypatch.delenv("NEUROFM_DATA", raising=False)
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path))
    (tmp_path / "mine.yaml").write_text(CARD)
    rig = tmp_path / "rig"
    rig.mkdir()
    rng = np.random.default_rng(0)
    for stem in ("ada_day1", "ada_day2", "bob_day1"):
        scipy.io.savemat(rig / f"{stem}_spikes.mat", {"counts": rng.poisson(1.0, (600, 8))})
        np.savez(rig / f"{stem}_hand.npz", velocity=rng.standard_normal((600, 2)))
        (rig / f"{stem}_trials.csv").write_text("onset,duration,kind\n1,2,left\n4,2,right\n")
    return rig


def test_a_folder_of_three_formats_and_a_card_are_recordings(lab: Path) -> None:
    recordings = read("mine")
    assert isinstance(recordings, list)
    assert [(r.id, r.subject.id) for r in recordings] == [("ada_day1", "ada"), ("ada_day2", "ada"), ("bob_day1", "bob")]
    assert recordings[0].intervals["trials"].labels == ("left", "right")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("bob_day1_spikes.mat", b"MATLAB 5.0", r"mine/bob_day1, signal 'counts': .*bob_day1_spikes.mat is damaged, cut short or no MATLAB file"),
        ("bob_day1_hand.npz", b"hello", r"mine/bob_day1, signal 'hand': .*bob_day1_hand.npz does not begin like a .npz file"),
        ("bob_day1_trials.csv", b"start,duration,kind\n", r"mine/bob_day1, intervals 'trials': /.*trials.csv has no variable 'onset'; it holds .*`start`"),
        ("bob_day1_trials.csv", b"onset,duration,kind\nx,1,a\n", r"mine/bob_day1, intervals 'trials': /.*trials.csv: row 1 of 'onset' holds 'x'"),
        ("bob_day1_trials.csv", None, r"mine/bob_day1: no file matches /.*bob_day1_trials.csv; get it from our lab, or correct the pattern"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_so_is_the_way_round_it(
    lab: Path, tmp_path: Path, name: str, content: bytes | None, match: str
) -> None:
    (lab / name).unlink() if content is None else (lab / name).write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=match + r".* To go on without it, write in the card: leave_out: \{bob_day1: why\}\.$"):
        ingest(IngestConfig(dataset="mine"), [], tmp_path / "out")
    with (tmp_path / "mine.yaml").open("a") as card:
        card.write("leave_out: {bob_day1: why}\n")
    assert [r.id for r in read(tmp_path / "mine.yaml")] == ["ada_day1", "ada_day2"]


def test_where_was_looked_is_told(lab: Path, tmp_path: Path) -> None:
    shutil.rmtree(lab)
    with pytest.raises(
        ValueError, match=r"looked for as .*/rig/{subject}_{day}_\*; get them from our lab .* or correct the card's root and pattern"
    ):
        ingest(IngestConfig(dataset="mine"), [], tmp_path)


# ---------------------------------------------------------------- names and paths
def test_a_path_that_is_not_there_lists_no_datasets() -> None:
    with pytest.raises(ValueError, match=r"^there is no file nights/one\.edf \(from /.*\); correct the path\.$"):
        read("nights/one.edf")


def test_a_name_that_is_nearly_right_is_guessed() -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'mc_maze'\? python -m neurofm_ml.data datasets lists them\.$"):
        read("mc_maz")


def test_a_card_that_was_left_out_is_named_where_it_is_missed(lab: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CARD.replace("grid_hz: 20", "grid_hz 20"))
    with pytest.raises(
        ValueError, match=r"'mine' is no file here .* A card was left out: .*mine.yaml, line 16, is no YAML: could not find expected ':'"
    ):
        read("mine")


def test_how_to_get_a_dataset_is_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEUROFM_DATA", raising=False)
    with pytest.raises(ValueError, match=r"python -m neurofm_ml.data fetch mc_maze brings them"):
        read("mc_maze")


# ---------------------------------------------------------------- files under a wrong name, with several things in them
def test_a_file_under_another_formats_name_is_to_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "night.nwb").write_bytes(b"0       " + b" " * 400)
    with pytest.raises(ValueError, match=r"Its content is EDF: give it a name that ends in \.edf\.$"):
        read(tmp_path / "night.nwb")


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("a.rda", "modality='eye', sfreq=300, variable='object/column'"),
        ("a.slp", "modality='pose', sfreq=25"),
        ("a.mat", "modality='spikes', sfreq=20, variable='counts'"),
        ("a.csv", "modality='eeg', sfreq=250, unit='uV'"),
    ],
)
def test_an_array_is_to_be_described_by_an_example_of_its_kind(tmp_path: Path, name: str, example: str) -> None:
    (tmp_path / name).write_bytes(b"1,2\n3,4\n")
    with pytest.raises(ValueError, match="says neither what was measured nor how fast") as caught:
        read(tmp_path / name)
    assert f"read(path, SignalSpec({example}))" in str(caught.value)


def test_a_zipped_file_with_flipped_bytes_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("\n".join(str(x) for x in np.random.default_rng(0).random(2000)))
    raw = bytearray(path.read_bytes())
    raw[40:90] = bytes(50)
    path.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match=r"a\.csv\.gz .*(get the file again|get it again)"):
        read(path, SignalSpec(modality="eeg", sfreq=10))


def test_a_missing_atlas_is_named(tmp_path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2, 4), np.float32), np.eye(4)), tmp_path / "run.nii")
    with pytest.raises(ValueError, match=r"run\.nii: the atlas or mask /.*/aal\.nii\.gz is not there; correct `positions` or `mask`"):
        read(tmp_path / "run.nii", SignalSpec(modality="fmri", sfreq=0.5, positions="aal.nii.gz"))
