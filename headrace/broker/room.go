// A full disk: what cannot be kept is not taken, and its producer sends it again until there is room.
//
// kfake finds out when it writes. By then it has noted the batch's sequence, and would acknowledge a second attempt as a
// duplicate of what is in no file. So it is not asked: the answer is the retriable KAFKA_STORAGE_ERROR.
package main

import (
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// reserveBytes stay free: the offsets of groups and the ends of transactions still find room.
const reserveBytes = 512 << 10

type room struct {
	cluster *kfake.Cluster
	saved   journal
	full    bool // only kfake's loop looks at it
}

// keepRoom puts itself before produce requests, behind upkeep, which may make room.
func keepRoom(cluster *kfake.Cluster, saved journal) {
	r := &room{cluster: cluster, saved: saved}
	cluster.ControlKey(int16(kmsg.Produce), r.onProduce)
}

// onProduce runs in kfake's loop before a produce request is handled, and answers in its place if there is no room.
func (r *room) onProduce(request kmsg.Request) (kmsg.Response, error, bool) {
	asked := request.(*kmsg.ProduceRequest)
	free, err := r.saved.room()
	if err != nil {
		fmt.Fprintf(os.Stderr, "broker: how much room is left cannot be seen: %v\n", err)
		return nil, nil, false
	}
	r.look(free, asked)
	if !r.full || asked.Acks == 0 { // who asks for no answer waits for none
		return nil, nil, false
	}
	r.cluster.KeepControl()
	return refused(asked), nil, true
}

// look notes whether the disk is full, and says when it becomes so and when there is room again. There is room again
// when twice the reserve is free, so that large and small batches do not make it change with each.
func (r *room) look(free int64, asked *kmsg.ProduceRequest) {
	wanted := int64(reserveBytes)
	if r.full {
		wanted *= 2
	}
	for _, topic := range asked.Topics {
		for _, partition := range topic.Partitions {
			wanted += int64(len(partition.Records))
		}
	}
	before := r.full
	r.full = free < wanted
	switch {
	case r.full && !before:
		fmt.Fprintf(os.Stderr, "broker: there is no room left on the disk for %s: make room; until then producers wait\n", r.saved.root)
	case before && !r.full:
		fmt.Fprintln(os.Stderr, "broker: there is room on the disk again")
	}
}

// refused answers that nothing of the request could be kept, and that it may be sent again.
func refused(asked *kmsg.ProduceRequest) kmsg.Response {
	said := "There is no room left on the broker's disk."
	answer := asked.ResponseKind().(*kmsg.ProduceResponse)
	for _, topic := range asked.Topics {
		of := kmsg.NewProduceResponseTopic()
		of.Topic, of.TopicID = topic.Topic, topic.TopicID
		for _, partition := range topic.Partitions {
			part := kmsg.NewProduceResponseTopicPartition()
			part.Partition = partition.Partition
			part.ErrorCode = kerr.KafkaStorageError.Code
			part.ErrorMessage = &said
			of.Partitions = append(of.Partitions, part)
		}
		answer.Topics = append(answer.Topics, of)
	}
	return answer
}
