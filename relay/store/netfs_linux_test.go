package store

import "testing"

func TestZ20NetworkFileSystemsAreKnown(t *testing.T) {
	for magic, want := range map[uint32]string{0x6969: "nfs", 0xff534d42: "cifs", 0xfe534d42: "smb2", 0xef53: "", 0x01021994: ""} {
		if got := networkKinds[magic]; got != want {
			t.Errorf("%#x is %q, want %q", magic, got, want)
		}
	}
	if kind := networkFS(t.TempDir()); kind != "" {
		t.Errorf("the temporary folder is on %s", kind)
	}
}
