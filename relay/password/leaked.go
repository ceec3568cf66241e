package password

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // the format of the lists
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	fullHash  = 2 * sha1.Size // hexadecimal digits
	minPrefix = 10            // shorter prefixes would refuse too many by chance
	maxLine   = 64
)

// Leaked is a file of SHA-1 hashes of leaked passwords, as haveibeenpwned.com gives it: a hash in hexadecimal on each line, in
// ascending order, with or without a count behind a colon. Instead of whole hashes the lines may hold their first digits, the
// same number on each. It is looked into by halving, never read whole. Safe for concurrent use. Close it.
type Leaked struct {
	f    *os.File
	size int64
	n    int // hexadecimal digits of a line
}

// OpenLeaked opens a list and looks whether it is one.
func OpenLeaked(file string) (*Leaked, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open the list of leaked passwords: %w", err)
	}
	l := &Leaked{f: f}
	bad := func(err error) (*Leaked, error) {
		return nil, errors.Join(fmt.Errorf("%s is no list of leaked passwords: %w", file, err), f.Close())
	}
	info, err := f.Stat()
	if err != nil {
		return bad(err)
	}
	l.size = info.Size()
	first, _, err := l.line(0)
	if err != nil {
		return bad(err)
	}
	l.n = len(first)
	last, _, err := l.line(max(0, l.size-maxLine/2))
	if err != nil {
		return bad(err)
	}
	if bytes.Compare(first, last) > 0 {
		return bad(errors.New("it is not in ascending order"))
	}
	return l, nil
}

// Has reports whether a password is in the list. A nil list holds none.
func (l *Leaked) Has(text string) (bool, error) {
	if l == nil {
		return false, nil
	}
	sum := sha1.Sum([]byte(text))
	want := bytes.ToUpper([]byte(hex.EncodeToString(sum[:])))[:l.n]
	// The first line that is not below want begins in [lo, hi).
	lo, hi := int64(0), l.size
	for lo < hi {
		mid := lo + (hi-lo)/2
		line, next, err := l.line(mid)
		if err != nil {
			return false, err
		}
		switch bytes.Compare(line, want) {
		case 0:
			return true, nil
		case -1:
			lo = max(next, mid+1)
		default:
			hi = mid
		}
	}
	return false, nil
}

// line is the hash on the line that at stands in, and where the next one begins.
func (l *Leaked) line(at int64) (hash []byte, next int64, err error) {
	var buf [2 * maxLine]byte
	from := max(0, at-maxLine)
	n, err := l.f.ReadAt(buf[:min(int64(len(buf)), l.size-from)], from)
	if err != nil && !(errors.Is(err, io.EOF) && n > 0) {
		return nil, 0, fmt.Errorf("read the list of leaked passwords: %w", err)
	}
	b := buf[:n]
	i := int(at - from)
	begin := bytes.LastIndexByte(b[:min(i, len(b))], '\n') + 1
	if begin == 0 && from > 0 {
		return nil, 0, errors.New("a line is too long")
	}
	end := bytes.IndexByte(b[begin:], '\n')
	if end < 0 {
		end = len(b) - begin
		if from+int64(n) < l.size {
			return nil, 0, errors.New("a line is too long")
		}
	}
	text, _, _ := bytes.Cut(bytes.TrimSuffix(b[begin:begin+end], []byte("\r")), []byte(":"))
	hash = bytes.ToUpper(text)
	if len(hash) < minPrefix || len(hash) > fullHash || l.n != 0 && len(hash) != l.n || len(bytes.Trim(hash, "0123456789ABCDEF")) > 0 {
		return nil, 0, fmt.Errorf("the line at byte %d holds no hash, or one of another length", from+int64(begin))
	}
	return hash, from + int64(begin+end) + 1, nil
}

// Close closes the file. A nil list has none.
func (l *Leaked) Close() error {
	if l == nil {
		return nil
	}
	return l.f.Close()
}
