"""Dataset cards: every one is sound, a user's is found, a wrong one is refused by file, field and remedy."""

import json
from pathlib import Path

import pytest
import yaml

from neurofm_ml.config import from_dict, to_dict
from neurofm_ml.data.readers import READERS
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, datasets, mistakes, read_card
from neurofm_ml.knowledge.files import fill, find_recordings, is_here, raw_files, recording_files
from neurofm_ml.knowledge.roots import data_root
from neurofm_ml.types import Subject

CARD = {
    "name": "mine",
    "title": "My recordings",
    "species": "Mus musculus",
    "licence": "CC0",
    "source": "my bench",
    "reader": "arrays",
    "pattern": "{id}.csv",
    "signals": {"lfp": {"modality": "lfp", "sfreq": 100}, "speed": {"modality": "pose", "variable": "speed", "sfreq": 100}},
    "grid_hz": 10,
    "window_s": 1,
    "stride_s": 0.5,
    "tasks": [{"name": "speed", "target": "speed", "inputs": ["lfp"]}],
}


#: Licences of the package's cards that let anyone pass on what was made of the data.
FREE = ("MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear", "CC BY 4.0", "MIT (PyMVPA); CC BY-SA (original data)",
        "CC BY-SA 4.0", "CC0", "ODC-By 1.0")  # fmt: skip


def write_card(folder: Path, **changes: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**CARD, **changes}))
    return path


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEUROFM_CARDS", raising=False)
    monkeypatch.delenv("NEUROFM_DATA", raising=False)


@pytest.mark.parametrize("name", sorted(datasets()))
def test_every_card_is_sound(name: str) -> None:
    card = datasets()[name]
    assert card.name == name
    assert card.reader in READERS
    assert not Path(card.root).is_absolute()
    assert (card.window_s * card.grid_hz) == pytest.approx(round(card.window_s * card.grid_hz), abs=1e-3), "windows are whole bins"
    assert card.redistribute == (card.licence in FREE)
    assert from_dict(DatasetCard, json.loads(json.dumps(to_dict(card)))) == card


def test_the_named_sets_are_there() -> None:
    sites = ("nyu", "olin", "pitt", "sdsu", "stanford", "yale")
    others = ("simulation", "monkey_m1_chewie", "rat_ca1_openfield", "rat_ca1_track", "worm_swf415", "worm_swf702", "uci_eeg")
    assert {*others, *(f"abide_{site}" for site in sites)} <= set(datasets())


def test_without_data_only_the_simulation_is_here() -> None:
    assert [name for name in datasets() if is_here(datasets()[name])] == ["simulation", "simulation_modalities"]
    assert raw_files(datasets()["simulation"]) == []


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"licens": "CC0"}, "mine.yaml: card has no field 'licens'. Did you mean 'licence'?"),
        ({"signals": {"lfp": {"modality": "lfp", "sfrq": 1}}}, r"card.signals\['lfp'\] has no field 'sfrq'. Did you mean 'sfreq'?"),
        ({"signals": {"lfp": {"modality": "lfp", "sfreq": "fast"}}}, r"card.signals\['lfp'\].sfreq is 'fast'; it needs a number"),
        ({"signals": {"lfp": {"modality": "lpf"}}}, "modality is 'lpf'; allowed: spikes"),
        ({"signals": {"lfp": {"modality": "lfp", "sfreq": 0}}}, "sfreq is 0.0; it needs a positive rate"),
        ({"signals": {"LFP": {"modality": "lfp"}}}, "'LFP' is no name"),
        ({"grid_hz": None}, "card.grid_hz is None; it needs a number"),
        ({"window_s": -1}, "window_s is -1.0; it must be positive"),
        ({"redistribute": "yes"}, "card.redistribute is 'yes'; it needs true or false"),
        (
            {"split": {"kind": "animal"}},
            "card.split.kind is 'animal'; allowed: 'block', 'recording', 'session', 'subject', 'family', 'site'",
        ),
        ({"tasks": [{"name": "t", "target": "speeed", "inputs": ["lfp"]}]}, "task 't' names speeed; the signals are lfp, speed"),
        (
            {"tasks": [{"name": "t", "target": "intervals.e", "inputs": ["lfp"], "during": [0, 0.6]}]},
            "task 't': during is 0 to 0.6 s, but a window knows the intervals that touch it, so their start is within 0.5 s",
        ),
        (
            {"tasks": [{"name": "t", "target": "intervals.e", "inputs": ["lfp"], "during": [0.1, 0.3], "epoch": [0, 0.7]}]},
            "task 't': epoch is 0 to 0.7 s, but windows of 1 s whose middle lies 0.1 to 0.3 s after the start all hold -0.2 to 0.6 s of it",
        ),
        (
            {"tasks": [{"name": "t", "target": "lfp", "inputs": ["speed"]}]},
            "task 't': category is 'decoding', but its target 'lfp' is lfp; activity is encoded from a stimulus or behaviour",
        ),
        (
            {"tasks": [{"name": "t", "target": "speed", "inputs": ["lfp"], "category": "encoding"}]},
            "task 't': category is 'encoding', but its target 'speed' is pose",
        ),
        (
            {"tasks": [{"name": "t", "target": "lfp", "inputs": ["lfp"], "category": "encoding"}]},
            "task 't': encoding is from a stimulus or behaviour, but its input 'lfp' is activity",
        ),
        ({"pattern": "../{id}.csv"}, "pattern is '../{id}.csv'; it must stay inside the card's root"),
        ({"pattern": "/etc/{id}"}, "it must stay inside the card's root"),
        ({"root": "../elsewhere"}, "root is '../elsewhere'; it must not climb out with '..': give the whole path"),
        ({"recordings": [{"id": "a", "subjct": {"id": "b"}}]}, r"card.recordings\[0\] has no field 'subjct'. Did you mean 'subject'?"),
        ({"recordings": [{"id": "a", "span": [2, 1]}]}, "recording 'a': span is 2.0 to 1.0; the end must follow"),
        ({"recordings": [{"id": "../a"}]}, "recording id is '../a'; it names a folder"),
        ({"recordings": [{"id": "a", "values": {"day": "../b"}}]}, "day is '../b'; it must stay inside the card's root"),
        ({"subjects": {"file": "t.csv", "key": "id", "fields": {"agee": "AGE"}}}, "subjects: a subject has no agee; it has age, sex"),
        (
            {
                "signals": {"speed": {"modality": "pose", "ch_names": ["vx", "vy"]}},
                "tasks": [{"name": "t", "target": "speed", "inputs": ["speed"], "channels": ["vz"]}],
            },
            "task 't' names channel vz; speed has vx, vy",
        ),
        ({"subjects": {"file": "t.csv", "key": "id"}}, "card.subjects needs 'fields'"),
    ],
)
def test_a_wrong_card_is_refused(tmp_path: Path, changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match.replace("?", r"\?").replace("{", r"\{")):
        read_card(write_card(tmp_path, **changes))


@pytest.mark.parametrize(
    ("text", "match"),
    [("", "it holds no fields"), ("name: [", "mine.yaml, line 1, is no YAML: expected the node content"), ("- a\n", "holds no fields")],
)
def test_a_file_that_is_no_card_is_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=match):
        read_card(path)


def test_cards_outside_the_package_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(tmp_path)
    (tmp_path / "a1.csv").write_text("1\n2\n")
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path))
    card = datasets()["mine"]
    assert card.modalities == ("lfp", "pose")
    assert set(datasets()) > {"mine", "simulation"}
    assert raw_files(card) == [tmp_path / "a1.csv"]
    assert is_here(card)


def test_a_name_taken_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(tmp_path, name="uci_eeg")
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path))
    (said,) = mistakes()
    assert "mine.yaml: dataset 'uci_eeg' is already registered" in said
    assert datasets()["uci_eeg"].title != "Mine"


def test_a_wrong_card_takes_no_other_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(tmp_path)
    (tmp_path / "wrong.yaml").write_text("name: [")
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path))
    assert {"mine", "simulation"} < set(datasets())
    assert [said.split(",")[0] for said in mistakes()] == [str(tmp_path / "wrong.yaml")]


def test_a_cards_folder_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path / "nowhere"))
    assert "nowhere', which is no folder" in mistakes()[0]


def test_root_is_under_neurofm_data_else_beside_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_card(tmp_path, root="lab")
    assert data_root(read_card(path)) == tmp_path / "lab"
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path / "archive"))
    assert data_root(read_card(path)) == tmp_path / "lab"
    (tmp_path / "archive/lab").mkdir(parents=True)
    assert data_root(read_card(path)) == tmp_path / "archive/lab"
    assert data_root(read_card(write_card(tmp_path))) == tmp_path
    assert data_root(read_card(write_card(tmp_path, root=str(tmp_path / "else")))) == tmp_path / "else"


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("{id}.csv", ["x", "y"]),
        ("sub-{subject}/ses-{session}.csv", ["1_a", "1_b", "2_a"]),
        ("p{id}/p{id}.rd.*.gz", ["7", "8"]),
        ("{id}.nothing", []),
    ],
)
def test_recordings_are_found_by_pattern(tmp_path: Path, pattern: str, ids: list[str]) -> None:
    for name in (
        "x.csv",
        "y.csv",
        "sub-1/ses-a.csv",
        "sub-1/ses-b.csv",
        "sub-2/ses-a.csv",
        "p7/p7.rd.1.gz",
        "p7/p7.rd.2.gz",
        "p8/p8.rd.1.gz",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "p8/p7.rd.9.gz").touch()
    found = find_recordings(read_card(write_card(tmp_path, pattern=pattern)))
    assert [spec.id for spec in found] == ids


def test_subject_and_files_follow_from_the_pattern(tmp_path: Path) -> None:
    (tmp_path / "sub-1").mkdir()
    for run in "21":
        (tmp_path / f"sub-1/run-{run}.csv").touch()
    card = read_card(write_card(tmp_path, pattern="sub-{subject}/run-*.csv"))
    (spec,) = find_recordings(card)
    assert spec.subject == Subject("1")
    assert [p.name for p in recording_files(card, spec, card.pattern)] == ["run-1.csv", "run-2.csv"]
    with pytest.raises(ValueError, match=r"mine/1: no file matches .*nothing-1; get it from my bench"):
        recording_files(card, spec, "nothing-{id}")


def test_fill_names_what_a_recording_lacks() -> None:
    spec = RecordingSpec(id="a", values={"day": "3"})
    assert fill("{id}_{day}_{subject}", spec) == "a_3_a"
    with pytest.raises(ValueError, match=r"names \{night\}, which recording 'a' does not have; it has subject, day, id"):
        fill("{night}", spec)


def test_a_task_is_of_the_recordings_that_have_its_signals() -> None:
    card = datasets()["mouse_hd_peyrache"]
    assert [task.name for task in card.series_tasks_of("run")] == ["head_direction"]
    assert card.series_tasks_of("sws") == ()
