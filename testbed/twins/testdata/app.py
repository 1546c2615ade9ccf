# SPDX-License-Identifier: Apache-2.0
"""A small Flask application with one bug, to be attacked in tests and nowhere else: /eval evaluates what it is sent."""
import os
import time

from flask import Flask, render_template, request

app = Flask(__name__)
notes = ['a note']  # of this worker


@app.get('/')
def index():
    return 'flask\n'


@app.get('/page')
def page():
    return render_template('page.html', now=time.strftime('%F %T'), notes=notes)


@app.post('/note')
def note():
    notes.append(request.get_data(as_text=True)[:200])
    del notes[:-100]
    return f'{len(notes)}\n'


@app.get('/rare')
def rare():
    """What nothing else here calls: random bytes from the kernel, the file system's size, a file in memory."""
    fd = os.memfd_create('rare')
    try:
        os.ftruncate(fd, 16)
        os.pwrite(fd, os.getrandom(16), 0)
        return f'rare {os.statvfs("/").f_bsize} {os.sysconf("SC_NPROCESSORS_ONLN")}\n'
    finally:
        os.close(fd)


@app.get('/eval')
def evaluate():
    """The bug: an expression of Python can do whatever its process can."""
    return str(eval(request.args['x'])) + '\n'
