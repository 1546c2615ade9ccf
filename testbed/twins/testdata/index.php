<?php
// SPDX-License-Identifier: Apache-2.0
// A small application with two bugs, to be attacked in tests and nowhere else: /ping gives a shell what it is sent, and /eval
// evaluates it.
switch (strtok($_SERVER['REQUEST_URI'], '?')) {
    case '/page':
        $rows = array();
        for ($i = 0; $i < 300; $i++) {
            $rows[] = '<li>' . substr(md5("note $i"), 0, 8) . ' a note</li>';
        }
        sort($rows);
        echo implode("\n", $rows);
        break;
    case '/rare': // what nothing else here calls: a lock, a link, the file system's size
        $file = tempnam('/tmp', 'rare');
        $handle = fopen($file, 'r+');
        flock($handle, LOCK_EX);
        ftruncate($handle, 16);
        symlink($file, "$file.link");
        unlink("$file.link");
        unlink($file);
        echo 'rare ', disk_total_space('/') > 0 ? 'space' : '', "\n";
        break;
    case '/ping':
        echo system('echo pong ' . $_GET['x']);
        break;
    case '/eval':
        echo eval('return ' . $_GET['x'] . ';');
        break;
    default:
        echo "php\n";
}
