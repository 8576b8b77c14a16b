"""Snapshots as the reader sees them: the `data` of a score entry, and the report on request."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2s
from operator import itemgetter
from typing import Any

import numpy as np

from pipeline.scoring.channels import FREE_PLACES, Assignment
from pipeline.scoring.correlation import (
    FALSE_DISCOVERY,
    LEVEL,
    effective,
    kinds,
    level_tests,
    pair_tests,
    survivors,
)
from pipeline.scoring.parameters import LAGS, NODES, Parameters
from pipeline.scoring.state import SNAPSHOT

LEARNING, DEGRADED, TRIGGER = 0.01, 0.5, 0.9
STEADY = 0.01
"""A smoothed level this near its long mean is steady."""
BANDS = ((0.8, "peak"), (0.6, "high"), (0.3, "moderate"))
_UNKNOWN_AGE = 65535
_COUNTS = [tuple((byte >> 2 * g & 3).bit_count() for g in range(4)) for byte in range(256)]
"""Channels in use of four nodes, by their eight bits."""
_MEMBERS = [tuple(g for g in range(NODES) if mask >> g & 1) for mask in range(1 << NODES)]

_Values = namedtuple("_Values", list(SNAPSHOT.names or ()))  # type: ignore[misc]


def values_of(snapshot: Any) -> Any:
    """Give the fields of one element of SNAPSHOT as Python values, by name."""
    return _Values._make(snapshot.item())


@dataclass(frozen=True, slots=True)
class Statics:
    """What does not change from entry to entry of a source with the same channels.

    Attributes:
        map_version: 12 hex digits; levels compare only between sources that share it.
        names: of the eight nodes, empty where unused.
        pick: takes what belongs to the nodes in use out of eight values.
        populations: the constant columns of `populations`.
        channels: place and name of each channel in use.
        pair_names: names of the nodes that are correlated: what is seen, then what is reported.
        bin_ms: width of a bin, None for the deployment's.
    """

    map_version: str
    names: tuple[str, ...]
    pick: Callable[[Sequence[Any]], Sequence[Any]]
    populations: dict[str, list[Any]]
    channels: tuple[tuple[int, str], ...]
    pair_names: tuple[str, ...]
    bin_ms: int | None

    @classmethod
    @lru_cache(maxsize=4096)
    def of(cls, assignment: Assignment, declared: int, displaced: int) -> Statics:
        """Describe an assignment as far as it had been used.

        Args:
            assignment: the source's, perhaps with names from later inputs.
            declared: mask of the channels in use.
            displaced: mask of the vision channels without a place.
        """
        known = _known(assignment, declared, displaced)
        names = known.node_names()
        used = tuple(g for g in range(NODES) if declared >> 2 * g & 3)
        modalities = known.modalities()
        return cls(
            _map_version(known),
            names,
            _picker(used),
            {
                "population_id": [names[g] for g in used],
                "specialization": [modalities[g] for g in used],
                "size": [(declared >> 2 * g & 3).bit_count() for g in used],
            },
            tuple((c, name) for c, name in known.place_names().items() if declared >> c & 1),
            tuple(names[g] for g in (known.fixed.pair_nodes if known.fixed else range(NODES))),
            known.bin_ms,
        )

    def members(self, mask: int) -> list[str]:
        """Name the nodes of a mask."""
        return [self.names[g] for g in _MEMBERS[mask]]


def _known(assignment: Assignment, declared: int, displaced: int) -> Assignment:
    """Give the assignment as it was when exactly these channels had been used."""
    if assignment.fixed is not None:
        return assignment
    names = tuple(name for k, name in enumerate(assignment.names) if declared >> FREE_PLACES[k] & 1)
    count = len(names)
    taken = sum(1 << FREE_PLACES[k] for k in range(count))
    return Assignment(assignment.names[:count], bool(declared & ~taken or displaced))


def _picker(used: tuple[int, ...]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    if len(used) > 1:
        return itemgetter(*used)
    return lambda values: [values[g] for g in used]


def _map_version(assignment: Assignment) -> str:
    if assignment.fixed is not None:
        facts = f"map {assignment.fixed.digest}"
    else:
        facts = f"free {assignment.seen} {' '.join(assignment.names)}"
    return blake2s(facts.encode(), digest_size=6).hexdigest()


def data_of(
    s: Any, statics: Statics, parameters: Parameters, engine_version: str
) -> dict[str, Any]:
    """Give the score part of `data` of a score entry (CONTRACT 4).

    Args:
        s: `values_of` the snapshot.
        statics: of the source as of the snapshot.
        parameters: the engine's.
        engine_version: of its bin width.
    """
    is_known = not math.isnan(s.integration)
    delta_ms = statics.bin_ms or parameters.delta_ms
    return {
        "band": _band(s.level),
        "components": {
            "arousal": s.arousal,
            "differentiation": _known_number(s.differentiation),
            "integration": _known_number(s.integration),
            "workspace": s.workspace,
            "novelty": s.novelty,
        },
        "confidence": s.confidence,
        "bins": s.bins,
        "patched": s.late,
        "too_late": s.too_late,
        "grace_ms": s.grace * delta_ms,
        "null": _known_number(s.null),
        "null_age_ms": None if s.null_age == _UNKNOWN_AGE else s.null_age * delta_ms,
        "emergence_strength": min(max((s.level - 0.8) / 0.2, 0.0), 1.0),
        "phi": s.phi if is_known else None,
        "core": statics.members(s.core),
        "cut": statics.members(s.cut),
        "phi_wms": s.phi_wms if is_known else None,
        "o_ratio": s.o_ratio if is_known else None,
        "c_n": s.c_n if is_known else None,
        "ignitions": s.ignitions,
        "stability": s.stability,
        "trend": _trend(s.trend),
        "channels": _channels(s.recent.tolist(), statics),
        "populations": _populations(s, statics, parameters),
        "adaptation_rate": s.adaptation_rate,
        "correlation": _correlation(s, statics, delta_ms),
        "flags": _flags(s),
        "map_version": statics.map_version,
        "engine_version": engine_version,
    }


def _band(level: float) -> str:
    for bound, name in BANDS:
        if level >= bound:
            return name
    return "low"


def _trend(change: float) -> str:
    if abs(change) <= STEADY:
        return "steady"
    return "rising" if change > 0 else "falling"


def _known_number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _channels(recent: list[float], statics: Statics) -> dict[str, float]:
    return {name: round(recent[c], 4) for c, name in statics.channels}


def _flags(s: Any) -> list[str]:
    raised = []
    if s.adaptation_rate > LEARNING:
        raised.append("learning")
    if s.confidence < DEGRADED:
        raised.append("degraded")
    if s.novelty > TRIGGER:
        raised.append("adaptation_trigger")
    return raised


def _populations(s: Any, statics: Statics, parameters: Parameters) -> dict[str, Any]:
    pick = statics.pick
    return {
        **statics.populations,
        "active_neurons": pick(_COUNTS[s.active & 255] + _COUNTS[s.active >> 8]),
        "share": pick(s.share.tolist()),
        "fitness": pick(s.coupling.tolist()),
        "consciousness_contributions": pick((s.share * s.coupling).tolist()),
        "fitness_average": s.fitness,
        "diversity_index": s.diversity,
        "generation": s.generation,
        "successful_adaptations": s.adaptations,
        "selection_pressure": parameters.selection_pressure,
        "mutation_rate": parameters.mutation_rate,
    }


def _correlation(s: Any, statics: Statics, delta_ms: int) -> dict[str, Any]:
    strongest = None
    if s.pair_correlation:
        strongest = {
            "vision": statics.pair_names[s.pair // 4],
            "event": statics.pair_names[4 + s.pair % 4],
            "r": s.pair_correlation,
            "lag_ms": s.pair_lag * delta_ms,
            "bits": _bits(s.pair_correlation),
            "p": s.pair_p,
            "samples": s.pair_samples,
        }
    return {
        "consciousness_correlation": s.seen_correlation if s.seen & ~s.told else None,
        "context_correlation": s.told_correlation,
        "pair": strongest,
    }


def _bits(r: float) -> float:
    """Give the mutual information of two Gaussians, -1/2 log2(1 - r^2)."""
    return -0.5 * math.log2(max(1 - r * r, 1e-12))


def report_of(row: Any, statics: Statics, parameters: Parameters) -> dict[str, Any]:
    """Give what a source's entries leave out: the peak over lags of every correlation, and more.

    Args:
        row: one element of ROW.
        statics: of the source.
        parameters: the engine's.
    """
    lags = 2 * LAGS + 1
    p = parameters.for_kernel()[0]
    rho, chance = np.zeros((lags, 4, 4)), np.ones((lags, 4, 4))
    pair_tests(row, p, rho, chance)
    delta_ms = int(row["delta_ms"])
    pairs = _peaks(rho.reshape(lags, 16), chance.reshape(lags, 16), delta_ms)
    seen, told = kinds(row)
    nodes, n = row["pair_nodes"].tolist(), min(float(row["levels"]), 2 * p["tau_slow_bins"] - 1)
    for k, entry in enumerate(pairs):
        entry["vision"] = statics.pair_names[k // 4]
        entry["event"] = statics.pair_names[4 + k % 4]
        entry["samples"] = effective(row["auto"], nodes[k // 4], nodes[4 + k % 4], n)
    rho, chance = np.zeros((lags, NODES)), np.ones((lags, NODES))
    level_tests(row, p, rho, chance)
    levels = _peaks(rho, chance, delta_ms)
    for k, entry in enumerate(levels):
        entry["node"] = statics.names[k]
        entry["samples"] = effective(row["auto"], k, LEVEL, n)
    return {
        "phi_whole": float(row["phi_whole"]),
        "level_smoothed": float(row["smooth"]),
        "pairs": [
            e for k, e in enumerate(pairs) if seen >> nodes[k // 4] & told >> nodes[4 + k % 4] & 1
        ],
        "level": [e for k, e in enumerate(levels) if e["node"]],
    }


def _peaks(rho: Any, chance: Any, delta_ms: int) -> list[dict[str, Any]]:
    """Give the peak of every column over lags, with its p and whether it survives the tests."""
    limit = survivors(chance, FALSE_DISCOVERY)
    peaks = []
    for k in range(rho.shape[1]):
        at = int(np.argmax(np.abs(rho[:, k])))
        r = float(rho[at, k])
        peaks.append(
            {
                "r": r,
                "lag_ms": (at - LAGS) * delta_ms,
                "bits": _bits(r),
                "p": float(chance[at, k]),
                "significant": bool(chance[at, k] <= limit),
            }
        )
    return peaks
