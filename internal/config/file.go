package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrInsecure is wrapped by the errors of ReadFile and Resolve for a file that other accounts could have changed, or a
// secret that they can read.
var ErrInsecure = errors.New("insecure file")

// ReadFile reads a configuration file of at most MaxBytes, after the checks that the package text lists.
func ReadFile(path string) ([]byte, error) { return readChecked(path, MaxBytes, false) }

// ReplaceFile puts data in the place of a file, whole or not at all, with mode 0600. It is not synced: for what may be lost with a
// crash, not for what others were promised.
func ReplaceFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

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
