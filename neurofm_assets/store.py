"""Store: where artifacts lie, and which of them may be used.

An artifact's home is ``<home>/artifacts/<asset>/<partition>``. The store hands out finished artifacts
only, and none whose blocking checks failed. How artifacts are made and named is in `neurofm_ml.jobs`.
Where NEUROFM_STORE names an object store, an artifact that another machine made is handed out as well:
by the path it will have here, to which the job that reads it brings the files.
Dagster concept: resource.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from neurofm_assets.partitions import folder_of
from neurofm_ml.artifacts import files_url
from neurofm_ml.config import to_dict
from neurofm_ml.jobs import JobSpec, current, load_result
from neurofm_ml.knowledge.cards import datasets

T = TypeVar("T", bound=Any)


class Store(dg.ConfigurableResource):
    """Artifacts under one home folder."""

    home: str

    def path(self, asset: dg.AssetsDefinition, key: str) -> Path:
        """Home of all artifacts of one partition."""
        return Path(self.home) / "artifacts" / asset.key.path[-1] / folder_of(key)

    def spec(self, context: dg.AssetExecutionContext, job: str, cfg: Any, **inputs: Iterable[str]) -> JobSpec:
        """What the running step asks of a job, its artifact landing in the step's home."""
        out = self.path(context.assets_def, context.partition_key)
        return JobSpec(job=job, config=to_dict(cfg), inputs={role: tuple(paths) for role, paths in inputs.items()}, out=str(out))

    def get(self, asset: dg.AssetsDefinition, key: str) -> str:
        """The current artifact of one partition. Raises ValueError when it is missing or blocked."""
        artifact = current(self.path(asset, key))
        what = f"{asset.key.to_user_string()}[{key}]"
        if artifact is None:
            raise ValueError(f"{what} is not here; materialise it first.")
        if failed := load_result(artifact).failed:
            raise ValueError(
                f"{what} is blocked: {', '.join(failed)} failed. See its checks, repair the data or the config, and materialise it again."
            )
        return str(artifact)

    def url(self, asset: dg.AssetsDefinition, key: str) -> str:
        """Where the files of the current artifact lie in the object store, for readers that need no copy of them:
        ``Loader([store.url(shards, "simulation")])``."""
        return files_url(Path(self.get(asset, key)))

    def here(self, asset: dg.AssetsDefinition, keys: Iterable[str]) -> list[str]:
        """Those of the partitions that have been materialised, blocked ones too."""
        known = list(keys)
        with ThreadPoolExecutor(8) as pool:  # each costs a request where there is an object store
            return [key for key, found in zip(known, pool.map(lambda key: current(self.path(asset, key)), known), strict=True) if found]

    def gather(self, asset: dg.AssetsDefinition, keys: Iterable[str]) -> list[str]:
        """Current artifacts of the partitions, each of which must be here."""
        return [self.get(asset, key) for key in keys]

    def choose(self, asset: dg.AssetsDefinition, cfg: T, among: Sequence[str]) -> tuple[T, dict[str, str], list[str]]:
        """Which datasets a run works on: those its config names, or all that are here.

        Returns the config with its `datasets` written out, the artifact of each, and the names left
        out because they are not here.
        """
        for name in cfg.datasets or ():
            datasets()[name]  # an unknown name raises, with the nearest one
        chosen = self.here(asset, among) if cfg.datasets is None else [name for name in among if name in cfg.datasets]
        if not chosen:
            raise ValueError(f"none of {', '.join(among)} is here as {asset.key.to_user_string()}; materialise one first.")
        left_out = [name for name in among if name not in chosen and cfg.datasets is None]
        return dataclasses.replace(cfg, datasets=tuple(chosen)), {name: self.get(asset, name) for name in chosen}, left_out

    def get_each(self, assets: Mapping[str, dg.AssetsDefinition], key: str) -> dict[str, list[str]]:
        """Current artifacts of one partition of several assets, by role."""
        return {role: [self.get(asset, key)] for role, asset in assets.items()}

    def require_made_from(self, artifacts: Sequence[str], role: str, wanted: Iterable[str]) -> None:
        """Refuse artifacts that were made from other versions of an input than the `wanted` ones."""
        have = {found["data_version"] for path in artifacts for found in load_result(Path(path)).inputs[role]}
        stale = [path for path in wanted if load_result(Path(path)).data_version not in have]
        if stale:
            raise ValueError(
                f"{', '.join(artifacts)} was made from another version of {', '.join(stale)}; materialise both again, in order."
            )

    def require_no_other(self, artifacts: Sequence[str], role: str, wanted: Sequence[str]) -> None:
        """Refuse artifacts of which one was made from another version of any of the `wanted` inputs; it need not be made from all."""
        versions = {Path(path).parent: load_result(Path(path)).data_version for path in wanted}
        for artifact in artifacts:
            for found in load_result(Path(artifact)).inputs[role]:
                if versions.get(home := Path(found["path"]).parent, found["data_version"]) != found["data_version"]:
                    raise ValueError(f"{artifact} was made from another version of {home}; materialise both again, in order.")
