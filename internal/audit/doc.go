// Package audit keeps the durable record of what was asked and done.
//
// An Event is one fact. Each of its fields has a class: public passes, sensitive becomes a keyed token, secret is dropped, and a
// field without a class is secret. A Log is an append-only chain of records in a folder; a Recorder masks, seals and appends
// events; a Feed carries records on, at least once; Verify proves a log offline with a public key.
//
// # Promises
//
//   - A record whose Ticket.Wait returned nil is on disk (file and folder synced) and is never lost, changed, reordered or
//     doubled by this package. A record whose Wait returned an error may or may not have been stored.
//   - Any deletion, edit, insertion, reordering or cut of records is found by Verify, which names the first bad sequence number,
//     as far as a checkpoint or a head that is held elsewhere reaches.
//   - When a record cannot be stored, ErrUnavailable is answered and nothing is acknowledged. Nothing is ever dropped
//     silently.
//
// What it never does: retry a failed write or fsync, delete a record that was not released, log a record's content.
//
// # Files
//
// Segments are named by their first sequence number, 00000000000000000001.log, one JSON record a line:
//
//	{"seq":2,"prev":"<hash of line 1>","time":"…","durable":1,"body":{…}}
//
// The hash of a record is the SHA-256 of its line without the newline (sha256sum agrees), in base64url without padding; prev of
// record 1 is 32 zero bytes. "durable" appears on the first record of a group: everything up to that number was on disk when
// the group was formed. Sequence is order; time is a claim of the clock, which may go back.
//
// checkpoints.jsonl holds signed heads {"seq","hash","time","source","key","sig"}. lock keeps a second process out. *.bad
// are bytes that were never acknowledged and were set aside (at most four, for a look at what happened). cursor files belong to
// feeds.
//
// # When the disk fails
//
// A write or fsync that fails makes the log bad: its waiters and those behind them get ErrUnavailable, as does every Append. The
// file is closed and never synced again, for after a failed fsync the kernel may call lost pages clean. Every RetryEvery
// the log tries to recover, as Open does: it reads what is on disk, copies the records to a new file (another inode), syncs it,
// puts it in the place of the bad one, syncs the folder, and continues there. While the process lives exactly the acknowledged
// records are kept, and their hash must agree with what memory says. After a crash every complete record is kept; a torn tail is
// set aside if no later record says that it was durable, and else the log refuses to open (*TamperError) and touches nothing:
// an operator then looks, and moves the folder away to begin a new log.
package audit
