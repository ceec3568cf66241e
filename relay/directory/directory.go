package directory

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/password"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// Config says where the state is and how fresh it must be.
type Config struct {
	Dir        string        // folder of the database
	KEKFile    string        // file of the key-encryption key; this or KEKEnv
	KEKEnv     string        // environment variable that holds it
	Poll       time.Duration // how often changes by other processes are looked for
	StaleAfter time.Duration // how long the state may be unreadable before nobody is let in
	Flush      time.Duration // how often last-seen and last-used times are written
	Logger     *slog.Logger
	// PasswordRounds of PBKDF2 for people's passwords: vault.MinRounds or more. One with fewer is made anew when its person signs in.
	PasswordRounds int
	PasskeyID      string           // the relying party that passkeys belong to; "": there are no passkeys
	Quota          Quota            // of each workspace …
	Quotas         map[string]Quota // … but these, by name
	Leaked         *password.Leaked // passwords that nobody may choose; nil: none beside the commonest. Whoever gives it closes it.
}

// DefaultConfig gives the defaults for a folder: kek.key in it, 1 s, 15 s, 10 s.
func DefaultConfig(dir string) Config {
	return Config{Dir: dir, KEKFile: filepath.Join(dir, "kek.key"), Poll: time.Second, StaleAfter: 15 * time.Second,
		Flush: 10 * time.Second, Logger: slog.New(slog.DiscardHandler), PasswordRounds: vault.Rounds}
}

func (c Config) check() error {
	if c.Poll <= 0 || c.StaleAfter < c.Poll || c.Flush <= 0 || c.Logger == nil {
		return errors.New("open the directory: poll, stale and flush times and a logger must be set")
	}
	if c.PasswordRounds < vault.MinRounds || c.PasswordRounds > vault.MaxRounds {
		return fmt.Errorf("open the directory: %d rounds for passwords are not within %d to %d", c.PasswordRounds, vault.MinRounds, vault.MaxRounds)
	}
	return nil
}

// ErrNotInitialised says that the folder holds no state yet: run Init.
var ErrNotInitialised = errors.New("the folder holds no relay state; run fairlead-relay init first")

// queryTimeout bounds what the directory does on its own behalf.
const queryTimeout = 10 * time.Second

// Directory is the relay's state. Safe for concurrent use. Close it.
type Directory struct {
	conf  Config
	store *store.Store
	vault *vault.Vault

	snap atomic.Pointer[Snapshot]

	reloading sync.Mutex   // guards the following
	last      *Snapshot    // the last good one; snap is another while stale
	state     *store.State // that it was built of
	read      time.Time    // when the state was last known to be current

	gateways sync.Mutex // held from the look at the addresses of all gateways until a new one is in force

	judging chan struct{} // holds a token: whoever judges a change has it, so that those who judge never find each other's changes

	proofs proofs

	waiting sync.Mutex
	changed chan struct{}

	cancel context.CancelFunc
	done   chan struct{}
}

// Open opens the state, builds the first snapshot and starts watching for changes by other processes until Close.
func Open(ctx context.Context, c Config) (*Directory, error) {
	d, err := prepare(ctx, c, false)
	if err != nil {
		return nil, err
	}
	if err := d.reload(ctx, 0); err != nil {
		return nil, errors.Join(err, d.store.Close())
	}
	if err := d.adoptOwners(ctx); err != nil {
		return nil, errors.Join(err, d.store.Close())
	}
	d.start()
	return d, nil
}

// prepare opens store and vault.
func prepare(ctx context.Context, c Config, makeKEK bool) (*Directory, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if _, err := filepath.Abs(c.Dir); err != nil || c.Dir == "" {
		return nil, errors.New("open the directory: no folder is named")
	}
	if !makeKEK {
		if err := mustExist(filepath.Join(c.Dir, store.File)); err != nil {
			return nil, err
		}
	}
	kek, err := vault.LoadKEK(vault.Config{KEKFile: c.KEKFile, KEKEnv: c.KEKEnv})
	if makeKEK && c.KEKFile != "" && vault.IsMissing(err) {
		kek, err = newKEKFile(c.KEKFile)
	}
	if err != nil {
		return nil, err
	}
	v, err := vault.New(ctx, kek)
	if err != nil {
		return nil, err
	}
	st, err := store.Open(ctx, store.DefaultConfig(c.Dir))
	if err != nil {
		return nil, err
	}
	d := &Directory{conf: c, store: st, vault: v, judging: make(chan struct{}, 1), changed: make(chan struct{}), done: make(chan struct{})}
	d.judging <- struct{}{}
	return d, nil
}

func (d *Directory) start() {
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	go func() {
		defer close(d.done)
		d.watch(ctx)
	}()
}

// Close stops watching, writes what is kept in memory, and closes the database. The last snapshot stays readable.
func (d *Directory) Close() error {
	d.cancel()
	<-d.done
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	return errors.Join(d.flush(ctx), d.store.Close())
}

// Snapshot is the state in force. Take it once for a decision.
func (d *Directory) Snapshot() *Snapshot { return d.snap.Load() }

// Changed gives a channel that is closed when a newer snapshot than the present one is in force. Take the channel before
// Snapshot, so that no change is missed.
func (d *Directory) Changed() <-chan struct{} {
	d.waiting.Lock()
	defer d.waiting.Unlock()
	return d.changed
}

// Health tells whether the state can be read and the key-encryption key be used.
func (d *Directory) Health(ctx context.Context) error {
	if d.Snapshot().Stale {
		return errors.New("the state could not be read for too long")
	}
	if _, err := d.store.Generation(ctx); err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	return d.vault.Health(ctx)
}

// loaded lets tests hold a state that was read in part against the whole of it.
var loaded = func(*store.Tx, *store.State) error { return nil }

func (d *Directory) publish(s *Snapshot) {
	d.snap.Store(s)
	d.waiting.Lock()
	defer d.waiting.Unlock()
	close(d.changed)
	d.changed = make(chan struct{})
}

// reload puts a snapshot of at least the given generation in force. Of many callers at once, few read.
func (d *Directory) reload(ctx context.Context, generation int64) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.last != nil && d.last.Generation >= generation && !d.snap.Load().Stale {
		return nil
	}
	var st *store.State
	err := d.store.Read(ctx, func(tx *store.Tx) (err error) {
		if st, err = tx.Load(d.state); err == nil {
			err = loaded(tx, st)
		}
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return ErrNotInitialised
	}
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	s, err := build(ctx, d.vault, d.conf.PasskeyID, st, d.last)
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	if d.last != nil {
		for id := range d.last.byID {
			if s.byID[id] == nil {
				d.vault.Forget(id)
			}
		}
	}
	d.last, d.state, d.read = s, st, time.Now()
	d.publish(s)
	return nil
}

// watch looks for changes by other processes and writes what is kept in memory.
func (d *Directory) watch(ctx context.Context) {
	poll, flush := time.NewTicker(d.conf.Poll), time.NewTicker(d.conf.Flush)
	defer poll.Stop()
	defer flush.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-flush.C:
			if err := d.flush(ctx); err != nil && ctx.Err() == nil {
				d.conf.Logger.Warn("times of use could not be written; trying again", "error", err)
			}
		case <-poll.C:
			err := d.poll(ctx)
			if err != nil && ctx.Err() == nil && !failing {
				d.conf.Logger.Error("the relay's state cannot be read", "error", err)
			}
			failing = err != nil
		}
	}
}

func (d *Directory) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	n, err := d.store.Generation(ctx)
	if err == nil {
		if cur := d.Snapshot(); n != cur.Generation || cur.Stale {
			err = d.reload(ctx, n)
		}
	}
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if err == nil {
		d.read = time.Now()
		return nil
	}
	if time.Since(d.read) > d.conf.StaleAfter && !d.snap.Load().Stale {
		d.conf.Logger.Error("the relay's state could not be read for too long: nobody is let in", "after", d.conf.StaleAfter)
		d.publish(closed(d.last))
	}
	return err
}

// change runs a write transaction, on the condition of its context (WithChange), and puts its result in force before it returns.
func (d *Directory) change(ctx context.Context, f func(*store.Tx) error) error {
	n, err := d.write(ctx, f)
	if err != nil {
		return fail(err)
	}
	// The change is durable: it must be in force even if the caller has gone meanwhile.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
	defer cancel()
	return fail(d.reload(ctx, n))
}

// fail gives errors their outward form; what has none stays an inner error.
func fail(err error) error {
	var e *protocol.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	case errors.Is(err, store.ErrUnavailable):
		return &protocol.Error{Code: protocol.CodeUnavailable, Message: "the relay's state cannot be written now",
			Hint: "try again shortly; if it stays so, ask the relay's operator to look at its disk", Cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &protocol.Error{Code: protocol.CodeTimeout, Message: "the time limit ended the change", Cause: err}
	case errors.Is(err, context.Canceled):
		return &protocol.Error{Code: protocol.CodeCanceled, Message: "the caller went away", Cause: err}
	}
	return err
}

// as gives a store error the given outward forms; nil forms leave it as it is.
func as(err error, missing, exists *protocol.Error) error {
	switch {
	case missing != nil && (errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrReferenced)):
		return missing
	case exists != nil && errors.Is(err, store.ErrExists):
		return exists
	}
	return err
}

var idText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewID makes an id: the prefix, "_" and 128 random bits in 26 lower-case characters.
func NewID(prefix string) string {
	var b [16]byte
	rand.Read(b[:])
	return prefix + "_" + idText.EncodeToString(b[:])
}

// looksLikeID keeps names apart from ids, since most places take either.
func looksLikeID(s string) bool {
	prefix, rest, ok := strings.Cut(s, "_")
	return ok && len(rest) == 26 && prefix != "" && len(prefix) <= 4 && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz234567") == ""
}
