// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package listen

import "testing"

func TestClosing(t *testing.T) {
	const table = `  sl  local_address                         remote_address                        ` +
		`st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:2710 00000000000000000000000000000000:0000 ` +
		`0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:2710 0100007F:8001 04 00010000:00000000 01:00000014 00000000     0        0 0 1
   2: 0100007F:2710 0100007F:8002 09 00000001:00000000 01:00000014 00000000     0        0 0 1
   3: 0100007F:2710 0100007F:8003 0B 00000001:00000000 01:00000014 00000000     0        0 0 1
   4: 0100007F:2710 0100007F:8004 05 00000000:00000000 01:00000014 00000000     0        0 0 1
   5: 0100007F:2710 0100007F:8005 01 00010000:00000000 01:00000014 00000000     0        0 7 1
   6: 0100007F:2711 0100007F:8006 04 00010000:00000000 01:00000014 00000000     0        0 0 1
`
	for _, tc := range []struct {
		port int32
		want int
	}{{10000, 3}, {10001, 1}, {10002, 0}} {
		if got := closing([]byte(table), map[int32]bool{tc.port: true}); got != tc.want {
			t.Errorf("port %d: %d connections, want %d", tc.port, got, tc.want)
		}
	}
}
