package folder

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"time"
)

// young is the age below which a temporary file without a lock is left alone: its writer may be about to take the lock.
const young = time.Minute

// partName is the name of an upload's temporary file. It depends on the path too, so that one id used for two files is
// two uploads.
func partName(upload, path string) string {
	sum := sha256.Sum256([]byte(upload + "\x00" + path))
	return reservedPrefix + hex.EncodeToString(sum[:16]) + ".part"
}

// uploaded tells how many bytes an upload holds; 0 when there is none.
func (p place) uploaded(upload string) (int64, error) {
	st, err := p.dir.Lstat(partName(upload, p.path()))
	if absent(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() {
		return 0, errLink
	}
	return st.Size(), nil
}

// written tells the sweeper that the folder is in use.
func (f *Folder) written() {
	select {
	case f.sweep <- struct{}{}:
	default:
	}
}

// sweeper removes temporary files that nobody writes any more: at the start, and at most hourly while things are written.
func (f *Folder) sweeper() {
	for {
		wait := time.Hour
		if root, err := f.open(); err == nil {
			if f.sweepFolder(root, 0, time.Now()) {
				wait = young
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-f.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if wait == time.Hour {
			select {
			case <-f.ctx.Done():
				return
			case <-f.sweep:
			}
		}
	}
}

// sweepFolder goes through dir and below, a batch at a time. It reports whether a file was too young to tell.
func (f *Folder) sweepFolder(dir *os.Root, depth int, now time.Time) (again bool) {
	d, err := dir.Open(".")
	if err != nil {
		return false
	}
	defer d.Close()
	for f.ctx.Err() == nil {
		batch, err := d.ReadDir(1024)
		for _, e := range batch {
			switch {
			case reserved(e.Name()):
				again = f.sweepFile(dir, e.Name(), now) || again
			case e.IsDir() && depth < maxDepth:
				if sub, err := step(dir, e.Name()); err == nil {
					again = f.sweepFolder(sub, depth+1, now) || again
					_ = sub.Close()
				}
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				f.log.Debug("a folder could not be swept", "error", err)
			}
			break
		}
	}
	return again
}

// sweepFile removes one temporary file if it is left over. It reports whether the file was too young to tell.
func (f *Folder) sweepFile(dir *os.Root, name string, now time.Time) (again bool) {
	part := strings.HasSuffix(name, ".part")
	if !part && !strings.HasSuffix(name, ".tmp") {
		return false
	}
	file, st, err := place{dir: dir, name: name}.openFile(os.O_RDWR)
	if err != nil {
		return false
	}
	defer file.Close()
	age := now.Sub(st.ModTime())
	ok, err := tryLock(file)
	switch {
	case err != nil: // no locks here: age alone tells
		if age < f.cfg.UploadKeep {
			return false
		}
	case !ok:
		return false
	case part && age < f.cfg.UploadKeep:
		return false
	case age < young:
		return true
	}
	if isWindows {
		_ = file.Close()
	}
	if err := dir.Remove(name); err == nil {
		f.log.Info("removed what a cut upload left behind", "age", age.Round(time.Second))
	}
	return false
}
