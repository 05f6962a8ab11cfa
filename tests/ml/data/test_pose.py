"""Poses: the same table out of every tracker's layout, hand over prediction, what has no common clock or identity refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.readers.pose import PoseTable, read_pose
from neurofm_ml.knowledge.cards import SignalSpec
from neurofm_ml.types import Recording, Signal

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
real = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")
SLEAP = DATA / "ephys/pose/sleap_fly_courtship"

SINGLE = """scorer,net,net,net
bodyparts,nose,nose,nose
coords,x,y,likelihood
0,1.5,2,0.9
1,,,
2,3,4,1e-06
"""
MULTI = """scorer,net,net,net,net
individuals,a,a,b,b
bodyparts,nose,nose,nose,nose
coords,x,y,x,y
0,1,2,3,4
1,5,6,7,8
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# ---------------------------------------------------------------- DeepLabCut
def test_deeplabcut_with_one_animal(tmp_path: Path) -> None:
    table = read_pose(write(tmp_path / "a.csv", SINGLE))
    assert table.columns == ("nose.x", "nose.y", "nose.likelihood")
    np.testing.assert_allclose(table.values, [[1.5, 2, 0.9], [np.nan] * 3, [3, 4, 1e-6]])


def test_deeplabcut_with_several_animals(tmp_path: Path) -> None:
    table = read_pose(write(tmp_path / "a.csv", MULTI))
    assert table.columns == ("a.nose.x", "a.nose.y", "b.nose.x", "b.nose.y")
    np.testing.assert_array_equal(table.values, [[1, 2, 3, 4], [5, 6, 7, 8]])


def test_a_pose_is_a_signal_that_the_card_describes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", MULTI)
    recording = read(path, SignalSpec(modality="pose", variable=("b.nose.y", "a.nose.x"), sfreq=25, scale=0.5, unit="mm"))
    assert isinstance(recording, Recording)
    pose = recording.signals["pose"]
    assert isinstance(pose, Signal)
    assert (pose.ch_names, pose.sfreq, pose.unit) == (("b.nose.y", "a.nose.x"), 25, "mm")
    np.testing.assert_array_equal(pose.values, [[2, 0.5], [4, 2.5]])


# ---------------------------------------------------------------- SLEAP
def write_analysis(path: Path, tracks: np.ndarray[Any, Any], names: list[str], **more: np.ndarray[Any, Any]) -> Path:
    with h5py.File(path, "w") as file:
        file["tracks"], file["track_occupancy"] = tracks, np.ones(1)
        file["track_names"], file["node_names"] = np.array(names, "S"), np.array(["head", "tail"], "S")
        for key, values in more.items():
            file[key] = values
    return path


def test_sleap_analysis(tmp_path: Path) -> None:
    xy = np.random.default_rng(0).normal(size=(3, 2, 2, 5))  # tracks, xy, nodes, frames
    xy[1, :, 0, 3] = np.nan
    table = read_pose(write_analysis(tmp_path / "a.h5", xy, ["a", "b", "c"]))
    assert table.columns[:5] == ("a.head.x", "a.head.y", "a.tail.x", "a.tail.y", "b.head.x")
    for track in range(3):
        for node in range(2):
            for axis in range(2):
                np.testing.assert_array_equal(table.values[:, track * 4 + node * 2 + axis], xy[track, axis, node].astype(np.float32))


def test_sleap_analysis_with_scores_and_one_animal_without_a_track(tmp_path: Path) -> None:
    scores = np.array([[[0.1, 0.2], [0.3, 0.4]]])  # tracks, nodes, frames
    path = write_analysis(tmp_path / "a.h5", np.arange(8.0).reshape(1, 2, 2, 2), [], point_scores=scores)
    table = read_pose(path)
    assert table.columns == ("head.x", "head.y", "head.score", "tail.x", "tail.y", "tail.score")
    np.testing.assert_allclose(table.values, [[0, 4, 0.1, 2, 6, 0.3], [1, 5, 0.2, 3, 7, 0.4]], rtol=1e-6)


FRAMES = [("frame_id", "u8"), ("video", "u4"), ("frame_idx", "u8")]
INSTANCES = [("instance_type", "u1"), ("frame_id", "u8"), ("track", "i4"), ("point_id_start", "u8"), ("point_id_end", "u8")]
POINTS = [("x", "f8"), ("y", "f8"), ("visible", "?")]
#: Frame 7 (id 0): track 1 predicted; frame 2 (id 1): track 0 predicted and then corrected by hand.
PROJECT: dict[str, Any] = {
    "frames": np.array([(0, 0, 7), (1, 0, 2)], FRAMES),
    "instances": np.array([(1, 0, 1, 0, 2), (1, 1, 0, 2, 4), (0, 1, 0, 0, 2)], INSTANCES),
    "pred_points": np.array([(1, 2, True, 0.5), (3, 4, True, 0.6), (9, 9, True, 0.7), (9, 9, True, 0.8)], [*POINTS, ("score", "f8")]),
    "points": np.array([(5, 6, True), (7, 8, False)], POINTS),
    "tracks_json": np.array([b'[0,"male"]', b'[0,"female"]']),
    "videos_json": np.array([b"{}"]),
}
ABOUT = {"nodes": [{"name": "tail"}, {"name": "head"}], "skeletons": [{"nodes": [{"id": 1}, {"id": 0}]}]}


def write_project(path: Path, format_id: float = 1.2, about: dict[str, Any] = ABOUT, **changes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for key, values in {**PROJECT, **changes}.items():
            file[key] = values
        file.create_group("metadata").attrs.update({"format_id": format_id, "json": json.dumps(about)})
    return path


def test_sleap_project(tmp_path: Path) -> None:
    """Nodes in the skeleton's order; the hand over the prediction, without a score; what is not visible is NaN."""
    table = read_pose(write_project(tmp_path / "a.slp"))
    assert table.columns[:4] == ("male.head.x", "male.head.y", "male.head.score", "male.tail.x")
    expected = np.full((8, 12), np.nan, np.float32)
    expected[2, :2] = 5, 6
    expected[7, 6:] = 1, 2, 0.5, 3, 4, 0.6
    np.testing.assert_array_equal(table.values, expected)


def test_old_sleap_projects_counted_pixels_from_their_corners(tmp_path: Path) -> None:
    new, old = (read_pose(write_project(tmp_path / f"{v}.slp", format_id=v)).values for v in (1.2, 1.0))
    np.testing.assert_array_equal(old[2, :2], new[2, :2] - 0.5)
    np.testing.assert_array_equal(old[7, [6, 8]], new[7, [6, 8]] - [0.5, 0])


# ---------------------------------------------------------------- refused
def write_pandas(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_group("df_with_missing").attrs["pandas_type"] = "frame_table"
        file["df_with_missing/table"] = np.zeros(3)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:1500])
    return path


UNTRACKED = np.array([(1, 0, -1, 0, 2)], INSTANCES)
TWICE = np.array([(1, 0, 1, 0, 2), (1, 0, 1, 2, 4)], INSTANCES)
SHORT = np.array([(1, 0, 1, 0, 1)], INSTANCES)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda p: write(p, SINGLE.replace("2,3,4", "5,3,4")), r"line 6: frame 5 follows frame 1; frames are missing"),
        (lambda p: write(p, SINGLE.replace("0,1.5", "img00.png,1.5")), r"line 4, column 'frame': 'img00.png' is no number"),
        (lambda p: write(p, SINGLE.replace("1.5,", "wide,")), r"line 4, column 'nose.x': 'wide' is no number"),
        (lambda p: write(p, "".join(SINGLE.splitlines(True)[:3])), "holds no frames"),
        (lambda p: write(p, SINGLE.replace("coords", "coordinates")), "no header rows 'bodyparts' and 'coords'"),
        (write_pandas, "pickled objects, which are refused because they can run code; give DeepLabCut's csv"),
        (
            lambda p: write_analysis(p, np.zeros((5, 2, 2, 3)), ["a"]),
            r"'tracks' has shape \(5, 2, 2, 3\); 1 tracks and 2 nodes need \(1, 2, 2",
        ),
        (lambda p: write_project(p, videos_json=np.array([b"{}", b"{}"])), "1 skeletons and 2 videos; .* one analysis file"),
        (lambda p: write_project(p, instances=UNTRACKED), "1 instances have no track"),
        (lambda p: write_project(p, instances=TWICE), "1 times one frame holds several of one track"),
        (lambda p: write_project(p, instances=SHORT), "do not have the 2 points of the skeleton"),
        (lambda p: write_project(p, instances=UNTRACKED[:0]), "holds no instances"),
        (lambda p: write_project(p, about={"nodes": [], "skeletons": [{}]}), "holds no 'nodes', which a file of SLEAP has"),
        (lambda p: cut(write_project(p)), "is damaged or cut short"),
    ],
)
def test_what_is_no_pose_is_refused(tmp_path: Path, make: Callable[[Path], Path], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read(make(tmp_path / "a.dat"), SignalSpec(modality="pose", sfreq=25))


def test_the_rate_is_not_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gives neither sfreq nor time; the file does not hold the rate"):
        read(write(tmp_path / "a.csv", SINGLE), SignalSpec(modality="pose"))


# ---------------------------------------------------------------- real files
@real
def test_real_flies() -> None:
    (flies,) = read_set("fly_courtship_sleap")
    pose = flies.signals["pose"]
    assert isinstance(pose, Signal)
    assert (pose.values.shape, flies.duration) == ((3000, 52), 20)
    assert len({name.split(".")[1] for name in pose.ch_names}) == 13
    assert np.isnan(pose.values).mean() == pytest.approx(0.0196, abs=1e-4)


@real
def test_real_mouse() -> None:
    (mouse,) = read_set("mouse_epm_dlc")
    pose = mouse.signals["pose"]
    assert isinstance(pose, Signal)
    assert (pose.values.shape, mouse.id) == ((962, 75), "EPM_15")
    assert pose.values[0, :3] == pytest.approx([571.6293, 128.82243, 0.99999905])
    likelihood = pose.values[:, 2::3]
    assert likelihood.min() >= 0
    assert likelihood.max() <= 1


def read_set(name: str) -> list[Recording]:
    recordings = read(name)
    assert isinstance(recordings, list)
    return recordings


def loop_over_project(path: Path) -> PoseTable:
    """The slow twin: instance by instance, point by point."""
    with h5py.File(path) as file:
        about = json.loads(file["metadata"].attrs["json"])
        skeleton = about["skeletons"][0]
        nodes = [about["nodes"][n["id"]]["name"] for n in skeleton.get("nx_graph", skeleton)["nodes"]]
        tracks = [json.loads(t)[1] for t in file["tracks_json"][:]]
        predicted = bool(len(file["pred_points"]))
        fields = ["x", "y", "score"] if predicted else ["x", "y"]
        columns = {f"{t}.{n}.{f}": [np.nan] * 1500 for t in tracks for n in nodes for f in fields}
        points = file["pred_points" if predicted else "points"][:]
        frame_of = {int(f["frame_id"]): int(f["frame_idx"]) for f in file["frames"][:]}
        for instance in file["instances"][:]:
            for k, node in enumerate(nodes):
                point = points[int(instance["point_id_start"]) + k]
                for field in fields if point["visible"] else []:
                    columns[f"{tracks[instance['track']]}.{node}.{field}"][frame_of[int(instance["frame_id"])]] = point[field]
    return PoseTable(np.array(list(columns.values()), np.float32).T, tuple(columns))


@real
@pytest.mark.parametrize("name", ["clip.2node.slp", "clip.predictions.slp"])
def test_real_projects_against_a_loop(name: str) -> None:
    path = SLEAP / "tests/data/tracks" / name
    found, looped = read_pose(path), loop_over_project(path)
    assert found.columns == looped.columns
    np.testing.assert_array_equal(found.values, looped.values)
    assert np.isfinite(found.values).mean() > 0.9
