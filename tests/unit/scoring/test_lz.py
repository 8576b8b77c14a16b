"""Lempel-Ziv 1976 against its definition, antropy, neurokit2 and its published strings."""

from __future__ import annotations

from functools import lru_cache

import antropy
import numpy as np
import pytest

from pipeline.scoring.lz import differentiation, lz76, shuffled
from pipeline.scoring.scratch import load_tables


def count(text: str | np.ndarray) -> int:
    bits = np.array([int(c) for c in text], np.uint8)
    return int(lz76(bits, len(bits), np.zeros(max(len(bits), 1), np.uint32)))


def by_definition(text: str) -> int:
    """Count phrases: each is the shortest continuation that has not occurred before."""
    phrases = at = 0
    while at < len(text):
        length = 1
        while at + length <= len(text) and text[at : at + length] in text[: at + length - 1]:
            length += 1
        at += length
        phrases += 1
    return phrases


def strings(number: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    out = []
    for k in range(number):
        n = int(rng.integers(1, 5 if k % 10 == 0 else 200))
        p = rng.choice([0.02, 0.5, 0.98, rng.random()])
        text = "".join("1" if x < p else "0" for x in rng.random(n))
        if k % 4 == 0:
            text = (text[: int(rng.integers(1, 20))] * n)[:n]
        out.append(text)
    return out


@pytest.mark.parametrize(
    ("text", "phrases"),
    [("0001101001000101", 6), ("01011010001101110010", 7), ("0110" * 8, 4), ("1" * 16, 2)],
)
def test_published_strings(text: str, phrases: int) -> None:
    """The strings of the literature have the counts printed there."""
    assert count(text) == phrases


@lru_cache
def many() -> tuple[str, ...]:
    """Give over 10,000 different strings: random and periodic ones, rare symbols, all the short."""
    short = [f"{k:0{n}b}" for n in range(1, 5) for k in range(2**n)]
    return tuple(dict.fromkeys(short + strings(14_000, 1)))


def test_definition_and_antropy() -> None:
    """The scan counts what the definition and antropy count, for over 10,000 strings."""
    assert len(many()) > 10_000
    for text in many():
        assert count(text) == by_definition(text) == antropy.lziv_complexity(text), text


def test_neurokit2() -> None:
    """neurokit2 counts the same for all of them that have two symbols, which it needs."""
    import neurokit2  # takes seconds, which only this test should

    for text in many():
        if len(text) > 1:
            bits = np.array([int(c) for c in text])
            _, info = neurokit2.complexity_lempelziv(bits, symbolize=None)
            assert count(text) == info["Complexity_Kolmogorov"], text


def test_matches_longer_than_a_word() -> None:
    """Repeats of 32 symbols and more are followed to their end."""
    rng = np.random.default_rng(4)
    for period in (31, 32, 33, 40, 64, 100):
        block = "".join(rng.choice(["0", "1"], period))
        text = block * 3 + "1" + block[1:] + block[::-1] * 2
        assert count(text) == by_definition(text)


def test_complement() -> None:
    """Exchanging the symbols changes nothing."""
    for text in strings(200, 5):
        assert count(text) == count(text.translate(str.maketrans("01", "10")))


def test_random_window_is_fully_differentiated() -> None:
    """D of white noise is 1 to a few hundredths, D of copies of one channel is low."""
    rng = np.random.default_rng(6)
    table = load_tables()[0]["shuffled"]
    bits, words = np.zeros(1024, np.uint8), np.zeros(1024, np.uint32)

    noise = rng.standard_normal((64, 16))
    copies = np.repeat(rng.standard_normal((64, 1)), 16, 1)
    high, low = (
        differentiation(y, 64, 0xFFFF, y.mean(0), table, bits, words) for y in (noise, copies)
    )

    assert high > 0.93
    assert low < 0.25


def test_table_between_its_points() -> None:
    """The interpolated normaliser is within 3 % of freshly shuffled strings."""
    rng = np.random.default_rng(7)
    table = load_tables()[0]["shuffled"]
    for n, ones in ((1000, 333), (640, 40), (200, 100), (1024, 700)):
        bits = np.zeros(n, np.uint8)
        bits[:ones] = 1
        words = np.zeros(n, np.uint32)
        mean = np.mean([lz76(rng.permutation(bits), n, words) for _ in range(200)])
        assert shuffled(table, n, ones) == pytest.approx(mean, rel=0.03)
