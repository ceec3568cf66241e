package e2e_test

import (
	"io"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
)

func TestCertificateIsRenewedWithOverlap(t *testing.T) {
	w := shop(t, testenv.Options{CertificateLifetime: 12 * time.Second})
	w.Connection("shop")
	agents, err := w.Client.Agents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first := *agents[0].CertificateNotAfter
	// Queries go on through two generations; none may fail.
	for renewed := 0; renewed < 2; {
		if err := count(t, w.Client); err != nil {
			t.Fatalf("a query failed during renewal: %v", err)
		}
		a, err := w.Client.Agent(ctx, agents[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		if a.CertificateNotAfter != nil && a.CertificateNotAfter.After(first) {
			first = *a.CertificateNotAfter
			renewed++
		}
		if time.Since(first) > 0 {
			t.Fatal("the certificate ended without being renewed")
		}
	}
}

func TestRenewalDoesNotCutAnOpenDial(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t)), CertificateLifetime: 30 * time.Second})
	w.Connection("echo")
	conn := openDial(t, w.Client, "echo")
	agents, err := w.Client.Agents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first := *agents[0].CertificateNotAfter
	testenv.Eventually(t, "the next second: a certificate tells its end to the second, so one of the same second would not show", func() bool {
		return time.Now().Add(30 * time.Second).Truncate(time.Second).After(first)
	})
	w.Agent.Renew()
	testenv.Eventually(t, "the renewed certificate is in use", func() bool {
		a, err := w.Client.Agent(ctx, agents[0].ID)
		return err == nil && a.CertificateNotAfter != nil && a.CertificateNotAfter.After(first)
	})
	for range 20 { // the dial lives on while the tunnel that carries it drains
		if _, err := io.WriteString(conn, "pong"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4)
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != "pong" {
			t.Fatalf("%q, %v", b, err)
		}
	}
}
