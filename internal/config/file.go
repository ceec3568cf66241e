package config

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
)

// ErrInsecure is wrapped by the errors of ReadFile and Resolve for a file that other accounts could have changed, or a
// secret that they can read.
var ErrInsecure = errors.New("insecure file")

// ReadFile reads a configuration file of at most MaxBytes, after the checks that the package text lists.
func ReadFile(path string) ([]byte, error) { return readChecked(path, MaxBytes, false) }

// readChecked checks the file that it has open, so that nobody can swap it in between.
func readChecked(path string, limit int, isSecret bool) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if err := checkFile(f, info, isSecret); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInsecure, path, err)
	}
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInsecure, filepath.Dir(path), err)
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, nil
}
