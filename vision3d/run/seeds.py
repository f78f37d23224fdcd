# SPDX-License-Identifier: Apache-2.0
"""An evaluation over several seeds: one complete run each, then means with their spread.

The first seed's run is the folder that the user sees. The others lie inside it, as ``seeds/<seed>/``: so wherever a
kill comes, the first folder (or ``latest``) is what to resume, and what is missing follows from what is there.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vision3d.errors import ConfigError, DataError
from vision3d.run.evaluation import Evaluation, Later, Outcome
from vision3d.run.files import read_json, write_json
from vision3d.run.truths import KeptTruths

SCHEMA = 1
MAX_SEEDS = 100


@dataclass(frozen=True)
class Series:
    """One evaluation, carried out with the seeds s, s + 1, ..., s + count - 1, s being the configuration's.

    Pictures, exhibit and report are of the first seed. A method that is ``deterministic`` is stepped for the first
    seed only; the others get a copy of its results.
    """

    job: Evaluation
    count: int

    @property
    def seeds(self) -> list[int]:
        first = self.job.config.runner.seed
        return list(range(first, first + self.count))

    def execute(self) -> tuple[Outcome, dict[str, Any]]:
        """Run what is missing; the first seed's outcome, and the content of ``seeds.json`` in its folder.

        Raises:
            ConfigError: there are no such seeds.
            UserError: as :meth:`vision3d.run.evaluation.Evaluation.execute`.
        """
        if not 1 <= self.count <= MAX_SEEDS or self.seeds[-1] > 2**32 - 1:
            raise ConfigError(f"--seeds must be from 1 to {MAX_SEEDS}, and the last seed below 2^32, got {self.count}")
        job = replace(self.job, reader=KeptTruths(self.job.reader))
        first = job.execute()
        metrics = {self.seeds[0]: first.metrics}
        for number, seed in enumerate(self.seeds[1:], 2):
            job.console.note(f"seed {seed} ({number} of {self.count})")
            config = replace(job.config, runner=replace(job.config.runner, seed=seed, pictures=0))
            later = Later(first.folder, first.folder / "seeds" / str(seed))
            metrics[seed] = replace(job, config=config, later=later, resume=None, skipped=[]).execute().metrics
        summary = over_seeds(metrics)
        write_json(first.folder / "seeds.json", summary)
        return first, summary


def over_seeds(metrics: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of ``seeds.json``, from seed -> content of ``metrics.json``; the first seed's run comes first."""
    seeds, documents = list(metrics), list(metrics.values())
    first = documents[0]
    return {
        "schema": SCHEMA,
        "pipeline": first["pipeline"],
        "dataset": first["dataset"],
        "seeds": seeds,
        "runs": [".", *(f"seeds/{seed}" for seed in seeds[1:])],
        **_method(documents),
        **(
            {
                "baselines": {
                    name: _method([document["baselines"][name] for document in documents])
                    for name in first["baselines"]
                }
            }
            if "baselines" in first
            else {}
        ),
    }


def with_spread(metrics: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """The first seed's ``metrics.json`` with the numbers of ``seeds.json`` in the place of its own.

    ``n_failed`` becomes the worst seed's; failures and skipped samples are the first seed's.
    """

    def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
        return {**old, **new, "n_failed": max(new["n_failed_by_seed"])}

    out = merged(metrics, {key: summary[key] for key in ("seeds", "metrics", "n_failed_by_seed")})
    if "baselines" in summary:
        out["baselines"] = {
            name: merged(metrics["baselines"][name], found) for name, found in summary["baselines"].items()
        }
    return out


def read_seeds(run: Path) -> dict[str, Any] | None:
    """``seeds.json`` of a run folder, None for a run of one seed.

    Raises:
        DataError: the file is damaged.
    """
    path = run / "seeds.json"
    if not path.exists():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("metrics"), list):
        raise DataError(path, "is not the seeds.json of a run")
    if content.get("schema") != SCHEMA:
        raise DataError(path, f"has schema {content.get('schema')}; this version reads {SCHEMA}")
    return content


def _method(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One method's metrics over the seeds, and how many samples failed with each."""
    names = dict.fromkeys(metric["name"] for document in documents for metric in document["metrics"])
    by_name = [{metric["name"]: metric for metric in document["metrics"]} for document in documents]
    return {
        "metrics": [_spread([found[name] for found in by_name if name in found]) for name in names],
        "n_failed_by_seed": [document["n_failed"] for document in documents],
    }


def _spread(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One metric over the seeds: ``value`` is the mean, ``spread`` the sample standard deviation (n - 1).

    A value that is infinite with one seed makes the mean infinite; there is no spread then, nor with a single value.
    """
    values = [metric["value"] for metric in metrics]
    finite = [value for value in values if value is not None]
    infinite = len(finite) < len(values)
    mean = None if infinite else statistics.mean(map(float, finite))
    spread = statistics.stdev(map(float, finite)) if len(values) > 1 and not infinite else None
    head = {key: item for key, item in metrics[0].items() if key not in ("value", "infinite")}
    out = {**head, "value": mean, "spread": spread, "values": values}
    return {**out, "infinite": True} if infinite else out
