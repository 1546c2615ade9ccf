// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/testbed/load"
)

//go:embed testdata/vulnd.c
var vulndSource string

const vulndPath = "/usr/local/bin/vulnd"

// vulndFlags leave out what would make the exploits a matter of luck: they stand for an attacker who has got around it.
var vulndFlags = map[string][]string{
	"production": {"-O1", "-fno-stack-protector", "-no-pie", "-U_FORTIFY_SOURCE"},
	"oracle":     {"-O1", "-g", "-fno-stack-protector", "-no-pie", "-U_FORTIFY_SOURCE", "-fsanitize=address", "-fno-omit-frame-pointer"},
}

func vulnd(ctx context.Context, dir string) (Twin, error) {
	version, err := compiler(ctx)
	if err != nil {
		return Twin{}, err
	}
	t := Twin{Name: "vulnd", Kind: "sanitizer", Port: 8080,
		command: func(port int) []string { return []string{strconv.Itoa(port)} },
		talk:    load.HTTP("/", "vulnd"), rare: load.HTTP("/rare", "rare"), heavy: load.HTTP("/digest?32", "digest"),
		more: []load.Talk{load.HTTP("/time", "time 20"), load.HTTP("/file", "http"), vulndNotes, vulndSession, vulndTraced},
	}
	for build, flags := range vulndFlags {
		program, err := cached(dir, "vulnd."+build, append([]string{version, vulndSource}, flags...), func(path string) error {
			source := filepath.Join(filepath.Dir(path), "vulnd.c")
			if err := os.WriteFile(source, []byte(vulndSource), 0o644); err != nil {
				return err
			}
			_, err := output(ctx, "", "gcc", append(append([]string{"-std=gnu11", "-Wall", "-Wextra",
				"-ffile-prefix-map=" + filepath.Dir(path) + "=/usr/src/vulnd"}, flags...), "-o", path, source)...)
			return err
		})
		if err != nil {
			return Twin{}, err
		}
		config := image.Config{Name: "localhost/vulnd:" + build}
		config.Entrypoint, config.Cmd, config.StopSignal = []string{vulndPath}, []string{"8080"}, "SIGTERM"
		// A shell, as most images have one; tzdata and netbase have the files that it reads.
		made, err := bake(ctx, dir, config, contents{packages: []string{"dash", "netbase", "tzdata"}, programs: map[string]string{vulndPath[1:]: program}})
		if err != nil {
			return Twin{}, err
		}
		if build == "production" {
			t.Production, t.program = made, program
		} else {
			t.Oracle, t.hardened = made, program
		}
	}
	address, err := symbol(t.program, "maintenance")
	if err != nil {
		return Twin{}, fmt.Errorf("build vulnd: %w", err)
	}
	t.exploit = []Exploit{
		{Name: "stack-overflow", Doc: "a header overwrites a return address",
			Reported: "AddressSanitizer: stack-buffer-overflow", Run: stackOverflow(address)},
		{Name: "use-after-free", Doc: "a note takes the place of an ended session, and its function pointer",
			Reported: "AddressSanitizer: heap-use-after-free", Run: useAfterFree(address)},
	}
	return t, nil
}

// vulndAsk sends a request with a body.
func vulndAsk(conn net.Conn, r *bufio.Reader, method, path, body string) (string, error) {
	status, text, err := load.Exchange(conn, r, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: twins\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body))
	if err == nil && status != 200 {
		err = fmt.Errorf("%s %s is answered %d %.100q", method, path, status, text)
	}
	return strings.TrimSpace(text), err
}

// vulndNotes are stored and read.
func vulndNotes(conn net.Conn, r *bufio.Reader, n int) error {
	body := fmt.Sprintf("note of request %d", n)
	number, err := vulndAsk(conn, r, "POST", "/note", body)
	if err != nil {
		return err
	}
	return load.HTTP("/note?"+number, body)(conn, r, n)
}

// vulndSession is ended and not used again.
func vulndSession(conn net.Conn, r *bufio.Reader, n int) error {
	number, err := vulndAsk(conn, r, "POST", "/session", "somebody")
	if err != nil {
		return err
	}
	if err := load.HTTP("/session?"+number, "hello somebody")(conn, r, n); err != nil {
		return err
	}
	_, err = vulndAsk(conn, r, "DELETE", "/session?"+number, "")
	return err
}

// vulndTraced is an honest use of the header.
func vulndTraced(conn net.Conn, r *bufio.Reader, _ int) error {
	status, _, err := load.Exchange(conn, r, "GET / HTTP/1.1\r\nX-Trace: a%20b\r\nX-More: c\r\n\r\n")
	if err == nil && status != 200 {
		err = fmt.Errorf("it answers %d", status)
	}
	return err
}
