package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

type filesCommands struct {
	LS    filesLS    `cmd:"" name:"ls" help:"List a folder."`
	Get   filesGet   `cmd:"" help:"Download a file; the same command again resumes a broken download."`
	Put   filesPut   `cmd:"" help:"Upload a file; it appears whole or not at all; the same command again resumes."`
	RM    filesRM    `cmd:"" name:"rm" help:"Delete files or empty folders."`
	MV    filesMV    `cmd:"" name:"mv" help:"Rename a file within its connection."`
	Stat  filesStat  `cmd:"" help:"Show size, time and ETag of a file."`
	Mkdir filesMkdir `cmd:"" help:"Make a folder."`
}

// A remote is CONNECTION:PATH.
type remote struct{ connection, path string }

// UnmarshalText implements encoding.TextUnmarshaler, by which the parser reads it. A leading "/" is dropped: every path is
// relative to the profile's folder.
func (r *remote) UnmarshalText(b []byte) error {
	name, p, ok := strings.Cut(string(b), ":")
	if !ok || name == "" || strings.ContainsAny(name, `/\`) {
		return fmt.Errorf("%q: want CONNECTION:PATH, for example hr:reports/2026.csv", b)
	}
	r.connection, r.path = name, strings.TrimPrefix(p, "/")
	return nil
}

func (r remote) String() string { return r.connection + ":" + r.path }

func (r remote) file() error {
	if r.path == "" || strings.HasSuffix(r.path, "/") {
		return cli.Usage("%s: want the path of a file behind the colon", r)
	}
	return nil
}

type filesLS struct {
	Folder    remote `arg:"" placeholder:"CONNECTION:PATH" help:"Folder; CONNECTION: alone is the profile's folder."`
	Recursive bool   `short:"r" help:"Go into folders."`
	Glob      string `placeholder:"PATTERN" help:"Only paths that match, for example '*.csv'."`
	cli.RowOutput
}

func (*filesLS) Examples() []string {
	return []string{"fairlead files ls hr:", "fairlead files ls hr:reports --recursive --glob '*.csv'", "fairlead files ls hr: --output ndjson"}
}

func (k *filesLS) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if k.Output == "csv" {
		return cli.Usage("files ls prints table, json or ndjson")
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	w := cli.NewTable(t.Out, []string{"SIZE", "MODIFIED", "PATH"}, []bool{true})
	all, shown := []protocol.FileInfo{}, false
	for f, err := range c.Files(ctx, k.Folder.connection, client.ListOptions{Path: strings.TrimSuffix(k.Folder.path, "/"), Recursive: k.Recursive, Glob: k.Glob}) {
		if err == nil {
			switch k.Output {
			case "ndjson":
				err = ndjson(t.Data(), f)
			case "json":
				all = append(all, f)
			default:
				err = w.Row(fileRow(f)...)
			}
		}
		if err != nil {
			if k.Output == "table" && shown { // no header over nothing
				err = errors.Join(err, w.Flush())
			}
			return fmt.Errorf("ls %s: %w", k.Folder, err)
		}
		shown = true
	}
	switch k.Output {
	case "json":
		return t.JSON(all)
	case "table":
		return w.Flush()
	}
	return nil
}

func fileRow(f protocol.FileInfo) []string {
	if f.Folder {
		return []string{"", stampText(f.ModTime), strings.TrimSuffix(f.Path, "/") + "/"}
	}
	return []string{strconv.FormatInt(f.Size, 10), stampText(f.ModTime), f.Path}
}

type filesGet struct {
	File  remote `arg:"" placeholder:"CONNECTION:PATH" help:"File to download."`
	Local string `arg:"" optional:"" type:"path" help:"Where to; a folder, a file, or - for standard output. Without it, the file's name in this folder."`
	Force bool   `short:"f" help:"Replace a local file that exists."`
}

func (*filesGet) Examples() []string {
	return []string{"fairlead files get hr:reports/2026.csv", "fairlead files get hr:reports/2026.csv /tmp/ --force", "fairlead files get hr:notes.txt - | less"}
}

func (k *filesGet) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if err := k.File.file(); err != nil {
		return err
	}
	local := k.Local
	if local != "-" {
		base := path.Base(k.File.path)
		info, err := os.Stat(local)
		if local == "" || err == nil && info.IsDir() {
			// The name comes from elsewhere: it must stay in the folder, on every system.
			if !filepath.IsLocal(base) || strings.ContainsAny(base, `\:`) {
				return cli.Usage("%q is no name for a local file; name one", base)
			}
			local = filepath.Join(local, base)
		}
		if _, err := os.Lstat(local); err == nil && !k.Force {
			return &protocol.Error{Code: protocol.CodeConflict, Message: local + " exists", Hint: "--force replaces it"}
		}
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if local == "-" {
		f, err := c.Get(ctx, k.File.connection, k.File.path, client.GetOptions{})
		if err != nil {
			return fmt.Errorf("get %s: %w", k.File, err)
		}
		defer f.Close()
		if _, err := io.Copy(t.Data(), f); err != nil {
			return fmt.Errorf("get %s: %w", k.File, err)
		}
		return nil
	}
	return download(ctx, t, c, k.File, local)
}

// download writes LOCAL.part and renames it when it is whole. LOCAL.part.etag says which version the part is of, so that
// the same command resumes it.
func download(ctx context.Context, t *cli.Term, c *client.Client, from remote, local string) error {
	part, tag := local+".part", local+".part.etag"
	out, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return fmt.Errorf("write local file: %w", err)
	}
	defer out.Close()
	var o client.GetOptions
	if etag, err := os.ReadFile(tag); err == nil && len(etag) > 2 && len(etag) < 1024 {
		if o.Offset, err = out.Seek(0, io.SeekEnd); err != nil {
			return fmt.Errorf("write local file: %w", err)
		}
		o.ETag = string(etag)
	}
	f, err := c.Get(ctx, from.connection, from.path, o)
	if client.CodeOf(err) == protocol.CodeRange { // all of it had come, or the file is shorter now
		f, err = c.Get(ctx, from.connection, from.path, client.GetOptions{})
	}
	if err != nil {
		if o.Offset == 0 {
			_ = os.Remove(part)
		}
		return fmt.Errorf("get %s: %w", from, err)
	}
	defer f.Close()
	if f.Offset > 0 {
		t.Notef("resuming at %s\n", cli.Bytes(f.Offset))
	} else {
		_ = os.Remove(tag)
	}
	if err := out.Truncate(f.Offset); err != nil {
		return fmt.Errorf("write local file: %w", err)
	}
	if _, err := out.Seek(f.Offset, io.SeekStart); err != nil {
		return fmt.Errorf("write local file: %w", err)
	}
	resumable := strings.HasPrefix(f.ETag, `"`)
	if resumable {
		if err := os.WriteFile(tag, []byte(f.ETag), 0o666); err != nil {
			return fmt.Errorf("write local file: %w", err)
		}
	}
	p := cli.NewProgress(t, path.Base(local), f.Offset, f.Size)
	_, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(out, p)}, f, make([]byte, 256<<10))
	p.Done()
	if err == nil {
		err = finish(out, f, part, local)
	}
	if err != nil {
		if resumable {
			t.Notef("%s holds what came; the same command resumes it\n", part)
		} else {
			_ = os.Remove(part)
		}
		return fmt.Errorf("get %s: %w", from, err)
	}
	_ = os.Remove(tag)
	return nil
}

// finish makes the part durable, gives it the time of the original and its name.
func finish(out *os.File, f *client.File, part, local string) error {
	if err := out.Sync(); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	if !f.Time.IsZero() {
		_ = os.Chtimes(part, f.Time, f.Time) // a courtesy
	}
	return os.Rename(part, local)
}

type filesPut struct {
	Local       string `arg:"" type:"path" help:"File to upload; - reads standard input."`
	File        remote `arg:"" placeholder:"CONNECTION:PATH" help:"Where to; with / at its end, a folder."`
	IfMatch     string `placeholder:"ETAG" help:"Replace this version only (fairlead files stat shows the ETag)."`
	NoOverwrite bool   `help:"Write only where no file is yet."`
	cli.Output
}

func (*filesPut) Examples() []string {
	return []string{"fairlead files put orders.csv hr:inbox/", "fairlead files put orders.csv hr:inbox/today.csv --no-overwrite", "pg_dump shop | fairlead files put - backup:shop.sql"}
}

func (k *filesPut) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	to := k.File
	if to.path == "" || strings.HasSuffix(to.path, "/") {
		if k.Local == "-" {
			return cli.Usage("%s: standard input has no name; name the file", to)
		}
		to.path += filepath.Base(k.Local)
	}
	if k.IfMatch != "" && k.NoOverwrite {
		return cli.Usage("--if-match and --no-overwrite exclude each other")
	}
	o := client.PutOptions{IfMatch: k.IfMatch, Create: k.NoOverwrite}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	var info protocol.FileInfo
	if k.Local == "-" {
		p := cli.NewProgress(t, path.Base(to.path), 0, -1)
		info, err = c.Put(ctx, to.connection, to.path, io.TeeReader(t.In, p), -1, o)
		p.Done()
	} else {
		info, err = upload(ctx, t, c, k.Local, to, o)
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", to, putHint(err, to, k.NoOverwrite))
	}
	if k.JSON() {
		return t.JSON(info)
	}
	t.Notef("%s: %s written\n", cli.Clean(to.String()), cli.Bytes(info.Size))
	return nil
}

// putHint says what would be right where the site cannot know what the command line asked for.
func putHint(err error, to remote, create bool) error {
	var e *protocol.Error
	if !errors.As(err, &e) || e.Hint != "" {
		return err
	}
	said := *e
	switch {
	case e.Code == protocol.CodePrecondition && create:
		said.Message, said.Hint = "there is a file of this name", "without --no-overwrite it is replaced"
	case e.Code == protocol.CodePrecondition:
		said.Hint = "see its ETag: fairlead files stat " + to.String()
	case e.Code == protocol.CodeNotFound && e.Origin == protocol.OriginTarget && path.Dir(to.path) != ".":
		said.Message, said.Hint = "the folder is not there", "make it first: fairlead files mkdir "+to.connection+":"+path.Dir(to.path)
	default:
		return err
	}
	return &said
}

func upload(ctx context.Context, t *cli.Term, c *client.Client, local string, to remote, o client.PutOptions) (protocol.FileInfo, error) {
	f, err := os.Open(local)
	if err != nil {
		return protocol.FileInfo{}, fmt.Errorf("read local file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return protocol.FileInfo{}, fmt.Errorf("read local file: %w", err)
	}
	if !st.Mode().IsRegular() {
		return protocol.FileInfo{}, cli.Usage("%s is not a file", local)
	}
	o.Upload = uploadID(c, local, to, st)
	p := cli.NewProgress(t, filepath.Base(local), 0, st.Size())
	defer p.Done()
	o.Progress = func(offset int64) {
		if offset > 0 {
			t.Notef("resuming at %s\n", cli.Bytes(offset))
		}
		p.From(offset)
	}
	return c.Put(ctx, to.connection, to.path, &counted{f, p}, st.Size(), o)
}

// counted is a file whose reads move a progress bar.
type counted struct {
	*os.File
	p *cli.Progress
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.File.Read(b)
	c.p.Add(int64(n))
	return n, err
}

// WriteTo is hidden: it would read past the counter.
func (c *counted) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// uploadID is the same for the same file, place and version: the same command again goes on with the same upload.
func uploadID(c *client.Client, local string, to remote, st fs.FileInfo) string {
	host, _ := os.Hostname()
	abs, err := filepath.Abs(local)
	if err != nil {
		abs = local
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{
		c.Relay(), c.Workspace(), to.String(), host, abs, strconv.FormatInt(st.Size(), 10), st.ModTime().UTC().String(), runtime.GOOS,
	}, "\x00")))
	return hex.EncodeToString(sum[:16])
}

type filesRM struct {
	Files   []remote `arg:"" placeholder:"CONNECTION:PATH" help:"Files or empty folders."`
	IfMatch string   `placeholder:"ETAG" help:"Delete this version only."`
}

func (*filesRM) Examples() []string { return []string{"fairlead files rm hr:old.csv hr:older.csv"} }

func (k *filesRM) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	for i := range k.Files {
		k.Files[i].path = strings.TrimSuffix(k.Files[i].path, "/")
		if err := k.Files[i].file(); err != nil { // before anything is deleted
			return err
		}
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	for i, f := range k.Files {
		if err := c.Delete(ctx, f.connection, f.path, k.IfMatch); err != nil {
			if i > 0 {
				t.Notef("%s deleted before this one failed\n", count(int64(i), "file"))
			}
			return fmt.Errorf("rm %s: %w", f, err)
		}
	}
	return nil
}

type filesMV struct {
	From  remote `arg:"" placeholder:"CONNECTION:PATH" help:"File to rename."`
	To    remote `arg:"" placeholder:"CONNECTION:PATH" help:"Its new path in the same connection; with / at its end, a folder."`
	Force bool   `short:"f" help:"Replace a file that is there."`
}

func (*filesMV) Examples() []string {
	return []string{"fairlead files mv hr:in/a.csv hr:done/a.csv", "fairlead files mv hr:in/a.csv hr:done/"}
}

func (k *filesMV) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if k.From.connection != k.To.connection {
		return &protocol.Error{Code: protocol.CodeInvalid, Message: "mv renames within one connection", Hint: "get from the one and put to the other"}
	}
	if err := k.From.file(); err != nil {
		return err
	}
	if k.To.path == "" || strings.HasSuffix(k.To.path, "/") {
		k.To.path += path.Base(k.From.path)
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Move(ctx, k.From.connection, client.MoveRequest{From: k.From.path, To: k.To.path, Overwrite: k.Force}); err != nil {
		return fmt.Errorf("mv %s: %w", k.From, err)
	}
	return nil
}

type filesStat struct {
	File remote `arg:"" placeholder:"CONNECTION:PATH" help:"File or folder."`
	cli.Output
}

func (*filesStat) Examples() []string { return []string{"fairlead files stat hr:reports/2026.csv"} }

func (k *filesStat) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	f, err := c.Stat(ctx, k.File.connection, strings.TrimSuffix(k.File.path, "/"), "")
	if err != nil {
		return fmt.Errorf("stat %s: %w", k.File, err)
	}
	if k.JSON() {
		return t.JSON(f)
	}
	return t.Table([]string{"size", "modified", "path", "etag"}, [][]string{append(fileRow(f), f.ETag)})
}

type filesMkdir struct {
	Folder remote `arg:"" placeholder:"CONNECTION:PATH" help:"Folder to make."`
}

func (*filesMkdir) Examples() []string { return []string{"fairlead files mkdir hr:done"} }

func (k *filesMkdir) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	k.Folder.path = strings.TrimSuffix(k.Folder.path, "/")
	if err := k.Folder.file(); err != nil {
		return err
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Mkdir(ctx, k.Folder.connection, k.Folder.path); err != nil {
		return fmt.Errorf("mkdir %s: %w", k.Folder, err)
	}
	return nil
}
