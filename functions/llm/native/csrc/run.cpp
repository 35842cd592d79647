#include "run.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace huginn {

const char* const kInstructionSets[] = {
    "portable",
#if defined(__x86_64__)
    "avx2", "avx512", "avx512-vnni", "avx512-bf16",
#endif
    nullptr};

namespace {

const Forward* const kForwards[] = {
    &portable::kForward,
#if defined(__x86_64__)
    &avx2::kForward, &avx512::kForward, &avx512_vnni::kForward, &avx512_bf16::kForward,
#endif
};

int best_supported() {
  int best = 0;
  while (kInstructionSets[best + 1] != nullptr && supports(best + 1)) ++best;
  return best;
}

std::atomic<int> in_use{-1};

// Grows to the largest pass that the thread has run.
class WorkSpace {
 public:
  ~WorkSpace() { std::free(bytes_); }

  uint8_t* of(size_t size) {
    if (size > size_) {
      std::free(bytes_);
      size_ = round_up(size, 4096);
      bytes_ = static_cast<uint8_t*>(std::aligned_alloc(kLine, size_));
      if (bytes_ == nullptr) size_ = 0;
    }
    return bytes_;
  }

 private:
  uint8_t* bytes_ = nullptr;
  size_t size_ = 0;
};

thread_local WorkSpace work_space;

}  // namespace

// Each set includes the ones before it. __builtin_cpu_supports asks the CPU, and whether the system saves the registers.
bool supports(int index) {
#if defined(__x86_64__)
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  bool bf16 = vnni && __builtin_cpu_supports("avx512bf16");
  const bool supported[] = {true, avx2, avx512, vnni, bf16};
  return index >= 0 && index < 5 && supported[index];
#else
  return index == 0;
#endif
}

int instruction_set() {
  int index = in_use.load(std::memory_order_relaxed);
  if (index < 0) {
    index = best_supported();
    in_use.store(index, std::memory_order_relaxed);
  }
  return index;
}

void use_instruction_set(int index) { in_use.store(index, std::memory_order_relaxed); }

bool run(const Sizes& sizes, const uint8_t* packed, const Batch& batch) {
  if (batch.texts == 0 || batch.length == 0) return true;
  const Forward& forward = *kForwards[instruction_set()];
  uint8_t* scratch = work_space.of(forward.scratch(sizes, batch));
  if (scratch == nullptr) return false;
  Team* team = acquire_team();
  forward.run(sizes, packed, batch, scratch, team);
  release_team(team);
  return true;
}

bool decode(const Sizes& sizes, const uint8_t* packed, const Decoding& decoding) {
  if (decoding.texts == 0) return true;
  const Forward& forward = *kForwards[instruction_set()];
  uint8_t* scratch = work_space.of(forward.scratch_of_decoding(sizes, decoding));
  if (scratch == nullptr) return false;
  // For all the steps: between two of them the worker looks for more to do, and does not sleep.
  Team* team = acquire_team();
  forward.decode(sizes, packed, decoding, scratch, team);
  release_team(team);
  return true;
}

}  // namespace huginn
