package enroll

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/protocol"
)

// Renewer renews the certificate at two thirds of its life, with a new key each time.
//
// The new pair is written, then used by the next tunnel, while tunnels of the old one live on until Renewed has moved
// them: a lost answer or a crash between the steps leaves a valid pair in place, and the next try makes another.
type Renewer struct {
	Dir      string
	Reloader *mtls.Reloader
	// Call sends the request over a live tunnel.
	Call func(ctx context.Context, path string, in, out any) error
	// Renewed is told after the new pair is in place: open a tunnel with it, then drain the old ones.
	Renewed func()
	Now     <-chan struct{} // asks for a renewal at once; may be nil
	Logger  *slog.Logger
}

// askedGap is how long a renewal that was asked for keeps others from being asked for: a relay must not keep the agent
// busy with making keys and tunnels. One that is due by the certificate's own life is not held back.
const askedGap = time.Minute

// Run renews until ctx ends.
func (r *Renewer) Run(ctx context.Context) {
	var gap <-chan time.Time // set, until it fires, after a renewal that was asked for
	for {
		leaf := r.Reloader.Get().Leaf()
		// Wall clock on purpose: a suspended machine must see that time has passed.
		wait := time.Until(renewAt(leaf.NotBefore, leaf.NotAfter).Round(0))
		if wait < 0 {
			wait = 0
		}
		// Never sleep longer than an hour at a stretch, so that a machine that slept finds out soon.
		asked, now := false, r.Now
		if gap != nil {
			now = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-gap:
			gap = nil
			continue
		case <-time.After(min(wait, time.Hour)):
		case <-now:
			asked = true
			gap = time.After(askedGap)
		}
		if !asked && wait > time.Hour {
			continue
		}
		if err := r.once(ctx); err != nil {
			left := time.Until(leaf.NotAfter)
			r.Logger.Warn("certificate was not renewed; trying again", "valid_for", left.Round(time.Second), "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(max(time.Second, min(time.Minute, left/20))):
			}
			continue
		}
		r.Logger.Info("certificate renewed", "not_after", r.Reloader.Get().Leaf().NotAfter)
		if r.Renewed != nil {
			r.Renewed()
		}
	}
}

// renewAt is when two thirds of a certificate's life are over. Its NotBefore lies back by mtls.Backdate, for sites whose
// clock is slow; that part was never lived.
func renewAt(notBefore, notAfter time.Time) time.Time {
	start := notBefore.Add(mtls.Backdate)
	if start.After(notAfter) {
		start = notBefore
	}
	return start.Add(notAfter.Sub(start) * 2 / 3)
}

func (r *Renewer) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	key, csr, err := newKey()
	if err != nil {
		return err
	}
	var ans protocol.RenewResponse
	if err := r.Call(ctx, protocol.PathRenew, protocol.RenewRequest{CSR: csr}, &ans); err != nil {
		return fmt.Errorf("ask for renewal: %w", err)
	}
	root, err := readRoot(r.Dir)
	if err != nil {
		return err
	}
	kp, named, err := check(key, ans.Chain, root)
	if err != nil {
		return err
	}
	was, err := mtls.FromCertificate(r.Reloader.Get().Leaf())
	if err != nil {
		return fmt.Errorf("read our own identity: %w", err)
	}
	if named != was {
		return fmt.Errorf("the new certificate names another agent: %s", named.URI())
	}
	if err := mtls.WriteKeypairFile(filepath.Join(r.Dir, fileKeypair), kp); err != nil {
		return err
	}
	r.Reloader.Set(kp)
	return nil
}

func readRoot(dir string) (*x509.Certificate, error) {
	b, err := os.ReadFile(filepath.Join(dir, fileRoot))
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("no certificate in %s", filepath.Join(dir, fileRoot))
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse CA: %w", err)
	}
	return root, nil
}
