"""The engine's fixed sizes and its one frozen set of parameters."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

WINDOW = 64
"""Bins in the window, T: the validity mask is one 64-bit word."""
CHANNELS = 16
NODES = 8
LAGS = 8
"""Lags of the correlations reach from -LAGS to +LAGS bins."""
SURROGATES = 19
"""Their maximum is a one-sided test at 5 % (1 / (19 + 1))."""
MIN_PAIRS = 32
"""Fewer valid pairs of neighbouring bins than this leave integration unknown."""

PHASES = ("dormant", "awakening", "active", "focused", "emergent")
ENTER = (0.0, 0.10, 0.30, 0.60, 0.80)
LEAVE = (0.0, 0.05, 0.25, 0.55, 0.72)

ENGINE_VERSION = 3
"""Changes when the same inputs would give other numbers, rounding apart; what older ones saved is
not continued."""


PARAMETERS = np.dtype(
    [
        ("hop_bins", "i8"),
        ("surrogates", "i8"),
        ("dwell", "i8"),
        ("refractory_bins", "i8"),
        ("weight_arousal", "f8"),
        ("weight_differentiation", "f8"),
        ("weight_integration", "f8"),
        ("weight_workspace", "f8"),
        ("null_floor", "f8"),
        ("forgetting", "f8"),
        ("smoothing", "f8"),
        ("selection_pressure", "f8"),
        ("mutation_rate", "f8"),
        ("tau_fast_bins", "f8"),
        ("tau_slow_bins", "f8"),
        ("attack", "f8"),
        ("release", "f8"),
        ("change_threshold", "f8"),
        ("class_forgetting", "f8"),
    ]
)
"""What the compiled code reads; no value of it causes a recompilation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Everything about the score that can be chosen; the choices, not the findings.

    Attributes:
        delta_ms: width of a bin, where a source's channel map says no other.
        hop_bins: a window is evaluated every so many bins; divides 64.
        stale_after_ms: without any input for longer than this, bins are missing, not quiet.
        surrogates: compare integration with 19 circularly shifted copies of the window.
        weight_arousal: exponent of A in K; the three exponents add up to 1.
        weight_differentiation: exponent of D in K.
        weight_integration: exponent of I in K.
        weight_workspace: share of W in the amplification, the rest is N's.
        null_floor: integration scores up to this are taken for noise.
        forgetting: decay of the surprise prior per bin.
        smoothing: weight of the newest evaluation in the level that decides the phase.
        dwell: evaluations in a row that must agree before the phase moves one step.
        selection_pressure: eta of the replicator.
        mutation_rate: mu of the replicator.
        tau_fast_bins: time constant of the fast activity mean.
        tau_slow_bins: time constant of every slow mean and of the correlations.
        attack: rise of the workspace per bin.
        release: fall of the workspace per bin.
        refractory_bins: bins between two counted ignitions.
        change_threshold: two-sample t above which a step of total activity is taken out.
        class_forgetting: decay of the class prior per frame.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    delta_ms: int = 250
    hop_bins: int = 4
    stale_after_ms: int = 5000
    surrogates: bool = True
    weight_arousal: float = 0.20
    weight_differentiation: float = 0.35
    weight_integration: float = 0.45
    weight_workspace: float = 0.7
    null_floor: float = 0.20
    forgetting: float = 0.9
    smoothing: float = 0.3
    dwell: int = 3
    selection_pressure: float = 0.25
    mutation_rate: float = 0.01
    tau_fast_bins: float = 8.0
    tau_slow_bins: float = 256.0
    attack: float = 0.5
    release: float = 0.08
    refractory_bins: int = 8
    change_threshold: float = 6.0
    class_forgetting: float = 0.99

    def __post_init__(self) -> None:
        """Check every range."""
        ranges = (
            ("delta_ms", 1, 3_600_000),
            ("hop_bins", 1, WINDOW),
            ("stale_after_ms", self.delta_ms, 4 * WINDOW * self.delta_ms),
            ("weight_arousal", 0, 1),
            ("weight_differentiation", 0, 1),
            ("weight_integration", 0, 1),
            ("weight_workspace", 0, 1),
            ("null_floor", 0, 0.9),
            ("forgetting", 0.1, 0.999),
            ("smoothing", 0.01, 1),
            ("dwell", 1, 100),
            ("selection_pressure", 0, 10),
            ("mutation_rate", 0, 1),
            ("tau_fast_bins", 1, 10_000),
            ("tau_slow_bins", 1, 10_000),
            ("attack", 0, 1),
            ("release", 0.01, 1),
            ("refractory_bins", 0, 10_000),
            ("change_threshold", 1, 1e9),
            ("class_forgetting", 0.1, 1),
        )
        for name, low, high in ranges:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} {value}: must be {low} to {high}")
        if WINDOW % self.hop_bins:
            raise ValueError(f"hop_bins {self.hop_bins}: must divide {WINDOW}")
        weights = self.weight_arousal + self.weight_differentiation + self.weight_integration
        if abs(weights - 1) > 1e-9:
            raise ValueError(f"the weights of A, D and I add up to {weights}, must be 1")

    def stale_bins(self, delta_ms: int) -> int:
        """Give `stale_after_ms` in whole bins of a width, at least one and at most four windows."""
        return min(max(self.stale_after_ms // delta_ms, 1), 4 * WINDOW)

    def fades_ms(self, delta_ms: int) -> int:
        """Give how long after its last input a source's window is empty, for a width of bins.

        Before that silence may raise a level too, as the first windows are evaluated in it.
        """
        return (WINDOW + 2 * self.hop_bins + self.stale_bins(delta_ms)) * delta_ms

    @property
    def period_ms(self) -> int:
        """Length of the window, the range of a source's phase."""
        return WINDOW * self.delta_ms

    def engine_version(self, delta_ms: int) -> str:
        """Give what levels must share to be comparable, next to the channel map."""
        return f"{ENGINE_VERSION}-{delta_ms}ms-{WINDOW}-{self.hop_bins}-{self.digest:08x}"

    @property
    def digest(self) -> int:
        """32 bits that differ when any parameter or the engine's version does."""
        return crc32(repr((ENGINE_VERSION, sorted(asdict(self).items()))).encode())

    def for_kernel(self) -> NDArray[np.void]:
        """Give the parameters as the compiled code reads them: one element of PARAMETERS."""
        values = asdict(self)
        return np.array([tuple(values[name] for name in PARAMETERS.names or ())], PARAMETERS)
