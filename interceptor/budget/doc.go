// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package budget shares the memory of one process between those who use it, so that none of them can take it from the others. It
// knows no requests and no connections, and imports nothing of this project.
//
// What takes memory for long draws it from the account of its route: a connection, a head that is longer than usual, a held request,
// bytes that a client does not take. What lasts for a moment only is not counted. The rule is one line (see Pool.fits): who has much
// is refused early, and who has little only when nearly everything is taken. There is no list of accounts to look through and no
// lock: an account is three counters.
package budget
