// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/oracle"
)

const asanReport = "=================================================================\n" +
	"==7==ERROR: AddressSanitizer: stack-buffer-overflow on address 0x7ffd at pc 0x55 bp 0x7f sp 0x7f\n" +
	"WRITE of size 64 at 0x7ffd thread T0\n    #0 0x55 in handle /src/web.c:10\n" +
	"SUMMARY: AddressSanitizer: stack-buffer-overflow /src/web.c:10 in handle\n==7==ABORTING\n"

// Whoever is in the oracle writes its reports: what lies there is read once, and nothing but plain files is.
func TestReports(t *testing.T) {
	all := filepath.Join(t.TempDir(), "oracles")
	if err := os.Mkdir(all, 0o755); err != nil { // as an older agent made it
		t.Fatal(err)
	}
	dir := filepath.Join(all, "one")
	if err := writeOracle(dir, []oracle.File{{Name: "hooks/a/b.py", Content: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, "reports", name) }
	secret := filepath.Join(t.TempDir(), "secret")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(secret, asanReport)
	if err := os.Symlink(secret, in("asan.1")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(in("asan.2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(in("asan.3"), 0o755); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", in("asan.4"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	var r reports
	look := func(ended bool, want int) {
		t.Helper()
		found, err := r.look(dir, ended)
		if err != nil || len(found) != want {
			t.Fatalf("found %d reports, %v, want %d: %+v", len(found), err, want, found)
		}
	}
	look(true, 0)
	write(in("asan.7"), asanReport[:20])
	look(false, 0) // it is being written
	write(in("asan.7"), asanReport)
	look(false, 0)
	look(false, 1)
	look(false, 0)
	look(true, 0)
	write(in("asan.8"), asanReport)
	look(true, 1) // it does not grow any more
	for i := range 200 {
		write(in(fmt.Sprintf("decoy.%03d", i)), "")
	}
	write(in("zz"), asanReport)
	look(true, 1) // behind many that say nothing
	for i := range maxReportFiles {
		write(in(fmt.Sprintf("flood.%d", i)), "")
	}
	look(true, 1) // the flood itself, once
	look(true, 0)
	if found, err := r.look(filepath.Join(dir, "none"), true); err != nil || len(found) != 0 {
		t.Errorf("of no directory: %v, %v", found, err)
	}
	if info, err := os.Stat(all); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("users of the host get to what a container writes: %v, %v", info.Mode(), err)
	}
	info, err := os.Stat(filepath.Join(dir, "reports"))
	if err != nil || info.Mode().Perm() != 0o777 || info.Mode()&os.ModeSticky == 0 {
		t.Errorf("the directory is %v, %v", info.Mode(), err)
	}
	if err := writeOracle(dir, []oracle.File{{Name: "../../escape"}}); err == nil {
		t.Error("a file outside the directory is written")
	}
}

func TestListening(t *testing.T) {
	table := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n" +
		"   1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n junk\n"
	found := map[string]bool{}
	listeningIn(strings.NewReader(table), found)
	if len(found) != 1 || !found["socket:[4711]"] {
		t.Errorf("%v listen", found)
	}
}
