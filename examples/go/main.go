// Publish a picture and an event, then follow scores, with nothing but go-redis.
package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: go run . REDIS_URL SOURCE PICTURE")
	}
	ctx, url, source := context.Background(), os.Args[1], os.Args[2]
	client := redis.NewClient(must(redis.ParseURL(url)))
	defer client.Close()
	partitions := must(client.HGet(ctx, "percipio:config", "partitions").Int())
	number := crc32.ChecksumIEEE([]byte(source)) % uint32(partitions)
	base := fmt.Sprintf("percipio:{p%03d}", number)
	last := "0"
	for _, entry := range must(client.XRevRangeN(ctx, base+":scores", "+", "-", 1).Result()) {
		last = entry.ID
	}

	image := must(os.ReadFile(os.Args[3]))
	add := func(stream string, fields ...any) string {
		values := append([]any{"source", source}, fields...)
		return must(client.XAdd(ctx, &redis.XAddArgs{Stream: base + stream, Values: values}).Result())
	}
	frame := add(":recordings", "image", image)
	fmt.Println("published", frame, add(":events", "channel", "motion", "value", "0.8"))

	for left := 2; left > 0; {
		read := &redis.XReadArgs{Streams: []string{base + ":scores", last}, Block: 2 * time.Second}
		found, err := client.XRead(ctx, read).Result()
		if errors.Is(err, redis.Nil) {
			continue // nothing came within the two seconds
		}
		for _, entry := range must(found, err)[0].Messages {
			last = entry.ID
			if fields := entry.Values; fields["source"] == source && left > 0 {
				fmt.Println("score", fields["kind"], fields["level"], fields["phase"])
				left--
			}
		}
	}
}
