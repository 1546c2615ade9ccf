// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/hint"
)

func TestOpenIsPrivate(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	put(t, s, testPolicy("redis", 1), "learned")
	seen := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		seen++
		return err
	})
	if err != nil || seen < 4 {
		t.Errorf("saw %d files, %v, want at least directory, lock, database and WAL", seen, err)
	}
}

func TestOpenRefusesADirectoryOfOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, clock())
	if err == nil || !strings.Contains(err.Error(), "can be written by others") || hint.Of(err) == "" {
		t.Errorf("Open of a directory of everybody: %v", err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("the directory's mode was changed to %v", info.Mode())
	}
}

func TestSecondWriter(t *testing.T) {
	dir := stateDir(t)
	first := open(t, dir)
	_, err := Open(dir, clock())
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() || !strings.Contains(hint.Of(err), "--state") {
		t.Fatalf("second Open: %v (hint %q), want *LockedError naming this process", err, hint.Of(err))
	}
	put(t, first, testPolicy("redis", 1), "the first goes on")
	closeStore(t, first)
	closeStore(t, open(t, dir))
}

func TestDamage(t *testing.T) {
	fill := func(t *testing.T) (file string) {
		dir := stateDir(t)
		s := open(t, dir)
		for i := range 50 {
			put(t, s, testPolicy(fmt.Sprint("image", i), 1), "learned")
		}
		closeStore(t, s)
		return filepath.Join(dir, databaseName)
	}
	for _, tc := range []struct {
		name   string
		damage func(data []byte) []byte
	}{
		{"not a database", func([]byte) []byte { return bytes.Repeat([]byte("whittle "), 4096) }},
		{"cut", func(data []byte) []byte { return data[:len(data)/2+100] }},
		{"zeros in the middle", func(data []byte) []byte { clear(data[4096:]); return data }},
		{"header", func(data []byte) []byte { copy(data[16:], []byte{0xff, 0xff, 9, 9, 9, 9}); return data }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := fill(t)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			bad := tc.damage(data)
			if err := os.WriteFile(file, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = Open(filepath.Dir(file), clock())
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), file) || !strings.Contains(hint.Of(err), "mv ") {
				t.Errorf("Open: %v (hint %q), want *CorruptError naming the file", err, hint.Of(err))
			}
			if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, bad) {
				t.Errorf("the damaged file was changed or removed: %v", err)
			}
		})
	}
}

// What the hint says works.
func TestMovingADamagedDatabaseAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	closeStore(t, open(t, dir))
	file := filepath.Join(dir, databaseName)
	if err := os.WriteFile(file, []byte(strings.Repeat("x", 8192)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, clock())
	_, command, ok := strings.Cut(hint.Of(err), "afresh: ")
	if !ok {
		t.Fatalf("no command in the hint of %v", err)
	}
	if out, err := shell(t, command); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	put(t, open(t, dir), testPolicy("redis", 1), "afresh")
	if _, err := os.Stat(filepath.Join(dir, "damaged", databaseName)); err != nil {
		t.Error(err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	put(t, s, testPolicy("redis", 1), "learned")
	if _, err := s.write.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	for name, open := range map[string]func() (*Store, error){
		"Open":         func() (*Store, error) { return Open(dir, clock()) },
		"OpenReadOnly": func() (*Store, error) { return OpenReadOnly(dir) },
	} {
		_, err := open()
		var schema *SchemaError
		if !errors.As(err, &schema) || schema.Got != 99 || !strings.Contains(hint.Of(err), "newer whittle") {
			t.Errorf("%s: %v, want *SchemaError", name, err)
		}
	}
}

// A crash while the database was being made leaves an empty file.
func TestEmptyDatabaseIsNew(t *testing.T) {
	dir := stateDir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, databaseName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, open(t, dir), testPolicy("redis", 1), "learned")
}

func TestWritesAreSynced(t *testing.T) {
	s := open(t, stateDir(t))
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1"} {
		var got string
		if err := s.write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %s, %v, want %s", pragma, got, err, want)
		}
	}
	if _, err := s.write.Exec(`INSERT INTO exports VALUES ('f', 'nobody', 1, 0)`); err == nil {
		t.Error("foreign keys are not enforced")
	}
}
