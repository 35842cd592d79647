#include "team.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace huginn {
namespace {

// How long the worker looks for more to do before it sleeps: longer than what lies between two steps of a text (drawing
// the token), short against what a server does between two chunks.
constexpr std::chrono::microseconds kSpin{100};

// A worker that was waited for so long, and for more than half of a call, is left alone for a rest that doubles each time.
constexpr std::chrono::microseconds kLongWait{50}, kShortestRest{500}, kLongestRest{64000};

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The CPU that the calling thread runs on; -1 where nobody says.
int this_cpu() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// The CPUs that the calling thread was given, of which it can choose all but one.
class Cpus {
 public:
#if defined(__linux__)
  Cpus() { known_ = sched_getaffinity(0, sizeof allowed_, &allowed_) == 0; }

  // Moves the calling thread to another CPU than that; false where it has no other.
  bool leave(int cpu) const {
    cpu_set_t others = allowed_;
    if (!known_ || cpu < 0 || cpu >= CPU_SETSIZE) return false;
    CPU_CLR(static_cast<size_t>(cpu), &others);
    return CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0;
  }

 private:
  cpu_set_t allowed_;
  bool known_;
#else
  bool leave(int) const { return false; }
#endif
};

// phase (32 bits) | end (16) | begin (16): the units [begin, end) of this phase that nobody has taken.
struct Claims {
  uint32_t phase;
  size_t begin, end;
  static Claims of(uint64_t word) {
    return {static_cast<uint32_t>(word >> 32), word & 0xffff, (word >> 16) & 0xffff};
  }
  uint64_t word() const { return uint64_t{phase} << 32 | uint64_t{end} << 16 | begin; }
};

// A claim is a line of memory that travels from one CPU to the other and back: few units are halved once, and only many have
// a rest for whoever is done first.
constexpr size_t kFewUnits = 32;
size_t first_share(size_t units) { return units <= kFewUnits ? units / 2 : units * 3 / 8; }
size_t worker_share(size_t left) { return left <= kFewUnits / 2 ? left : left * 5 / 8; }
size_t caller_share(size_t left) { return (left + 3) / 4; }

constexpr size_t kMaxUnits = 0xffff;

std::atomic<int> wanted_threads{1};

}  // namespace

class Team {
 public:
  bool acquire() {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    began_ = Clock::now();
    if (began_ < rest_until_ || (!started_ && !start())) {
      busy_.store(false, std::memory_order_release);
      return false;
    }
    waited_ = {};
    in_the_way_.store(false, std::memory_order_relaxed);
    callers_cpu_.store(this_cpu(), std::memory_order_relaxed);
    if (asleep_.load(std::memory_order_seq_cst)) {
      std::lock_guard<std::mutex> lock(mutex_);
      asleep_.store(false, std::memory_order_seq_cst);
      wake_.notify_one();
    }
    return true;
  }

  void release() {
    // Waiting for most of a call means that the worker took units and lost its CPU to somebody. Better alone for a while.
    Clock::time_point now = Clock::now();
    bool stalled = waited_ > kLongWait && waited_ > (now - began_) / 2;
    callers_cpu_.store(-1, std::memory_order_relaxed);
    if (stalled || in_the_way_.load(std::memory_order_relaxed)) {
      rest_ = rest_ * 2 > kLongestRest ? kLongestRest : rest_ * 2;
      rest_until_ = now + rest_;
    } else if (rest_ > kShortestRest) {
      rest_ -= rest_ / 64;
    }
    busy_.store(false, std::memory_order_release);
  }

  void run(size_t units, Work work, const void* context) {
    work_.store(work, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    size_t mine = first_share(units);
    Claims open{++phase_, mine, units};
    claims_.store(open.word(), std::memory_order_release);
    if (mine > 0) work(context, 0, mine);
    uint64_t word = claims_.load(std::memory_order_acquire);
    for (;;) {
      Claims now = Claims::of(word);
      if (now.begin == now.end) break;
      size_t share = caller_share(now.end - now.begin);
      Claims rest{now.phase, now.begin + share, now.end};
      if (!claims_.compare_exchange_weak(word, rest.word(), std::memory_order_acq_rel)) continue;
      work(context, now.begin, now.begin + share);
      mine += share;
      word = claims_.load(std::memory_order_acquire);
    }
    // Only ever counts up: were it reset, the line would have to come over from the worker for that as well.
    expected_ += units - mine;
    if (finished_.load(std::memory_order_acquire) != expected_) wait();
  }

 private:
  using Clock = std::chrono::steady_clock;

  void wait() {
    for (int spins = 0; spins < 64; ++spins) {
      pause();
      if (finished_.load(std::memory_order_acquire) == expected_) return;
    }
    Clock::time_point since = Clock::now();
    for (unsigned spins = 1; finished_.load(std::memory_order_acquire) != expected_; ++spins) {
      pause();
      // The worker may be waiting for the very CPU that this loop keeps busy.
      if (spins % 1024 == 0) sched_yield();
    }
    waited_ += Clock::now() - since;
  }

  bool start() {
    sigset_t all, before;
    sigfillset(&all);
    // Signals are the business of the threads that were here before.
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread([this] { serve(); }).detach();
      started_ = true;
    } catch (const std::system_error&) {
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return started_;
  }

  void serve() {
    const Cpus cpus;
    Clock::time_point last_work = Clock::now();
    for (unsigned spins = 1;; ++spins) {
      uint64_t word = claims_.load(std::memory_order_acquire);
      Claims now = Claims::of(word);
      if (now.begin != now.end) {
        // Read before the claim: these belong to its phase if the claim succeeds.
        Work work = work_.load(std::memory_order_relaxed);
        const void* context = context_.load(std::memory_order_relaxed);
        size_t share = worker_share(now.end - now.begin);
        Claims rest{now.phase, now.begin, now.end - share};
        if (claims_.compare_exchange_strong(word, rest.word(), std::memory_order_acq_rel)) {
          work(context, now.end - share, now.end);
          finished_.fetch_add(share, std::memory_order_release);
          spins = 0;
        }
        continue;
      }
      pause();
      if (spins == 1) last_work = Clock::now();
      // The system likes to wake a thread on the CPU of whoever woke it, and to spin there would hold the caller up.
      int cpu = spins % 8 == 1 ? this_cpu() : -1;
      bool in_the_way = cpu >= 0 && cpu == callers_cpu_.load(std::memory_order_relaxed) && !cpus.leave(cpu);
      if (in_the_way) in_the_way_.store(true, std::memory_order_relaxed);
      if (in_the_way || (spins % 64 == 0 && Clock::now() - last_work > kSpin)) {
        std::unique_lock<std::mutex> lock(mutex_);
        asleep_.store(true, std::memory_order_seq_cst);
        wake_.wait(lock, [this] { return !asleep_.load(std::memory_order_seq_cst); });
        spins = 0;
      }
    }
  }

  alignas(64) std::atomic<uint64_t> claims_{0};
  std::atomic<Work> work_{nullptr};
  std::atomic<const void*> context_{nullptr};
  alignas(64) std::atomic<size_t> finished_{0};
  alignas(64) std::atomic<bool> busy_{false};
  std::atomic<bool> asleep_{false};
  std::atomic<int> callers_cpu_{-1};
  std::atomic<bool> in_the_way_{false};
  // Of the caller that holds the team.
  bool started_ = false;
  uint32_t phase_ = 0;
  size_t expected_ = 0;
  Clock::time_point began_, rest_until_;
  Clock::duration waited_{}, rest_{kShortestRest};
  std::mutex mutex_;
  std::condition_variable wake_;
};

namespace {

// Never destroyed: the worker may spin in it while the process exits.
std::atomic<Team*> the_team{nullptr};

void forget_team_in_child() {
  // The worker did not come along, and its locks stand as they were: begin anew, and leave the old one to the exit.
  the_team.store(new Team);
}

Team* team() {
  static const bool made = [] {
    the_team.store(new Team);
    pthread_atfork(nullptr, nullptr, forget_team_in_child);
    return true;
  }();
  (void)made;
  return the_team.load();
}

}  // namespace

void set_threads(int threads) { wanted_threads.store(threads < 2 ? 1 : 2, std::memory_order_relaxed); }

int threads() { return wanted_threads.load(std::memory_order_relaxed); }

Team* acquire_team() {
  if (threads() < 2) return nullptr;
  Team* found = team();
  return found->acquire() ? found : nullptr;
}

void release_team(Team* acquired) {
  if (acquired != nullptr) acquired->release();
}

void run_phase(Team* acquired, size_t units, Work work, const void* context) {
  if (units > kMaxUnits) {
    work(context, 0, units);
    return;
  }
  acquired->run(units, work, context);
}

}  // namespace huginn
