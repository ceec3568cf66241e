package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/fairleadhq/fairlead/internal/secret"
)

// MaxSecretBytes bounds a secret.
const MaxSecretBytes = 64 << 10

// SecretRef says where a secret is; the secret itself never stands in YAML. A field `Password SecretRef yaml:"password"`
// takes `password_file: NAME` (relative to the YAML file's folder) or `password: {env: NAME}`. The zero value names none.
type SecretRef struct {
	File string `json:"file,omitempty"`
	Env  string `json:"env,omitempty"`
	// Sealed and Vault are recognised, so that the message can be clear, and refused: nothing can open them yet.
	Sealed string `json:"-"`
	Vault  string `json:"-"`
}

// IsZero reports whether no secret is named.
func (r SecretRef) IsZero() bool { return r == SecretRef{} }

// Resolve reads the secret. A relative File is taken from baseDir. One line break at the end is cut off. An empty secret,
// one over MaxSecretBytes, and a file that others can read are errors; so is a zero SecretRef.
func (r SecretRef) Resolve(baseDir string) (secret.Bytes, error) {
	switch {
	case r.Sealed != "" || r.Vault != "":
		return secret.Bytes{}, errors.New("sealed and vault secrets are not available in this version")
	case r.Env != "":
		v, ok := os.LookupEnv(r.Env)
		if !ok || v == "" {
			return secret.Bytes{}, fmt.Errorf("environment variable %s is not set", r.Env)
		}
		if len(v) > MaxSecretBytes {
			return secret.Bytes{}, fmt.Errorf("environment variable %s holds more than %d bytes", r.Env, MaxSecretBytes)
		}
		return secret.FromString(v), nil
	case r.File != "":
		data, err := readChecked(r.Path(baseDir), MaxSecretBytes, true)
		if errors.Is(err, fs.ErrNotExist) {
			// The name is not repeated: a password written here by mistake would go into logs and to the relay.
			return secret.Bytes{}, errors.New("the file that it names is not there (a name is relative to the folder of the YAML file)")
		}
		if err != nil {
			return secret.Bytes{}, err
		}
		data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
		if len(data) == 0 {
			return secret.Bytes{}, fmt.Errorf("secret file %s is empty", r.Path(baseDir))
		}
		return secret.New(data), nil
	}
	return secret.Bytes{}, errors.New("no secret is named")
}

// Path is the secret's file as a path, "" when it is no file.
func (r SecretRef) Path(baseDir string) string {
	if r.File == "" || filepath.IsAbs(r.File) {
		return r.File
	}
	return filepath.Join(baseDir, r.File)
}

const secretHint = "put the secret in a file of its own and name it: %s_file: NAME, or use %s: {env: NAME}"

func (d *decoder) secret(k, n *yaml.Node, path string, r *SecretRef, key string) {
	hint := fmt.Sprintf(secretHint, key, key)
	if !r.IsZero() {
		d.fault(k, path, fmt.Sprintf("%s and %s_file name one secret", key, key), "remove one")
		return
	}
	text := func(n *yaml.Node, path string) string {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "" || strings.ContainsRune(n.Value, 0) {
			d.fault(n, path, "wants a name", hint)
			return ""
		}
		return n.Value
	}
	if k.Value == key+"_file" {
		r.File = text(n, path)
		return
	}
	if n.Kind != yaml.MappingNode {
		// The value is not repeated: it most likely is the secret.
		d.fault(n, path, "a secret must not stand in this file", hint)
		return
	}
	if len(n.Content) != 2 {
		d.fault(n, path, "wants exactly one of env, sealed, vault", hint)
		return
	}
	source := n.Content[0]
	sub := Join(path, source.Value)
	switch source.Value {
	case "env":
		if r.Env = text(n.Content[1], sub); r.Env != "" && (strings.ContainsAny(r.Env, "=$ {}") || !plainKey(r.Env)) {
			d.fault(n.Content[1], sub, "wants the name of an environment variable", "letters, digits and _ only, without $")
		}
	case "sealed", "vault":
		d.fault(source, sub, source.Value+" secrets are not available in this version", hint)
	default:
		near := Nearest(source.Value, []string{"env", "sealed", "vault"})
		if source.Value == "file" {
			near = key + "_file: NAME beside it"
		}
		if near != "" {
			hint = "did you mean " + near + "?"
		}
		// The key is not repeated: {hunter2} is a key to YAML.
		d.fault(source, path, "this key is none of env, sealed, vault", hint)
	}
}
