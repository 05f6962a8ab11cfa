"""Adapters: what each archive's own answers (here from a double, in pages) become, and what they say when it goes wrong."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from doubles import Double, Fault, Route, serving

from neurofm_ml import remote
from neurofm_ml.data import sources
from neurofm_ml.data.sources import (
    SOURCES,
    RemoteFile,
    Source,
    allen,
    dandi,
    fetch,
    github,
    hcp,
    ibl,
    list_files,
    miller,
    neurovault,
    nsd,
    openneuro,
    osf,
    physionet,
    ukbiobank,
    webpage,
    zenodo,
)
from neurofm_ml.data.sources.base import is_wanted
from neurofm_ml.knowledge.cards import ArchiveSpec, datasets
from neurofm_ml.knowledge.files import find_recordings, is_here, recording_files

MD5 = hashlib.md5(b"data").hexdigest()
SHA = hashlib.sha256(b"data").hexdigest()
UUID = "0f2e2a5c-6d0a-4c4b-9d5e-1a2b3c4d5e6f"


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setattr(remote, "PAUSE_S", 0.001)
    for name in ("NEDC_USER", "NEDC_PASSWORD", "BBCI_USER", "BBCI_PASSWORD", "NSD_TERMS", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving(tmp_path) as double:
        double.page = 2
        monkeypatch.setenv("AWS_ENDPOINT_URL", double.url)
        yield double


def spec(adapter: str, identity: str, version: str = "", *include: str) -> ArchiveSpec:
    return ArchiveSpec(adapter=adapter, id=identity, version=version, include=include or ("*",))


def put(double: Double, *paths: str) -> None:
    """Files of the double, each with the content "data"."""
    for path in paths:
        file = double.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"data")


def answer(value: Any) -> bytes:
    return json.dumps(value).encode()


def paged(entries: list[Any], url: str) -> Route:
    """An answer of Django's REST framework, two entries to a page."""

    def page(query: dict[str, str]) -> bytes:
        number = int(query.get("page", 1))
        following = f"{url}?page={number + 1}" if len(entries) > 2 * number else None
        return answer({"count": len(entries), "next": following, "previous": None, "results": entries[2 * number - 2 : 2 * number]})

    return page


def shown(files: list[RemoteFile], double: Double) -> list[tuple[str, str, int | None, str, str]]:
    return [(f.path, f.url.removeprefix(double.url), f.size, f.checksum, f.algorithm) for f in files]


# ---------------------------------------------------------------- buckets
def test_openneuro_lists_a_dataset_of_its_bucket(double: Double) -> None:
    names = ["dataset_description.json", "sub-01/eeg/sub-01 eeg.vhdr", "sub-02/eeg/sub-02.vhdr", "sub-02/eeg/sub-02.tsv"]
    put(double, *(f"openneuro.org/ds003825/{name}" for name in names), "openneuro.org/ds0038251/other.txt")
    files = openneuro.list_files(spec("openneuro", "ds003825"), double.url)
    assert shown(files, double) == [(name, f"/openneuro.org/ds003825/{name.replace(' ', '%20')}", 4, MD5, "md5") for name in sorted(names)]
    wanted = openneuro.list_files(spec("openneuro", "ds003825", "", "sub-02/*.vhdr", "data*"), double.url)
    assert [f.path for f in wanted] == ["dataset_description.json", "sub-02/eeg/sub-02.vhdr"]


def test_only_what_can_match_is_listed(double: Double) -> None:
    put(double, *(f"openneuro.org/ds1/{name}" for name in ("a/1", "a/2", "b/1", "ab")))
    openneuro.list_files(spec("openneuro", "ds1", "", "a/*", "a*", "b/?"), double.url)
    assert len(double.requests) == 3, "two pages of a, one of b"


def test_openneuro_has_no_versions(double: Double) -> None:
    with pytest.raises(ValueError, match="newest snapshot only; leave `version` out"):
        openneuro.list_files(spec("openneuro", "ds1", "1.0.0"), double.url)


def test_an_etag_that_is_no_md5_is_not_taken_for_one(double: Double) -> None:
    contents = "<Contents><Key>ds1/a</Key><ETag>&quot;9b2cf535f27731c974343645a3985328-3&quot;</ETag><Size>5</Size></Contents>"
    xml = f'<R xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated>{contents}</R>'
    double.routes["/openneuro.org"] = xml.encode()
    assert shown(openneuro.list_files(spec("openneuro", "ds1"), double.url), double) == [("a", "/openneuro.org/ds1/a", 5, "", "")]


def test_allen_lists_a_project(double: Double) -> None:
    key = "ecephys-cache/session_715093703/session_715093703.nwb"
    put(double, f"allen-brain-observatory/visual-coding-neuropixels/{key}", "allen-brain-observatory/visual-coding-2p/x.nwb")
    files = allen.list_files(spec("allen", "visual-coding-neuropixels", "", "ecephys-cache/session_*/session_*.nwb"), double.url)
    assert shown(files, double) == [(key, f"/allen-brain-observatory/visual-coding-neuropixels/{key}", 4, MD5, "md5")]


def test_ibl_files_get_their_alf_names(double: Double) -> None:
    session = "hoferlab/Subjects/SWC_043/2020-09-21/001"
    put(double, f"ibl-brain-wide-map-public/data/{session}/alf/probe00/spikes.times.{UUID}.npy")
    (file,) = ibl.list_files(spec("ibl", session), double.url)
    assert file.path == "alf/probe00/spikes.times.npy"
    assert file.url.endswith(f"spikes.times.{UUID}.npy")


def test_nsd_asks_for_its_terms(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    put(double, "natural-scenes-dataset/nsddata_timeseries/ppdata/subj01/func1pt8mm/timeseries/timeseries_session01_run01.nii.gz")
    archive = spec("nsd", "natural-scenes-dataset", "", "nsddata_timeseries/*")
    with pytest.raises(ValueError, match="its terms ask for your agreement"):
        nsd.list_files(archive, double.url)
    assert double.requests == []
    monkeypatch.setenv("NSD_TERMS", "agreed")
    assert (
        nsd.list_files(archive, double.url)[0].path
        == "nsddata_timeseries/ppdata/subj01/func1pt8mm/timeseries/timeseries_session01_run01.nii.gz"
    )


def test_hcp_follows_a_pattern_folder_by_folder(double: Double) -> None:
    run = "MNINonLinear/Results/rfMRI_REST1_LR"
    for person in (100206, 100307, 100408):
        put(double, *(f"hcp-openaccess/HCP_1200/{person}/{run}/{name}" for name in ("a.dtseries.nii", "b.txt")))
    put(double, "hcp-openaccess/HCP_1200/100206/unprocessed/a.dtseries.nii")
    found = hcp.list_files(spec("hcp", "HCP_1200", "", f"1003*/{run}/*.nii", f"100206/{run}/b.txt"))
    assert [(f.path, f.size, f.url) for f in found] == [
        (f"100206/{run}/b.txt", 4, f"s3://hcp-openaccess/HCP_1200/100206/{run}/b.txt"),
        (f"100307/{run}/a.dtseries.nii", 4, f"s3://hcp-openaccess/HCP_1200/100307/{run}/a.dtseries.nii"),
    ]
    assert not any("unprocessed" in path for _, path, _ in double.requests)


def test_hcp_without_keys_says_how_to_get_them(double: Double) -> None:
    double.faults["/hcp-openaccess"] = Fault(status=403)
    with pytest.raises(
        ValueError, match=r"hcp HCP_1200: s3://.*access is refused \(403\).*Access: accept .*db.humanconnectome.org.*AWS_ACCESS_KEY_ID"
    ):
        list_files(spec("hcp", "HCP_1200", "", "*/T1w/x.nii.gz"))


def test_files_come_out_of_s3(double: Double, tmp_path: Path) -> None:
    put(double, "hcp-openaccess/HCP_1200/1/a.nii")
    done = fetch(spec("hcp", "HCP_1200", "", "1/a.nii"), tmp_path / "here")
    assert done.new == ("1/a.nii",)
    assert (tmp_path / "here/1/a.nii").read_bytes() == b"data"


# ---------------------------------------------------------------- REST
def dandiset(double: Double, version: str) -> None:
    """Dandiset 000128 with three assets (one of them a Zarr) in two pages."""
    rows = [
        {"asset_id": "id1", "blob": "b1", "zarr": None, "path": "sub-J/a.nwb", "size": 4},
        {"asset_id": "id2", "blob": None, "zarr": "z2", "path": "sub-J/b.nwb.zarr", "size": 8},
        {"asset_id": "id3", "blob": "b3", "zarr": None, "path": "sub-K/c.nwb", "size": 4},
    ]
    place = f"/api/dandisets/000128/versions/{version}/assets/"
    double.routes[place] = paged(rows, double.url + place)
    for number, digest in ((1, {"dandi:dandi-etag": "x-1", "dandi:sha2-256": SHA}), (3, {"dandi:dandi-etag": "x-1"})):
        blob = f"{double.url}/dandiarchive/blobs/{number}"
        about = {"contentUrl": [f"{double.url}/api/assets/id{number}/download/", blob], "digest": digest}
        double.routes[f"/api/assets/id{number}/"] = answer(about)
    put(double, "dandiarchive/zarr/z2/.zgroup", "dandiarchive/zarr/z2/units/0", "dandiarchive/blobs/1", "dandiarchive/blobs/3")


def dandi_files(double: Double, *include: str, version: str = "") -> list[RemoteFile]:
    return dandi.list_files(spec("dandi", "000128", version, *include), f"{double.url}/api", f"{double.url}/dandiarchive")


def test_dandi_lists_the_newest_version(double: Double) -> None:
    dandiset(double, "0.220113.0400")
    double.routes["/api/dandisets/000128/"] = answer({"most_recent_published_version": {"version": "0.220113.0400"}})
    assert shown(dandi_files(double), double) == [
        ("sub-J/a.nwb", "/dandiarchive/blobs/1", 4, SHA, "sha256"),
        ("sub-K/c.nwb", "/dandiarchive/blobs/3", 4, "", ""),
        ("sub-J/b.nwb.zarr/.zgroup", "/dandiarchive/zarr/z2/.zgroup", 4, MD5, "md5"),
        ("sub-J/b.nwb.zarr/units/0", "/dandiarchive/zarr/z2/units/0", 4, MD5, "md5"),
    ]


def test_dandi_asks_only_for_what_is_wanted_and_takes_drafts(double: Double) -> None:
    dandiset(double, "draft")
    double.routes["/api/dandisets/000128/"] = answer({"most_recent_published_version": None})
    assert [f.path for f in dandi_files(double, "sub-K/*")] == ["sub-K/c.nwb"]
    assert double.got("/api/assets/id1/") == []
    assert [f.path for f in dandi_files(double, "*c.nwb", version="draft")] == ["sub-K/c.nwb"]


def test_physionet_reads_its_list_of_checksums(double: Double) -> None:
    lines = f"{SHA} S001/S001R01.edf\n{SHA}  S001/S001R01.edf.event\n{SHA} with space.txt\n"
    double.routes["/files/eegmmidb/1.0.0/SHA256SUMS.txt"] = lines.encode()
    assert shown(physionet.list_files(spec("physionet", "eegmmidb", "1.0.0", "*.edf", "*.txt"), double.url), double) == [
        ("S001/S001R01.edf", "/files/eegmmidb/1.0.0/S001/S001R01.edf", None, SHA, "sha256"),
        ("with space.txt", "/files/eegmmidb/1.0.0/with%20space.txt", None, SHA, "sha256"),
    ]
    with pytest.raises(ValueError, match="PhysioNet serves versions; name one"):
        physionet.list_files(spec("physionet", "eegmmidb"), double.url)


def test_zenodo_reads_a_record(double: Double) -> None:
    entries = [
        {
            "id": "x",
            "key": "a.mat",
            "size": 4,
            "checksum": f"md5:{MD5}",
            "links": {"self": f"{double.url}/api/records/7/files/a.mat/content"},
        },
        {"id": "y", "key": "b.pdf", "size": 9, "checksum": f"md5:{MD5}", "links": {"self": "z"}},
    ]
    double.routes["/api/records/7"] = answer({"id": 7, "files": entries})
    files = zenodo.list_files(spec("zenodo", "7", "", "*.mat"), f"{double.url}/api")
    assert shown(files, double) == [("a.mat", "/api/records/7/files/a.mat/content", 4, MD5, "md5")]


def test_osf_walks_through_folders_and_pages(double: Double) -> None:
    def file(path: str) -> dict[str, Any]:
        about = {"kind": "file", "materialized_path": path, "size": 4, "extra": {"hashes": {"md5": MD5, "sha256": SHA}}}
        return {"attributes": about, "links": {"download": f"{double.url}/download{path}"}}

    root, inner = "/v2/nodes/abcde/files/osfstorage/", "/v2/nodes/abcde/files/osfstorage/f1/"
    folder = {"attributes": {"kind": "folder"}, "relationships": {"files": {"links": {"related": {"href": double.url + inner}}}}}
    double.routes[root] = lambda query: answer(
        {"data": [file("/z.csv")], "links": {"next": None}}
        if query
        else {"data": [folder], "links": {"next": f"{double.url}{root}?page=2"}}
    )
    double.routes[inner] = answer({"data": [file("/sub/a.csv")], "links": {"next": None}})
    files = osf.list_files(spec("osf", "abcde"), f"{double.url}/v2")
    assert shown(files, double) == [("sub/a.csv", "/download/sub/a.csv", 4, SHA, "sha256"), ("z.csv", "/download/z.csv", 4, SHA, "sha256")]


def test_stanford_reads_an_object_and_unpacks_its_zips(double: Double) -> None:
    def entry(name: str) -> dict[str, Any]:
        return {"filename": name, "size": 4, "hasMessageDigests": [{"type": "sha1", "digest": "0"}, {"type": "md5", "digest": MD5}]}

    groups = [{"structural": {"contains": [entry("fingerflex.zip")]}}, {"structural": {"contains": [entry("read me.txt")]}}]
    double.routes["/zk881ps0522.json"] = answer({"structural": {"contains": groups}})
    files = miller.list_files(spec("miller", "zk881ps0522"), double.url, f"{double.url}/stacks")
    assert shown(files, double) == [
        ("fingerflex.zip", "/stacks/file/druid:zk881ps0522/fingerflex.zip", 4, MD5, "md5"),
        ("read me.txt", "/stacks/file/druid:zk881ps0522/read%20me.txt", 4, MD5, "md5"),
    ]
    assert [f.unpack for f in files] == [True, False]


def test_github_reads_one_commit_and_neurosynth_one_release(double: Double, tmp_path: Path) -> None:
    sha = hashlib.sha1(b"blob 4\0data").hexdigest()
    names = ["README.md", "data-neurosynth_version-6_metadata.tsv.gz", "data-neurosynth_version-7_metadata.tsv.gz"]
    tree = [{"path": "folder", "type": "tree", "sha": "0"}, *({"path": n, "type": "blob", "sha": sha, "size": 4} for n in names)]
    for repository, commit in (("nelpy/example-data", "099548c"), ("neurosynth/neurosynth-data", github._COMMIT)):
        double.routes[f"/repos/{repository}/git/trees/{commit}"] = answer({"tree": tree, "truncated": False})
        put(double, *(f"raw/{repository}/{commit}/{name}" for name in names))
    inside = [{"path": path, "type": "blob", "sha": sha, "size": 4} for path in ("data/swf415/a.h5", "a.h5", "data/b.txt")]
    double.routes["/repos/flavell-lab/NSM/git/trees/75a38d4"] = answer({"tree": inside, "truncated": False})
    files = github.list_files(spec("github", "nelpy/example-data", "099548c", "*.md"), double.url, f"{double.url}/raw")
    assert shown(files, double) == [("README.md", "/raw/nelpy/example-data/099548c/README.md", 4, sha, "git")]
    released = github.list_neurosynth(spec("neurosynth", "7"), double.url, f"{double.url}/raw")
    assert [f.path for f in released] == ["data-neurosynth_version-7_metadata.tsv.gz"]
    assert sources.download_all(released, tmp_path / "here").new == ("data-neurosynth_version-7_metadata.tsv.gz",)
    with pytest.raises(ValueError, match="name a commit by `version`"):
        github.list_files(spec("github", "nelpy/example-data"), double.url)
    within = github.list_files(spec("github", "flavell-lab/NSM/data", "75a38d4", "*.h5"), double.url, f"{double.url}/raw")
    assert shown(within, double) == [("swf415/a.h5", "/raw/flavell-lab/NSM/75a38d4/data/swf415/a.h5", 4, sha, "git")]
    double.routes["/repos/a/b/git/trees/c"] = answer({"tree": [], "truncated": True})
    with pytest.raises(ValueError, match="clone it with git"):
        github.list_files(spec("github", "a/b", "c"), double.url)


def test_neurovault_lists_a_collection(double: Double) -> None:
    place = "/api/collections/503/images/"
    images = [{"id": i, "file": f"{double.url}/media/images/503/map%20{i % 2}.nii.gz"} for i in range(3)]
    double.routes[place] = paged(images, double.url + place)
    assert shown(neurovault.list_files(spec("neurovault", "503"), f"{double.url}/api"), double) == [
        (f"{i}/map {i % 2}.nii.gz", f"/media/images/503/map%20{i % 2}.nii.gz", None, "", "") for i in range(3)
    ]


# ---------------------------------------------------------------- pages for people
def test_ninapro_reads_the_links_of_its_page(double: Double) -> None:
    double.routes["/instructions/DB1.html"] = (
        b'<a HREF="/files/DB1/Preprocessed/s1.zip">one</a> <a href=\'../files/DB1/Preprocessed/s2.zip?x=1&amp;y=2\'>two</a> <a href="a.pdf">'
    )
    files = webpage.list_ninapro(spec("ninapro", "DB1"), double.url)
    assert shown(files, double) == [(f"s{i}.zip", f"/files/DB1/Preprocessed/s{i}.zip", None, "", "") for i in (1, 2)]
    assert all(f.unpack for f in files)


@pytest.fixture
def tuh(double: Double, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[RemoteFile]]:
    """A corpus of two folders behind a password, as Apache lists it."""
    base = "/tuh_eeg/tuh_eeg_abnormal/v3.0.1/"
    double.routes[base] = b'<a href="?C=N;O=D">Name</a> <a href="/tuh_eeg/">Parent</a> <a href="edf/">edf/</a> <a href="AAREADME.txt">'
    double.routes[base + "edf/"] = b'<a href="../">up</a> <a href="a%20b.edf">a</a> <a href="https://elsewhere.org/evil.edf">'
    double.routes[base + "edf/a b.edf"] = b"data"
    double.required = {"Authorization": "Basic bWU6c2VjcmV0"}  # me:secret
    return lambda: webpage.list_tuh(spec("tuh", "tuh_eeg_abnormal", "v3.0.1", "*.edf"), f"{double.url}/tuh_eeg")


def test_tuh_walks_through_folders_with_your_password(
    double: Double, tuh: Callable[[], list[RemoteFile]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEDC_USER", "me")
    monkeypatch.setenv("NEDC_PASSWORD", "secret")
    files = tuh()
    assert shown(files, double) == [("edf/a b.edf", "/tuh_eeg/tuh_eeg_abnormal/v3.0.1/edf/a%20b.edf", None, "", "")]
    assert "secret" not in repr(files)
    sources.download_all(files, tmp_path / "here")
    assert (tmp_path / "here/edf/a b.edf").read_bytes() == b"data"


def test_tuh_without_or_with_a_wrong_password_says_what_to_do(
    double: Double, tuh: Callable[[], list[RemoteFile]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="NEDC_USER and NEDC_PASSWORD must be set in the environment"):
        tuh()
    monkeypatch.setenv("NEDC_USER", "me")
    monkeypatch.setenv("NEDC_PASSWORD", "wrong")
    with pytest.raises(ValueError, match=r"v3.0.1/: access is refused \(401\)"):
        tuh()


def test_bci_competition_files_are_named_one_by_one(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = spec("bci_competition", "iv", "", "BCICIV_2a_gdf.zip")
    with pytest.raises(ValueError, match="BBCI_USER and BBCI_PASSWORD must be set"):
        webpage.list_bci_competition(archive, double.url)
    monkeypatch.setenv("BBCI_USER", "me")
    monkeypatch.setenv("BBCI_PASSWORD", "secret")
    files = webpage.list_bci_competition(archive, double.url)
    assert shown(files, double) == [("BCICIV_2a_gdf.zip", "/competition/download/competition_iv/BCICIV_2a_gdf.zip", None, "", "")]
    with pytest.raises(ValueError, match=r"include is \*; name each file"):
        webpage.list_bci_competition(spec("bci_competition", "iv"), double.url)


# ---------------------------------------------------------------- UK Biobank
@pytest.mark.parametrize(
    "header",
    ["eid,31-0.0,21003-2.0,21003-0.0,25741-2.0,99-2.0", "eid,p31,p21003_i2,p21003_i0,p25741_i2,p99_i2"],
    ids=["showcase", "platform"],
)
def test_uk_biobank_tables_become_named_columns(tmp_path: Path, header: str) -> None:
    (tmp_path / "ukb.csv").write_text(f"{header}\n1001,1,63,55,0.12,7\n1002,0,70,61,,7\n")
    assert ukbiobank.read_table(tmp_path / "ukb.csv") == {
        "1001": {"sex": "1", "age": "63", "head_motion_rest": "0.12"},
        "1002": {"sex": "0", "age": "70"},
    }


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ukb.csv").write_text("eid,x\n1,2\n")
    with pytest.raises(ValueError, match=r"ukb.csv has no column eid and none of the fields 31, .*it is no UK Biobank table"):
        ukbiobank.read_table(tmp_path / "ukb.csv")


def test_the_list_for_ukbfetch(tmp_path: Path) -> None:
    ukbiobank.bulk_list(["1001", "1002"], "20227", tmp_path / "list.bulk")
    assert (tmp_path / "list.bulk").read_text() == "1001 20227_2_0\n1002 20227_2_0\n"


def test_uk_biobank_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"ukbiobank 20227: UK Biobank hands its files to approved projects only.*ukbfetch -a"):
        list_files(spec("ukbiobank", "20227"))


# ---------------------------------------------------------------- cards
#: Dataset -> a file as its archive names it (after unpacking), and the recording that it is of.
KNOWN = {
    "ajile12": ("sub-01/sub-01_ses-3_behavior+ecephys.nwb", "01_3"),
    "allen_neuropixels": ("ecephys-cache/session_715093703/session_715093703.nwb", "715093703"),
    "allen_two_photon": ("sub-222426/sub-222426_ses-501704220-StimA_behavior+image+ophys.nwb", "501704220-StimA"),
    "bci_iv_1": ("BCICIV_1_mat/BCICIV_calib_ds1a.mat", "a"),
    "ecog_fingers": ("fingerflex/data/bp/bp_fingerflex.mat", "bp"),
    "eegmmidb": ("S001/S001R03.edf", "S001R03"),
    "granule_cells_lfp": ("sub-YutaMouse20/sub-YutaMouse20_ses-YutaMouse20-140327_behavior+ecephys.nwb", "YutaMouse20-140327"),
    "hcp_rest": ("100307/MNINonLinear/Results/rfMRI_REST1_LR/rfMRI_REST1_LR_hp2000_clean.nii.gz", "100307_rfMRI_REST1_LR"),
    "ibl_brain_wide_map": (
        "sub-CSH-ZAD-024/sub-CSH-ZAD-024_ses-8207abc6-6b23-4762-92b4-82e05bed5143_desc-processed_behavior+ecephys.nwb",
        "8207abc6-6b23-4762-92b4-82e05bed5143",
    ),
    "ieeg_film": ("sub-01/ses-iemu/ieeg/sub-01_ses-iemu_task-film_acq-clinical_run-1_ieeg.vhdr", "01_1"),
    "mc_maze": ("sub-Jenkins/sub-Jenkins_ses-full_desc-train_behavior+ecephys.nwb", "full"),
    "narratives": (
        "derivatives/afni-nosmooth/sub-001/func/sub-001_task-pieman_space-MNI152NLin2009cAsym_res-native_desc-clean_bold.nii.gz",
        "001_pieman",
    ),
    "ninapro_db1": ("s1/S1_A1_E1.mat", "1_1"),
    "nsd_subj01": ("nsddata_timeseries/ppdata/subj01/func1pt8mm/timeseries/timeseries_session01_run01.nii.gz", "session01_run01"),
    "rat_ca1_openfield": ("2D/data/R2192_1x200_at5_step200_bin100-RAW_feat.dat", "R2192"),
    "rat_ca1_track": ("linear-track/spikes.mat", "linear-track"),
    "rat_ca1_track_ratgps": ("1D/data/R2217_1D_1x1400_at35_step200_bin100-RAW_feat.dat", "R2217"),
    "things_eeg": ("sub-01/eeg/sub-01_task-rsvp_eeg.vhdr", "01"),
    "tuh_abnormal": ("edf/train/normal/01_tcp_ar/aaaaaaav_s004_t000.edf", "train_normal_aaaaaaav_004_000"),
    "ukb_rest": ("1000001_20227_2_0/fMRI/rfMRI_25.dr/dr_stage1.txt", "1000001"),
    "worm_swf415": ("swf415_no_id/2022-01-16-01-data.h5", "2022-01-16-01"),
    "worm_swf702": ("swf702_with_id/2022-07-26-31-data.h5", "2022-07-26-31"),
    "ecog_m1_neurodsp": ("sample_data_1.npy", "m1"),
    "lfp_ca1_neurodsp": ("sample_data_2.npy", "hc2"),
}


def test_every_card_with_an_archive_names_a_known_one() -> None:
    named = {name: card.archive for name, card in ((n, datasets()[n]) for n in datasets()) if card.archive}
    assert set(named) == set(KNOWN)
    assert {archive.adapter for archive in named.values()} <= set(SOURCES)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_what_an_archive_holds_is_wanted_and_found(tmp_path: Path, name: str) -> None:
    path, identity = KNOWN[name]
    card = replace(datasets()[name], root=str(tmp_path))
    assert card.archive is not None
    unpacked = is_wanted(f"{path.split('/')[0]}.zip", card.archive)
    assert unpacked or card.archive.adapter == "ukbiobank" or is_wanted(path, card.archive)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("")
    assert is_here(card)
    (spec,) = (s for s in find_recordings(card) if s.id == identity)
    assert tmp_path / path in recording_files(card, spec, next(iter(card.signals.values())).file or card.pattern)


# ---------------------------------------------------------------- all of them
#: Adapter -> how it is called on a double, and an id and version that its own checks let through.
ASKED: dict[str, tuple[Callable[..., list[RemoteFile]], str, str]] = {
    "allen": (allen.list_files, "x", ""),
    "bci_competition": (webpage.list_bci_competition, "iv", ""),
    "dandi": (dandi.list_files, "000128", ""),
    "github": (github.list_files, "a/b", "c"),
    "ibl": (ibl.list_files, "x", ""),
    "miller": (miller.list_files, "x", ""),
    "neurosynth": (github.list_neurosynth, "7", ""),
    "neurovault": (neurovault.list_files, "503", ""),
    "ninapro": (webpage.list_ninapro, "DB1", ""),
    "nsd": (nsd.list_files, "x", ""),
    "openneuro": (openneuro.list_files, "ds1", ""),
    "osf": (osf.list_files, "abcde", ""),
    "physionet": (physionet.list_files, "x", "1.0.0"),
    "tuh": (webpage.list_tuh, "x", ""),
    "zenodo": (zenodo.list_files, "7", ""),
}
LISTED = sorted(set(ASKED) - {"bci_competition"})  # this one asks the archive nothing before it downloads


def test_every_archive_is_asked_here() -> None:
    assert {*ASKED, "hcp", "ukbiobank"} == set(SOURCES)


@pytest.fixture
def asked(double: Double, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[RemoteFile]]:
    """`asked(adapter)`: its list of files from the double, with all keys set."""
    for name in ("NEDC_USER", "NEDC_PASSWORD", "BBCI_USER", "BBCI_PASSWORD"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("NSD_TERMS", "agreed")

    def ask(adapter: str) -> list[RemoteFile]:
        function, identity, version = ASKED[adapter]
        monkeypatch.setitem(SOURCES._members, adapter, Source(partial(function, site=double.url), SOURCES[adapter].access))
        return list_files(spec(adapter, identity, version))

    return ask


class Everywhere(dict[str, Fault]):
    """The same fault for every path."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault = fault

    def get(self, path: str, default: object = None) -> Fault:  # type: ignore[override]
        return self.fault


@pytest.mark.parametrize(
    ("fault", "error", "match"),
    [
        (Fault(status=403), ValueError, r"^{}\b.*access is refused \(403\); check that the keys are set"),
        (Fault(status=404), ValueError, r"^{}\b.*nothing is there \(404\); check the name and the version"),
        (Fault(status=503), ConnectionError, r"^{}\b.*busy or broken \(503, 6 attempts\); run this again later"),
    ],
)
@pytest.mark.parametrize("adapter", LISTED)
def test_what_an_archive_refuses_names_archive_dataset_and_remedy(
    double: Double, asked: Callable[[str], list[RemoteFile]], adapter: str, fault: Fault, error: type[Exception], match: str
) -> None:
    double.faults = Everywhere(fault)
    with pytest.raises(error, match=match.format(f"{adapter} {ASKED[adapter][1]}")):
        asked(adapter)


@pytest.mark.parametrize("adapter", ["dandi", "github", "miller", "neurosynth", "neurovault", "osf", "zenodo"])
@pytest.mark.parametrize(("body", "match"), [(b"<html>login", "answers no JSON but"), (b'{"new": 1}', "is not of the form known here")])
def test_an_answer_that_is_not_understood_is_said(
    double: Double, asked: Callable[[str], list[RemoteFile]], adapter: str, body: bytes, match: str
) -> None:
    class Same(dict[str, Route]):
        def get(self, path: str, default: object = None) -> Route:  # type: ignore[override]
            return body

    double.routes = Same()
    with pytest.raises(ValueError, match=f"^{adapter} .*{match}"):
        asked(adapter)
