"""Publish a picture and an event, then follow scores, with nothing but redis-py."""

import sys
from zlib import crc32

from redis import Redis


def main(url: str, source: str, picture: str, count: int = 2) -> None:
    redis = Redis.from_url(url, protocol=2, socket_timeout=10)
    partitions = int(redis.hget("percipio:config", "partitions") or 0)
    if not partitions:
        sys.exit("no percipio deployment in this Redis")
    base = f"percipio:{{p{crc32(source.encode()) % partitions:03d}}}"
    scores = f"{base}:scores"
    newest = redis.xrevrange(scores, count=1)
    last = newest[0][0] if newest else b"0"

    with open(picture, "rb") as file:
        frame = redis.xadd(f"{base}:recordings", {"source": source, "image": file.read()})
    event = redis.xadd(f"{base}:events", {"source": source, "channel": "motion", "value": "0.8"})
    print("published", frame.decode(), event.decode(), flush=True)

    while count:
        for _, entries in redis.xread({scores: last}, block=2000) or []:
            for entry_id, fields in entries:
                last = entry_id
                if fields[b"source"].decode() == source and count:
                    level, phase = fields[b"level"].decode(), fields[b"phase"].decode()
                    print("score", fields[b"kind"].decode(), level, phase, flush=True)
                    count -= 1
    redis.close()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: publish_follow.py REDIS_URL SOURCE PICTURE")
    main(*sys.argv[1:])
