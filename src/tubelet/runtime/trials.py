"""A study of Optuna on the disk, which the process that chooses settings and the runs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PRUNED = "pruned.txt"
"""In the directory of a run that was stopped because others were better: when, and by how much."""
_STARTUP = 4
"""Trials that run to their end, and results at the same time, that a median needs."""


def open_study(file: Path, maximise: bool, seed: int = 0) -> Any:
    """The study in `file`, a journal that several machines may write to; a new one if there is none.

    Raises ValueError if the package is missing.
    """
    storage = _storage(file)
    import optuna

    return optuna.create_study(
        study_name=file.stem,
        storage=storage,
        load_if_exists=True,
        direction="maximize" if maximise else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP),
        pruner=optuna.pruners.MedianPruner(_STARTUP, n_warmup_steps=2, n_min_trials=_STARTUP),
    )


def open_trial(file: Path, number: int, maximise: bool) -> Any:
    """A trial of the study in `file`, as any process may continue it."""
    storage, study = _storage(file), open_study(file, maximise)
    import optuna

    known = storage.get_study_id_from_name(study.study_name)
    return optuna.trial.Trial(study, storage.get_trial_id_from_study_id_trial_number(known, number))


def _storage(file: Path) -> Any:
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ValueError("hydra/sweeper=optuna needs another package: pip install 'tubelet[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.JournalStorage(JournalFileBackend(str(file)))
