/*
 * The native runtime: thread pool, step tables, memory, the dispatcher behind `submit`, and two loops that run while weights are prepared.
 * Built once per machine into a shared library that is never unloaded. It knows nothing of models, graphs or kernels' insides:
 * a kernel is an address, two tables of arguments and a range of units.
 *
 * The layout of a step and the meaning of every export are fixed in src/runtime/native/contract.ts.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { DONE = 0, ABORTED = 1, OUT_OF_MEMORY = -1 };
enum { BARRIER = 1, SERIAL = 2, DIVISIBLE = 4 };
enum { MAXIMUM_THREADS = 256, WORKER_STACK = 2 << 20, DISPATCHER_STACK = 8 << 20 };

typedef void (*Kernel)(char *const *pointers, const int64_t *numbers, int64_t begin, int64_t end, char *scratch);

typedef struct {
  Kernel entry;
  char *const *pointers;
  const int64_t *numbers;
  int64_t units, grain, flags;
  int64_t cycles; /* ticks of the last profiled run */
  _Atomic int64_t claimed; /* pieces of the open part that threads have taken in this run */
} Step;
_Static_assert(sizeof(Step) == 64 && offsetof(Step, units) == 24 && offsetof(Step, cycles) == 48, "layout of contract.ts");

/* ---- Clocks ------------------------------------------------------------------------------------------------------------------- */

static int64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* A counter of constant rate, cheap enough to read between kernels. */
static int64_t ticks(void) {
#if defined(__x86_64__)
  return (int64_t)__builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  int64_t count;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(count));
  return count;
#else
  return nanoseconds();
#endif
}

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* Both clocks at one moment: the closest of some tries, because the thread may lose its core between the two. */
static void read_clocks(int64_t *tick, int64_t *nano) {
  int64_t closest = INT64_MAX;
  for (int i = 0; i < 16; i++) {
    int64_t before = ticks(), now = nanoseconds(), took = ticks() - before;
    if (took >= closest) continue;
    closest = took;
    *tick = before + took / 2;
    *nano = now;
  }
}

double tg_ticks_per_second(void) {
  int64_t startTick = 0, start = 0, endTick = 0, end = 0;
  read_clocks(&startTick, &start);
  while (nanoseconds() - start < 20000000) relax();
  read_clocks(&endTick, &end);
  return (double)(endTick - startTick) / (double)(end - start) * 1e9;
}

/* ---- Floating point state: round to nearest, subnormals kept, on every thread that runs kernels ------------------------------ */

static uint64_t enter_numerics(void) {
#if defined(__x86_64__)
  uint32_t before = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(0x1f80);
  return before;
#elif defined(__aarch64__)
  uint64_t before;
  __asm__ volatile("mrs %0, fpcr" : "=r"(before));
  __asm__ volatile("msr fpcr, %0" : : "r"(UINT64_C(0)));
  return before;
#else
  return 0;
#endif
}

static void leave_numerics(uint64_t before) {
#if defined(__x86_64__)
  __builtin_ia32_ldmxcsr((uint32_t)before);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"(before));
#else
  (void)before;
#endif
}

/* ---- Memory ------------------------------------------------------------------------------------------------------------------- */

static const size_t hugePage = 2 << 20, mapFrom = 256 << 10;
static _Atomic int64_t allocatedBytes;

static size_t rounded_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

static size_t mapped_size(size_t bytes, bool huge) { return rounded_up(bytes, huge ? hugePage : (size_t)sysconf(_SC_PAGESIZE)); }

/* Over-allocates and cuts both ends off, so that the block starts on a huge page and unmapping needs only address and size. */
static void *map_aligned(size_t bytes, bool huge) {
  size_t slack = huge ? hugePage : 0, total = bytes + slack;
  char *base = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return NULL;
  if (!huge) return base;
  char *start = (char *)(((uintptr_t)base + hugePage - 1) & ~(uintptr_t)(hugePage - 1));
  if (start > base) munmap(base, (size_t)(start - base));
  if (start + bytes < base + total) munmap(start + bytes, (size_t)(base + total - (start + bytes)));
#ifdef MADV_HUGEPAGE
  madvise(start, bytes, MADV_HUGEPAGE);
#endif
  return start;
}

/*
 * Slabs of huge pages for blocks that are smaller than some of them: reading a weight of a megabyte through small pages costs half of the memory's speed,
 * because fetching ahead stops at the end of every page. First fit, lowest address first, so that what is allocated in one go lies in one row.
 */
typedef struct Hole {
  struct Hole *next; /* at a higher address, never adjacent */
  char *start;
  size_t bytes;
} Hole;

typedef struct Slab {
  struct Slab *next;
  char *base, *touched; /* memory from `touched` on was never given out and is zero */
  Hole *holes;
  int64_t live;
} Slab;

static const size_t slabBytes = 64 << 20, largestInSlab = 16 << 20, smallestInSlab = 16 << 10;
static pthread_mutex_t slabLock = PTHREAD_MUTEX_INITIALIZER;
static Slab *slabs;

static Hole *new_hole(char *start, size_t bytes, Hole *next) {
  Hole *hole = malloc(sizeof *hole);
  if (hole) *hole = (Hole){next, start, bytes};
  return hole;
}

static void *take_from(Slab *slab, size_t bytes) {
  for (Hole **link = &slab->holes; *link; link = &(*link)->next) {
    Hole *hole = *link;
    if (hole->bytes < bytes) continue;
    char *start = hole->start;
    hole->start += bytes;
    hole->bytes -= bytes;
    if (hole->bytes == 0) {
      *link = hole->next;
      free(hole);
    }
    char *end = start + bytes;
    if (start < slab->touched) memset(start, 0, (size_t)((end < slab->touched ? end : slab->touched) - start));
    if (end > slab->touched) slab->touched = end;
    slab->live++;
    return start;
  }
  return NULL;
}

static Slab *add_slab(void) {
  Slab *slab = calloc(1, sizeof *slab);
  char *base = slab ? map_aligned(slabBytes, true) : NULL;
  Hole *whole = base ? new_hole(base, slabBytes, NULL) : NULL;
  if (!whole) {
    if (base) munmap(base, slabBytes);
    free(slab);
    return NULL;
  }
  *slab = (Slab){.next = slabs, .base = base, .touched = base, .holes = whole};
  return slabs = slab;
}

static void *slab_allocate(size_t bytes) {
  void *memory = NULL;
  pthread_mutex_lock(&slabLock);
  for (Slab *slab = slabs; slab && !memory; slab = slab->next) memory = take_from(slab, bytes);
  Slab *added = memory ? NULL : add_slab();
  if (added) memory = take_from(added, bytes);
  pthread_mutex_unlock(&slabLock);
  return memory;
}

/* Whole huge pages inside a hole go back to the system; they read as zero when they are used again. */
static void return_pages(const Hole *hole) {
  char *from = (char *)rounded_up((uintptr_t)hole->start, hugePage);
  char *to = (char *)((uintptr_t)(hole->start + hole->bytes) & ~(uintptr_t)(hugePage - 1));
  if (from < to) madvise(from, (size_t)(to - from), MADV_DONTNEED);
}

/* Memory for the record of a hole may be out: then the block is lost until its slab goes. */
static void give_back(Slab *slab, char *start, size_t bytes) {
  Hole **link = &slab->holes, *before = NULL;
  for (; *link && (*link)->start < start; link = &(*link)->next) before = *link;
  if (before && before->start + before->bytes == start) {
    before->bytes += bytes;
  } else {
    Hole *hole = new_hole(start, bytes, *link);
    if (!hole) return;
    *link = before = hole;
  }
  Hole *after = before->next;
  if (after && before->start + before->bytes == after->start) {
    before->bytes += after->bytes;
    before->next = after->next;
    free(after);
  }
  return_pages(before);
}

static void slab_free(char *start, size_t bytes) {
  pthread_mutex_lock(&slabLock);
  for (Slab **link = &slabs; *link; link = &(*link)->next) {
    Slab *slab = *link;
    if (start < slab->base || start >= slab->base + slabBytes) continue;
    give_back(slab, start, bytes);
    if (--slab->live == 0) {
      *link = slab->next;
      for (Hole *hole = slab->holes, *next; hole; hole = next) {
        next = hole->next;
        free(hole);
      }
      munmap(slab->base, slabBytes);
      free(slab);
    }
    break;
  }
  pthread_mutex_unlock(&slabLock);
}

static bool in_slab(size_t bytes, bool huge) { return huge && bytes >= smallestInSlab && bytes <= largestInSlab; }

/* Zeroed, 64-byte aligned; 0 when memory is out. `bytes` > 0; `huge` asks for huge pages from 16 KiB on. */
int64_t tg_allocate(int64_t bytes, int32_t huge) {
  void *memory = NULL;
  const size_t lines = rounded_up((size_t)bytes, 64);
  if (in_slab((size_t)bytes, huge != 0)) {
    memory = slab_allocate(lines);
  } else if ((size_t)bytes >= mapFrom) {
    memory = map_aligned(mapped_size((size_t)bytes, huge != 0), huge != 0);
  } else {
    if (posix_memalign(&memory, 64, lines) != 0) return 0;
    memset(memory, 0, lines);
  }
  if (memory) atomic_fetch_add(&allocatedBytes, bytes);
  return (int64_t)(intptr_t)memory;
}

/* `bytes` and `huge` as they were asked for. */
void tg_free(int64_t address, int64_t bytes, int32_t huge) {
  void *memory = (void *)(intptr_t)address;
  if (in_slab((size_t)bytes, huge != 0)) slab_free(memory, rounded_up((size_t)bytes, 64));
  else if ((size_t)bytes >= mapFrom) munmap(memory, mapped_size((size_t)bytes, huge != 0));
  else free(memory);
  atomic_fetch_sub(&allocatedBytes, bytes);
}

int64_t tg_allocated_bytes(void) { return atomic_load(&allocatedBytes); }

/* ---- Gate: a word that threads wait on, first spinning, then yielding, then asleep --------------------------------------------- */

typedef struct {
  _Alignas(64) _Atomic uint32_t word;
  _Atomic uint32_t sleepers;
  pthread_mutex_t lock;
  pthread_cond_t wake;
} Gate;
#define GATE_START {0, 0, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER}

/*
 * A short pure spin covers threads that finish together. After it every look at the word is preceded by a sched_yield: half a
 * microsecond on a core of one's own, and the only way forward when the thread waited for is queued behind this one.
 */
static const int64_t spinNanoseconds = 4000;
static const int64_t barrierNanoseconds = 1000000; /* from here on waking up costs less than burning the core */
static const int64_t parkNanoseconds = 60000;      /* the gap between two runs of a decoding loop */

/* True as soon as the word differs from `seen`, false after `nanosecondsLeft` of looking. */
static bool gate_spin(Gate *gate, uint32_t seen, int64_t nanosecondsLeft) {
  if (atomic_load_explicit(&gate->word, memory_order_acquire) != seen) return true;
  for (int64_t start = nanoseconds(); nanoseconds() - start < nanosecondsLeft;) {
    for (int i = 0; i < 32; i++) {
      if (atomic_load_explicit(&gate->word, memory_order_acquire) != seen) return true;
      relax();
    }
  }
  return false;
}

/* Returns when the word differs from `seen`; gives the core away for `yieldFor` nanoseconds, then sleeps. */
static void gate_rest(Gate *gate, uint32_t seen, int64_t yieldFor) {
  for (int64_t start = nanoseconds(); nanoseconds() - start < yieldFor;) {
    sched_yield();
    if (atomic_load_explicit(&gate->word, memory_order_acquire) != seen) return;
  }
  pthread_mutex_lock(&gate->lock);
  atomic_fetch_add(&gate->sleepers, 1);
  while (atomic_load(&gate->word) == seen) pthread_cond_wait(&gate->wake, &gate->lock);
  atomic_fetch_sub(&gate->sleepers, 1);
  pthread_mutex_unlock(&gate->lock);
}

/* Adds `delta` and wakes whoever sleeps. Sequentially consistent: a waiter either sees the new word or is seen as a sleeper. */
static uint32_t gate_add(Gate *gate, uint32_t delta) {
  uint32_t value = atomic_fetch_add(&gate->word, delta) + delta;
  if (atomic_load(&gate->sleepers) != 0) {
    pthread_mutex_lock(&gate->lock);
    pthread_cond_broadcast(&gate->wake);
    pthread_mutex_unlock(&gate->lock);
  }
  return value;
}

/* ---- Pool: one parallel region at a time; whoever calls is thread 0 ------------------------------------------------------------ */

/* Bytes before a thread's scratch; the last 8 are a word that a kernel may use, -1 again at the start of every step. */
enum { SCRATCH_HEAD = 64 };

static inline void forget_kept(char *scratch) { ((int64_t *)(void *)scratch)[-1] = -1; }

typedef struct {
  Gate start; /* bumped once per region this worker takes part in */
  char *scratch;
  int64_t scratchBytes;
  _Atomic int core; /* where its thread was last seen, -1 outside regions and where the system does not tell */
  int64_t moved;    /* when its thread last changed cores by itself */
} Seat;

typedef struct {
  Step *steps;
  int64_t count;
  int threads;
  bool profile;
  int64_t spinFor; /* 0 when there are more threads than cores: spinning would keep the others from running */
  const _Atomic int32_t *abortWord, *cancel;
} Region;

static const _Atomic int32_t never = 0;

static struct {
  pthread_mutex_t entry; /* held for the length of a region */
  Region region;
  int started, cores;
  _Alignas(64) _Atomic uint32_t arrived;
  Gate phase; /* bumped when all threads have arrived, and by a stop */
  _Alignas(64) _Atomic uint32_t stop;
  Gate running; /* workers still inside the region */
  Seat seats[MAXIMUM_THREADS];
} pool = {.entry = PTHREAD_MUTEX_INITIALIZER, .phase = GATE_START, .running = GATE_START};

/*
 * Threads that wait for each other all day look busy to the system's scheduler, which then may leave two of them on one core while
 * another core runs somebody's background job. Whoever finds a thread of a lower number on its own core moves to one that no thread
 * of the region uses. Its affinity afterwards is what it was before.
 */
static void leave_shared_core(const Region *region, int thread) {
#if defined(__linux__)
  Seat *seat = &pool.seats[thread];
  int core = sched_getcpu();
  bool shared = false;
  atomic_store_explicit(&seat->core, core, memory_order_relaxed);
  for (int t = 0; t < thread; t++) shared |= atomic_load_explicit(&pool.seats[t].core, memory_order_relaxed) == core;
  if (!shared || region->spinFor == 0) return;
  int64_t now = nanoseconds();
  if (now - seat->moved < 1000000) return;
  seat->moved = now;
  cpu_set_t allowed, unused;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  unused = allowed;
  for (int t = 0; t < region->threads; t++) {
    int taken = atomic_load_explicit(&pool.seats[t].core, memory_order_relaxed);
    if (taken >= 0 && taken < CPU_SETSIZE) CPU_CLR(taken, &unused);
  }
  if (CPU_COUNT(&unused) == 0 || sched_setaffinity(0, sizeof unused, &unused) != 0) return;
  sched_setaffinity(0, sizeof allowed, &allowed);
  atomic_store_explicit(&seat->core, sched_getcpu(), memory_order_relaxed);
#else
  (void)region;
  (void)thread;
#endif
}

static int usable_cores(void) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static void stop_region(void) {
  atomic_store(&pool.stop, 1);
  gate_add(&pool.phase, 1);
}

/* True when every thread has arrived, false when the region stops. The phase is read before the stop word: see stop_region. */
static bool pass_barrier(const Region *region, int thread) {
  uint32_t phase = atomic_load(&pool.phase.word);
  if (atomic_load(&pool.stop)) return false;
  if (atomic_fetch_add(&pool.arrived, 1) + 1 == (uint32_t)region->threads) {
    atomic_store(&pool.arrived, 0);
    gate_add(&pool.phase, 1);
  } else if (!gate_spin(&pool.phase, phase, region->spinFor)) {
    leave_shared_core(region, thread);
    gate_rest(&pool.phase, phase, barrierNanoseconds);
  }
  return !atomic_load(&pool.stop);
}

/* Units that one thread takes together. A divisible grain is only a wish: it is halved until every thread can have two of it. */
static inline int64_t grain_of(const Step *step, int64_t threads) {
  int64_t grain = step->grain > 0 ? step->grain : 1;
  if (step->flags & DIVISIBLE)
    while (grain > 1 && step->units < 2 * threads * grain) grain /= 2;
  return grain;
}

static inline int64_t chunks_of(const Step *step, int64_t grain) { return (step->units + grain - 1) / grain; }

static void run_chunks(const Step *step, int64_t grain, int64_t from, int64_t to, char *scratch) {
  int64_t begin = from * grain, end = to * grain;
  if (end > step->units) end = step->units;
  if (begin < end) step->entry(step->pointers, step->numbers, begin, end, scratch);
}

/*
 * Three quarters are dealt beforehand, in equal parts that are neighbours in memory. The rest is open: whoever is ready first, because the other's core was
 * taken from it for a while, takes more of it. Which thread computes a unit never changes what it computes.
 */
static void share_step(Step *step, int64_t thread, int64_t threads, char *scratch) {
  const int64_t grain = grain_of(step, threads), chunks = chunks_of(step, grain), open = chunks / 4, dealt = chunks - open;
  /* Rounded up: what cannot be shared is done by the thread that called, which is awake. */
  run_chunks(step, grain, (dealt * thread + threads - 1) / threads, (dealt * (thread + 1) + threads - 1) / threads, scratch);
  if (open == 0) return;
  /* Half a lot at a time where lots may be divided: few of them are many units, and threads should be ready together. */
  const int64_t lot = step->flags & DIVISIBLE && grain > 1 ? grain / 2 : grain, first = dealt * grain / lot, lots = chunks_of(step, lot) - first;
  const int64_t pieces = lots < 4 * threads ? lots : 4 * threads;
  for (int64_t piece; (piece = atomic_fetch_add_explicit(&step->claimed, 1, memory_order_relaxed)) < pieces;)
    run_chunks(step, lot, first + lots * piece / pieces, first + lots * (piece + 1) / pieces, scratch);
}

static void execute_steps(const Region *region, int thread) {
  char *scratch = pool.seats[thread].scratch;
  const int64_t threads = region->threads;
  const bool timed = region->profile && thread == 0;
  int64_t before = timed ? ticks() : 0;
  for (int64_t i = 0; i < region->count; i++) {
    Step *step = &region->steps[i];
    if ((step->flags & BARRIER) && threads > 1 && i > 0 && !pass_barrier(region, thread)) return;
    if (atomic_load_explicit(region->abortWord, memory_order_relaxed) || atomic_load_explicit(region->cancel, memory_order_relaxed)) {
      stop_region();
      return;
    }
    forget_kept(scratch);
    if (threads == 1 || (step->flags & SERIAL)) {
      if (thread == 0 && step->units > 0) step->entry(step->pointers, step->numbers, 0, step->units, scratch);
    } else {
      share_step(step, thread, threads, scratch);
    }
    if (timed) {
      int64_t now = ticks();
      step->cycles = now - before;
      before = now;
    }
  }
}

/*
 * A thread that is woken for a run of some milliseconds should not first wait until somebody's background job on its core (a concurrent compilation of
 * JavaScript, say) has used up its turn, one or two milliseconds. Whoever asks for shorter turns than the one that runs may cut in when it wakes, and gets no
 * larger share of the core. Linux before 6.12 ignores the length.
 */
static void ask_for_short_turns(void) {
#if defined(__linux__) && defined(SYS_sched_getattr) && defined(SYS_sched_setattr)
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t turn, deadline, period;
  } attributes = {0};
  const uint64_t turnNanoseconds = 100000;
  if (syscall(SYS_sched_getattr, 0, &attributes, (unsigned)sizeof attributes, 0) != 0 || attributes.policy != SCHED_OTHER) return;
  attributes.turn = turnNanoseconds;
  /* Where it is not allowed, turns stay as they are. */
  (void)!syscall(SYS_sched_setattr, 0, &attributes, 0);
#endif
}

static void *work(void *argument) {
  ask_for_short_turns();
  int thread = (int)(intptr_t)argument;
  Seat *seat = &pool.seats[thread];
  for (uint32_t seen = 0;; seen++) {
    if (!gate_spin(&seat->start, seen, spinNanoseconds)) gate_rest(&seat->start, seen, parkNanoseconds);
    leave_shared_core(&pool.region, thread);
    uint64_t numerics = enter_numerics();
    execute_steps(&pool.region, thread);
    leave_numerics(numerics);
    gate_add(&pool.running, (uint32_t)-1);
  }
  return NULL;
}

/* Signals stay with the threads of Node. */
static bool start_thread(void *(*body)(void *), void *argument, size_t stack) {
  sigset_t all, before;
  pthread_attr_t attributes;
  pthread_t thread;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, stack);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  bool started = pthread_create(&thread, &attributes, body, argument) == 0;
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return started;
}

/* Threads that have something to do: never more than the finest split of any step. Starts workers as they are first needed. */
static int useful_threads(const Step *steps, int64_t count, int64_t asked) {
  int64_t most = 1;
  for (int64_t i = 0; i < count && most < asked; i++) {
    const int64_t chunks = steps[i].flags & SERIAL ? 1 : chunks_of(&steps[i], grain_of(&steps[i], asked));
    if (chunks > most) most = chunks;
  }
  int threads = (int)(most < asked ? most : asked);
  if (threads > MAXIMUM_THREADS) threads = MAXIMUM_THREADS;
  if (pool.started == 0) pool.started = 1;
  for (; pool.started < threads; pool.started++) {
    Gate fresh = GATE_START;
    pool.seats[pool.started].start = fresh;
    if (!start_thread(work, (void *)(intptr_t)pool.started, WORKER_STACK)) break;
  }
  return threads < pool.started ? threads : pool.started;
}

static bool provide_scratch(int threads, int64_t bytes) {
  for (int t = 0; t < threads; t++) {
    Seat *seat = &pool.seats[t];
    if (seat->scratch && seat->scratchBytes >= bytes) continue;
    if (seat->scratch) tg_free((int64_t)(intptr_t)(seat->scratch - SCRATCH_HEAD), seat->scratchBytes + SCRATCH_HEAD, 0);
    char *const area = (char *)(intptr_t)tg_allocate(bytes + SCRATCH_HEAD, 0);
    seat->scratch = area ? area + SCRATCH_HEAD : NULL;
    seat->scratchBytes = area ? bytes : 0;
    if (!area) return false;
  }
  return true;
}

static int64_t run_region(Step *steps, int64_t count, int64_t asked, const _Atomic int32_t *abortWord, const _Atomic int32_t *cancel,
                          int64_t scratchBytes, bool profile) {
  pthread_mutex_lock(&pool.entry);
  int threads = useful_threads(steps, count, asked);
  if (!provide_scratch(threads, scratchBytes)) {
    pthread_mutex_unlock(&pool.entry);
    return OUT_OF_MEMORY;
  }
  if (pool.cores == 0) pool.cores = usable_cores();
  int64_t spinFor = threads > pool.cores ? 0 : spinNanoseconds;
  pool.region = (Region){steps, count, threads, profile, spinFor, abortWord, cancel};
  for (int64_t i = 0; threads > 1 && i < count; i++) atomic_store_explicit(&steps[i].claimed, 0, memory_order_relaxed);
  atomic_store(&pool.stop, 0);
  atomic_store(&pool.arrived, 0);
  atomic_store(&pool.running.word, (uint32_t)(threads - 1));
  if (threads > 1) leave_shared_core(&pool.region, 0); /* never moves thread 0: publishes where it is */
  for (int t = 1; t < threads; t++) atomic_store_explicit(&pool.seats[t].core, -1, memory_order_relaxed);
  for (int t = 1; t < threads; t++) gate_add(&pool.seats[t].start, 1);

  uint64_t numerics = enter_numerics();
  execute_steps(&pool.region, 0);
  leave_numerics(numerics);

  for (uint32_t left; (left = atomic_load(&pool.running.word)) != 0;)
    if (!gate_spin(&pool.running, left, spinFor)) gate_rest(&pool.running, left, barrierNanoseconds);
  int64_t status = atomic_load(&pool.stop) ? ABORTED : DONE;
  pthread_mutex_unlock(&pool.entry);
  return status;
}

static const _Atomic int32_t *abort_word(int64_t address) { return address ? (const _Atomic int32_t *)(intptr_t)address : &never; }

int64_t tg_run(int64_t table, int64_t count, int64_t threads, int64_t abortWord, int64_t scratchBytes, int32_t profile) {
  return run_region((Step *)(intptr_t)table, count, threads, abort_word(abortWord), &never, scratchBytes, profile != 0);
}

/* ---- Dispatcher: runs submitted tables in order on a thread of its own and wakes the event loop through a pipe ------------------ */

typedef struct Client Client;
typedef struct Job {
  struct Job *next;
  Client *client;
  int64_t ticket, table, count, threads, abortWord, scratchBytes, status;
  int32_t profile;
  _Atomic int32_t cancel;
} Job;

/* One per JavaScript isolate that submits. Freed by tg_close, or by the dispatcher when a job of it was still running. */
struct Client {
  Job *finished, **lastFinished;
  int wakeDescriptor;
  bool closed;
};

static struct {
  pthread_mutex_t lock;
  pthread_cond_t work;
  Job *first, **last, *current;
  int64_t tickets;
  bool started;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER};

static void free_client(Client *client) {
  for (Job *job = client->finished, *next; job; job = next) {
    next = job->next;
    free(job);
  }
  close(client->wakeDescriptor);
  free(client);
}

static void *dispatch(void *argument) {
  (void)argument;
  ask_for_short_turns();
  pthread_mutex_lock(&queue.lock);
  for (;;) {
    while (!queue.first) pthread_cond_wait(&queue.work, &queue.lock);
    Job *job = queue.current = queue.first;
    queue.first = job->next;
    if (!queue.first) queue.last = &queue.first;
    pthread_mutex_unlock(&queue.lock);

    job->status = run_region((Step *)(intptr_t)job->table, job->count, job->threads, abort_word(job->abortWord), &job->cancel,
                             job->scratchBytes, job->profile != 0);

    pthread_mutex_lock(&queue.lock);
    queue.current = NULL;
    Client *client = job->client;
    if (client->closed) {
      free(job);
      free_client(client);
    } else {
      job->next = NULL;
      *client->lastFinished = job;
      client->lastFinished = &job->next;
      /* A full pipe wakes the reader as well, and a reader that has gone needs no waking: the answer does not matter. */
      ssize_t written = write(client->wakeDescriptor, "", 1);
      (void)written;
    }
  }
  return NULL;
}

/* Opens a client; answers its handle and, through `readDescriptor`, the end of the pipe that becomes readable. 0 on failure. */
int64_t tg_open(int32_t *readDescriptor) {
  int ends[2];
  Client *client = calloc(1, sizeof *client);
  if (!client || pipe(ends) != 0) {
    free(client);
    return 0;
  }
  for (int i = 0; i < 2; i++) {
    fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    fcntl(ends[i], F_SETFL, O_NONBLOCK);
  }
  client->lastFinished = &client->finished;
  client->wakeDescriptor = ends[1];
  *readDescriptor = ends[0];
  return (int64_t)(intptr_t)client;
}

/* Answers a ticket > 0, or 0 when memory or threads are out. The table must stay in place until the ticket is taken. */
int64_t tg_submit(int64_t client, int64_t table, int64_t count, int64_t threads, int64_t abortWord, int64_t scratchBytes, int32_t profile) {
  Job *job = calloc(1, sizeof *job);
  if (!job) return 0;
  pthread_mutex_lock(&queue.lock);
  if (!queue.started) {
    queue.last = &queue.first;
    queue.started = start_thread(dispatch, NULL, DISPATCHER_STACK);
  }
  if (!queue.started) {
    pthread_mutex_unlock(&queue.lock);
    free(job);
    return 0;
  }
  int64_t ticket = ++queue.tickets;
  *job = (Job){.client = (Client *)(intptr_t)client, .ticket = ticket, .table = table, .count = count, .threads = threads,
               .abortWord = abortWord, .scratchBytes = scratchBytes, .profile = profile};
  *queue.last = job;
  queue.last = &job->next;
  pthread_cond_signal(&queue.work);
  pthread_mutex_unlock(&queue.lock);
  return ticket;
}

/* Takes one finished job: its ticket, with its status in `status`; 0 when there is none. Never blocks for long. */
int64_t tg_take(int64_t handle, int32_t *status) {
  Client *client = (Client *)(intptr_t)handle;
  pthread_mutex_lock(&queue.lock);
  Job *job = client->finished;
  if (job) {
    client->finished = job->next;
    if (!client->finished) client->lastFinished = &client->finished;
  }
  pthread_mutex_unlock(&queue.lock);
  if (!job) return 0;
  int64_t ticket = job->ticket;
  *status = (int32_t)job->status;
  free(job);
  return ticket;
}

/* Drops the client's queued jobs and stops the one that runs; does not wait for it. */
void tg_close(int64_t handle) {
  Client *client = (Client *)(intptr_t)handle;
  pthread_mutex_lock(&queue.lock);
  for (Job **link = &queue.first; *link;) {
    Job *job = *link;
    if (job->client == client) {
      *link = job->next;
      free(job);
    } else {
      link = &job->next;
    }
  }
  queue.last = &queue.first;
  while (*queue.last) queue.last = &(*queue.last)->next;
  client->closed = true;
  if (queue.current && queue.current->client == client) atomic_store(&queue.current->cancel, 1);
  else free_client(client);
  pthread_mutex_unlock(&queue.lock);
}

/* ---- Weight preparation: one-step tables over kernels of our own ---------------------------------------------------------------- */

enum { PANEL = 48, STRIP = 32, ROW_BLOCK = 64 };

static int64_t run_one(Kernel entry, char *const *pointers, const int64_t *numbers, int64_t units, int64_t threads, int64_t scratchBytes) {
  Step step = {.entry = entry, .pointers = pointers, .numbers = numbers, .units = units, .grain = 1};
  return run_region(&step, 1, threads, &never, &never, scratchBytes, false);
}

/* Nearest bf16, ties to even; a NaN stays one, made quiet. The same rule as src/ir/bf16.ts. */
static uint16_t nearest_bf16(float value) {
  uint32_t word;
  memcpy(&word, &value, 4);
  return (uint16_t)((word & 0x7fffffff) > 0x7f800000 ? (word >> 16) | 0x40 : (word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

/* Unit = one panel. Reads a cache line of a row at a time, so the scattered writes stay inside 16 x 48 floats. */
static void pack_panels(char *const *pointers, const int64_t *numbers, int64_t begin, int64_t end, char *scratch) {
  (void)scratch;
  const int64_t rowStride = numbers[0], rows = numbers[1], depth = numbers[2], halves = numbers[3];
  for (int64_t panel = begin; panel < end; panel++) {
    const int64_t first = panel * PANEL, filled = rows - first < PANEL ? rows - first : PANEL;
    const float *source = (const float *)pointers[0] + first * rowStride;
    const size_t size = halves ? sizeof(uint16_t) : sizeof(float);
    char *const target = pointers[1] + (size_t)(panel * PANEL * depth) * size;
    if (filled < PANEL) memset(target, 0, (size_t)(PANEL * depth) * size);
    for (int64_t k0 = 0; k0 < depth; k0 += 16) {
      const int64_t width = depth - k0 < 16 ? depth - k0 : 16;
      for (int64_t row = 0; row < filled; row++)
        if (halves)
          for (int64_t k = k0; k < k0 + width; k++) ((uint16_t *)target)[k * PANEL + row] = nearest_bf16(source[row * rowStride + k]);
        else
          for (int64_t k = k0; k < k0 + width; k++) ((float *)target)[k * PANEL + row] = source[row * rowStride + k];
    }
  }
}

int64_t tg_pack_panels(int64_t source, int64_t rowStride, int64_t rows, int64_t depth, int64_t target, int64_t halves, int64_t threads) {
  char *const pointers[] = {(char *)(intptr_t)source, (char *)(intptr_t)target};
  const int64_t numbers[] = {rowStride, rows, depth, halves};
  return run_one(pack_panels, pointers, numbers, (rows + PANEL - 1) / PANEL, threads, 0);
}

/* A tile of accumulators that the registers hold: 4 rows of 4 wide vectors, or of 2 narrower ones. */
#if defined(__AVX512F__)
enum { LANES = 8, VECTORS = 4 };
#elif defined(__AVX__)
enum { LANES = 4, VECTORS = 2 };
#else
enum { LANES = 2, VECTORS = 2 };
#endif
enum { TILE = LANES * VECTORS };
typedef double Lanes __attribute__((vector_size(8 * LANES)));
typedef float Halves __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/*
 * `height` rows of the product over one strip of 32 columns. The product of two f32 values is exact in f64, so multiply and add
 * gives the bits of a fused multiply-add whatever the instruction set.
 */
static inline __attribute__((always_inline)) void multiply_rows(const float *a, int64_t depth, const float *strip, float *target,
                                                                int64_t targetStride, int64_t width, const int height) {
  float rounded[4][STRIP];
  for (int64_t column = 0; column < STRIP; column += TILE) {
    Lanes sums[4][VECTORS] = {{{0}}};
    const float *from = strip + column;
    for (int64_t k = 0; k < depth; k++, from += STRIP) {
      Lanes b[VECTORS];
      _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++) b[v] = __builtin_convertvector(*(const Halves *)(from + v * LANES), Lanes);
      _Pragma("GCC unroll 4") for (int m = 0; m < height; m++) {
        const double factor = (double)a[m * depth + k];
        _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++) sums[m][v] += factor * b[v];
      }
    }
    _Pragma("GCC unroll 4") for (int m = 0; m < height; m++)
      _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++)
        *(Halves *)(rounded[m] + column + v * LANES) = __builtin_convertvector(sums[m][v], Halves);
  }
  for (int m = 0; m < height; m++) memcpy(target + m * targetStride, rounded[m], (size_t)width * sizeof(float));
}

/* Unit = 64 rows of one strip; consecutive units share the strip, whose columns are copied to scratch as [depth][32]. */
static void multiply_f64(char *const *pointers, const int64_t *numbers, int64_t begin, int64_t end, char *scratch) {
  const float *a = (const float *)pointers[0], *b = (const float *)pointers[1];
  const int64_t rows = numbers[0], depth = numbers[1], columns = numbers[2], rowBlocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
  float *strip = (float *)scratch;
  int64_t copied = -1;
  for (int64_t unit = begin; unit < end; unit++) {
    const int64_t column = unit / rowBlocks * STRIP, width = columns - column < STRIP ? columns - column : STRIP;
    if (column != copied) {
      for (int64_t k = 0; k < depth; k++) {
        memcpy(strip + k * STRIP, b + k * columns + column, (size_t)width * sizeof(float));
        memset(strip + k * STRIP + width, 0, (size_t)(STRIP - width) * sizeof(float));
      }
      copied = column;
    }
    int64_t row = unit % rowBlocks * ROW_BLOCK;
    const int64_t last = row + ROW_BLOCK < rows ? row + ROW_BLOCK : rows;
    float *target = (float *)pointers[2] + column;
    for (; row + 4 <= last; row += 4) multiply_rows(a + row * depth, depth, strip, target + row * columns, columns, width, 4);
    for (; row < last; row++) multiply_rows(a + row * depth, depth, strip, target + row * columns, columns, width, 1);
  }
}

int64_t tg_multiply_f64(int64_t a, int64_t b, int64_t target, int64_t rows, int64_t depth, int64_t columns, int64_t threads) {
  char *const pointers[] = {(char *)(intptr_t)a, (char *)(intptr_t)b, (char *)(intptr_t)target};
  const int64_t numbers[] = {rows, depth, columns};
  const int64_t units = ((columns + STRIP - 1) / STRIP) * ((rows + ROW_BLOCK - 1) / ROW_BLOCK);
  return run_one(multiply_f64, pointers, numbers, units, threads, depth * STRIP * (int64_t)sizeof(float));
}

/* ---- Libraries of kernels ------------------------------------------------------------------------------------------------------- */

int64_t tg_load(const char *path) { return (int64_t)(intptr_t)dlopen(path, RTLD_NOW | RTLD_LOCAL); }

int64_t tg_symbol(int64_t library, const char *name) { return (int64_t)(intptr_t)dlsym((void *)(intptr_t)library, name); }

/* What the last failed tg_load or tg_symbol of this thread said. */
const char *tg_load_error(void) {
  const char *message = dlerror();
  return message ? message : "";
}

/* Threads of the pool live as long as the process, so this library must too, whatever its loader does. */
__attribute__((constructor)) static void stay_loaded(void) {
  Dl_info self;
  if (dladdr((void *)(intptr_t)tg_run, &self)) dlopen(self.dli_fname, RTLD_NOW | RTLD_NODELETE);
}
