// Publish a picture and an event, then follow scores, with nothing but node-redis.
import { readFile } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { createClient } from "redis";

const [url, source, picture] = process.argv.slice(2);
if (!picture) {
  console.error("usage: publish_follow.mjs REDIS_URL SOURCE PICTURE");
  process.exit(1);
}
const options = url.startsWith("unix://")
  ? { socket: { path: url.slice("unix://".length) } }
  : { url };
const redis = await createClient(options).connect();
const partitions = Number(await redis.hGet("percipio:config", "partitions"));
if (!partitions) throw new Error("no percipio deployment in this Redis");
const number = String(crc32(source) % partitions).padStart(3, "0");
const base = `percipio:{p${number}}`;
const [newest] = await redis.xRevRange(`${base}:scores`, "+", "-", { COUNT: 1 });
let last = newest?.id ?? "0";

const image = await readFile(picture);
const frame = await redis.xAdd(`${base}:recordings`, "*", { source, image });
const values = { source, channel: "motion", value: "0.8" };
const event = await redis.xAdd(`${base}:events`, "*", values);
console.log("published", frame, event);

for (let left = 2; left > 0; ) {
  const stream = { key: `${base}:scores`, id: last };
  const found = await redis.xRead(stream, { BLOCK: 2000, COUNT: 100 });
  for (const { id, message } of found?.[0].messages ?? []) {
    last = id;
    if (message.source !== source || left === 0) continue;
    console.log("score", message.kind, message.level, message.phase);
    left -= 1;
  }
}
await redis.close();
