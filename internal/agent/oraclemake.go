// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/oracle"
)

// OracleLabel is on oracles' containers, for people: their workload. The agent itself goes by their ids.
const OracleLabel = "io.whittle.oracle"

// OracleMadeLabel says in a unit what its oracle was made of, as OracleMade has it: one that was set afterwards is another.
const OracleMadeLabel = "io.whittle.oracle.made"

// OracleMade tells what an oracle is made of from anything else. What is in its files is not told: they are written anew.
func OracleMade(start oracle.Start) (string, error) {
	start.Files = nil
	text, err := json.Marshal(start)
	if err != nil {
		return "", fmt.Errorf("tell what the oracle is made of: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8]), nil
}

// oracleDir is what is mounted into an oracle, on the host. A unit's is always the same.
func (a *Agent) oracleDir(site loopSite) string {
	if site.OracleUnit != "" {
		return filepath.Join(a.Moving.Units, site.Dir)
	}
	return filepath.Join(a.Moving.Oracles, site.Dir)
}

// startOfOracle is what turns a production into its oracle.
func startOfOracle(spec oracle.Spec, b engine.Blueprint, dir string) (oracle.Start, error) {
	return spec.Changes(oracle.Production{Image: b.Workload.Image, Argv: b.Workload.Command, Env: oracle.Variables(b.Env)}, dir)
}

// oracleChanges turn production into its oracle, whose directory is made anew: what an oracle before it wrote is none of its
// reports.
func (a *Agent) oracleChanges(spec oracle.Spec, b engine.Blueprint, site loopSite) (engine.Changes, error) {
	dir := a.oracleDir(site)
	start, err := startOfOracle(spec, b, dir)
	if err != nil {
		return engine.Changes{}, err
	}
	if err := writeOracle(dir, start.Files); err != nil {
		return engine.Changes{}, fmt.Errorf("write what is mounted into the oracle: %w", err)
	}
	c := engine.Changes{
		Name: site.OracleName, Image: start.Image, Command: start.Command, Entrypoint: start.Entrypoint, Env: start.Env,
		// One that aborts is to stay down: production is on its way.
		NoRestart: true, Labels: map[string]string{OracleLabel: b.Workload.ID()},
	}
	for _, m := range start.Mounts {
		c.Mounts = append(c.Mounts, engine.Mount{Source: m.Source, Destination: m.Destination, ReadOnly: m.ReadOnly})
	}
	return c, nil
}

// writeOracle makes the directory of an oracle anew.
func writeOracle(dir string, files []oracle.File) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return WriteOracle(dir, files)
}

// WriteOracle makes what is mounted into an oracle. Reports are written by whatever user the service runs as, so everybody may
// write there; to the directory itself leads no way for whoever is not root.
func WriteOracle(dir string, files []oracle.File) error {
	// What is in there may be a setuid program of whoever is root in the container: no user of the host gets to it.
	if err := errors.Join(os.MkdirAll(filepath.Dir(dir), 0o700), os.Chmod(filepath.Dir(dir), 0o700)); err != nil {
		return err
	}
	for _, d := range []string{"hooks", "reports"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	// Not by MkdirAll, which minds the umask.
	if err := os.Chmod(filepath.Join(dir, "reports"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	for _, f := range files {
		name, err := filepath.Localize(f.Name)
		if err != nil {
			return fmt.Errorf("%q: %w", f.Name, err)
		}
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, f.Content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
