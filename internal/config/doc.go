// Package config reads YAML files that decide over security, strictly, and tells when they change.
//
// It promises:
//   - Decode reports every fault it finds, each with file, line, column, the YAML path and, for an unknown key, the
//     nearest valid one. Nothing is guessed, converted or ignored: an unknown or doubled key, an anchor, an alias, a tag,
//     a second document, a null and a value of the wrong type are faults.
//   - ReadFile and SecretRef refuse files that other accounts of the host could have written (or, for secrets, can read).
//   - ReplaceFile changes a file whole or not at all.
//   - A Watcher hands on a new file only when it has stopped changing, however it was saved, and finds it even where
//     the operating system sends no events.
//
// It never expands variables in YAML text and takes no setting from the environment; a secret may come from there, where
// the file names the variable.
//
// # What ReadFile and SecretRef check
//
// On Unix: a regular file, owned by root or by the process's own user; not writable by group or others; a secret
// moreover not readable, writable or executable by others (a group may read it: 0640 root:fairlead). The folder that it
// stands in must not be writable by others, unless it is sticky or mounted read-only. Symbolic links are followed
// (Kubernetes mounts files through them) and what they lead to is checked.
//
// On Windows: the owner must be Administrators, SYSTEM, TrustedInstaller or the process's own user, there must be a
// DACL, and none of Everyone, Anonymous, Users, Authenticated Users, Interactive, Network, Guests and Domain Users
// may have an allow entry with a write right (for secrets: read or write). Deny entries and rights of other named
// accounts are not weighed.
package config
