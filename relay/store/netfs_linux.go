package store

import "golang.org/x/sys/unix"

// Magic numbers of statfs(2) of file systems whose locks or shared memory do not hold between machines.
var networkKinds = map[uint32]string{
	0x6969: "nfs", 0x517b: "smb", 0xff534d42: "cifs", 0xfe534d42: "smb2", 0x00c36400: "ceph", 0x5346414f: "afs",
	0x0bd00bd0: "lustre", 0x01161970: "gfs2", 0x7461636f: "ocfs2",
}

// networkFS names the network file system that dir is on, or nothing.
func networkFS(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return ""
	}
	return networkKinds[uint32(st.Type)]
}
