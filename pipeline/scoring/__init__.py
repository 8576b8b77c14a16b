"""The consciousness score: pure, compiled by numba, proven against independent references.

numba decides by the date of a function's own file whether its cache is fresh, although the code of
the other files is compiled into it. So the cache lives in a folder named after all of them.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import blake2s
from pathlib import Path

from numba import config


def _cache_folder() -> Path:
    here = Path(__file__).parent
    digest = blake2s(digest_size=6)
    for path in sorted(here.glob("*.py")):
        digest.update(path.read_bytes())
    chosen = getattr(config, "CACHE_DIR", "")  # NUMBA_CACHE_DIR
    return Path(chosen or here / "__pycache__") / f"kernels-{digest.hexdigest()}"


_folder = _cache_folder()
with suppress(OSError):  # a read-only package: numba finds a place below the home folder
    _folder.mkdir(parents=True, exist_ok=True)
    config.CACHE_DIR = str(_folder)  # type: ignore[attr-defined]
