// Makes one array of a model's weights.
#pragma once

#include <cstdint>

#include "sizes.h"

namespace huginn {

// An array as it comes from a checkpoint, row after row: vectors, embeddings and taps in float32, a matrix in the precision of the
// sizes. `scale` has a float32 for each row of an int8 matrix.
struct Source {
  const void* data;
  const float* scale;
};

// Writes all of the packed_bytes(sizes) bytes. The sources are in the order of the family's parameters in Python.
void pack(const Sizes& sizes, const Source* sources, uint8_t* packed);

}  // namespace huginn
