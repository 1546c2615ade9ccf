// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	_ "embed"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
)

//go:embed hooks/audit.php
var phpHook []byte

// phpWatched is what hooks/audit.php defines anew: all of PHP that starts programs or loads foreign code. FFI is a class. pcntl_fork
// is not among it, as services that listen by themselves have their workers from it, and it starts no program.
var phpWatched = []string{
	"exec", "shell_exec", "system", "passthru", "popen", "proc_open", "pcntl_exec", "mail", "mb_send_mail", "dl", "FFI",
}

// PHPLeave is a variable of an oracle's environment: what of phpWatched the service itself needs, separated by commas.
const PHPLeave = "WHITTLE_PHP_LEAVE"

func (s Spec) phpLeft() []string {
	if s.Env[PHPLeave] == "" {
		return nil
	}
	return strings.Split(s.Env[PHPLeave], ",")
}

// auditPHP adds a directory to those that PHP reads its settings from. What is read last counts.
func auditPHP(start *Start, env environment, left []string, dir string) {
	scanned, set := env.now["PHP_INI_SCAN_DIR"]
	if !set {
		scanned, set = env.before["PHP_INI_SCAN_DIR"]
	}
	switch {
	case !set:
		scanned = ":" + HookDir // what is empty in a list is the directory that PHP was built with
	case scanned == "":
		scanned = HookDir // and when the whole list is, no directory is read
	default:
		scanned += ":" + HookDir
	}
	env.now["PHP_INI_SCAN_DIR"] = scanned
	// Symfony's console, which most frameworks have their commands from, would ask stty for them: a program.
	for name, value := range map[string]string{"COLUMNS": "80", "LINES": "50"} {
		if env.get(name) == "" {
			env.now[name] = value
		}
	}
	start.hook(dir, File{"audit.php", phpHook}, File{"audit.ini", phpSettings(left)})
}

// phpArmed looks for the mark of the kind of PHP (PHP_SAPI) that serves: a command of the image's entrypoint, which runs before it,
// shows nothing of the settings that php-fpm has from its pool. Where it is not seen which kind that is, as in a web server
// in front of it, it is none that runs commands.
func phpArmed(maps io.Reader, files []string) error {
	var kinds []string
	_, err := mapped(maps, func(line string) bool {
		_, file, _ := strings.Cut(line, "/")
		kinds = phpKinds(path.Base(file))
		return kinds != nil
	})
	if err != nil {
		return err
	}
	for _, name := range files {
		kind, ok := strings.CutPrefix(name, "loaded.")
		if ok && (slices.Contains(kinds, kind) || kinds == nil && kind != "cli") {
			return nil
		}
	}
	return errors.New("no script of the oracle was run with the audit hook: nobody has asked for one yet, it is older than PHP 8.0, " +
		"or other settings than the hook's count (auto_prepend_file, disable_functions, open_basedir, php -n)")
}

// phpKinds are what PHP_SAPI may be in a program.
func phpKinds(program string) []string {
	name, is := strings.CutPrefix(program, "php")
	switch {
	case !is:
		return nil
	case version(name):
		return []string{"cli", "cli-server"}
	case strings.HasPrefix(name, "-fpm"):
		return []string{"fpm-fcgi"}
	case strings.HasPrefix(name, "-cgi"):
		return []string{"cgi-fcgi"}
	}
	return nil
}

// phpSettings make PHP run the hook. ${name} is what was set before, by the image; whittle.* is for the hook, which cannot read
// it from the environment: php-fpm clears its workers'.
func phpSettings(left []string) []byte {
	watched := slices.DeleteFunc(slices.Clone(phpWatched), func(name string) bool { return slices.Contains(left, name) })
	functions := slices.DeleteFunc(slices.Clone(watched), func(name string) bool { return name == "FFI" })
	lines := []string{
		`whittle.reports = "` + ReportDir + `"`,
		`whittle.watched = "` + strings.Join(watched, ",") + `"`,
		`whittle.disabled = "${disable_functions}"`,
		`whittle.prepend = "${auto_prepend_file}"`,
		`disable_functions = "` + strings.Join(append(functions, "${disable_functions}"), ",") + `"`,
		`auto_prepend_file = "` + HookDir + `/audit.php"`,
		`; Code that was compiled while these functions were PHP's own calls them in a way that only fits those.`,
		`opcache.file_cache = ""`,
		`opcache.file_cache_only = 0`,
	}
	if slices.Contains(watched, "FFI") {
		lines = append(lines, `ffi.enable = 0`)
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}
