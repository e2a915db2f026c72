// Retention, compaction and append time: what kfake leaves out or does in a way that a kill -9 can turn into loss.
//
// kfake's cleaner is switched off because, as of the version pinned in go.mod, it
//   - deletes a compacted partition's files before it writes the new ones,
//   - lets a record of an open transaction replace a committed one, which is lost if the transaction aborts,
//   - applies retention with each compaction, to compacted topics as well, and up to the last batch that is too old, with
//     all that came before it, however new,
//   - may so empty a partition, whose offsets then begin at 0 again after a restart,
//   - is not started again after a restart.
//
// So that a compaction asked of it deletes nothing by age, it is given the retention of topics as negative numbers, which
// mean none to it; DescribeConfigs shows them thus.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	unlimited = -1
	// Compaction rewrites everything, so it waits until the logs are twice what it left, and worth the while.
	compactFloorBytes = 1 << 20
	retentionMs       = "retention.ms"
	retentionBytes    = "retention.bytes"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type upkeep struct {
	cluster *kfake.Cluster
	client  *kgo.Client
	saved   journal

	due        atomic.Bool // compaction is to be looked at with the next produce request
	mu         sync.Mutex
	compacted  map[string]bool // the compacted topics known so far
	afterBytes int64           // what the last compaction left
}

// newUpkeep puts itself before the requests that it has a part in; no client may have been let in before.
func newUpkeep(cluster *kfake.Cluster, client *kgo.Client, saved journal) *upkeep {
	u := &upkeep{cluster: cluster, client: client, saved: saved, compacted: make(map[string]bool)}
	cluster.ControlKey(int16(kmsg.Produce), u.onProduce)
	for _, key := range []kmsg.Key{kmsg.CreateTopics, kmsg.AlterConfigs, kmsg.IncrementalAlterConfigs} {
		cluster.ControlKey(int16(key), onConfigs)
	}
	return u
}

// onConfigs turns the retention that a request sets into what kfake takes for none.
func onConfigs(request kmsg.Request) (kmsg.Response, error, bool) {
	switch r := request.(type) {
	case *kmsg.CreateTopicsRequest:
		for _, topic := range r.Topics {
			for i := range topic.Configs {
				hide(topic.Configs[i].Name, topic.Configs[i].Value)
			}
		}
	case *kmsg.AlterConfigsRequest:
		for _, resource := range r.Resources {
			for i := range resource.Configs {
				hide(resource.Configs[i].Name, resource.Configs[i].Value)
			}
		}
	case *kmsg.IncrementalAlterConfigsRequest:
		for _, resource := range r.Resources {
			for i := range resource.Configs {
				hide(resource.Configs[i].Name, resource.Configs[i].Value)
			}
		}
	}
	return nil, nil, false
}

func hide(name string, value *string) {
	if value == nil || name != retentionMs && name != retentionBytes {
		return
	}
	if limit, err := strconv.ParseInt(*value, 10, 64); err == nil && limit >= 0 {
		*value = strconv.FormatInt(-max(limit, 2), 10) // -1 stays free for "unlimited"
	}
}

// shown is the retention that hide has hidden, or unlimited.
func shown(info *kfake.TopicInfo, name string) int64 {
	limit, err := strconv.ParseInt(config(info, name), 10, 64)
	if err != nil || limit == unlimited {
		return unlimited
	}
	return -limit
}

// run looks after retention, and makes compaction due, until the context ends.
func (u *upkeep) run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := u.look(ctx); err != nil && ctx.Err() == nil {
				fmt.Fprintf(os.Stderr, "broker: upkeep: %v\n", err)
			}
		}
	}
}

func (u *upkeep) look(ctx context.Context) error {
	all := kmsg.NewPtrMetadataRequest()
	answer, err := all.RequestWith(ctx, u.client)
	if err != nil {
		return err
	}
	for _, topic := range answer.Topics {
		if topic.Topic == nil {
			continue
		}
		info := u.cluster.TopicInfo(*topic.Topic)
		if info == nil {
			continue // deleted meanwhile
		}
		compacts, deletes := policy(info)
		if compacts {
			u.know(info.Topic)
		}
		if deletes {
			if err := u.expire(ctx, info); err != nil {
				return fmt.Errorf("topic %s: %w", info.Topic, err)
			}
		}
	}
	u.due.Store(true)
	return nil
}

// onProduce runs in kfake's loop before a produce request is handled: while it runs nothing is written.
func (u *upkeep) onProduce(request kmsg.Request) (kmsg.Response, error, bool) {
	now := time.Now().UnixMilli()
	for _, topic := range request.(*kmsg.ProduceRequest).Topics {
		info := u.cluster.TopicInfo(topic.Topic)
		if info == nil {
			info = u.cluster.TopicIDInfo(topic.TopicID)
		}
		if info == nil {
			continue // kfake refuses it
		}
		if compacts, _ := policy(info); compacts {
			u.know(info.Topic)
		}
		if config(info, "message.timestamp.type") == "LogAppendTime" {
			for _, partition := range topic.Partitions {
				stamp(partition.Records, now)
			}
		}
	}
	if u.due.Load() {
		done, err := u.compact()
		if err != nil {
			fmt.Fprintf(os.Stderr, "broker: compaction: %v\n", err)
		}
		u.due.Store(!done && err == nil)
	}
	return nil, nil, false
}

// compact compacts all compacted topics if that pays, and says whether it is done with: with a transaction open in
// one of them it is not, and is to be tried again.
func (u *upkeep) compact() (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var parts []partition
	var bytes int64
	for topic := range u.compacted {
		for _, info := range u.cluster.PartitionInfos(topic) {
			if info.LastStableOffset < info.HighWatermark {
				return false, nil
			}
			bytes += info.NumBytes
			parts = append(parts, partition{topic, info.Partition})
		}
	}
	if bytes < 2*u.afterBytes+compactFloorBytes {
		return true, nil
	}
	room, err := u.saved.room()
	if err != nil {
		return true, err
	}
	if room < 2*bytes {
		return true, fmt.Errorf("put off: %d MB are free and twice the compacted topics' %d MB are wanted", room>>20, bytes>>20)
	}
	if err := u.saved.take(parts); err != nil {
		return true, err
	}
	u.cluster.Compact()
	if err := u.saved.drop(); err != nil {
		fmt.Fprintf(os.Stderr, "broker: compaction cannot be finished and will be undone: %v\n", err)
		os.Exit(exitFailed)
	}
	u.afterBytes = 0
	for topic := range u.compacted {
		for _, info := range u.cluster.PartitionInfos(topic) {
			u.afterBytes += info.NumBytes
		}
	}
	return true, nil
}

// expire deletes what is older than retention.ms, and what exceeds retention.bytes (estimated from the mean size of a
// record), but never a partition's last batch: the offsets after a restart follow from it.
func (u *upkeep) expire(ctx context.Context, info *kfake.TopicInfo) error {
	keepMs, keepBytes := shown(info, retentionMs), shown(info, retentionBytes)
	for _, part := range u.cluster.PartitionInfos(info.Topic) {
		to := part.LogStartOffset
		if keepMs != unlimited && part.HighWatermark > part.LogStartOffset {
			offset, err := u.firstSince(ctx, info.Topic, part.Partition, time.Now().UnixMilli()-keepMs)
			if err != nil {
				return err
			}
			if offset < 0 {
				offset = part.HighWatermark // all of it is old
			}
			to = max(to, offset)
		}
		if keepBytes != unlimited && part.NumBytes > keepBytes {
			excess := float64(part.NumBytes-keepBytes) / float64(part.NumBytes)
			to = max(to, part.LogStartOffset+int64(excess*float64(part.HighWatermark-part.LogStartOffset)))
		}
		to = min(to, part.HighWatermark-1, part.LastStableOffset)
		if to <= part.LogStartOffset {
			continue
		}
		if err := u.cluster.DeleteRecords(info.Topic, part.Partition, to); err != nil {
			return err
		}
	}
	return nil
}

// firstSince is the offset of the first record with a timestamp at or after the given one, or -1.
func (u *upkeep) firstSince(ctx context.Context, topic string, number int32, ms int64) (int64, error) {
	part := kmsg.NewListOffsetsRequestTopicPartition()
	part.Partition = number
	part.Timestamp = max(ms, 0)
	of := kmsg.NewListOffsetsRequestTopic()
	of.Topic = topic
	of.Partitions = append(of.Partitions, part)
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	request.Topics = append(request.Topics, of)
	answer, err := request.RequestWith(ctx, u.client)
	if err != nil {
		return 0, err
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 {
				return p.Offset, nil
			}
		}
	}
	return 0, nil // gone meanwhile: delete nothing
}

func (u *upkeep) know(topic string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.compacted[topic] = true
}

func config(info *kfake.TopicInfo, name string) string {
	if value := info.Configs[name]; value != nil {
		return *value
	}
	return ""
}

// policy says whether the topic is compacted, and whether its old records are deleted.
func policy(info *kfake.TopicInfo) (compacts, deletes bool) {
	text := config(info, "cleanup.policy")
	return strings.Contains(text, "compact"), text == "" || strings.Contains(text, "delete")
}

// stamp moves a batch's times so that its newest record bears the time given and the others keep their distance to it.
// The batch's own mark for append time is not set: kfake would then put a time in after the checksum is made, and drop
// the batch as corrupt on the next start. A batch that is not sound is left for kfake to refuse.
func stamp(batch []byte, nowMs int64) {
	const magicAt, sumAt, summedAt, firstAt, newestAt, headerBytes = 16, 17, 21, 27, 35, 61
	big := binary.BigEndian
	if len(batch) < headerBytes || batch[magicAt] != 2 ||
		big.Uint32(batch[sumAt:]) != crc32.Checksum(batch[summedAt:], castagnoli) {
		return
	}
	first, newest := int64(big.Uint64(batch[firstAt:])), int64(big.Uint64(batch[newestAt:]))
	big.PutUint64(batch[firstAt:], uint64(first+nowMs-newest))
	big.PutUint64(batch[newestAt:], uint64(nowMs))
	big.PutUint32(batch[sumAt:], crc32.Checksum(batch[summedAt:], castagnoli))
}
