"""Large blocks that are freed go back to the system, whatever was freed before."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

MAPPED = """
import ctypes, sys
from workers.heap import give_back_large_blocks

NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES.split()]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Info
if sys.argv[1] == "pinned":
    assert give_back_large_blocks()
for _ in range(3):
    bytes(16 << 20)
before = library.mallinfo2().hblkhd
kept = bytes(4 << 20)
print(library.mallinfo2().hblkhd - before >= len(kept))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="another C library")
@pytest.mark.parametrize(("how", "is_mapped"), [("pinned", "True"), ("as it is", "False")])
def test_a_large_block_lies_apart(how: str, is_mapped: str) -> None:
    command = [sys.executable, "-c", MAPPED, how]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == is_mapped
