"""Has the kernel ready before the first test: a compilation takes longer than a test may."""

from __future__ import annotations

from pipeline.scoring.engine import warm_up

warm_up()
