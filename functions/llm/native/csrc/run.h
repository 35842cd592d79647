// The forward pass on this CPU.
#pragma once

#include "forward.h"

namespace huginn {

// Names of the instruction sets, the least first; null ends them.
extern const char* const kInstructionSets[];

// Whether this CPU, and the system on it, run the set of that index.
bool supports(int index);

// The set in use; at first the best one supported.
int instruction_set();
void use_instruction_set(int index);

// Runs the pass with the set in use, in a work space that the calling thread keeps. False if there is no memory for it.
bool run(const Sizes& sizes, const uint8_t* packed, const Batch& batch);
bool decode(const Sizes& sizes, const uint8_t* packed, const Decoding& decoding);

}  // namespace huginn
