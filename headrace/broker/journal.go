// The safety net under compaction: the old files of the compacted partitions, kept by hard links until the new ones are written.
//
// kfake deletes a partition's files before it writes the compacted ones. If the process dies in between, the next start
// finds the journal and puts the old files back: the log as it was before compaction.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
)

type partition struct {
	topic  string
	number int32
}

// folder is the name that kfake gives the partition's folder.
func (p partition) folder() string { return fmt.Sprintf("%s-%d", url.PathEscape(p.topic), p.number) }

// journal lives in three folders beside the cluster's: a rename from one to the next makes each step whole or not at all.
type journal struct{ root string }

func (j journal) clusterDir() string { return filepath.Join(j.root, "cluster") }
func (j journal) parts() string      { return filepath.Join(j.clusterDir(), "partitions") }
func (j journal) made() string       { return filepath.Join(j.root, "compacting.new") }
func (j journal) valid() string      { return filepath.Join(j.root, "compacting") }
func (j journal) spent() string      { return filepath.Join(j.root, "compacting.old") }

// take keeps the files of these partitions.
func (j journal) take(parts []partition) error {
	if err := errors.Join(os.RemoveAll(j.made()), os.RemoveAll(j.spent())); err != nil {
		return err
	}
	if err := os.MkdirAll(j.made(), 0o755); err != nil {
		return err
	}
	for _, part := range parts {
		from := filepath.Join(j.parts(), part.folder())
		if err := linkLogs(from, filepath.Join(j.made(), part.folder())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Rename(j.made(), j.valid())
}

// drop lets go of what take has kept. After an error the old files would come back with the next start, so nothing may
// be written any more.
func (j journal) drop() error {
	if err := os.Rename(j.valid(), j.spent()); err != nil {
		return err
	}
	_ = os.RemoveAll(j.spent()) // what stays is only room on the disk, until the next take or start
	return nil
}

// room is how many bytes are free where the logs are.
func (j journal) room() (int64, error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(j.root, &disk); err != nil {
		return 0, err
	}
	return int64(disk.Bavail) * int64(disk.Bsize), nil
}

// restore puts back what an unfinished compaction has left; it may itself be cut short and run again.
func (j journal) restore() error {
	if err := errors.Join(os.RemoveAll(j.made()), os.RemoveAll(j.spent())); err != nil {
		return err
	}
	parts, err := os.ReadDir(j.valid())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, part := range parts {
		to := filepath.Join(j.parts(), part.Name())
		files, err := logs(to)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, file := range files {
			if err := os.Remove(filepath.Join(to, file)); err != nil {
				return err
			}
		}
		if err := linkLogs(filepath.Join(j.valid(), part.Name()), to); err != nil {
			return err
		}
	}
	return j.drop()
}

// logs are the names of the segment and index files in a partition's folder.
func logs(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if ext := filepath.Ext(entry.Name()); ext == ".dat" || ext == ".idx" {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// linkLogs gives a partition's files a second name in another folder.
func linkLogs(from, to string) error {
	names, err := logs(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Link(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}
