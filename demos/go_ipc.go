// go-ipc, the Go side: pipe, signal and socket out of Go's standard library, for demos/go_ipc.py.
//
//	go run demos/go_ipc.go pipe   TEXT FD      into os.Pipe and io.Pipe, then into the descriptor it has inherited
//	go run demos/go_ipc.go signal TEXT FD      one byte into the descriptor when it listens; then kill -USR1 it
//	go run demos/go_ipc.go socket TEXT PATH    TEXT to a server at PATH, which must answer it in upper case
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	text := []byte(os.Args[2])
	switch part, where := os.Args[1], os.Args[3]; part {
	case "pipe":
		pipes(text, inherited(where))
	case "signal":
		signals(inherited(where))
	case "socket":
		socket(text, where)
	}
}

func pipes(text []byte, out *os.File) {
	before := pipeDescriptors()
	r, w, err := os.Pipe()
	must(err)
	n, err := w.Write(text)
	must(err)
	fmt.Printf("os.Pipe: %d descriptors more; nobody has read, and Write has returned %d\n", pipeDescriptors()-before, n)
	_, err = io.ReadFull(r, make([]byte, n))
	must(err)

	before = pipeDescriptors()
	reader, writer := io.Pipe()
	returned := make(chan int)
	go func() {
		n, _ := writer.Write(text)
		returned <- n
	}()
	first := make([]byte, 5)
	_, err = io.ReadFull(reader, first)
	must(err)
	select {
	case <-returned:
		must(fmt.Errorf("io.Pipe: Write has returned before all was read"))
	case <-time.After(20 * time.Millisecond):
		fmt.Printf("io.Pipe: %d descriptors more; %d bytes are read, and Write still waits\n",
			pipeDescriptors()-before, len(first))
	}
	_, err = io.ReadFull(reader, make([]byte, len(text)-len(first)))
	must(err)
	fmt.Printf("io.Pipe: all is read, and Write has returned %d\n", <-returned)

	_, err = out.Write(text)
	must(err)
}

func signals(ready *os.File) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	_, err := ready.Write([]byte("!"))
	must(err)
	fmt.Printf("received from the channel: %v\n", <-c)
}

func socket(text []byte, path string) {
	c, err := net.Dial("unix", path)
	must(err)
	_, err = c.Write(text)
	must(err)
	answer := make([]byte, 100)
	n, err := c.Read(answer)
	must(err)
	fmt.Printf("sent %q, received %q\n", text, answer[:n])
	if string(answer[:n]) != strings.ToUpper(string(text)) {
		os.Exit(1)
	}
}

// pipeDescriptors counts this process's descriptors that are ends of pipes.
func pipeDescriptors() (count int) {
	entries, err := os.ReadDir("/proc/self/fd")
	must(err)
	for _, entry := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil && strings.HasPrefix(target, "pipe:") {
			count++
		}
	}
	return count
}

func inherited(number string) *os.File {
	fd, err := strconv.Atoi(number)
	must(err)
	return os.NewFile(uintptr(fd), "inherited")
}

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
