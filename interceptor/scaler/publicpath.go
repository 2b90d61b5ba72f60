// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import "strings"

const (
	// longMixed is how long a segment of letters and digits may be before it counts as a secret, and longSegment any segment.
	longMixed, longSegment = 16, 40
	hidden                 = "..."
)

// PublicPath returns a request's target without what may be secret, for events and logs, which more people read than the app's own
// logs: without the query, the parameters of segments (;jsessionid=…) and values (key=…), and with "..." for segments that look like
// a token, that follow a word such as "reset", or that name a user and a password.
func PublicPath(target string) string {
	target, _, _ = strings.Cut(target, "?")
	target, _, _ = strings.Cut(target, "#")
	if scheme, rest, found := strings.Cut(target, "://"); found { // of a request to a proxy
		if at := strings.LastIndexByte(authority(rest), '@'); at >= 0 {
			rest = rest[at+1:]
		}
		target = scheme + "://" + rest
	}
	segments := strings.Split(target, "/")
	before := ""
	for i, s := range segments {
		plain, _, _ := strings.Cut(s, ";")
		if key, value, found := strings.Cut(plain, "="); found && value != "" {
			plain = key + "=" + hidden
		}
		if plain != "" && (announcesSecret(before) || looksSecret(plain)) {
			plain = hidden
		}
		segments[i], before = plain, s
	}
	return strings.Join(segments, "/")
}

func authority(rest string) string {
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// looksSecret reports whether a segment is too long or too mixed for a name that a person has chosen.
func looksSecret(segment string) bool {
	var letters, digits bool
	for _, c := range []byte(segment) {
		digits = digits || c >= '0' && c <= '9'
		letters = letters || c|0x20 >= 'a' && c|0x20 <= 'z'
	}
	return len(segment) >= longSegment || len(segment) >= longMixed && letters && digits
}

// announcesSecret reports whether the segment after this one is usually a secret.
func announcesSecret(segment string) bool {
	switch strings.Trim(strings.ToLower(segment), "-_.") {
	case "token", "tokens", "secret", "password", "passwd", "pass", "reset", "reset-password", "password-reset", "invite", "invitation",
		"invitations", "activate", "activation", "confirm", "confirmation", "verify", "verification", "magic", "magic-link", "otp", "code",
		"key", "apikey", "api-key", "api_key", "auth", "session", "sessions", "unsubscribe", "share", "hook", "hooks", "webhook", "webhooks":
		return true
	}
	return false
}
