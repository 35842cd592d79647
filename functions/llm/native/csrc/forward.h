// The forward passes, one pair for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "sizes.h"
#include "team.h"

namespace huginn {

// Texts to read. States are in place: what was before the tokens, and then what is after them.
struct Batch {
  size_t texts, length;
  const int32_t* tokens;  // [texts][length]
  float* logits;          // [texts][length][vocab]
  float* conv;            // minGRU: [texts][layers][taps - 1][width]
  float* hidden;          // [texts][layers][hidden]
  float* cell;            // LSTM: [texts][layers][hidden]
};

struct Forward {
  // Bytes that `run` needs to work in.
  size_t (*scratch)(const Sizes&, const Batch&);
  void (*run)(const Sizes&, const uint8_t* packed, const Batch&, uint8_t* scratch, Team*);
};

namespace portable {
extern const Forward kForward;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Forward kForward;
}
namespace avx512 {
extern const Forward kForward;
}
namespace avx512_vnni {
extern const Forward kForward;
}
namespace avx512_bf16 {
extern const Forward kForward;
}
#endif

}  // namespace huginn
