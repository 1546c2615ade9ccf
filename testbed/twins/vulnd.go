// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

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
		talk:    load.HTTP("/", "vulnd"), rare: load.HTTP("/rare", "rare"),
	}
	for build, flags := range vulndFlags {
		program, err := cached(dir, "vulnd."+build, append([]string{version, vulndSource}, flags...), func(path string) error {
			source := filepath.Join(filepath.Dir(path), "vulnd.c")
			if err := os.WriteFile(source, []byte(vulndSource), 0o644); err != nil {
				return err
			}
			_, err := output(ctx, "", "gcc", append(append([]string{"-std=gnu11", "-Wall", "-Wextra", "-Werror"}, flags...), "-o", path, source)...)
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
		{Name: "stack-overflow", Doc: "a header overwrites a return address", Run: stackOverflow(address)},
		{Name: "use-after-free", Doc: "a note takes the place of an ended session, and its function pointer", Run: useAfterFree(address)},
	}
	return t, nil
}
