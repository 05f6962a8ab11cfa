"""Machines that share a store: what is published is whole, what is killed is taken up, nothing is made twice."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from doubles import Double, Fault, serving

from neurofm_ml import artifacts, jobs, remote, s3
from neurofm_ml.config import config, to_dict
from neurofm_ml.files import file_hash
from neurofm_ml.jobs import JobSpec, current, find, load_spec, run
from neurofm_ml.types import Report

SIZES = {"small.txt": 10, "empty.bin": 0, "parts/large.bin": 200_000}


@config
class ToyConfig:
    factor: int = 2


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """A store that all machines share, in which large files go in parts of 64 KB."""
    monkeypatch.setattr(remote, "PAUSE_S", 0.001)
    monkeypatch.setattr(s3, "PART_BYTES", 64_000)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("NEUROFM_STORE", "s3://bucket/team")
    (tmp_path / "served/bucket").mkdir(parents=True)
    with serving(tmp_path / "served") as double:
        monkeypatch.setenv("AWS_ENDPOINT_URL", double.url)
        double.secret = "secret"
        yield double


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The job "toy" writes files of several sizes; the list grows with the home in which it really ran."""
    homes: list[str] = []

    def write(cfg: ToyConfig, inputs: jobs.Inputs, out: Path) -> Report:
        homes.append(os.environ["NEUROFM_HOME"])
        for name, size in SIZES.items():
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_bytes(bytes([cfg.factor]) * size)
        read = [path.read_bytes() if path.is_file() else (path / "small.txt").read_bytes() for path in inputs.get("read", ())]
        return Report({"read": sum(map(len, read))}, shown={"text": "small.txt"})

    monkeypatch.setitem(jobs.JOBS._members, "toy", jobs.Job(ToyConfig, write, "1"))
    return homes


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], JobSpec]:
    """Go on on the machine of this name; gives the spec of the toy there."""

    def enter(name: str) -> JobSpec:
        monkeypatch.setenv("NEUROFM_HOME", str(tmp_path / name))
        return JobSpec(job="toy", config={}, out=str(tmp_path / name / "artifacts/toy/x"))

    return enter


Machine = Callable[[str], JobSpec]


def whole(artifact: Path) -> bool:
    """Whether an artifact of the toy is complete on this machine."""
    return {name: (artifact / name).stat().st_size for name in SIZES} == SIZES and not list(artifact.rglob(".*"))


def stored(double: Double) -> list[str]:
    """Names in the store, but for the data version in them."""
    team = double.folder / "bucket/team"
    return sorted(str(p.relative_to(team)) for p in team.rglob("*") if p.is_file())


# ---------------------------------------------------------------- one store, several machines
def test_without_a_store_nothing_is_asked(machine: Machine, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEUROFM_STORE", raising=False)
    monkeypatch.setattr(s3, "send", None)
    spec = machine("one")
    assert run(spec).reused is False
    assert find(spec) == run(spec)
    assert current(Path(spec.out)) == Path(run(spec).path)
    assert len(made) == 1


def test_what_lies_outside_the_home_is_not_shared(machine: Machine, double: Double, tmp_path: Path) -> None:
    machine("one")
    run(JobSpec(job="toy", config={}, out=str(tmp_path / "elsewhere")))
    assert not double.requests


def test_the_result_is_published_after_its_files_and_the_pointer_after_it(machine: Machine, double: Double) -> None:
    made = run(machine("one"))
    put = [path.removeprefix("/bucket/team/artifacts/toy/x/") for method, path, _ in double.requests if method == "PUT"]
    folder = f"{made.fingerprint}/files-{made.data_version}/"
    assert {*put[:-2]} == {folder + name for name in (*SIZES, "job.json")}
    assert put[-2:] == [f"{made.fingerprint}/result.json", "current.json"]
    assert not double.uploads


def test_a_second_machine_finds_and_fetches(machine: Machine, double: Double, made: list[str]) -> None:
    first = run(machine("one"))
    spec = machine("two")
    found = find(spec)
    assert found == dataclasses.replace(first, reused=True, path=str(Path(spec.out) / first.fingerprint))
    assert not Path(found.path).exists(), "what only plans needs no files"
    assert jobs.file_of(Path(found.path), "small.txt").read_bytes() == b"\x02" * 10
    assert load_spec(Path(found.path)).job == "toy"
    assert run(spec) == found
    assert whole(Path(found.path))
    assert current(Path(spec.out)) == Path(found.path)
    assert [Path(home).name for home in made] == ["one"]
    double.requests.clear()
    assert run(spec) == found
    assert not [path for method, path, _ in double.requests if "files-" in path], "what is here is not fetched again"


def test_the_current_artifact_is_the_one_that_any_machine_made_last(machine: Machine, double: Double) -> None:
    first = run(machine("one"))
    second = run(dataclasses.replace(machine("two"), config={"factor": 3}))
    assert current(Path(machine("one").out)) == Path(first.path).with_name(second.fingerprint)
    find(machine("one"))
    assert current(Path(machine("two").out)) == Path(second.path).with_name(first.fingerprint)


def test_inputs_made_elsewhere_are_brought_to_the_job_that_reads_them(machine: Machine, double: Double, made: list[str]) -> None:
    first = run(machine("one"))
    spec = machine("two")
    source = Path(spec.out) / first.fingerprint
    chained = dataclasses.replace(spec, inputs={"read": (str(source),)}, out=spec.out.replace("/x", "/y"))
    assert find(chained) is None
    assert not source.exists()
    result = run(chained)
    assert result.metrics == {"read": 10}
    assert result.inputs["read"][0]["data_version"] == first.data_version
    assert whole(source)


def test_what_was_made_before_there_was_a_store_is_published_when_it_is_found(
    machine: Machine, double: Double, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEUROFM_STORE")
    before = run(machine("one"))
    monkeypatch.setenv("NEUROFM_STORE", "s3://bucket/team")
    assert current(Path(machine("one").out)) == Path(before.path)
    find(machine("one"))
    assert whole(Path(run(machine("two")).path))
    assert len(made) == 1


@pytest.mark.parametrize("url", ["/data/store", "gs://bucket", "s3://"])
def test_a_store_that_is_none_is_refused(machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFM_STORE", url)
    with pytest.raises(ValueError, match=rf"NEUROFM_STORE is '{url}'; it must be s3://bucket/prefix"):
        run(machine("one"))


def test_wrong_keys_are_told_before_anything_is_computed(
    machine: Machine, double: Double, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ValueError, match=r"s3://bucket/team/artifacts/toy/x/\w+/result.json: access is refused"):
        run(machine("one"))
    assert not made


def test_processes_of_one_machine_fetch_one_at_a_time(machine: Machine, double: Double, made: list[str]) -> None:
    first = run(machine("one"))
    artifact = Path(machine("two").out) / first.fingerprint
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: artifacts.fetch(artifact), range(4)))
    assert whole(artifact)
    asked = [path for method, path, ranges in double.requests if method == "GET" and path.endswith("large.bin")]
    assert len(asked) == 4, "each of its parts once"


# ---------------------------------------------------------------- damage
def flip(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def test_what_is_damaged_here_is_fetched_again(machine: Machine, double: Double, made: list[str]) -> None:
    spec = machine("one")
    artifact = Path(run(spec).path)
    for damage in (flip, Path.unlink):
        for name in ("small.txt", "parts/large.bin", "result.json"):
            damage(artifact / name)
            assert find(spec) is not None
            jobs.load_intact(Path(run(spec).path))
    assert len(made) == 1


@pytest.mark.parametrize("damage", [flip, Path.unlink])
@pytest.mark.parametrize("name", ["small.txt", "parts/large.bin"])
def test_what_is_damaged_in_the_store_is_refused_by_name(machine: Machine, double: Double, name: str, damage: Any) -> None:
    first = run(machine("one"))
    url = f"artifacts/toy/x/{first.fingerprint}/files-{first.data_version}/{name}"
    damage(double.folder / "bucket/team" / url)
    spec = machine("two")
    with pytest.raises(ValueError, match=f"s3://bucket/team/{url}"):
        run(spec)
    assert not (Path(spec.out) / first.fingerprint / "result.json").exists()
    assert not list(Path(spec.out).rglob("*.part"))


def test_a_store_names_no_place_outside_an_artifact(machine: Machine, double: Double) -> None:
    first = run(machine("one"))
    path = double.folder / f"bucket/team/artifacts/toy/x/{first.fingerprint}/result.json"
    path.write_text(path.read_text().replace('"small.txt":', '"../../small.txt":'))
    with pytest.raises(ValueError, match=r"'../../small.txt' is named by the store and lies outside"):
        run(machine("two"))
    (path.parents[1] / "current.json").write_text('{"fingerprint": "../../../elsewhere"}')
    with pytest.raises(ValueError, match=r"'../../../elsewhere' is named by the store and lies outside"):
        current(Path(machine("two").out))


def test_a_damaged_result_in_the_store_is_refused_by_name(machine: Machine, double: Double) -> None:
    first = run(machine("one"))
    path = double.folder / f"bucket/team/artifacts/toy/x/{first.fingerprint}/result.json"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=rf"s3://bucket/team/artifacts/toy/x/{first.fingerprint}/result.json is damaged"):
        find(machine("two"))


# ---------------------------------------------------------------- a store that fails
@pytest.mark.parametrize("fault", [{"throttle": 2}, {"throttle": 3}], ids=str)
def test_a_throttling_store_is_worked_with(machine: Machine, double: Double, made: list[str], fault: dict[str, int]) -> None:
    double.throttle = fault["throttle"]
    run(machine("one"))
    assert whole(Path(run(machine("two")).path))
    assert len(made) == 1


def test_connections_cut_in_the_middle_of_parts_are_made_again(machine: Machine, double: Double, made: list[str]) -> None:
    cuts = {"PUT": Fault(5, cut_after=5000), "GET": Fault(5, cut_after=5000)}

    def cut(method: str, path: str) -> None:
        if path.endswith("large.bin") and method in cuts:
            double.faults[path] = cuts[method]

    double.on_request = cut
    run(machine("one"))
    assert whole(Path(run(machine("two")).path))
    assert [fault.times for fault in cuts.values()] == [0, 0]


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (400, "RequestTimeout"), (409, "OperationAborted")])
def test_a_store_that_is_down_is_an_error_and_the_artifact_is_published_later(
    machine: Machine, double: Double, made: list[str], status: int, code: str
) -> None:
    def down(method: str, path: str) -> None:
        if method == "PUT":
            double.faults[path] = Fault(status=status, code=code)

    double.on_request = down
    spec = machine("one")
    with pytest.raises(
        ConnectionError, match=rf"s3://bucket/team/.*: the store is busy or broken \({status} {code}, 10 attempts\); run this again later"
    ):
        run(spec)
    double.on_request, double.faults = (lambda method, path: None), {}
    assert find(machine("two")) is None
    run(machine("one"))
    assert whole(Path(run(machine("two")).path))
    assert len(made) == 1


class Killed(BaseException):
    """Stands for SIGKILL: nothing is done after it."""


def killed_at(count: int, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """From request number `count` on, the process is dead."""
    send, left = s3.send, iter(range(count))

    def deadly(*args: Any, **more: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return send(*args, **more)

    monkeypatch.setattr(s3, "send", deadly)
    return monkeypatch


def test_killed_at_any_request_an_artifact_is_whole_or_not_there(machine: Machine, double: Double, made: list[str]) -> None:
    """Another machine sees it whole or not at all; the next run publishes it, and nothing is left of the first."""
    for count in range(100):
        spec = dataclasses.replace(machine(f"one{count}"), config={"factor": count + 3})
        with pytest.MonkeyPatch.context() as patched:
            try:
                run_until_killed = killed_at(count, patched)
                run(spec)
                break
            except Killed:
                run_until_killed.undo()
        other = dataclasses.replace(machine(f"two{count}"), config=spec.config)
        if found := find(other):
            assert whole(Path(run(other).path))
        before = len(made)
        machine(f"one{count}")
        again = run(spec)
        assert len(made) == before + (count < 1), "killed before anything was made, it is made now; else only published"
        assert whole(Path(run(dataclasses.replace(machine(f"three{count}"), config=spec.config)).path))
        assert not found or found.data_version == again.data_version
        assert not double.uploads
    assert count > 10
    assert len([name for name in stored(double) if "files-" in name]) == len(SIZES | {"job.json": 0}) * (count + 1)


WORKER = """
import os, sys
from pathlib import Path
from neurofm_ml import jobs, remote, s3
from neurofm_ml.config import config
from neurofm_ml.jobs.__main__ import main
from neurofm_ml.types import Report

remote.PAUSE_S, s3.PART_BYTES = 0.001, 64_000

@config
class Nothing:
    "A config without fields."

def dice(cfg, inputs, out):
    for i in range(3):
        (out / f"{i}.bin").write_bytes(os.urandom(200_000))
    return Report({})

jobs.JOBS.add("dice", jobs.Job(Nothing, dice, "1"))
sys.exit(main([sys.argv[1]]))
"""


def dicing(home: Path) -> subprocess.Popen[str]:
    """A process on the machine `home` whose artifact has other content each time it is made."""
    home.mkdir(exist_ok=True)
    (home / "job.json").write_text(json.dumps(to_dict(JobSpec(job="dice", config={}, out=str(home / "artifacts/dice/x")))))
    environment = {**os.environ, "NEUROFM_HOME": str(home)}
    command = [sys.executable, "-c", WORKER, str(home / "job.json")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return dict(json.loads(out))


def test_two_writers_end_with_one_artifact(double: Double, tmp_path: Path) -> None:
    double.latency_s = 0.01
    results = [finished(process) for process in [dicing(tmp_path / name) for name in ("one", "two", "three")]]
    (version,) = {result["data_version"] for result in results}
    for result in results:
        jobs.load_intact(Path(result["path"]))
    assert {name.split("/")[4] for name in stored(double) if "/files-" in name} == {f"files-{version}"}
    assert not double.uploads


def write_artifact(artifact: Path, text: str) -> None:
    """A finished artifact of one file."""
    artifact.mkdir(parents=True)
    (artifact / "text").write_text(text)
    (artifact / "job.json").write_text("{}")
    (artifact / "result.json").write_text(json.dumps({"data_version": text, "artifacts": {"text": file_hash(artifact / "text")}}))


@pytest.mark.parametrize("when", ["files are sent", "result is sent"])
def test_two_writers_end_with_one_artifact_where_the_store_knows_no_condition(machine: Machine, double: Double, when: str) -> None:
    """The second publishes all of its own while the first is about to send its files, or its result.json."""
    double.careless = True
    first, second = (Path(machine(name).out) / "0a1b" for name in ("one", "two"))
    write_artifact(first, "one")
    write_artifact(second, "two")
    machine("one")

    def publish_second(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/text" if when == "files are sent" else "/result.json"):
            double.on_request = lambda method, path: None
            machine("two")
            assert artifacts.publish(second)
            machine("one")

    double.on_request = publish_second
    counts = artifacts.publish(first)
    assert counts == (when == "result is sent"), "the last to write counts"
    artifacts.fetch(third := Path(machine("three").out) / "0a1b")
    assert (third / "text").read_text() == ("one" if counts else "two")
    assert len(stored(double)) == len(["text", "job.json", "result.json"])
    machine("two")
    assert artifacts.publish(second) != counts


def test_kill_9_in_the_middle_of_an_upload(double: Double, tmp_path: Path) -> None:
    parts = iter(range(7))
    victim = dicing(tmp_path / "one")

    def kill(method: str, path: str) -> None:
        if method == "PUT" and path.endswith(".bin") and next(parts, None) is None:
            victim.kill()

    double.on_request = kill
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    assert double.uploads
    double.on_request = lambda method, path: None
    assert not [name for name in stored(double) if name.endswith(".json")]
    other = finished(dicing(tmp_path / "two"))
    again = finished(dicing(tmp_path / "one"))
    assert again["data_version"] == other["data_version"], "the first to publish counts"
    jobs.load_intact(Path(again["path"]))
    assert not double.uploads
    assert len([name for name in stored(double) if "/files-" in name]) == 3 + 1


# ---------------------------------------------------------------- working folders
@pytest.mark.parametrize("after", ["the same machine", "another machine"])
def test_killed_at_any_request_no_working_folder_is_left(
    machine: Machine, double: Double, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """The next run leaves none, wherever the first one was killed."""

    def train(cfg: ToyConfig, inputs: jobs.Inputs, out: Path) -> Report:
        (out / "checkpoints").mkdir(exist_ok=True)
        (out / "checkpoints/last").write_bytes(bytes([cfg.factor]) * 100_000)
        artifacts.save_work(out)
        (out / "weights").write_text("7")
        return Report({})

    monkeypatch.setitem(jobs.JOBS._members, "toy", jobs.Job(ToyConfig, train, "1", resumes=True))
    reused = 0
    for count in range(100):
        spec = dataclasses.replace(machine("the same machine"), config={"factor": count})
        with pytest.MonkeyPatch.context() as patched, contextlib.suppress(Killed):
            killed_at(count, patched)
            run(spec)
            break
        result = run(dataclasses.replace(machine(after), config=spec.config))
        reused += result.reused
        assert sorted(path.name for path in Path(result.path).iterdir()) == ["job.json", "result.json", "weights"]
        assert not [name for name in stored(double) if "/work-" in name]
        assert not double.uploads
    assert 5 < reused < count


def test_where_no_working_folder_was_left_none_is_looked_for(machine: Machine, double: Double) -> None:
    run(machine("one"))
    double.requests.clear()
    run(machine("one"))
    assert len(double.requests) == 3
    assert all(path.endswith(".json") for _, path, _ in double.requests), "nothing is listed"


@pytest.fixture
def work(machine: Machine) -> Path:
    """A working folder on machine one, with a checkpoint and a log."""
    folder = Path(machine("one").out) / "work-0a1b"
    (folder / "checkpoints/step-1").mkdir(parents=True)
    (folder / "checkpoints/step-1/weights").write_bytes(b"1" * 100_000)
    (folder / "metrics.csv").write_text("1\n")
    (folder / "job.json").write_text("{}")
    (folder / ".torn.part").write_text("")
    return folder


def there(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


SAVED = {"checkpoints/step-1/weights": b"1" * 100_000, "metrics.csv": b"1\n"}


def on(machine: Machine, name: str, work: Path) -> Path:
    """The same working folder on another machine."""
    return Path(machine(name).out) / work.name


def test_a_working_folder_goes_on_elsewhere(double: Double, work: Path, machine: Machine) -> None:
    artifacts.save_work(work / "checkpoints")
    assert double.requests[-1][1].endswith("work-0a1b/manifest.json"), "the manifest comes last"
    other = on(machine, "two", work)
    artifacts.restore_work(other)
    assert there(other) == SAVED


def test_only_what_is_new_is_sent_and_what_was_dropped_is_removed(double: Double, work: Path) -> None:
    artifacts.save_work(work)
    double.requests.clear()
    (work / "checkpoints/step-1").rename(work / "checkpoints/step-2")
    (work / "metrics.csv").write_text("1\n2\n")
    artifacts.save_work(work)
    assert sum(method == "PUT" for method, *_ in double.requests) == 2, "the log and the manifest"
    assert len(stored(double)) == 3
    artifacts.forget_work(work)
    assert not stored(double)


def test_the_newest_working_folder_wins(double: Double, work: Path, machine: Machine) -> None:
    artifacts.save_work(work)
    (work / "metrics.csv").write_text("1\n2\n")
    artifacts.restore_work(work)
    assert (work / "metrics.csv").read_text() == "1\n2\n", "here it is newer"
    other = on(machine, "two", work)
    (other / "checkpoints/step-0").mkdir(parents=True)
    (other / "checkpoints/step-0/weights").write_bytes(b"0")
    os.utime(other / "checkpoints/step-0/weights", (1, 1))
    artifacts.restore_work(other)
    assert there(other) == SAVED, "there it was older, and nothing of it is left"


def test_killed_at_any_request_the_last_whole_state_counts(double: Double, work: Path, machine: Machine) -> None:
    artifacts.save_work(work)
    for count in range(20):
        machine("one")
        before = there(work)
        (work / "metrics.csv").write_text(f"after {count}\n")
        (work / "checkpoints/step-1/weights").write_bytes(bytes([count]) * 200_000)
        after = there(work)
        with pytest.MonkeyPatch.context() as patched, contextlib.suppress(Killed):
            killed_at(count, patched)
            artifacts.save_work(work)
            break
        other = on(machine, f"two{count}", work)
        artifacts.restore_work(other)
        assert there(other).items() <= before.items() or there(other).items() <= after.items()
        machine("one")
        artifacts.save_work(work)
    assert count > 5


def test_a_damaged_file_is_left_out_with_a_warning(double: Double, work: Path, machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    artifacts.save_work(work)
    (saved,) = [name for name in stored(double) if (double.folder / "bucket/team" / name).stat().st_size == 100_000]
    flip(double.folder / "bucket/team" / saved)
    other = on(machine, "two", work)
    artifacts.restore_work(other)
    assert there(other) == {"metrics.csv": b"1\n"}
    assert f"s3://bucket/team/{saved} is damaged" in caplog.text


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=503), ConnectionError),
        (Fault(status=400, code="RequestTimeout"), ConnectionError),
        (Fault(status=403), ValueError),
        (Fault(status=404, code="NoSuchBucket"), ValueError),
    ],
)
def test_a_file_that_the_store_does_not_hand_out_costs_nothing(
    double: Double, work: Path, machine: Machine, fault: Fault, error: type[Exception]
) -> None:
    """What is here stays, and when the store is well again all of it is restored."""
    artifacts.save_work(work)
    other = on(machine, "two", work)
    other.mkdir(parents=True)
    (other / "metrics.csv").write_text("0\n")
    os.utime(other / "metrics.csv", (1, 1))
    (saved,) = [name for name in stored(double) if (double.folder / "bucket/team" / name).stat().st_size == 100_000]
    double.faults[f"/bucket/team/{saved}"] = fault
    with pytest.raises(error):
        artifacts.restore_work(other)
    assert there(other) == {"metrics.csv": b"0\n"}
    double.faults.clear()
    artifacts.restore_work(other)
    assert there(other) == SAVED


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(status=400, code="RequestTimeout"), Fault(status=403)])
def test_a_store_that_is_down_or_refuses_does_not_stop_a_training(
    double: Double, work: Path, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    double.on_request = lambda method, path: double.faults.update({path: fault})
    artifacts.save_work(work)
    assert "the next checkpoint tries again" in caplog.text


def test_the_first_process_of_a_gang_saves(double: Double, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    artifacts.save_work(work)
    assert not double.requests


def test_a_folder_that_no_job_works_in_is_not_saved(double: Double, work: Path) -> None:
    artifacts.save_work(work.parent)
    assert not double.requests
