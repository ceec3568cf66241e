//go:build !windows

package mtls

import (
	"fmt"
	"os"
)

func checkMode(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("not a regular file")
	}
	if m := st.Mode().Perm(); m&0o077 != 0 {
		return fmt.Errorf("mode %04o lets others at the private key; run: chmod 600 %s", m, f.Name())
	}
	return nil
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
