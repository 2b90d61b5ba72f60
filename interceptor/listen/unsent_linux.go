// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
)

// unsent counts the connections to the given local ports that are closed here but not finished: the other side has not yet
// acknowledged everything that was written, and the end.
func unsent(ports map[int32]bool) (int, error) {
	n := 0
	for _, name := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		table, err := os.ReadFile(name)     //nolint:gosec // one of these two
		if errors.Is(err, fs.ErrNotExist) { // no IPv6
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("reading the kernel's connections: %w", err)
		}
		n += closing(table, ports)
	}
	return n, nil
}

// closing counts these connections in a kernel table. Its lines begin with a number, the local address and port, the remote address
// and port, and the state, in hexadecimal digits.
func closing(table []byte, ports map[int32]bool) int {
	n := 0
	for lines := bufio.NewScanner(bytes.NewReader(table)); lines.Scan(); {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 4 {
			continue
		}
		switch string(fields[3]) {
		case "04", "09", "0B": // FIN_WAIT1, LAST_ACK, CLOSING
		default:
			continue
		}
		_, digits, _ := bytes.Cut(fields[1], []byte(":"))
		if port, err := strconv.ParseUint(string(digits), 16, 16); err == nil && ports[int32(port)] {
			n++
		}
	}
	return n
}
