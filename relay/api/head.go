package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// headWriter turns the answer to a stat into the answer to HEAD on a file: what GET would say, without the file being
// opened (RFC 9110, 9.3.2). Ranges are left aside, as a server may.
type headWriter struct {
	http.ResponseWriter
	r      *http.Request
	status int
	b      bytes.Buffer
}

// maxInfo bounds the facts of one file.
const maxInfo = 64 << 10

func (h *headWriter) WriteHeader(status int) { h.status = status }

func (h *headWriter) Write(p []byte) (int, error) {
	if h.b.Len()+len(p) > maxInfo {
		return 0, &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginAgent, Message: "the agent's answer is too long"}
	}
	return h.b.Write(p)
}

// Unwrap lets http.ResponseController find deadlines. Flush is not meant to pass: nothing is released before finish.
func (h *headWriter) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *headWriter) FlushError() error { return nil }

// finish writes the head.
func (h *headWriter) finish() error {
	var i protocol.FileInfo
	mod, err := time.Time{}, json.Unmarshal(h.b.Bytes(), &i)
	if err == nil {
		mod, err = time.Parse(time.RFC3339Nano, i.ModTime)
	}
	switch {
	case h.status != http.StatusOK || err != nil || i.Size < 0:
		return &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginAgent, Message: "the agent's answer makes no sense"}
	case i.Folder:
		return &protocol.Error{Code: protocol.CodeInvalid, Origin: protocol.OriginTarget, Message: "this is a folder, not a file"}
	}
	out := h.Header()
	out.Set("Content-Type", "application/octet-stream")
	out.Set("Accept-Ranges", "bytes")
	out.Set("Last-Modified", mod.UTC().Format(http.TimeFormat))
	out.Del("Content-Length")
	out.Del("Etag")
	if i.ETag != "" {
		out.Set("Etag", i.ETag)
	}
	switch {
	case h.r.Header.Get("If-Match") != "" && !matches(h.r.Header.Get("If-Match"), i.ETag):
		return &protocol.Error{Code: protocol.CodePrecondition, Origin: protocol.OriginTarget, Message: "the file is not the one that If-Match names"}
	case h.r.Header.Get("If-None-Match") != "":
		if matches(h.r.Header.Get("If-None-Match"), i.ETag) {
			h.ResponseWriter.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	out.Set("Content-Length", strconv.FormatInt(i.Size, 10))
	h.ResponseWriter.WriteHeader(http.StatusOK)
	return nil
}

// matches compares entity tags, of which the agent's are strong.
func matches(list, etag string) bool {
	if strings.TrimSpace(list) == "*" {
		return true
	}
	for tag := range strings.SplitSeq(list, ",") {
		if strings.TrimPrefix(strings.TrimSpace(tag), "W/") == etag && etag != "" {
			return true
		}
	}
	return false
}
