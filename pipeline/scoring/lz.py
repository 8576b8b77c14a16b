"""Differentiation: Lempel-Ziv 1976 complexity of the binarised window, over a shuffled string's."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pipeline.scoring.parameters import CHANNELS, WINDOW

WORD = 32
"""Symbols compared at once."""


@njit(cache=True, nogil=True)
def pack(bits, n, words):  # type: ignore[no-untyped-def]
    """Fill words[p] with the 32 symbols from p on, first symbol lowest, zeros behind the end."""
    word = np.uint32(0)
    for p in range(n - 1, -1, -1):
        word = np.uint32((np.uint32(word) << np.uint32(1)) | np.uint32(bits[p]))
        words[p] = word


@njit(cache=True, nogil=True)
def longest(words, i, n):  # type: ignore[no-untyped-def]
    """Give the length of the longest string from i that also starts before i, at most n - i."""
    here = words[i]
    best = np.uint32(0)
    for j in range(i):
        x = np.uint32(words[j] ^ here)
        zeros = np.uint32(np.uint32(~x) & np.uint32(x - np.uint32(1)))  # ones below the first 1
        best = max(best, zeros)
    if best != np.uint32(0xFFFFFFFF):
        length = 0
        while best:
            best = np.uint32(best >> np.uint32(1))
            length += 1
        return min(length, n - i)
    length = 0
    for j in range(i):
        if words[j] != here:
            continue
        matched = WORD
        while i + matched < n:
            x = words[j + matched] ^ words[i + matched]
            if x:
                while not x & 1:
                    x >>= 1
                    matched += 1
                break
            matched += WORD
        length = max(length, matched)
        if length >= n - i:
            break
    return min(length, n - i)


@njit(cache=True, nogil=True)
def lz76(bits, n, words):  # type: ignore[no-untyped-def]
    """Count the phrases of the exhaustive history of bits[:n] (Lempel & Ziv 1976).

    Args:
        bits: uint8, symbols 0 and 1.
        n: how many of them.
        words: uint32 scratch, at least n long.
    """
    pack(bits, n, words)
    phrases = 0
    i = np.int64(0)  # a literal would be compiled for itself
    while i < n:
        i += longest(words, i, n) + 1
        phrases += 1
    return phrases


@njit(cache=True, nogil=True)
def shuffled(table, n, ones):  # type: ignore[no-untyped-def]
    """Look up the mean complexity of shuffled strings of n symbols with so many ones."""
    share = min(ones, n - ones) / n
    across = (table.shape[1] - 1) * math.sqrt(2.0 * share)
    down = n * (table.shape[0] - 1) / (CHANNELS * WINDOW)
    j = min(int(across), table.shape[1] - 2)
    i = min(int(down), table.shape[0] - 2)
    u = across - j
    v = down - i
    low = table[i, j] * (1 - u) + table[i, j + 1] * u
    high = table[i + 1, j] * (1 - u) + table[i + 1, j + 1] * u
    return low * (1 - v) + high * v


@njit(cache=True, nogil=True)
def differentiation(y, rows, active, mean, table, bits, words):  # type: ignore[no-untyped-def]
    """Give D of a window: LZ76 of the channels above their mean, time-major, over its table value.

    Args:
        y: float64 (64, 16), the window, oldest row first.
        rows: how many rows are valid.
        active: uint16 mask of the channels that vary in the window.
        mean: float64 (16,), each channel's mean over the window.
        table: float64, from `tables`.
        bits: uint8 (1024,) scratch.
        words: uint32 (1024,) scratch.
    """
    n = np.int64(0)
    ones = np.int64(0)
    for t in range(rows):
        for c in range(CHANNELS):
            if active >> c & 1:
                bit = 1 if y[t, c] > mean[c] else 0
                bits[n] = bit
                ones += bit
                n += 1
    if n == 0 or ones == 0:
        return 0.0
    return min(1.0, lz76(bits, n, words) / shuffled(table, n, ones))
