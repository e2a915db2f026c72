// Command broker is Headrace's embedded broker: franz-go's kfake cluster on one loopback port, with its data in a folder.
//
// It prints one line on stdout, "ready HOST:PORT", as soon as a client has been answered, and nothing else there.
// SIGTERM, SIGINT or, with -with-parent, the end of stdin stop it cleanly. A kill -9 loses nothing acknowledged.
//
// Exit status: 0 stopped as asked, 1 failed (stderr says why), 2 wrong flags, 3 port in use,
// 4 folder not writable, 5 folder in use by another broker.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	exitFailed         = 1
	exitUsage          = 2
	exitPortInUse      = 3
	exitFolder         = 4
	exitFolderInUse    = 5
	answerWithin       = 10 * time.Second
	lockWithin         = 2 * time.Second
	minSessionTimeout  = 500 * time.Millisecond
	neverMs            = "31536000000"
	segmentBytes       = "4194304"
	defaultUpkeepEvery = time.Minute
)

type options struct {
	port       int
	data       string
	partitions int
	withParent bool
	upkeep     time.Duration
}

// failure is an error together with the exit status that tells the parent its kind.
type failure struct {
	status int
	err    error
}

func (f failure) Error() string { return f.err.Error() }

func main() {
	var o options
	flag.IntVar(&o.port, "port", 9092, "port to listen on, on 127.0.0.1 (0: any free one)")
	flag.StringVar(&o.data, "data", "", "folder that holds topics, messages and groups (required)")
	flag.IntVar(&o.partitions, "partitions", 1, "partitions of a topic created without a number")
	flag.BoolVar(&o.withParent, "with-parent", false, "stop when stdin ends, as it does when the parent dies")
	flag.DurationVar(&o.upkeep, "upkeep", defaultUpkeepEvery, "how often retention and compaction are looked at")
	flag.Parse()
	if o.data == "" || o.partitions < 1 || o.upkeep <= 0 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(exitUsage)
	}
	if err := serve(o); err != nil {
		fmt.Fprintf(os.Stderr, "broker: %v\n", err)
		var f failure
		if errors.As(err, &f) {
			os.Exit(f.status)
		}
		os.Exit(exitFailed)
	}
}

func serve(o options) error {
	ctx, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer release()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.withParent {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}

	unlock, err := lockFolder(o.data)
	if err != nil {
		return err
	}
	defer unlock()
	saved := journal{root: o.data}
	if err := saved.restore(); err != nil {
		return folderFailure(err)
	}

	doors := make(chan struct{})
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.Ports(o.port),
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			listener, err := net.Listen(network, address)
			return gate{listener, doors}, err
		}),
		kfake.ClusterID("headrace-embedded"),
		kfake.AllowAutoTopicCreation(),
		kfake.DefaultNumPartitions(o.partitions),
		kfake.GroupMinSessionTimeout(minSessionTimeout),
		kfake.DataDir(saved.clusterDir()),
		kfake.WithLogger(kfake.BasicLogger(os.Stderr, kfake.LogLevelWarn)),
		// kfake's own cleaner is never due: upkeep.go says why, and does its work.
		kfake.BrokerConfigs(map[string]string{
			"log.cleaner.backoff.ms":     neverMs,
			"log.retention.ms":           "-1",
			"default.replication.factor": "1",
			// What retention takes leaves the disk a whole segment at a time. At kfake's 100 MB a partition would keep that.
			"log.segment.bytes": segmentBytes,
		}),
	)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return failure{exitPortInUse, err}
		}
		return folderFailure(err)
	}
	defer cluster.Close()

	address := cluster.ListenAddrs()[0]
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer client.Close()
	care := newUpkeep(cluster, client, saved)
	keepRoom(cluster, saved)
	close(doors)
	asked, done := context.WithTimeout(ctx, answerWithin)
	defer done()
	if err := client.Ping(asked); err != nil {
		if ctx.Err() != nil {
			return nil // told to stop before being ready
		}
		return fmt.Errorf("%s does not answer: %w", address, err)
	}
	go care.run(ctx, o.upkeep)
	fmt.Printf("ready %s\n", address)

	<-ctx.Done()
	release() // a second signal ends the process at once
	return nil
}

// gate is a listener that lets nobody in before its doors are open.
type gate struct {
	net.Listener
	doors <-chan struct{}
}

func (g gate) Accept() (net.Conn, error) {
	<-g.doors
	return g.Listener.Accept()
}

// lockFolder makes the folder and holds it against a second broker, which would tear the logs.
func lockFolder(folder string) (func(), error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, failure{exitFolder, err}
	}
	file, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, failure{exitFolder, err}
	}
	// The one before may have lost its parent just now and be saving: it is given the time to finish.
	for patience := time.Now().Add(lockWithin); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = file.Close()
			return nil, failure{exitFolder, err}
		}
		if time.Now().After(patience) {
			_ = file.Close()
			return nil, failure{exitFolderInUse, fmt.Errorf("%s is in use by another broker", folder)}
		}
	}
	return func() { _ = file.Close() }, nil
}

// folderFailure tells a folder that cannot be used from all other failures.
func folderFailure(err error) error {
	var onPath *fs.PathError
	var onLink *os.LinkError
	if errors.As(err, &onPath) || errors.As(err, &onLink) {
		return failure{exitFolder, err}
	}
	return err
}
