package api

import (
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fairleadhq/fairlead/protocol"
)

// schemaOf registers v's type and refers to it.
func (a *API) schemaOf(v any) *huma.Schema {
	t := reflect.TypeOf(v)
	return a.huma.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

func (a *API) serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	b, err := a.spec()
	if err != nil {
		a.fail(w, r, &protocol.Error{Code: protocol.CodeInternal, Message: "internal error", Cause: err})
		return
	}
	w.Header().Set("Content-Type", "application/openapi+json;version=3.1")
	_, _ = w.Write(b)
}
