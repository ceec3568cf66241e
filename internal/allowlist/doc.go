// Package allowlist gives hosts, addresses, prefixes and ports one canonical form, and matches them.
//
// Rule and request go through the same parser, so that two spellings of one target get one verdict. IPv4-mapped IPv6
// addresses (::ffff:10.0.0.5) are unmapped here, once, on the way in: netip's prefixes do not match them, and resolvers
// return them. What a system resolver might read as an address in disguise (127.1, 0177.0.0.1, 2130706433, 0x7f.1) is no
// host name. An empty list contains nothing.
//
// The package never resolves a name and holds no policy of its own.
package allowlist
