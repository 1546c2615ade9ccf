// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const tcpTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1FBB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1234        0 4712 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1FBB 0100007F:C0DE 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000 20 4 30 10 -1
   3: nonsense that nobody reads
`

func TestReadTCP(t *testing.T) {
	got, err := readTCP(strings.NewReader(tcpTable))
	want := []row{
		{inode: 4711, local: netip.MustParseAddrPort("127.0.0.1:8123")},
		{inode: 4712, local: netip.MustParseAddrPort("0.0.0.0:80")},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestReadUnix(t *testing.T) {
	got, err := readUnix(strings.NewReader(`Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 99 /run/a socket
0000000000000000: 00000002 00000000 00000000 0001 03 98 /run/connected
0000000000000000: 00000002 00000000 00010000 0001 01 97
`))
	want := []row{{inode: 99, name: `"/run/a socket"`}, {inode: 97, name: "(without a name)"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestReadSCTP(t *testing.T) {
	got, err := readSCTP(strings.NewReader(` ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
       0        0 2   10  15   36412     0 1234 127.0.0.1
       0        0 2   7   15   36413     0 1235 127.0.0.1
`))
	want := []row{{inode: 1234, name: `port "36412"`}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestParseLocal(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"0100007F:0050", "127.0.0.1:80"},
		{"00000000000000000000000001000000:1F90", "[::1]:8080"},
		{"B80D01200000000067452301EFCDAB89:0001", "[2001:db8::123:4567:89ab:cdef]:1"},
		{"0000000000000000FFFF00000100007F:0050", "[::ffff:127.0.0.1]:80"},
	} {
		got, err := parseLocal(tt.text)
		if err != nil || got.String() != tt.want {
			t.Errorf("%s: got %v, %v; want %s", tt.text, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", ":", "0100007F", "0100007:0050", "0100007F:10000", "0100007F00:0050", "zz00007F:0050"} {
		if got, err := parseLocal(bad); err == nil {
			t.Errorf("%q: got %v", bad, got)
		}
	}
}

func FuzzTables(f *testing.F) {
	f.Add(tcpTable)
	f.Add("\n0: 00000002 00000000 00010000 0001 01 99 /run/\xff socket\n")
	f.Add("h\n 0 0 2 10 15 36412 0 1234\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, o := range others {
			rows, _ := o.read(strings.NewReader(text))
			for _, r := range rows {
				if r.name == "" && !r.local.IsValid() {
					t.Errorf("a row without a name: %v", r)
				}
			}
		}
		readTCP(strings.NewReader(text))
		parseDiag([]byte(text), unix.AF_INET, diagListen)
	})
}

func TestBothListingsAgree(t *testing.T) {
	ns := space(t)
	start(t, ns, service{Style: "deaf", At: []string{"127.0.0.1:8123", "[::1]:8124", "0.0.0.0:80", "[::]:81"}})
	start(t, ns, service{Style: "go", At: []string{"[::]:82", "127.0.0.1:83"}})
	must(t, ns.Do(func() error {
		got, err := listening()
		must(t, err)
		want, err := listeningInProc()
		must(t, err)
		for _, rows := range [][]row{got, want} {
			slices.SortFunc(rows, func(a, b row) int { return a.local.Compare(b.local) })
		}
		if len(want) != 6 || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		return nil
	}))
}

func TestUnescape(t *testing.T) {
	if got := unescape(`/mnt/a\040b\134c`); got != `/mnt/a b\c` {
		t.Errorf("got %q", got)
	}
}
