"""Tracked body parts as a table, a row per video frame: DeepLabCut csv, SLEAP ``.analysis.h5`` and ``.slp``.

Columns are ``<animal>.<part>.<x|y|likelihood|score>``; the animal is left out where the file names none. How sure the
tracker was is a column like the others: nothing is thresholded here. None of the formats holds the frame rate.

The layouts are those of DeepLabCut's `create_df_from_prediction`, SLEAP's `write_tracking_h5` and sleap-io's `io/slp.py`.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neurofm_ml.data.readers.hdf5 import open_hdf5
from neurofm_ml.data.readers.tables import TextTable, read_table
from neurofm_ml.types import Array

_LEVELS = ("individuals", "bodyparts", "coords")
_FIELDS = ("x", "y", "score")
_USER, _PREDICTED = 0, 1


class PoseTable(NamedTuple):
    """values (n_frames, n_columns) float32, NaN where a part was not seen; pixels, and 0 to 1 for how sure."""

    values: Array
    columns: tuple[str, ...]


def holds_pose(path: Path) -> bool:
    """Whether a file is one of the formats read here, by its content."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"scorer,"):
        return True
    if not head.startswith(b"\x89HDF"):
        return False
    with open_hdf5(path) as file:
        return any(key in file for key in ("track_occupancy", "pred_points")) or _is_pandas(file)


def _is_pandas(file: Any) -> bool:
    """DeepLabCut's HDF5: a data frame whose column names pandas stores as a pickle."""
    return any("pandas_type" in group.attrs for group in file.values())


def read_pose(path: Path) -> PoseTable:
    """Raises ValueError naming the file for one that is damaged, or that cannot be put on one clock of frames."""
    import h5py

    if not h5py.is_hdf5(path):
        return _deeplabcut(read_table(path))
    try:
        with open_hdf5(path) as file:
            if _is_pandas(file):
                raise ValueError(
                    "its column names are pickled objects, which are refused because they can run code; give DeepLabCut's csv "
                    "(deeplabcut.analyze_videos_converth5_to_csv)."
                )
            return _sleap_project(file) if "pred_points" in file else _sleap_analysis(file)
    except KeyError as error:
        raise ValueError(f"{path} holds no {error}, which a file of SLEAP has; save it again with SLEAP.") from None
    except (OSError, ValueError, TypeError, IndexError, MemoryError) as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


# ---------------------------------------------------------------- DeepLabCut
def _deeplabcut(table: TextTable) -> PoseTable:
    """Header rows scorer, (individuals,) bodyparts, coords; then the number of the frame and its values."""
    n_header = next((k for k, row in enumerate(table.rows) if row[0] not in _LEVELS), len(table.rows))
    levels = {row[0]: row[1:] for row in table.rows[:n_header]}
    if not {"bodyparts", "coords"} <= set(levels):
        raise ValueError(f"{table.path} has no header rows 'bodyparts' and 'coords'; it is no table of DeepLabCut.")
    columns = tuple(".".join(parts) for parts in zip(*(levels[level] for level in _LEVELS if level in levels), strict=True))
    body = TextTable(table.path, ("frame", *columns), True, table.lines[n_header:], table.rows[n_header:])
    if not body.rows:
        raise ValueError(f"{table.path} holds no frames; get it again.")
    _check_frames(table.path, body.numbers(("frame",))[:, 0], body.lines)
    return PoseTable(body.numbers(columns).astype(np.float32), columns)


def _check_frames(path: Path, frames: Array, lines: list[int]) -> None:
    if (jumps := np.flatnonzero(np.diff(frames) != 1)).size:
        k = int(jumps[0])
        raise ValueError(
            f"{path}, line {lines[k + 1]}: frame {frames[k + 1]:g} follows frame {frames[k]:g}; frames are missing or it is a table of "
            "labelled images, so its rows have no common clock. Give the table of a whole video."
        )


# ---------------------------------------------------------------- SLEAP
def _names(dataset: Any) -> list[str]:
    return [name.decode() for name in dataset[()]]


def _flat(values: Array, tracks: list[str], nodes: list[str]) -> PoseTable:
    """values (n_frames, n_tracks, n_nodes, 2 or 3): x, y and maybe score."""
    fields = _FIELDS[: values.shape[3]]
    columns = tuple(".".join(filter(None, (track, node, field))) for track in tracks for node in nodes for field in fields)
    return PoseTable(values.reshape(len(values), -1).astype(np.float32), columns)


def _sleap_analysis(file: Any) -> PoseTable:
    """`tracks` (n_tracks, 2, n_nodes, n_frames), and `point_scores` (n_tracks, n_nodes, n_frames) in newer files."""
    tracks, nodes, xy = _names(file["track_names"]) or [""], _names(file["node_names"]), file["tracks"]
    if xy.ndim != 4 or xy.shape[:3] != (len(tracks), 2, len(nodes)):
        raise ValueError(
            f"'tracks' has shape {xy.shape}; {len(tracks)} tracks and {len(nodes)} nodes need ({len(tracks)}, 2, {len(nodes)}, "
            "n_frames). Export it again with SLEAP's 'Export Analysis HDF5'."
        )
    values = np.moveaxis(xy[()], (3, 0, 2, 1), (0, 1, 2, 3))
    if "point_scores" in file:
        values = np.concatenate([values, np.moveaxis(file["point_scores"][()], 2, 0)[..., None]], axis=3)
    return _flat(values, tracks, nodes)


def _sleap_project(file: Any) -> PoseTable:
    """Frames, instances and points as tables that point into each other. Where a frame was both predicted and labelled by
    hand, the hand counts, and has no score; points marked as not visible are NaN."""
    about = json.loads(file["metadata"].attrs["json"])
    if len(about["skeletons"]) != 1 or len(file["videos_json"]) != 1:
        raise ValueError(
            f"it holds {len(about['skeletons'])} skeletons and {len(file['videos_json'])} videos; one recording has one of each: "
            "export one analysis file (.analysis.h5) per video."
        )
    skeleton = about["skeletons"][0].get("nx_graph", about["skeletons"][0])
    nodes = [about["nodes"][node["id"]]["name"] for node in skeleton["nodes"]]
    tracks = [json.loads(track)[1] for track in file["tracks_json"][()]] or [""]
    frames, instances = file["frames"][()], file["instances"][()]
    if not len(instances):
        raise ValueError("it holds no instances; run SLEAP's inference on it first.")
    values = np.full((int(frames["frame_idx"].max()) + 1, len(tracks), len(nodes), 3), np.nan)
    # Pixels were counted from their corners before version 1.1, from their centres since.
    shift = 0.5 if float(file["metadata"].attrs["format_id"]) < 1.1 else 0.0
    for kind, points in ((_PREDICTED, file["pred_points"][()]), (_USER, file["points"][()])):
        own = instances[instances["instance_type"] == kind]
        values[_places(own, frames, tracks)] = _points(own, points, len(nodes), shift)
    scored = (instances["instance_type"] == _PREDICTED).any()
    return _flat(values if scored else values[..., :2], tracks, nodes)


def _places(instances: Array, frames: Array, tracks: list[str]) -> tuple[Array, Array]:
    """(frame index, track) of each instance."""
    row = np.searchsorted(frames["frame_id"], instances["frame_id"])
    if (row >= len(frames)).any() or (frames["frame_id"][row] != instances["frame_id"]).any():
        raise ValueError("some instances belong to frames that it does not list; it is damaged, get it again.")
    frame = frames["frame_idx"][row].astype(int)
    track = np.zeros(len(instances), int) if tracks == [""] else instances["track"].astype(int)
    _, counts = np.unique(np.stack([frame, track]), axis=1, return_counts=True)
    if (track < 0).any() or (counts > 1).any():
        raise ValueError(
            f"{int((track < 0).sum())} instances have no track and {int((counts > 1).sum())} times one frame holds several of one track, "
            "so who is who is not known; track the animals in SLEAP first."
        )
    return frame, track


def _points(instances: Array, points: Array, n_nodes: int, shift: float) -> Array:
    """(n_instances, n_nodes, 3) x, y and score, NaN for a point that is not visible."""
    if not len(instances):
        return np.empty((0, n_nodes, 3))
    if (instances["point_id_end"] - instances["point_id_start"] != n_nodes).any():
        raise ValueError(f"some instances do not have the {n_nodes} points of the skeleton; save the project again with SLEAP.")
    own = points[instances["point_id_start"].astype(int)[:, None] + np.arange(n_nodes)]
    score = own["score"] if "score" in (points.dtype.names or ()) else np.full(own.shape, np.nan)
    return np.where(own["visible"][..., None], np.stack([own["x"] - shift, own["y"] - shift, score], axis=-1), np.nan)
