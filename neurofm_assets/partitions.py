"""Partitions: what identifies an artifact, and how the partitions of one asset depend on another's.

How a run is tuned is config, never a partition; tasks, layers and held-out animals are rows of tables.
Dagster concept: partitions and partition mappings.
"""

import warnings
from collections.abc import Iterable

import dagster as dg

from neurofm_ml.knowledge.cards import DatasetCard, datasets
from neurofm_ml.knowledge.corpora import corpora
from neurofm_ml.knowledge.pools import POOLS
from neurofm_ml.knowledge.tables import tables
from neurofm_ml.presets import SIZES
from neurofm_ml.types import MODALITIES as ALL_MODALITIES


def task_modalities(card: DatasetCard) -> set[str]:
    """Modalities of the inputs of a card's tasks, and of their targets where these are series."""
    return {card.signals[name].modality for task in card.tasks for name in (*task.inputs, *(() if task.is_label else (task.target,)))}


def members(key: str) -> tuple[str, ...]:
    """Datasets of a pool; a dataset is its own."""
    return POOLS[key].datasets if key in POOLS else (key,)


CARDS: dict[str, DatasetCard] = {name: datasets()[name] for name in datasets()}
#: Datasets that series are decoded from, and those with tasks of any kind; a pool of datasets answers tasks like one.
LABELLED = [name for name, card in CARDS.items() if card.series_tasks]
TASKED = [name for name, card in CARDS.items() if card.tasks]

DATASETS = dg.StaticPartitionsDefinition(list(CARDS))
TASKED_DATASETS = dg.StaticPartitionsDefinition([*TASKED, *POOLS])
MODALITIES = dg.StaticPartitionsDefinition([m for m in ALL_MODALITIES if any(m in c.modalities for c in CARDS.values())])
CORPORA = dg.StaticPartitionsDefinition(list(corpora()))
TABLES = dg.StaticPartitionsDefinition(list(tables()))
BY_SIZE = dg.StaticPartitionsDefinition(list(SIZES))
RUNS = dg.MultiPartitionsDefinition({"size": BY_SIZE, "seed": dg.StaticPartitionsDefinition([str(seed) for seed in range(5)])})

#: A run may learn from every dataset; which ones it did is in its config.
EVERY = dg.AllPartitionMapping()
DATASET_TO_MODALITY = dg.StaticPartitionMapping({name: list(card.modalities) for name, card in CARDS.items()})
DATASET_TO_TASKED = dg.StaticPartitionMapping({name: [name, *(p for p in POOLS if name in members(p))] for name in TASKED})
MODALITY_TO_TASKED = dg.StaticPartitionMapping(
    {
        m: [key for key in TASKED_DATASETS.get_partition_keys() if any(m in task_modalities(CARDS[name]) for name in members(key))]
        for m in MODALITIES.get_partition_keys()
    }
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.BetaWarning)
    SIZE_TO_RUNS = dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name="size")


def pools_of(names: Iterable[str]) -> list[str]:
    """Pools all of whose datasets are among the named ones."""
    present = {*names}
    return [pool for pool in POOLS if present.issuperset(members(pool))]


def modalities_of(names: Iterable[str]) -> list[str]:
    """Modalities of the named datasets, in the order of the partitions."""
    present = {modality for name in names for modality in CARDS[name].modalities}
    return [m for m in MODALITIES.get_partition_keys() if m in present]


def read_by(modalities: Iterable[str]) -> list[str]:
    """Datasets that models of these modalities learn from."""
    return [name for name, card in CARDS.items() if {*modalities} & {*card.modalities}]


def told_apart_by(modalities: Iterable[str]) -> list[str]:
    """Datasets with labels to be told from signals of these modalities."""
    wanted = {*modalities}
    return [
        name
        for name, card in CARDS.items()
        if any(wanted >= {card.signals[source].modality for source in task.inputs} for task in card.label_tasks)
    ]


def run_of(context: dg.AssetExecutionContext) -> tuple[str, int]:
    """Size and seed of the run being materialised."""
    keys = context.multi_partition_key.keys_by_dimension
    return keys["size"], int(keys["seed"])


def run_key(size: str, seed: int) -> dg.MultiPartitionKey:
    """Partition key of a run."""
    return dg.MultiPartitionKey({"size": size, "seed": str(seed)})


def folder_of(key: str) -> str:
    """Folder of a partition: ``simulation``, ``tiny-0``."""
    if isinstance(key, dg.MultiPartitionKey):
        return "-".join(key.keys_by_dimension[d] for d in sorted(key.keys_by_dimension, reverse=True))
    return key
