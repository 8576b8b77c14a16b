"""The HTTP API (CONTRACT 8): results from memory, live feeds, publishing, access.

Only `app`, `guard`, `problems` and the modules named `*_routes` know FastAPI; `server` knows
uvicorn, `encoding` knows orjson.
"""
