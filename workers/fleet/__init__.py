"""Detect and score workers on a Ray cluster: Ray places and restarts, Redis carries the data.

Ray's authentication is on unless somebody says otherwise; Ray reads that when it is imported.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")
