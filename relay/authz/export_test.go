package authz

// LongestList is how many grants a decision may have to look at in one list.
func LongestList(p Principal) (n int) {
	p.rights.each(func(h *holding) {
		n = max(n, len(h.anywhere))
		for _, l := range h.from {
			n = max(n, len(l))
		}
	})
	return n
}
