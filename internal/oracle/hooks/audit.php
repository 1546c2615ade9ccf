<?php
// SPDX-License-Identifier: Apache-2.0
//
// The audit hook of Whittle's oracle for PHP (8.0 and later), which PHP runs before every script: audit.ini beside it names it in
// auto_prepend_file. The functions that start programs or load foreign code are in disable_functions there. Since PHP 8.0
// such a function is gone and may be defined anew, which is done here: whoever calls one is reported, and ends.
//
// Other than the hooks for Python and Node this one cannot tell the service's own call from an intruder's: a function that
// was taken out of PHP can be called by nobody. What a service needs is left in it by WHITTLE_PHP_LEAVE.
//
// PHP 7 only warns of such a call, and lets nobody define it. Nothing happens here then, and the mark that says that the
// hook is there is not made. So the file has to be one that PHP 7 can read.

// The names of parameters are PHP's, as a caller may use them; references are, as the caller's variables need not exist. There are
// no types: a call with a wrong one is to be reported, too.
if (PHP_VERSION_ID >= 80000) {
    // whittle_audit reports a call and ends the process. All that it calls is PHP's own, and cannot be defined anew.
    function whittle_audit($event, $what, $why, $frames = null)
    {
        // What warns here is not for the script's error handler, which might throw.
        set_error_handler(static function () { return true; });
        $words = is_array($what) ? $what : array($what);
        foreach ($words as &$word) {
            $word = is_scalar($word) ? (string) $word : '<' . gettype($word) . '>';
        }
        unset($word);
        if ($frames === null) {
            $frames = array();
            $stack = debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS, 13);
            for ($i = 1; $i < count($stack); $i++) {
                // Where PHP itself calls, as array_map does, there is no file.
                $at = isset($stack[$i]['file']) ? $stack[$i]['file'] . ':' . $stack[$i]['line'] : '<php>';
                $frames[] = substr($at . ' ' . (isset($stack[$i + 1]) ? $stack[$i + 1]['function'] : ''), 0, 300);
            }
        }
        $pid = (int) getmypid();
        $line = json_encode(array(
            'whittle' => 'audit-php', 'event' => $event, 'what' => substr(implode(' ', $words), 0, 300), 'why' => $why,
            'pid' => $pid, 'frames' => $frames,
        ), JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE | JSON_PARTIAL_OUTPUT_ON_ERROR) . "\n";
        $file = false;
        for ($n = 0; $n < 4 && $file === false; $n++) {
            // "x" follows no link.
            $file = fopen(get_cfg_var('whittle.reports') . '/report.' . $pid . ($n ? '.' . $n : ''), 'x');
        }
        if ($file === false) {
            $file = fopen('php://stderr', 'w');
        }
        if ($file !== false) {
            fwrite($file, $line);
            fclose($file);
        }
        if (!headers_sent()) {
            http_response_code(500);
        }
        // A script's shutdown functions and destructors are not to go on. The first process of a container is one that no signal
        // of its own ends; exit ends its request.
        if (function_exists('posix_kill')) {
            posix_kill($pid, 9);
        }
        exit(66);
    }

    // whittle_takes says whether a function was taken out for this hook, and not by who made the image: where a script asks
    // function_exists, it is to get production's answer.
    function whittle_takes($name, $extension = 'standard')
    {
        $before = str_replace(' ', ',', (string) get_cfg_var('whittle.disabled'));
        return !function_exists($name) && extension_loaded($extension) && !in_array($name, explode(',', $before), true);
    }

    if (whittle_takes('exec')) {
        function exec($command, &$output = null, &$result_code = null) { whittle_audit('exec', $command, 'a script starts a program'); }
    }
    if (whittle_takes('shell_exec')) { // `command`, too
        function shell_exec($command) { whittle_audit('shell_exec', $command, 'a script starts a program'); }
    }
    if (whittle_takes('system')) {
        function system($command, &$result_code = null) { whittle_audit('system', $command, 'a script starts a program'); }
    }
    if (whittle_takes('passthru')) {
        function passthru($command, &$result_code = null) { whittle_audit('passthru', $command, 'a script starts a program'); }
    }
    if (whittle_takes('popen')) {
        function popen($command, $mode) { whittle_audit('popen', $command, 'a script starts a program'); }
    }
    if (whittle_takes('proc_open')) {
        function proc_open($command, $descriptor_spec, &$pipes, $cwd = null, $env_vars = null, $options = null)
        {
            whittle_audit('proc_open', $command, 'a script starts a program');
        }
    }
    if (whittle_takes('pcntl_exec', 'pcntl')) {
        function pcntl_exec($path, $args = array(), $env_vars = array())
        {
            whittle_audit('pcntl_exec', is_array($args) ? array_merge(array($path), $args) : $path, 'a script starts a program');
        }
    }
    if (whittle_takes('mail')) {
        function mail($to, $subject, $message, $additional_headers = array(), $additional_params = '')
        {
            whittle_audit('mail', array($to, $additional_params), 'a script starts sendmail');
        }
    }
    if (whittle_takes('mb_send_mail', 'mbstring')) {
        function mb_send_mail($to, $subject, $message, $additional_headers = array(), $additional_params = null)
        {
            whittle_audit('mb_send_mail', array($to, (string) $additional_params), 'a script starts sendmail');
        }
    }
    if (whittle_takes('dl')) {
        function dl($extension_filename) { whittle_audit('dl', $extension_filename, 'a script loads foreign code'); }
    }

    // The class FFI cannot be taken out. It throws, as ffi.enable is off, and what nobody catches is seen at the end.
    if (extension_loaded('ffi') && strpos(get_cfg_var('whittle.watched'), 'FFI') !== false) {
        register_shutdown_function(static function () {
            $last = error_get_last();
            if ($last !== null && strncmp($last['message'], 'Uncaught FFI\\Exception: FFI API is restricted', 45) === 0) {
                whittle_audit('FFI', '', 'a script loads foreign code', array($last['file'] . ':' . $last['line']));
            }
        });
    }

    // Who started this twin looks for the mark: without the hook it vouches for nothing. Nor does it where PHP still has what was to
    // be taken out, or where this hook cannot do its work. That is one for each kind of PHP: their settings may differ.
    if (!is_file(get_cfg_var('whittle.reports') . '/loaded.' . PHP_SAPI)) {
        (static function () {
            $has = get_defined_functions()['internal'];
            $watched = explode(',', (string) get_cfg_var('whittle.watched'));
            $needs = array('set_error_handler', 'debug_backtrace', 'json_encode', 'fopen', 'fwrite', 'fclose', 'getmypid', 'error_get_last',
                'register_shutdown_function', 'headers_sent', 'http_response_code');
            $ffi = in_array('FFI', $watched, true) && extension_loaded('ffi') && ini_get('ffi.enable');
            if (!$ffi && !array_intersect($watched, $has) && !array_diff($needs, $has)) {
                set_error_handler(static function () { return true; }); // another process may have been first
                fopen(get_cfg_var('whittle.reports') . '/loaded.' . PHP_SAPI, 'x');
                restore_error_handler();
            }
        })();
    }
}

// What the image has to be run first. It runs with the script's variables, so nothing here has any.
if ((string) get_cfg_var('whittle.prepend') !== '') {
    require get_cfg_var('whittle.prepend');
}
