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
  const uint32_t* places; // [texts]: where each one's state stands; null: in the order of the texts
  const int32_t* tokens;  // [texts][length]
  float* logits;          // [texts][length][vocab]
  float* conv;            // minGRU: [texts][layers][taps - 1][width]
  float* hidden;          // [texts][layers][hidden]
  float* cell;            // LSTM: [texts][layers][hidden]
};

// How one text's tokens are drawn.
struct Sampler {
  float temperature;
  int32_t top_k;
  float top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, penalty_decay;
  const float* logit_bias;  // [vocab]
  uint32_t key[2];
};

// What the penalties remember of one text.
struct History {
  uint8_t* seen;  // [vocab]
  float* counts;  // [vocab]
};

// Texts that go on: `texts` of them, each by its own count of tokens. Their states, tokens and histories are in place.
struct Decoding {
  size_t texts, room, alternatives;  // room: tokens of each that the results hold; every count is at most that
  float *conv, *hidden, *cell;       // as in Batch
  int32_t *last_token, *position;    // [texts]
  uint8_t* seen;                     // [texts][vocab]
  float* counts_of_tokens;           // [texts][vocab]
  const float *temperature, *top_p, *min_p, *repetition_penalty, *presence_penalty, *frequency_penalty, *penalty_decay;
  const int32_t* top_k;              // [texts], as the others
  const float* logit_bias;           // [texts][vocab]
  const uint32_t* key;               // [texts][2]
  const int32_t* forced;             // [texts][room]: tokens that follow the last one without being drawn
  const int32_t* forced_length;      // [texts]
  const int32_t* counts;             // [texts]
  bool wants_top;
  int32_t* ids;                      // [texts][room]
  float* logprobs;                   // [texts][room]
  int32_t* top_ids;                  // [texts][room][alternatives]
  float* top_logprobs;               // [texts][room][alternatives]
};

struct Forward {
  // Bytes that `run` needs to work in.
  size_t (*scratch)(const Sizes&, const Batch&);
  void (*run)(const Sizes&, const uint8_t* packed, const Batch&, uint8_t* scratch, Team*);
  size_t (*scratch_of_decoding)(const Sizes&, const Decoding&);
  void (*decode)(const Sizes&, const uint8_t* packed, const Decoding&, uint8_t* scratch, Team*);
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
