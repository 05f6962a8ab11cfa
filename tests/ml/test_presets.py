"""Presets: every size is a valid config that JSON keeps; values that would fail later are refused at once."""

import json

import pytest

from neurofm_ml import presets
from neurofm_ml.config import from_dict, patch, to_dict
from neurofm_ml.presets import (
    AugmentConfig,
    NeuroFMxConfig,
    OnnxConfig,
    PretrainConfig,
    QualityConfig,
    ScoreConfig,
    ShardsConfig,
    TrainConfig,
)


@pytest.mark.parametrize("size", presets.SIZES)
@pytest.mark.parametrize("make", [presets.pretrain, presets.adapt], ids=["pretrain", "adapt"])
def test_every_size_of_a_run(make, size):
    cfg = make(size, seed=3)
    assert (cfg.size, cfg.seed) == (size, 3)
    assert from_dict(type(cfg), json.loads(json.dumps(to_dict(cfg)))) == cfg


def test_sizes_grow():
    widths = [presets.neurofmx(size).d_model * presets.neurofmx(size).n_layers for size in presets.SIZES]
    gpus = [presets.resources(size).gpus * presets.resources(size).nodes for size in presets.SIZES]
    assert widths == sorted(set(widths))
    assert gpus == sorted(set(gpus))


def test_several_gpus_are_asked_for_by_sizes_that_use_them():
    for size in presets.SIZES:
        assert (presets.pretrain(size).train.strategy in ("ddp", "fsdp")) == (presets.resources(size).gpus > 1)


def test_one_process_gets_one_gpu_and_its_share():
    assert presets.resources("large").of_one_process == presets.Resources(gpus=1, cpus=12, memory_gb=96, hours=120)
    for size in ("tiny", "small"):
        assert presets.resources(size).of_one_process == presets.resources(size)


@pytest.mark.parametrize("make", [presets.neurofmx, presets.pretrain, presets.adapt, presets.resources])
def test_unknown_sizes_are_refused(make):
    with pytest.raises(ValueError, match="size is 'huge'; allowed: tiny, small, medium, large"):
        make("huge")


def objectives(**weights: float):
    return lambda: patch(presets.pretrain("tiny"), {"objectives": weights})


def stages(stages: int = 1, **changes):
    stage = {"kind": "multimodal", "objectives": {"masked": 1.0}, **changes}
    return lambda: patch(presets.pretrain("tiny"), {"curriculum": [stage] * stages})


WRONG = [
    (lambda: NeuroFMxConfig(d_model=0), r"NeuroFMxConfig\.d_model is 0; it must be positive"),
    (lambda: NeuroFMxConfig(dropout=1.0), r"NeuroFMxConfig\.dropout is 1\.0; it must lie in \[0, 1\)"),
    (lambda: NeuroFMxConfig(dropout=float("nan")), r"NeuroFMxConfig\.dropout is nan"),
    (lambda: NeuroFMxConfig(d_model=6, expand=2, n_heads=4), r"NeuroFMxConfig\.n_heads is 4; it must divide d_model = 6"),
    (lambda: NeuroFMxConfig(d_model=6, n_heads=3), r"NeuroFMxConfig\.n_heads is 3; a bidirectional backbone needs an even number"),
    (lambda: NeuroFMxConfig(backbone="gru", n_layers=1), r"NeuroFMxConfig\.n_layers is 1; the gru backbone needs an even number"),
    (lambda: TrainConfig(steps=0), r"TrainConfig\.steps is 0; it must be positive"),
    (lambda: TrainConfig(lr=-1e-3), r"TrainConfig\.lr is -0\.001"),
    (lambda: TrainConfig(ema=1.0), r"TrainConfig\.ema is 1\.0; it must lie in \[0, 1\)"),
    (lambda: AugmentConfig(unit_dropout=1.0), r"AugmentConfig\.unit_dropout is 1\.0"),
    (lambda: AugmentConfig(noise=-0.1), r"AugmentConfig\.noise is -0\.1; it must not be negative"),
    (lambda: AugmentConfig(drift=float("nan")), r"AugmentConfig\.drift is nan; it must not be negative"),
    (lambda: ShardsConfig(dataset="d", shard_mb=0), r"ShardsConfig\.shard_mb is 0"),
    (lambda: QualityConfig(dataset="d", max_flat_fraction=2), r"QualityConfig\.max_flat_fraction is 2"),
    (lambda: ScoreConfig(seed=0, size="tiny", n_boot=0), r"ScoreConfig\.n_boot is 0"),
    (lambda: OnnxConfig(tolerance=0), r"OnnxConfig\.tolerance is 0"),
    (lambda: AugmentConfig(channel_mask=1.0), r"AugmentConfig\.channel_mask is 1\.0; it must lie in \[0, 1\)"),
    (lambda: AugmentConfig(mask_s=0.0), r"AugmentConfig\.mask_s is 0\.0; it must be positive"),
    (lambda: AugmentConfig(time_shift_s=-1.0), r"AugmentConfig\.time_shift_s is -1\.0; it must not be negative"),
    (stages(kind="unimodal"), r"StageConfig\.fusion is 'early' in a unimodal stage; it is \"none\" where there is one modality"),
    (stages(fusion="none"), r"StageConfig\.fusion is 'none' in a multimodal stage"),
    (stages(pairs=[["eeg", "meg"]]), r"StageConfig\.pairs belong to a pairwise stage"),
    (stages(kind="pairwise", pairs=[["eeg", "eye"]]), r"a stage names eye; models read spikes"),
    (stages(objectives={"masked": 0.0}), r"StageConfig\.objectives is .*one must be positive"),
    (stages(patience=0), r"StageConfig\.patience is 0; it must be positive"),
    (stages(stages=2), r"stage 1 of 2 never ends; give it steps or patience"),
    (stages(stages=3, steps=400), r"the first 2 stages take 800 updates and training has 800; the last is never reached"),
    (objectives(behaviour=-1.0), r"PretrainConfig\.objectives is .*; weights must not be negative, and one must be positive"),
    (objectives(behaviour=0.0, masked=0.0), r"PretrainConfig\.objectives is .*one must be positive"),
    (lambda: patch(presets.meta_train("tiny"), {"train": {"compile": True}}), r"MetaConfig\.train\.compile is True; it must be False"),
    (lambda: from_dict(PretrainConfig, {**to_dict(presets.pretrain("tiny")), "size": "huge"}), r"PretrainConfig\.size is 'huge'; allowed: 'tiny'"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[m for _, m in WRONG])
def test_values_that_would_fail_later_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("size", presets.SIZES)
def test_the_default_curriculum_fits_every_size(size):
    cfg = presets.pretrain(size)
    cfg = patch(cfg, {"curriculum": [to_dict(stage) for stage in presets.curriculum(cfg.train.steps)]})
    assert [stage.kind for stage in cfg.curriculum] == ["unimodal", "pairwise", "multimodal"]
    assert from_dict(PretrainConfig, json.loads(json.dumps(to_dict(cfg)))) == cfg


@pytest.mark.parametrize(
    "changes", [{"bidirectional": False, "n_heads": 1}, {"backbone": "gru", "n_heads": 1}, {"backbone": "gru", "n_layers": 4}]
)
def test_valid_variants(changes):
    assert patch(presets.neurofmx("tiny"), changes) == NeuroFMxConfig(**changes)
