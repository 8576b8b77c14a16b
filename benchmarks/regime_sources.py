"""Activity of known dynamics: what `benchmarks.regimes` scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.parameters import CHANNELS, NODES

Counts = NDArray[np.float64]
"""(bins, 16) activity."""
Generate = Callable[[np.random.Generator, int], Counts]
SETTLE = 100


def _poisson(rng: np.random.Generator, rate: Counts) -> Counts:
    return rng.poisson(np.minimum(rate, 1e4)).astype(np.float64)


def _wander(rng: np.random.Generator, n: int, memory: float, width: int) -> Counts:
    """Give (n, width) of AR(1) with deviation 1."""
    x = np.zeros((n + SETTLE, width))
    for t in range(1, len(x)):
        x[t] = memory * x[t - 1] + np.sqrt(1 - memory**2) * rng.standard_normal(width)
    return x[SETTLE:]


def constant(value: float) -> Generate:
    """Give the same value in every bin and channel."""
    return lambda rng, n: np.full((n, CHANNELS), value)


def one_channel(rng: np.random.Generator, n: int) -> Counts:
    """Let only one channel vary."""
    out = np.zeros((n, CHANNELS))
    out[:, 0] = rng.poisson(2.0, n)
    return out


def independent(rate: float) -> Generate:
    """Give independent Poisson counts."""
    return lambda rng, n: _poisson(rng, np.full((n, CHANNELS), rate))


def slow(rng: np.random.Generator, n: int) -> Counts:
    """Let the rate of every node wander by itself, AR(1) of .95."""
    return _poisson(rng, 3 * np.exp(np.repeat(_wander(rng, n, 0.95, NODES), 2, 1)))


def periodic(rng: np.random.Generator, n: int) -> Counts:
    """Let all channels go up and down together, a sine of 8 bins rounded to counts."""
    wave = np.round(3 + 2 * np.sin(2 * np.pi * (np.arange(n) + rng.integers(8)) / 8))
    return np.repeat(wave[:, None], CHANNELS, 1)


def copies(rng: np.random.Generator, n: int) -> Counts:
    """Give every channel the same random counts."""
    return np.repeat(_poisson(rng, np.full((n, 1), 2.0)), CHANNELS, 1)


def common_rate(rng: np.random.Generator, n: int) -> Counts:
    """Drive all channels by one random rate, AR(1) of .5, each with noise of its own."""
    return _poisson(rng, 3 * np.exp(np.repeat(_wander(rng, n, 0.5, 1), CHANNELS, 1)))


def ring(
    coupling: float,
    nodes: int = NODES,
    stimulus_bins: int = 0,
    stimulus: float = 2.5,
    swing: float = 0.8,
) -> Generate:
    """Let each node's log rate follow its neighbour's (VAR(1)); the others stay independent.

    Args:
        coupling: share of the neighbour's last state in a node's, 0 to 1.
        nodes: how many are coupled.
        stimulus_bins: all coupled nodes are raised together every so many bins, 0 for never.
        stimulus: by so much, in deviations.
        swing: deviation of the log rates.
    """

    def generate(rng: np.random.Generator, n: int) -> Counts:
        x = np.zeros(NODES)
        out = np.zeros((n + SETTLE, NODES))
        for t in range(len(out)):
            noise = rng.standard_normal(NODES)
            x[:nodes] = coupling * np.roll(x[:nodes], 1) + np.sqrt(1 - coupling**2) * noise[:nodes]
            x[nodes:] = noise[nodes:]
            if stimulus_bins and t % stimulus_bins == 0:
                x[:nodes] += stimulus
            out[t] = x
        return _poisson(rng, np.exp(0.9 + swing * np.repeat(out[SETTLE:], 2, 1)))

    return generate


def kuramoto(coupling: float) -> Generate:
    """Give each node the phase of an oscillator of its own frequency, all coupled to all.

    A bin is four steps, so that a strong pull does not overshoot.
    """

    def generate(rng: np.random.Generator, n: int) -> Counts:
        speed = rng.normal(0.8, 0.2, NODES)
        angle = rng.uniform(0, 2 * np.pi, NODES)
        out = np.zeros((n + SETTLE, NODES))
        for t in range(len(out)):
            for _ in range(4):
                pull = np.sin(angle[None] - angle[:, None]).mean(1)
                angle = angle + (speed + coupling * pull) / 4 + 0.15 * rng.standard_normal(NODES)
            out[t] = np.sin(angle)
        return _poisson(rng, np.exp(1 + np.repeat(out[SETTLE:], 2, 1)))

    return generate


def branching(ratio: float) -> Generate:
    """Let each event cause `ratio` others in the next bin, in its node and the two beside it."""

    def generate(rng: np.random.Generator, n: int) -> Counts:
        out = np.zeros((n + SETTLE, CHANNELS))
        for t in range(1, len(out)):
            near = (out[t - 1] + np.roll(out[t - 1], 2) + np.roll(out[t - 1], -2)) / 3
            out[t] = rng.poisson(2 * (1 - ratio) + np.minimum(ratio * near, 1e3))
        return out[SETTLE:]

    return generate


def bursts(rng: np.random.Generator, n: int) -> Counts:
    """Add a burst in all channels to independent counts, in one bin of twenty."""
    rate = np.full((n, CHANNELS), 2.0)
    rate[rng.random(n) < 0.05] += 10
    return _poisson(rng, rate)


def switched(first: Generate, second: Generate, at: int) -> Generate:
    """Go over from one kind of activity to another at a bin."""
    return lambda rng, n: np.vstack([first(rng, at), second(rng, n - at)])
