package certificate

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"

	"github.com/fairleadhq/fairlead/relay/directory"
)

// storage keeps accounts, certificates and keys sealed in the relay's state. An installation has one relay: locks are its own.
type storage struct {
	dir *directory.Directory

	mu    sync.Mutex // guards locks
	locks map[string]chan struct{}
}

var _ certmagic.Storage = (*storage)(nil)

func (s *storage) Lock(ctx context.Context, name string) error {
	for {
		s.mu.Lock()
		held := s.locks[name]
		if held == nil {
			s.locks[name] = make(chan struct{})
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *storage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.locks[name]
	if held == nil {
		return fmt.Errorf("unlock %s: nobody holds it", name)
	}
	delete(s.locks, name)
	close(held)
	return nil
}

func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	return s.dir.PutACMEItem(ctx, key, value)
}

func (s *storage) Load(ctx context.Context, key string) ([]byte, error) {
	i, err := s.dir.ACMEItem(ctx, key)
	return i.Value, err
}

// under finds what is kept below a path, or at it.
func (s *storage) under(ctx context.Context, path string) (out []directory.ACMEItem, _ error) {
	all, err := s.dir.ACMEItems(ctx)
	for _, i := range all {
		if path == "" || i.Key == path || strings.HasPrefix(i.Key, strings.TrimSuffix(path, "/")+"/") {
			out = append(out, i)
		}
	}
	return out, err
}

func (s *storage) Delete(ctx context.Context, key string) error {
	items, err := s.under(ctx, key)
	if err != nil {
		return err
	}
	for _, i := range items {
		if err := s.dir.DeleteACMEItem(ctx, i.Key); err != nil {
			return err
		}
	}
	return nil
}

func (s *storage) Exists(ctx context.Context, key string) bool {
	items, err := s.under(ctx, key)
	return err == nil && len(items) > 0
}

func (s *storage) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	items, err := s.under(ctx, path)
	if err != nil {
		return nil, err
	}
	var out []string
	seen := map[string]bool{}
	head := strings.TrimSuffix(path, "/")
	if head != "" {
		head += "/"
	}
	for _, i := range items {
		rest, below := strings.CutPrefix(i.Key, head)
		if !below || rest == "" {
			continue
		}
		parts := strings.Split(rest, "/")
		if !recursive {
			parts = parts[:1]
		}
		for n := range parts {
			if k := head + strings.Join(parts[:n+1], "/"); !seen[k] {
				seen[k] = true
				out = append(out, k)
			}
		}
	}
	if len(out) == 0 {
		return nil, fs.ErrNotExist
	}
	return out, nil
}

func (s *storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	items, err := s.under(ctx, key)
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	for _, i := range items {
		if i.Key == key {
			return certmagic.KeyInfo{Key: key, Modified: i.Modified, Size: int64(len(i.Value)), IsTerminal: true}, nil
		}
	}
	if len(items) == 0 {
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	return certmagic.KeyInfo{Key: key}, nil
}
