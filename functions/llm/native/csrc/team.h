// The calling thread and one worker beside it, for the length of a call.
//
// Work is handed out in phases of `units`. The caller takes units from the front and the worker from the back until they meet,
// so that each keeps to the same weights in its own cache, call after call, and a worker that was not given a CPU
// delays nobody: the caller does without it. What a unit computes never depends on who does it.
#pragma once

#include <cstddef>

namespace huginn {

class Team;

using Work = void (*)(const void* context, size_t begin, size_t end);

// How many threads a call may use: 1 or 2. Takes effect with the next call.
void set_threads(int threads);
int threads();

// Returns null where there is no worker to be had: one thread wanted, or another call has it.
Team* acquire_team();
void release_team(Team* team);

// Calls `work` for pieces that cover [0, units) once, and returns when all are done. A null team is the caller alone.
void run_phase(Team* team, size_t units, Work work, const void* context);

namespace {  // of each object; see sizes.h

template <class F>
void parallel(Team* team, size_t units, const F& each_range) {
  if (team == nullptr || units < 2) {
    if (units > 0) each_range(size_t{0}, units);
    return;
  }
  run_phase(
      team, units,
      [](const void* context, size_t begin, size_t end) { (*static_cast<const F*>(context))(begin, end); },
      &each_range);
}

}  // namespace
}  // namespace huginn
