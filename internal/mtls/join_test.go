package mtls_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/mtls"
)

func newToken(t testing.TB) mtls.JoinToken {
	tok, err := mtls.NewJoinToken([]string{"relay.example:8443", "[2001:db8::1]:8443"}, bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestJoinTokenRoundTrip(t *testing.T) {
	tok := newToken(t)
	for _, text := range []string{tok.Text(), "  " + tok.Text() + "\r\n"} {
		got, err := mtls.ParseJoinToken(text)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Addrs, tok.Addrs) || !bytes.Equal(got.Pin, tok.Pin) || !got.Secret.Equal(tok.Secret) {
			t.Errorf("got %v", got)
		}
	}
	if h, err := mtls.HashSecretText(tok.SecretText()); err != nil || !bytes.Equal(h, tok.SecretHash()) {
		t.Errorf("hash %x, %v", h, err)
	}
	if s := fmt.Sprintf("%v %+v", tok, tok); strings.Contains(s, tok.SecretText()) {
		t.Error("a token prints its secret")
	}
}

func TestJoinTokenRefusals(t *testing.T) {
	text := newToken(t).Text()
	enc := func(json string) string { return mtls.JoinPrefix + base64.RawURLEncoding.EncodeToString([]byte(json)) }
	pin := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for name, c := range map[string]struct{ text, want string }{
		"empty":               {"", "empty"},
		"API token":           {"flt_" + strings.Repeat("a", 43), "API token"},
		"no prefix":           {text[4:], "begins with flj_"},
		"prefix alone":        {"flj_", "cut off"},
		"half a prefix":       {"fl", "cut off"},
		"line break within":   {text[:20] + "\n" + text[20:], "characters that do not belong"},
		"quotes":              {`"` + text + `"`, "begins with flj_"},
		"quote after":         {text + `"`, "characters that do not belong"},
		"standard base64":     {text[:20] + "+" + text[21:], "characters that do not belong"},
		"twice":               {text + text, ""},
		"too long":            {text + strings.Repeat("A", 9000), "longer than"},
		"not JSON":            {enc("hello"), "garbled"},
		"another type":        {enc(`{"a":"x","p":1}`), "garbled"},
		"JSON twice":          {enc(`{"a":["h:1"],"p":"` + pin + `","s":"` + pin + `"}{}`), "after its end"},
		"no pin":              {enc(`{"a":["h:1"],"s":"` + pin + `"}`), "no pin"},
		"short pin":           {enc(`{"a":["h:1"],"p":"AAAA","s":"` + pin + `"}`), "no pin"},
		"no secret":           {enc(`{"a":["h:1"],"p":"` + pin + `"}`), "no secret"},
		"no address":          {enc(`{"p":"` + pin + `","s":"` + pin + `"}`), "0 relay addresses"},
		"address w/o port":    {enc(`{"a":["relay.example"],"p":"` + pin + `","s":"` + pin + `"}`), "host:port"},
		"port 0":              {enc(`{"a":["relay.example:0"],"p":"` + pin + `","s":"` + pin + `"}`), "port"},
		"port by name":        {enc(`{"a":["relay.example:https"],"p":"` + pin + `","s":"` + pin + `"}`), "port"},
		"address is a URL":    {enc(`{"a":["https://relay.example:1"],"p":"` + pin + `","s":"` + pin + `"}`), "relay address"},
		"address with spaces": {enc(`{"a":["a b:1"],"p":"` + pin + `","s":"` + pin + `"}`), "host"},
	} {
		tok, err := mtls.ParseJoinToken(c.text)
		if err == nil {
			t.Errorf("%s was taken: %v", name, tok.Addrs)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
	}
	// Wherever it is cut, and the secret stays out of the message.
	for n := range text {
		_, err := mtls.ParseJoinToken(text[:n])
		if err == nil {
			t.Fatalf("%d of %d bytes were taken", n, len(text))
		}
		if n > 0 && !strings.Contains(err.Error(), "cut off") {
			t.Errorf("%d of %d bytes: %v", n, len(text), err)
		}
	}
}

func FuzzParseJoinToken(f *testing.F) {
	text := newToken(f).Text()
	for _, s := range []string{text, text[:40], "flj_", "flt_x", "", mtls.JoinPrefix + "e30", text + "=", " " + text} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := mtls.ParseJoinToken(s)
		if err != nil {
			if len(s) > 60 && strings.Contains(err.Error(), s) {
				t.Fatal("the message repeats the token")
			}
			return
		}
		again, err := mtls.ParseJoinToken(tok.Text())
		if err != nil || !reflect.DeepEqual(again.Addrs, tok.Addrs) || !bytes.Equal(again.Pin, tok.Pin) || !again.Secret.Equal(tok.Secret) {
			t.Fatalf("does not round-trip: %v", err)
		}
	})
}
