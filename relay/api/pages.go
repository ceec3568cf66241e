package api

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
)

// Pages of a list, where Config says nothing.
const (
	defaultPage = 100
	defaultMost = 1000
)

// A section is what a caller wants of a list.
type section struct {
	limit int
	after string // the place of the item that it begins behind; "": at the start
}

// wantedPage reads limit and cursor. A cursor is a place in one list of one workspace (or of one person): as another it is none.
func (a *API) wantedPage(r *http.Request, v *visit, list string) (p section, err error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return p, invalid("the query is not well-formed", "percent-encode reserved characters")
	}
	for _, name := range []string{"limit", "cursor"} {
		if len(q[name]) > 1 {
			return p, invalid("parameter "+name+": stands twice", "write each parameter once")
		}
	}
	p.limit = a.cfg.PageSize
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return p, invalid("parameter limit: want a number from 1", fmt.Sprintf("more than %d gives %d", a.cfg.MaxPage, a.cfg.MaxPage))
		}
		p.limit = min(n, a.cfg.MaxPage)
	}
	if s := q.Get("cursor"); s != "" {
		if p.after, err = a.cfg.Directory.OpenCursor(v.workspace.ID, v.listOf(list), s); err != nil {
			return p, err
		}
	}
	return p, nil
}

// listOf names a list for its cursors: that of a person's own things is the person's.
func (v *visit) listOf(path string) string {
	if v.session != nil && v.scope.Workspace == "" {
		return path + " " + v.session.Person.ID
	}
	return path
}

// paged cuts a list that a handler gave whole down to the page that was asked for. The order is that of the items' places, which no
// other item changes: what comes or goes between two pages moves nothing that was there.
func (a *API) paged(r *http.Request, v *visit, path string, o any) error {
	body := reflect.Indirect(reflect.ValueOf(o)).FieldByName("Body")
	items, cursor := body.FieldByName("Items"), body.FieldByName("Cursor")
	p, err := a.wantedPage(r, v, path)
	if err != nil {
		return err
	}
	places := make([]string, items.Len())
	order := make([]int, items.Len())
	for i := range places {
		places[i], order[i] = placeOf(items.Index(i).Interface()), i
	}
	order = slices.DeleteFunc(order, func(i int) bool { return p.after != "" && places[i] <= p.after })
	slices.SortStableFunc(order, func(i, j int) int {
		if places[i] < places[j] {
			return -1
		}
		return btoi(places[i] > places[j])
	})
	more := len(order) > p.limit
	order = order[:min(len(order), p.limit)]
	out := reflect.MakeSlice(items.Type(), 0, len(order))
	for _, i := range order {
		out = reflect.Append(out, items.Index(i))
	}
	items.Set(out)
	if more {
		text, err := a.cfg.Directory.SealCursor(v.workspace.ID, v.listOf(path), places[order[len(order)-1]])
		if err != nil {
			return err
		}
		cursor.SetString(text)
	}
	return nil
}

// isList tells whether a handler's answer is one page of a list.
func isList(t reflect.Type) bool {
	b, ok := t.FieldByName("Body")
	if !ok || b.Type.Kind() != reflect.Struct || b.Type.NumField() != 2 {
		return false
	}
	items, ok := b.Type.FieldByName("Items")
	_, more := b.Type.FieldByName("Cursor")
	return ok && more && items.Type.Kind() == reflect.Slice
}

// placeOf says where an item stands in its list: by name, else by when it was made; the id tells those apart that are alike. Sessions
// stand newest first, system roles before custom ones, the widest first.
func placeOf(item any) string {
	stamp := func(t time.Time) string { return fmt.Sprintf("%020d", t.UnixMilli()) }
	switch t := item.(type) {
	case client.Session:
		return fmt.Sprintf("%020d\x00%s", math.MaxInt64-t.CreatedAt.UnixMilli(), t.ID)
	case client.Folder:
		return t.Path + "\x00" + t.ID
	case client.Role:
		if t.System {
			return fmt.Sprintf("0%03d", slices.Index(authz.Roles, authz.Role(t.Name)))
		}
		return "1" + t.Name + "\x00" + t.ID
	}
	v := reflect.ValueOf(item)
	text := func(field string) string {
		if f := v.FieldByName(field); f.IsValid() && f.Kind() == reflect.String {
			return f.String()
		}
		return ""
	}
	if name := text("Name"); name != "" {
		return name + "\x00" + text("ID")
	}
	if f := v.FieldByName("CreatedAt"); f.IsValid() {
		if at, ok := f.Interface().(time.Time); ok {
			return stamp(at) + "\x00" + text("ID")
		}
	}
	return text("ID")
}
