// Package folder serves one folder of the site: list, stat, read, write, delete, move and mkdir below a base.
//
// It promises:
//   - Every path is opened below the base through os.Root, one component at a time, and no symbolic link, junction or
//     mount alias in a path is ever followed, not even one that leads to a place inside the base: the site's globs decide
//     on names, and a link would let one name stand for another.
//   - Only regular files and folders exist for it. Devices, pipes, sockets and links are not listed, not opened.
//   - A write becomes visible whole or not at all: the body streams to a temporary file in the same folder, which takes
//     the name only when all of it is on disk. A cut upload leaves nothing visible.
//   - Memory stays flat whatever the size of a file or of a folder.
//   - A disk is not filled: a reserve stays free, and what would eat into it ends with code quota.
//
// It never changes modes or owners of what exists, never follows links, never deletes below a folder, and never shows the
// temporary files that it keeps (names that begin with ".fairlead-").
//
// What os.Root cannot see is a hard link to a file outside the base. Config.Hardlinks refuses files with more than one
// link: for changes by default, for reads too if the site says so.
package folder
