package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	epoch := flag.Int64("time", 0, "Unix seconds that every file gets")
	out := flag.String("out", "", "archive to write: .tar.gz or .zip")
	flag.Parse()
	if *out == "" || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(64)
	}
	if err := pack(*out, flag.Arg(0), time.Unix(*epoch, 0).UTC()); err != nil {
		fmt.Fprintln(os.Stderr, "archive:", err)
		os.Exit(1)
	}
}

// pack writes the archive under a temporary name and renames it when it is whole.
func pack(out, dir string, at time.Time) (err error) {
	f, err := os.Create(out + ".part")
	if err != nil {
		return fmt.Errorf("create the archive: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(out+".part", out)
		} else {
			_ = os.Remove(out + ".part")
		}
	}()
	switch {
	case strings.HasSuffix(out, ".zip"):
		return packZip(f, dir, at)
	case strings.HasSuffix(out, ".tar.gz"):
		return packTar(f, dir, at)
	}
	return fmt.Errorf("%s is neither .tar.gz nor .zip", out)
}

// walk calls add for each file, in byte order of its name in the archive.
func walk(dir string, add func(name string, mode fs.FileMode, size int64, content io.Reader) error) error {
	top := filepath.Base(dir)
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error { // in lexical order
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", p)
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if info.Mode()&0o111 != 0 || strings.HasSuffix(p, ".exe") {
			mode = 0o755
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		return add(path.Join(top, filepath.ToSlash(rel)), mode, info.Size(), f)
	})
}

func packTar(w io.Writer, dir string, at time.Time) error {
	gz, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(gz)
	err = walk(dir, func(name string, mode fs.FileMode, size int64, content io.Reader) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: size, ModTime: at, Format: tar.FormatPAX}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(tw, content)
		return err
	})
	return errors.Join(err, tw.Close(), gz.Close())
}

func packZip(w io.Writer, dir string, at time.Time) error {
	zw := zip.NewWriter(w)
	err := walk(dir, func(name string, mode fs.FileMode, _ int64, content io.Reader) error {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: at}
		h.SetMode(mode)
		f, err := zw.CreateHeader(h)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return err
	})
	return errors.Join(err, zw.Close())
}
