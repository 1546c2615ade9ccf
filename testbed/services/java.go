// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

const javaApp = `import com.sun.net.httpserver.*;
import java.io.*;
import java.net.*;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.concurrent.*;

public class Main {
  static volatile String config = read();
  static String read() {
    try { return Files.readString(Path.of("/srv/app/config")); } catch (IOException e) { return e.toString(); }
  }
  interface Page { String of(HttpExchange x) throws Exception; }
  static void page(HttpServer s, String path, Page p) {
    s.createContext(path, x -> {
      byte[] body;
      try { body = p.of(x).getBytes(); } catch (Exception e) { body = e.toString().getBytes(); }
      x.sendResponseHeaders(200, body.length == 0 ? -1 : body.length);
      try (OutputStream o = x.getResponseBody()) { o.write(body); }
    });
  }
  public static void main(String[] a) throws Exception {
    HttpServer s = HttpServer.create(new InetSocketAddress("127.0.0.1", 8000), 0);
    s.setExecutor(Executors.newCachedThreadPool());
    page(s, "/", x -> config);
    page(s, "/reload", x -> { config = read(); return config; });
    page(s, "/gc", x -> { byte[][] b = new byte[60][]; for (int i = 0; i < 60; i++) b[i] = new byte[1 << 20]; System.gc(); return "collected"; });
    page(s, "/spawn", x -> new String(new ProcessBuilder("/usr/bin/expr", "40", "+", "2").start().getInputStream().readAllBytes()));
    page(s, "/lookup", x -> InetAddress.getByName("localhost").toString());
    page(s, "/upload", x -> {
      Path p = Path.of("/var/tmp/upload");
      Files.copy(x.getRequestBody(), p, StandardCopyOption.REPLACE_EXISTING);
      try (FileChannel f = FileChannel.open(p, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
        java.nio.MappedByteBuffer m = f.map(FileChannel.MapMode.READ_WRITE, 0, f.size());
        m.put(0, (byte) 7);
        m.force();
        f.lock().release();
        f.force(true);
      }
      Files.move(p, Path.of("/var/tmp/kept"), StandardCopyOption.ATOMIC_MOVE);
      return "kept " + Files.size(Path.of("/var/tmp/kept"));
    });
    s.start();
  }
}
`

func java() Service {
	const base = "http://127.0.0.1:8000/"
	return Service{
		Name: "java", Doc: "an HTTP server in Java: HotSpot writes the code that it runs", Packages: []string{"openjdk-17-jdk-headless"},
		Args:    []string{"/usr/bin/java", "-Xmx256m", "-XX:+ExitOnOutOfMemoryError", "-cp", "/srv/app", "Main"},
		Files:   []File{{Path: "/srv/app/Main.java", Text: javaApp}, {Path: "/srv/app/config", Text: "first version"}},
		Prepare: []Command{{Args: []string{"javac", "-d", "/srv/app", "/srv/app/Main.java"}}},
		Ready:   page(base, "version"),
		Ops: []Op{
			{Name: "load", Doc: "requests, until their code is compiled", Do: repeat(400, page(base, "version"))},
			{Name: "reload", Rare: true, Doc: "the configuration is changed and read again", Do: all(written("/srv/app/config", "second version"), page(base+"reload", "second"), page(base, "second"))},
			{Name: "gc", Rare: true, Doc: "the heap grows and is collected", Do: page(base+"gc", "collected")},
			{Name: "spawn", Rare: true, Doc: "another program is run", Do: page(base+"spawn", "42")},
			{Name: "lookup", Rare: true, Doc: "a name is looked up", Do: page(base+"lookup", "127.0.0.1")},
			{Name: "upload", Rare: true, Doc: "a body of 4 MB is written, mapped, locked, synced and moved", Do: answer(http.MethodPut, base+"upload", large(4<<20), 200, "kept 4194304")},
			{Name: "thread-dump", Rare: true, Doc: "SIGQUIT prints what the threads do", Do: func(ctx context.Context, i *Instance) error {
				if err := i.Signal(unix.SIGQUIT); err != nil {
					return err
				}
				return Eventually(ctx, 20*time.Second, func() error {
					return wants("SIGQUIT", i.Log(), "Full thread dump", nil)
				})
			}},
			{Name: "heap-dump", Rare: true, Doc: "jcmd attaches and has what is in memory written into a file", Do: all(admin("Heap dump file created", "jcmd", "1", "GC.heap_dump", "/var/tmp/heap.hprof"), page(base, "version"))},
		},
	}
}
