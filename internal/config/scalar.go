package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. In YAML: a whole number, alone (bytes) or with a unit: kB, MB, GB, TB are powers of 1000,
// KiB, MiB, GiB, TiB powers of 1024. "2GB" is 2,000,000,000.
type Size int64

var sizeUnits = map[string]int64{
	"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	t := string(text)
	i := 0
	for i < len(t) && t[i] >= '0' && t[i] <= '9' {
		i++
	}
	n, ok := wholeNumber(t[:i])
	unit, known := sizeUnits[strings.TrimPrefix(t[i:], " ")]
	switch {
	case !ok || !known:
		return fmt.Errorf(`%q is not a size; write a whole number with B, KB, MB, GB, TB (1000) or KiB, MiB, GiB, TiB (1024), such as "2GB"`, clip(t))
	case n > math.MaxInt64/unit:
		return fmt.Errorf("%q is more than this program can count", clip(t))
	}
	*s = Size(n * unit)
	return nil
}

// String prints the size exactly, in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range []string{"TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "KB"} {
		if f := sizeUnits[u]; s != 0 && int64(s)%f == 0 {
			return strconv.FormatInt(int64(s)/f, 10) + u
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Duration is a time span. In YAML: numbers with units ms, s, m, h, such as "30s" or "1h30m". Never negative.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	t := string(text)
	v, err := time.ParseDuration(t)
	if err != nil || v < 0 || t == "" || t[0] == '+' || t[0] == '-' {
		hint := ""
		if _, ok := wholeNumber(t); ok {
			hint = fmt.Sprintf("; did you mean %q?", t+"s")
		}
		return fmt.Errorf(`%q is not a time span; write a number with ms, s, m or h, such as "30s"%s`, clip(t), hint)
	}
	*d = Duration(v)
	return nil
}

// String prints the span as Go does.
func (d Duration) String() string { return time.Duration(d).String() }
